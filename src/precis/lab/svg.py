"""Charts as SVG text: scales with their ticks, an axis, marks by arm, and the whole drawing.

Coordinates are those of a box `WIDTH` wide, which a page stretches to its column.  Colours come from classes
(`templates/chart.css`): in a page from the page's own, in a file of its own from a copy inside it, both for light and
for dark.  Every text goes through `escape`.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Number = int | float

WIDTH = 360.0
SIZE = 10.5  # of ticks and names
COLOURS = 8  # classes a0 … a7; an arm beyond them has their colour and another dash
DASHES = ("", "5 2.5", "1.6 2", "7 2.5 1.6 2.5")
MARKERS = (
    "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0z", "M-3.3 -3.3h6.6v6.6h-6.6z", "M0 -4.2 4 3H-4z",
    "M0 -4.4 4.4 0 0 4.4 -4.4 0z", "M0 4.2 4 -3H-4z", "M-1.4 -4h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
    "M-4 -2.2 -2.2 -4 0 -1.8 2.2 -4 4 -2.2 1.8 0 4 2.2 2.2 4 0 1.8 -2.2 4 -4 2.2 -1.8 0z",
    "M0 -4.2 4 -1.3 2.5 3.4H-2.5L-4 -1.3z",
)  # fmt: skip
_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[] "), frozenset("mwMW−×%@")


@dataclass(frozen=True)
class Drawing:
    """A chart: SVG to stand in a page, and what it shows in words."""

    svg: str
    alt: str

    def standalone(self) -> str:
        """The same as a file of its own, with its colours inside."""
        head, mark, rest = self.svg.partition(">")
        return f"{head}{mark}<style>{_style()}</style>{rest}"


@cache
def _style() -> str:
    return (Path(__file__).parent / "templates" / "chart.css").read_text(encoding="utf-8")


def drawing(parts: Iterable[str], height: Number, alt: str, more: str = "") -> Drawing:
    """`alt` is the chart's name, `more` what a reader who does not see it is told beside."""
    told = f"<title>{escape(alt)}</title>" + (f"<desc>{escape(more)}</desc>" if more else "")
    box = f'viewBox="0 0 {number(WIDTH)} {number(height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" {box}>'
    return Drawing(f"{head}{told}{''.join(parts)}</svg>", alt)


def escape(text: object) -> str:
    """Text for an element or an attribute; characters that XML does not allow become a question mark."""
    kept = "".join(c if c >= " " or c in "\t\n\r" else "?" for c in str(text))
    return html.escape(kept.encode("utf-8", "replace").decode())


def number(value: Number) -> str:
    """A coordinate, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def text_width(text: str, size: Number = SIZE) -> float:
    """How wide the text is at the most, in a usual font."""
    return size * sum(0.36 if c in _NARROW else 0.9 if c in _WIDE else 0.72 if c.isupper() else 0.62 for c in text)


def text(x: Number, y: Number, said: str, kind: str = "", anchor: str = "") -> str:
    marks = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{number(x)}" y="{number(y)}"{marks}>{escape(said)}</text>'


def line(x1: Number, y1: Number, x2: Number, y2: Number, kind: str) -> str:
    return f'<path class="{kind}" d="M{number(x1)} {number(y1)} {number(x2)} {number(y2)}"/>'


def place_of(arm: str, order: Sequence[str]) -> int:
    """The arm's place in the claim, which gives it colour, dash and marker in all figures."""
    return order.index(arm) if arm in order else len(order)


def colour_of(place: int) -> str:
    return f"a{place % COLOURS}"


