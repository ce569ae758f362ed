"""What a claim says of its table, for means over paired seeds; the rarer kinds are in `rarer.py`, named here too.

d_s is the difference of seed s between two arms, signed so that larger is better, and the interval is Student's t over
the d_s.  A hypothesis holds if the interval lies wholly on the claimed side, is contradicted if wholly on the other,
else nothing is said (`holds` is None).  Effect and interval are in the metric's own units.  A value that is missing or
not finite leaves nothing said, with the count.  Times, errors, counts and ratios belong in as logarithms: the t
interval wants differences that are roughly symmetric.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import inf
from typing import Any

import numpy as np

from precis.lab.claim import Number, Outcome, Table
from precis.lab.rarer import Exact, Proportion, Spread, Statistic
from precis.lab.reading import Kind, columns, joined, mean_outcome, size, together

__all__ = [
    "AtLeast", "AtMost", "Between", "Differs", "Equivalent", "Exact", "Greater", "Interaction", "Less", "NotWorse",
    "Ordered", "Proportion", "Spread", "Statistic", "Trend",
]


@dataclass(frozen=True)
class Greater(Kind):
    """a above b by more than `by`."""

    metric: str
    a: str
    b: str
    by: Number = 0.0

    def outcome(self, table: Table) -> Outcome:
        text = f"{self.metric} of {self.a} above {self.b}{_by(self.by)}"
        return _difference(self, table, text, self.a, self.b, (self.by, inf))


@dataclass(frozen=True)
class Less(Kind):
    """a below b by more than `by`; the effect is b − a."""

    metric: str
    a: str
    b: str
    by: Number = 0.0

    def outcome(self, table: Table) -> Outcome:
        text = f"{self.metric} of {self.a} below {self.b}{_by(self.by)}"
        return _difference(self, table, text, self.b, self.a, (self.by, inf))


@dataclass(frozen=True)
class NotWorse(Kind):
    """a at most `margin` worse than b ("comparable"); `maximise=False` for a metric of which less is better."""

    metric: str
    a: str
    b: str
    margin: Number
    maximise: bool = True

    def outcome(self, table: Table) -> Outcome:
        text = f"{self.metric} of {self.a} not worse than {self.b} by {self.margin:g}"
        better, worse = (self.a, self.b) if self.maximise else (self.b, self.a)
        return _difference(self, table, text, better, worse, (-self.margin, inf))


@dataclass(frozen=True)
class Equivalent(Kind):
    """a and b (or every pair of the arms a), or a and the number `target`, differ by less than `within` either way.

    The 95 % interval inside ±within is two one-sided tests at 2.5 % (Schuirmann 1987); as all must hold, several pairs
    need no correction.
    """

    metric: str
    a: str | tuple[str, ...]
    b: str | Number | None = None
    within: Number = 0.0
    target: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        several = not isinstance(self.a, str)
        if (self.b is not None) + (self.target is not None) + several != 1 or (several and len(self.a) < 2):
            raise ValueError("Equivalent compares a with b, a with a target, or every pair of several arms")
        if self.within <= 0:
            raise ValueError("Equivalent wants `within` above 0")

    def outcome(self, table: Table) -> Outcome:
        target = self.target if self.target is not None else self.b
        if isinstance(self.a, str) and isinstance(target, int | float):
            text = f"{self.metric} of {self.a} within {self.within:g} of {target:g}"
            return _level(self, table, text, self.a, (target - self.within, target + self.within))
        arms = (self.a, str(self.b)) if isinstance(self.a, str) else self.a
        text = f"{self.metric} of {' and '.join(arms) if len(arms) == 2 else ', '.join(arms)} within {self.within:g}"
        inside = (-self.within, self.within)
        parts = [_difference(self, table, f"{a} − {b}", a, b, inside) for a, b in combinations(arms, 2)]
        return together(text, parts, lambda effect: -abs(effect))


@dataclass(frozen=True)
class AtLeast(Kind):
    """The arm's mean above `value`."""

    metric: str
    a: str
    value: Number

    def outcome(self, table: Table) -> Outcome:
        return _level(self, table, f"{self.metric} of {self.a} at least {self.value:g}", self.a, (self.value, inf))


@dataclass(frozen=True)
class AtMost(Kind):
    """The arm's mean below `value`."""

    metric: str
    a: str
    value: Number

    def outcome(self, table: Table) -> Outcome:
        return _level(self, table, f"{self.metric} of {self.a} at most {self.value:g}", self.a, (-inf, self.value))


@dataclass(frozen=True)
class Between(Kind):
    """The arm's mean between `low` and `high`."""

    metric: str
    a: str
    low: Number
    high: Number

    def __post_init__(self) -> None:
        super().__post_init__()
        _ascending(self.low, self.high)

    def outcome(self, table: Table) -> Outcome:
        text = f"{self.metric} of {self.a} between {self.low:g} and {self.high:g}"
        return _level(self, table, text, self.a, (self.low, self.high))


@dataclass(frozen=True)
class Differs(Kind):
    """a and b differ, no direction expected; contradicted if the difference lies inside ±margin and may be 0."""

    metric: str
    a: str
    b: str
    margin: Number

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin < 0:
            raise ValueError("Differs wants a margin of at least 0")

    def outcome(self, table: Table) -> Outcome:
        text = f"{self.metric} of {self.a} differs from {self.b}"
        same = _difference(self, table, text, self.a, self.b, (-self.margin, self.margin))
        above = _difference(self, table, text, self.a, self.b, (0.0, inf)).holds
        # `above` is False if the interval lies wholly below 0: a difference as well
        if above is None:
            return same._replace(holds=False if same.holds else None)
        note = f"smaller than the margin of {self.margin:g}" if same.holds else ""
        return same._replace(holds=True, note=joined(same.note, note))


