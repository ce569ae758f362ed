"""Figures of jobs: arrays in, PNG bytes out.  (The charts of pages and reports are SVG: `precis.lab.charts`.)

`contact_sheet` and `strip` (`precis.lab.sheets`) lay pictures out with captions.  The charts (`curves`, `bars`,
`heat_map`, `scatter`) give a `Chart`, which writes itself as PNG on white.  An arm has one colour and one marker in
all figures that are given the same `order`; the palette (Okabe and Ito, without its yellow) is told apart by
colour-blind readers.  Matplotlib is used through its objects alone, never through pyplot.
"""

import io
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from precis.lab.sheets import FAINT, INK, contact_sheet, pixels_of, strip

__all__ = [
    "Chart", "arm_colours", "bars", "contact_sheet", "curves", "heat_map", "pixels_of", "scatter", "strip",
]

Number = int | float
Pair = tuple[Number, Number]

PALETTE = ("#2b7bba", "#e69f00", "#009e73", "#cc4f0a", "#b565a7", "#67bdf0", "#8a8a8a", "#85531c")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_lock = threading.RLock()


def arm_colours(order: Iterable[str]) -> dict[str, str]:
    """{arm: colour} by the arm's place in the claim, so that it keeps it in every figure."""
    return {arm: PALETTE[i % len(PALETTE)] for i, arm in enumerate(dict.fromkeys(order))}


@dataclass(frozen=True)
class Chart:
    """A drawn chart.  `alt` says in words what it shows; it goes into the PNG as its description."""

    figure: Any
    alt: str

    def png(self, dpi: int = 160) -> bytes:
        """PNG on white."""
        out = io.BytesIO()
        with _lock:
            self._settle()
            self.figure.savefig(out, format="png", dpi=dpi, facecolor="white",
                                metadata={"Software": None, "Description": self.alt})
        return out.getvalue()

    def _settle(self) -> None:
        """Lay out once, so that a chart drawn twice is the same to the byte."""
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")


def curves(
    series: Mapping[str, tuple[Any, Any] | Sequence[tuple[Any, Any]]],
    *,
    title: str = "",
    x_label: str = "step",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    marks: bool = False,
    order: Sequence[str] | None = None,
) -> Chart:
    """Lines.  `series`: {arm: (x, y)}, or {arm: [(x, y), …]} with one a seed: thin, their mean (if x agree) thick.

    marks: every point is marked, for lines through few measurements.
    """
    import numpy as np

    figure, axes = _axes(title, x_label, y_label, 3.1)
    order = list(order or series)
    for arm, lines in series.items():
        colour, dash, marker = _style(arm, order)
        many = [(_numbers(x), _numbers(y)) for x, y in ([lines] if isinstance(lines, tuple) else lines)]
        for x, y in many:
            if x.shape != y.shape or x.ndim != 1:
                raise ValueError(f"curve {arm!r}: x {x.shape} and y {y.shape} must be equally long rows")
        same = all(x.shape == many[0][0].shape and (x == many[0][0]).all() for x, _ in many)
        alone = len(many) == 1 or not same
        for i, (x, y) in enumerate(many):
            mark = marker if marks else "o" if len(x) == 1 else None
            axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.6 if alone else 0.7, alpha=1 if alone else 0.45,
                      label=arm if alone and i == 0 else None, marker=mark, markersize=4)
        if not alone:
            mean = np.mean([y for _, y in many], 0)
            axes.plot(many[0][0], mean, color=colour, linestyle=dash, linewidth=2, label=arm)
    if log_x:
        axes.set_xscale("log")
    elif all((line.get_xdata() == np.rint(line.get_xdata())).all() for line in axes.lines):
        axes.xaxis.get_major_locator().set_params(integer=True)  # steps and counts have no halves
    if log_y:
        axes.set_yscale("log")
    _legend(axes, len(series))
    return Chart(figure, title or f"{y_label or 'curves'} of {', '.join(series)}")