def stroke(path: str, place: int, kind: str = "") -> str:
    """A line of the arm's; `kind`: "thin" beside a mean, "many" where the seeds stand for themselves."""
    dash = DASHES[place // COLOURS % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="{" ".join(filter(None, (colour_of(place), "curve", kind)))}" d="{path}"{dashed}/>'


def marker(x: Number, y: Number, place: int, told: str = "", broken: bool = False) -> str:
    shape = MARKERS[place % len(MARKERS)]
    hint = f"<title>{escape(told)}</title>" if told else ""
    kind = f"{colour_of(place)} dot{' broken' if broken else ''}"
    return f'<path class="{kind}" transform="translate({number(x)} {number(y)})" d="{shape}">{hint}</path>'


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high` onto coordinates from `start` to `end`."""

    low: Number
    high: Number
    start: Number
    end: Number
    log: bool = False

    def __call__(self, value: Number) -> float:
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int = 5) -> tuple[list[tuple[Number, str]], str]:
        """[(value, its label)], and the power of ten by which all labels are to be multiplied ("" for none)."""
        if self.log:
            found = _log_ticks(self.low, self.high, most)
            if len(found) > 1:
                return found, ""
        return _even_ticks(self.low, self.high, most)


def scale(values: Iterable[Number], start: Number, end: Number, *, room: Number = 0.06, log: bool = False) -> Scale:
    """A scale that holds all the values with some room beyond them; `log` asks that they are all positive."""
    known = list(values) or [0.0]
    low, high = float(min(known)), float(max(known))
    if log:
        by = (high / low) ** room if high > low else 1.5
        return Scale(low / by, high * by, start, end, True)
    size = max(abs(low), abs(high))
    more = room * (high - low) if high - low > 1e-12 * size else 0.1 * size or 1.0
    return Scale(low - more, high + more, start, end)


def _even_ticks(low: Number, high: Number, most: int) -> tuple[list[tuple[Number, str]], str]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten, at most `most` of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    for times in (1, 2, 2.5, 5, 10, 20):
        step = times * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    values = [i * step for i in range(first, last + 1)]
    largest = max(map(abs, values), default=0.0)
    exponent = math.floor(math.log10(largest)) if largest else 0
    exponent = exponent if exponent >= 6 or exponent < -3 else 0
    unit = step / 10.0**exponent
    decimals = max(0, -math.floor(math.log10(unit) + 1e-9))
    decimals += abs(unit * 10**decimals - round(unit * 10**decimals)) > 1e-6
    labels = [(v, _signed(f"{v / 10.0**exponent:,.{decimals}f}")) for v in values]
    return labels, f"×10{_raised(exponent)}" if exponent else ""


def _log_ticks(low: Number, high: Number, most: int) -> list[tuple[float, str]]:
    """Powers of ten, every so many of them; with their 2 and 5 where there are few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, -(-(last - first + 1) // most))
    powers = [p for p in range(first, last + 1) if p % every == 0]
    found = [(10.0**p, _power(p)) for p in powers]
    if len(found) < 3:
        finer = [(m * 10.0**p, p, m) for p in range(first - 1, last + 1) for m in (1, 2, 5)]
        among = [(v, p, m) for v, p, m in finer if low <= v <= high]
        if len(among) <= most + 1:
            return [(v, _power(p, m)) for v, p, m in among]
    return found


def _power(p: int, times: int = 1) -> str:
    if -3 <= p <= 5:
        return f"{times * 10.0**p:,.{max(0, -p)}f}"
    return f"10{_raised(p)}" if times == 1 else f"{times}·10{_raised(p)}"


def _raised(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _signed(written: str) -> str:
    """A true minus, and no minus before nothing."""
    return written.replace("-", "−") if any(c in "123456789" for c in written) else written.removeprefix("-")


def x_axis(x: Scale, y: Number, top: Number, label: str) -> tuple[list[str], Number]:
    """The axis below a plot whose field reaches from `top` to `y`, its grid and labels; and where it ends."""
    ticks, times = x.ticks(max(3, min(6, int((x.end - x.start) / 48))))
    wide = [text_width(said) for _, said in ticks]
    if len(ticks) > 1 and max(wide) + 6 > x(ticks[1][0]) - x(ticks[0][0]):
        ticks = ticks[::2]
    grid = "".join(f"M{number(x(v))} {number(top)}V{number(y)}" for v, _ in ticks)
    parts = [f'<path class="grid" d="{grid}"/>', line(x.start, y, x.end, y, "axis")]
    for value, said in ticks:
        half = text_width(said) / 2
        at = min(max(x(value), half), WIDTH - half)
        parts.append(text(at, y + 14, said, "tick", "middle"))
    said = " ".join(filter(None, (label, f"({times})" if times else "", "(logarithmic)" if x.log else "")))
    if not said:
        return parts, y + 18
    parts.append(text((x.start + x.end) / 2, y + 29, fitted(said, WIDTH - 8, 11), "label", "middle"))
    return parts, y + 35


def fitted(said: str, width: Number, size: Number = SIZE) -> str:
    """The text, shortened in its middle if it is wider than that."""
    if text_width(said, size) <= width:
        return said
    keep = len(said) - 1
    while keep > 2 and text_width(said[: -(-keep // 2)] + "…" + said[-(keep // 2) :], size) > width:
        keep -= 1
    return said[: -(-keep // 2)] + "…" + said[-(keep // 2) :]


def two_lines(name: str, width: Number) -> list[str]:
    """A name in one line, or in two where it is wider than that, broken at `_`, a space or a hyphen."""
    if text_width(name) <= width:
        return [name]
    breaks = [i + 1 for i, c in enumerate(name[:-1]) if c in "_ -·,"]
    at = min(breaks, key=lambda i: max(text_width(name[:i]), text_width(name[i:])), default=len(name))
    return [fitted(part.strip(), width) for part in (name[:at], name[at:]) if part.strip()]