@dataclass(frozen=True)
class Ordered(Kind):
    """The arms from the greatest to the least: each above its neighbour by more than `by`."""

    metric: str
    arms: tuple[str, ...]
    by: Number = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.arms) < 2:
            raise ValueError("Ordered wants at least two arms")

    def outcome(self, table: Table) -> Outcome:
        parts = [_difference(self, table, f"{a} − {b}", a, b, (self.by, inf)) for a, b in pairwise(self.arms)]
        return together(f"{self.metric} of {' above '.join(self.arms)}{_by(self.by)}", parts)


@dataclass(frozen=True)
class Interaction(Kind):
    """The difference a − b of the first pair of arms above that of the second, c − d, by more than `by`."""

    metric: str
    first: tuple[str, str]
    second: tuple[str, str]
    by: Number = 0.0

    def outcome(self, table: Table) -> Outcome:
        (a, b), (c, d) = self.first, self.second
        text = f"{self.metric}: gain of {a} over {b} above that of {c} over {d}{_by(self.by)}"
        return _mean(self, table, text, (a, b, c, d), (self.by, inf), lambda v: (v[0] - v[1]) - (v[2] - v[3]))


@dataclass(frozen=True)
class Trend(Kind):
    """The metric rises over the arms: each seed's least-squares slope, above `by` or `between` two bounds.

    x: a number for each arm (default: its rank 0, 1, …), rising.  log: the slope of log metric on log x, the exponent
    of a power law.  falling: the slope below −by, and the steps the other way.  steps=m: every neighbouring step is
    besides not worse than −m (in the metric's units), so that the trend is monotone up to m.
    """

    metric: str
    over: tuple[str, ...]
    x: tuple[Number, ...] | None = None
    log: bool = False
    by: Number = 0.0
    between: tuple[Number, Number] | None = None
    steps: Number | None = None
    falling: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.over) < 2:
            raise ValueError("Trend wants at least two arms")
        if self.x is not None and (len(self.x) != len(self.over) or any(x >= y for x, y in pairwise(self.x))):
            raise ValueError("Trend wants one x for each arm, rising")
        if self.log and (self.x is None or self.x[0] <= 0):
            raise ValueError("Trend with log=True wants x, above 0")
        if self.between is not None:
            _ascending(*self.between)
            if self.by or self.falling:
                raise ValueError("Trend has either `between` or a direction")

    def outcome(self, table: Table) -> Outcome:
        text = self._text()
        y, lost, whole = columns(table, self.unit, self.metric, self.over)
        if lost:
            return Outcome(text, None, None, None, whole, lost)
        x = np.arange(len(self.over), dtype=float) if self.x is None else np.asarray(self.x, dtype=float)
        values = y
        if self.log:
            if (y <= 0).any():
                note = f"{int((y <= 0).sum())} of {y.size} values of {self.metric} are not above 0, no logarithm"
                return Outcome(text, None, None, None, whole, note)
            x, values = np.log(x), np.log(y)
        weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        inside = self.between or ((-inf, -self.by) if self.falling else (self.by, inf))
        slope = mean_outcome(text, weights @ values, inside, table.alpha, size(values) * float(np.abs(weights).sum()))
        if self.steps is None:
            return slope
        rises = np.diff(y, axis=0) * (-1 if self.falling else 1)
        steps = [
            mean_outcome(f"step {a} to {b}", rise, (-self.steps, inf), table.alpha, size(y))
            for (a, b), rise in zip(pairwise(self.over), rises, strict=True)
        ]
        whole_trend = together(text, [slope._replace(text="slope"), *steps])
        return slope._replace(holds=whole_trend.holds, note=whole_trend.note)

    def _text(self) -> str:
        over = ", ".join(self.over)
        if self.between is not None:
            kind = "log–log slope" if self.log else "slope"
            text = f"{kind} of {self.metric} over {over} between {self.between[0]:g} and {self.between[1]:g}"
        else:
            text = f"{self.metric} {'falls' if self.falling else 'rises'} over {over}"
            text += f" as x to the power {-self.by if self.falling else self.by:g} or beyond" if self.log else ""
            text += f" by {self.by:g} a step" if self.by and self.x is None else ""
            text += f" by {self.by:g} a unit" if self.by and self.x is not None and not self.log else ""
        return text + ("" if self.steps is None else f", no step back by {self.steps:g}")


def _mean(
    kind: Any, table: Table, text: str, arms: tuple[str, ...], inside: tuple[Number, Number],
    combined: Callable[[Any], Any],
) -> Outcome:
    """The outcome of the mean over replications of what `combined` makes of the arms' values [arms, n]."""
    values, lost, whole = columns(table, kind.unit, kind.metric, arms)
    if lost:
        return Outcome(text, None, None, None, whole, lost)
    with np.errstate(over="ignore", invalid="ignore"):
        return mean_outcome(text, combined(values), inside, table.alpha, size(values))


def _difference(kind: Any, table: Table, text: str, a: str, b: str, inside: tuple[Number, Number]) -> Outcome:
    return _mean(kind, table, text, (a, b), inside, lambda values: values[0] - values[1])


def _level(kind: Any, table: Table, text: str, a: str, inside: tuple[Number, Number]) -> Outcome:
    return _mean(kind, table, text, (a,), inside, lambda values: values[0])


def _by(by: Number) -> str:
    return f" by {by:g}" if by else ""


def _ascending(low: Number, high: Number) -> None:
    if not low < high:
        raise ValueError(f"the bounds {low:g} and {high:g} are not in rising order")
