"""The charts of a claim's page: an effect with its interval, every paired point, curves by arm.

Each has the arms' colours, dashes and markers by their place in `order`, and a sentence that says what it shows.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from precis.lab import words
from precis.lab.svg import (
    WIDTH,
    Drawing,
    Number,
    Scale,
    drawing,
    fitted,
    line,
    marker,
    number,
    place_of,
    scale,
    stroke,
    text,
    text_width,
    two_lines,
    x_axis,
)

Line = tuple[Sequence[Number | None], Sequence[Number | None]]
Sides = tuple[Number | None, Number | None]

LOG_FROM = 300.0  # numbers that span more than this factor are drawn on a logarithmic axis
NAMES = 124.0  # how wide the arms' names may be
ROW, PLOT = 25.0, 168.0
MOST = 160  # points of a drawn line


def interval_of_difference(
    effect: Number | None, interval: tuple[Number, Number] | None, claimed: Sides | None = None, *,
    points: Sequence[Number | None] = (), label: str = "difference", alt: str = "",
) -> Drawing:
    """One effect with its interval, the claimed side shaded.

    `claimed`: (low, high), None where that side is open, or None where it is not known; `points`: the paired
    differences, one a seed.
    """
    dots = [p for p in points if _known(p)]
    bounds = [b for b in claimed or () if _known(b)]
    ends = interval if interval is not None and all(map(_known, interval)) else None
    shown = effect if _known(effect) else None
    known = [*dots, *bounds, *([shown] if shown is not None else []), *(ends or ()), *([] if bounds else [0.0])]
    x = scale(known, 8, WIDTH - 8, room=0.12)
    top, bottom = 4.0, 52.0
    axis, height = x_axis(x, bottom, top, label)
    parts = []
    if claimed is not None:
        left, right = (x(side) if _known(side) else end for side, end in zip(claimed, (x.start, x.end)))
        field = f'x="{number(left)}" y="{number(top)}" width="{number(right - left)}" height="{number(bottom - top)}"'
        parts.append(f'<rect class="claimed" {field}/>')
    parts += axis
    parts += [line(x(b), top, x(b), bottom, "bound") for b in bounds]
    if x.low < 0 < x.high and 0 not in bounds:
        parts.append(line(x(0), top, x(0), bottom, "zero"))
    if dots:
        circles = "".join(_circle(x(d), 39 - 4.5 * (i % 3 - 1)) for i, d in enumerate(dots))
        parts.append(f'<path class="seed" d="{circles}"/>')
    if ends is not None:
        low, high = x(ends[0]), x(ends[1])
        parts.append(line(low, 17, high, 17, "interval"))
        parts.append(f'<path class="ends" d="M{number(low)} 12v10M{number(high)} 12v10"/>')
    if shown is not None:
        parts.append(f'<path class="effect" transform="translate({number(x(shown))} 17)" d="M0 -5 5 0 0 5 -5 0z"/>')
    said = "no effect" if shown is None else f"effect {words.number(shown, 4)}"
    said += f", interval {words.interval_words(ends)}" if ends else ""
    return drawing(parts, height, alt or said)


def paired_dots(
    values: Mapping[str, Mapping[Any, Number | None]], *, label: str = "", order: Sequence[str] | None = None,
    broken: Iterable[str] = (),
) -> Drawing:
    """Every paired point: {arm: {seed: value}}, one row an arm, a line joining the points of one seed.

    The upright bar is the arm's mean; arms named in `broken` (sabotaged on purpose) are drawn hollow.
    """
    order, broken = list(order or values), set(broken)
    found = {arm: {s: float(v) for s, v in row.items() if v is not None and _known(v)} for arm, row in values.items()}
    numbers = [v for row in found.values() for v in row.values()]
    log = bool(numbers) and min(numbers) > 0 and max(numbers) > LOG_FROM * min(numbers)
    names = {arm: two_lines(arm, NAMES) for arm in values}
    left = 10 + max((text_width(part) for parts in names.values() for part in parts), default=0)
    x = scale(numbers, left, WIDTH - 8, log=log)
    bottom = 6 + ROW * len(values)
    middle = {arm: 6 + ROW * (i + 0.5) for i, arm in enumerate(values)}
    parts, height = x_axis(x, bottom, 4, label)
    ways = []
    for seed in dict.fromkeys(s for row in found.values() for s in row):
        way = [(x(row[seed]), middle[arm]) for arm, row in found.items() if seed in row]
        if len(way) > 1:
            ways.append("M" + " ".join(f"{number(a)} {number(b)}" for a, b in way))
    parts.append(f'<path class="pairs" d="{"".join(ways)}"/>' if ways else "")
    told = []
    for arm, row in found.items():
        place, y = place_of(arm, order), middle[arm]
        for i, part in enumerate(names[arm]):
            parts.append(text(left - 7, y + 3.6 + 10.5 * (i - (len(names[arm]) - 1) / 2), part, "name", "end"))
        if not row:
            parts.append(text((left + WIDTH) / 2, y + 3.6, "no finite value", "tick", "middle"))
            told.append(f"{arm}: no finite value")
            continue
        mean = math.fsum(row.values()) / len(row)
        parts.append(line(x(mean), y - 8, x(mean), y + 8, "mean") if not log or mean > 0 else "")
        parts += [marker(x(v), y, place, f"{arm}, {s}: {words.number(v, 4)}", arm in broken) for s, v in row.items()]
        ends = words.interval_words((min(row.values()), max(row.values())))
        told.append(f"{arm}: mean {words.number(mean, 4)}" + (f", {ends}" if len(row) > 1 else ""))
    return drawing(parts, height, f"every {label or 'value'} by arm and seed: {', '.join(values)}", "; ".join(told))


def curves(
    series: Mapping[str, Sequence[Line]], *, label: str = "", x_label: str = "", log_y: bool = False,
    order: Sequence[str] | None = None,
) -> Drawing:
    """{arm: [(x, y), …]} with one a seed: thin, and their mean (where all have the same x) thick."""
    order = list(order or series)
    for arm, lines in series.items():
        for xs, ys in lines:
            if len(xs) != len(ys):
                raise ValueError(f"curve {arm!r}: {len(xs)} x and {len(ys)} y must be equally many")
    points = {arm: [_points(xs, ys, log_y) for xs, ys in many] for arm, many in series.items()}
    whole = [p for many in points.values() for one in many for p in one if p is not None]
    said = label + (" (logarithmic)" if log_y else "")
    heading = [text(4, 14, fitted(said, WIDTH - 60, 11), "title")] if label else []
    key, top = _key(list(series), order, 20 if label else 4)
    y = scale((b for _, b in whole), top + PLOT, top + 6, log=log_y)
    ticks, times = y.ticks()
    left = 10 + max((text_width(said) for _, said in ticks), default=0)
    across = scale((a for a, _ in whole), left, WIDTH - 10, room=0.015)
    parts, height = x_axis(across, top + PLOT, top + 6, x_label)
    grid = "".join(f"M{number(left)} {number(y(v))}H{number(across.end)}" for v, _ in ticks)
    parts.append(f'<path class="grid" d="{grid}"/>')
    parts += [text(left - 6, y(v) + 3.6, said, "tick", "end") for v, said in ticks]
    if times:
        heading.append(text(WIDTH - 10, 14, times, "tick", "end"))
    told = []
    for arm, many in points.items():
        place, mean = place_of(arm, order), _mean(series[arm], points[arm])
        seeds = "".join(_path(one, across, y) for one in many)
        parts.append(stroke(seeds, place, "thin" if mean is not None else "many" if len(many) > 1 else ""))
        alone = [one[0] for one in many if len(one) == 1 and one[0] is not None]
        parts += [marker(across(a), y(b), place, f"{arm}: {words.number(b, 4)}") for a, b in alone]
        if mean is not None:
            parts.append(stroke(_path(mean, across, y), place))
        kept = [p for p in (mean or [p for one in many for p in one]) if p is not None]
        if kept:
            ends = f"from {words.number(kept[0][1])} at {words.number(kept[0][0])}"
            told.append(f"{arm}: {ends} to {words.number(kept[-1][1])} at {words.number(kept[-1][0])}")
    return drawing([*heading, *key, *parts], height, f"{label or 'curves'} of {', '.join(series)}", "; ".join(told))


def _known(value: Number | None) -> TypeGuard[Number]:
    return value is not None and math.isfinite(value)


def _circle(x: Number, y: Number) -> str:
    return f"M{number(x - 2.6)} {number(y)}a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0 -5.2 0z"


def _key(arms: Sequence[str], order: Sequence[str], y: Number) -> tuple[list[str], Number]:
    """Which line is whose, in as many rows as that takes; nothing for a single arm."""
    if len(arms) < 2:
        return [], y
    parts, x = [], 4.0
    for arm in arms:
        said = fitted(arm, WIDTH - 40)
        wide = 22 + text_width(said) + 12
        if x + wide > WIDTH and x > 4:
            x, y = 4.0, y + 15
        parts.append(stroke(f"M{number(x)} {number(y + 7)}h17", place_of(arm, order)))
        parts.append(text(x + 22, y + 10.6, said, "name"))
        x += wide
    return parts, y + 18


Point = tuple[float, float] | None


def _points(xs: Sequence[Number | None], ys: Sequence[Number | None], log: bool) -> list[Point]:
    """Pairs of finite numbers; None stands where the line is broken."""
    return [
        (float(a), float(b)) if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)
        and (b > 0 or not log) else None for a, b in zip(xs, ys)
    ]  # fmt: skip


def _mean(lines: Sequence[Line], many: Sequence[list[Point]]) -> list[Point] | None:
    """Point by point over the seeds, None where one has none; no line at all if their x differ, or there is one."""
    if len(lines) < 2 or any(list(xs) != list(lines[0][0]) for xs, _ in lines):
        return None
    n, found = len(lines), []
    for column in zip(*many):
        kept = [p for p in column if p is not None]
        found.append((kept[0][0], math.fsum(y for _, y in kept) / n) if len(kept) == n else None)
    return found


def _path(points: Sequence[Point], x: Scale, y: Scale) -> str:
    """The line's path, broken where a point is missing."""
    found, run = [], []  # type: tuple[list[str], list[str]]
    for point in [*_thinned(points), None]:
        if point is not None:
            run.append(f"{number(x(point[0]))} {number(y(point[1]))}")
        elif run:
            found.append("M" + " ".join(run) + ("h0" if len(run) == 1 else ""))
            run = []
    return "".join(found)


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most about MOST of them: of each stretch its lowest and its highest, so that no spike is lost."""
    if len(points) <= MOST:
        return points
    size = -(-2 * len(points) // MOST)
    kept: list[Point] = [points[0]]
    for start in range(0, len(points), size):
        stretch = [(i, p) for i, p in enumerate(points[start : start + size], start) if p is not None]
        if len(stretch) < min(size, len(points) - start):
            kept.append(None)
        if stretch:
            ends = {min(stretch, key=lambda one: one[1][1]), max(stretch, key=lambda one: one[1][1])}
            kept += [p for _, p in sorted(ends)]
    return [*kept, points[-1]]