def bars(
    values: Mapping[str, Number],
    *,
    intervals: Mapping[str, Pair] | None = None,
    title: str = "",
    label: str = "",
    order: Sequence[str] | None = None,
) -> Chart:
    """One horizontal bar a name, with its number and, if given, its interval; a value that is not finite has no bar."""
    import math

    figure, axes = _axes(title, label, "", 0.75 + 0.34 * len(values))
    order = list(order or values)
    for i, (name, value) in enumerate(values.items()):
        if not math.isfinite(value):
            axes.text(0, i, " no number", va="center", color=INK, fontsize=8.5)
            continue
        axes.barh(i, value, height=0.62, color=_style(name, order)[0])
        low, high = (intervals or {}).get(name, (value, value))
        if low != high:
            axes.plot([low, high], [i, i], color=INK, linewidth=1.4, solid_capstyle="butt")
        axes.annotate(f"{value:.4g}", (max(value, high, 0), i), xytext=(4, 0), textcoords="offset points", va="center",
                      color=INK, fontsize=8.5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.margins(x=0.14)
    _names(axes, list(values))
    return Chart(figure, title or ", ".join(f"{k} {v:.4g}" for k, v in values.items()))


def heat_map(
    matrix: Any,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    diverging: bool = False,
    low: Number | None = None,
    high: Number | None = None,
) -> Chart:
    """A matrix [R,C] in colour, with its numbers while there are at most 144; `diverging`: 0 is the middle colour."""
    import numpy as np

    x = _numbers(matrix)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"a heat map needs a matrix, got {x.shape}")
    finite = x[np.isfinite(x)] if np.isfinite(x).any() else np.zeros(1)
    low, high = finite.min() if low is None else low, finite.max() if high is None else high
    if diverging:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    figure, axes = _axes(title, x_label, y_label, min(6.0, max(1.8, 1.0 + 4.2 * x.shape[0] / max(x.shape[1], 4))))
    shown = axes.imshow(x, cmap="RdBu_r" if diverging else "viridis", vmin=low, vmax=high, aspect="auto")
    if x.size <= 144:
        for (r, c), value in np.ndenumerate(x):
            red, green, blue, _ = shown.cmap(shown.norm(value))
            bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            ink = "#101010" if bright else "#fafafa"
            axes.text(c, r, f"{value:.3g}", ha="center", va="center", fontsize=8, color=ink)
    if rows is not None:
        axes.set_yticks(range(len(rows)), rows)
    if columns is not None:
        turned = sum(map(len, columns)) > 48
        axes.set_xticks(range(len(columns)), columns, rotation=35 if turned else 0, ha="right" if turned else "center")
    bar = figure.colorbar(shown, ax=axes, pad=0.02)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)
    axes.grid(False)
    return Chart(figure, title or f"heat map of {x.shape[0]} by {x.shape[1]} values")


def scatter(
    points: Mapping[str, tuple[Any, Any]],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    identity: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    order: Sequence[str] | None = None,
) -> Chart:
    """Points {group: (x, y)}; `identity` adds the line y = x."""
    figure, axes = _axes(title, x_label, y_label, 3.4)
    order = list(order or points)
    most = max((len(x) for x, _ in points.values()), default=0)
    for name, (x, y) in points.items():
        colour, _, marker = _style(name, order)
        axes.scatter(_numbers(x), _numbers(y), s=26 if most <= 200 else 8, color=colour, marker=marker,
                     alpha=0.85 if most <= 200 else 0.5, linewidths=0, label=name, rasterized=most > 5000)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    if identity:
        both = [*axes.get_xlim(), *axes.get_ylim()]
        axes.plot([min(both), max(both)], [min(both), max(both)], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    _legend(axes, len(points))
    return Chart(figure, title or f"{y_label} against {x_label}".strip())


def _axes(title: str, x_label: str, y_label: str, height: Number, width: Number = 4.6) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height + (0.25 if title else 0) + 0.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.set_axisbelow(True)
    axes.grid(True, color=FAINT, linewidth=0.5, alpha=0.35)
    axes.set_xlabel(plain(x_label), color=INK, fontsize=10)
    axes.set_ylabel(plain(y_label), color=INK, fontsize=10)
    if title:
        axes.set_title(plain(title), color=INK, fontsize=10, loc="left")
    return figure, axes


def plain(text: str) -> str:
    """Matplotlib reads $…$ as mathematics; words of users are words."""
    return text.replace("$", r"\$")


def _names(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [plain(n) for n in names])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(False, axis="y")


def _legend(axes: Any, n: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if n > 1 and handles:
        axes.legend(handles, [plain(text) for text in labels], fontsize=8.5, frameon=False, labelcolor=INK)


def _style(name: str, order: Sequence[str]) -> tuple[str, Any, str]:
    """(colour, dashes, marker) by the name's place in `order`."""
    i = order.index(name) if name in order else len(order)
    return PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE) % len(DASHES)], MARKERS[i % len(MARKERS)]


def _numbers(values: Any) -> Any:
    """float64 array of a list (None is NaN), an array or a tensor on any device."""
    import numpy as np

    return np.asarray(values.detach().double().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
