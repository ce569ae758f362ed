"""The rarer hypotheses: shares, spreads, statistics of a whole table, and exact figures."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Literal

import numpy as np

from precis.lab.claim import Number, Outcome, Table
from precis.lab.reading import Kind, columns, joined, mean_outcome, size, verdict_of, watch
from precis.lab.statistics import bootstrap, jackknife, paired_proportion_interval, proportion_interval, spread_ratio
from precis.lab.words import counted

DRAWS = 2000  # resamples of Statistic(resample="bootstrap"); the standard error is then good to about 2 %


@dataclass(frozen=True)
class Proportion(Kind):
    """Share of outcomes 0 or 1 of arm a, `at_least` or `at_most` a bound; with b, its share minus that of b.

    Outcomes of 0 and 1, one a seed (or task): exact binomial intervals, for a difference the exact McNemar test where
    the bound is 0.  Where a seed holds several outcomes and the value is their share, seeds are clusters: t over them.
    With b and no bound, a is claimed to be above b.
    """

    metric: str
    a: str
    b: str | None = None
    at_least: Number | None = None
    at_most: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = (self.at_least is not None) + (self.at_most is not None)
        if given > 1 or (given == 0 and self.b is None):
            raise ValueError("Proportion wants at_least or at_most")

    def outcome(self, table: Table) -> Outcome:
        arms = (self.a,) if self.b is None else (self.a, self.b)
        bound = self.at_most if self.at_most is not None else self.at_least or 0.0
        inside = (-inf, bound) if self.at_most is not None else (bound, inf)
        text = f"share of {self.metric}: {self.a}{'' if self.b is None else f' minus {self.b}'} "
        text += f"at most {bound:g}" if self.at_most is not None else f"at least {bound:g}"
        if self.b is not None and inside == (0.0, inf):
            text = f"share of {self.metric}: {self.a} above {self.b}"
        values, lost, n = columns(table, self.unit, self.metric, arms)
        if lost:
            return Outcome(text, None, None, None, n, lost)
        if (values < 0).any() or (values > 1).any():
            return Outcome(text, None, None, None, n, f"{self.metric} is no share: values lie outside 0 to 1")
        if not np.isin(values, (0.0, 1.0)).all():
            clusters = values[0] if self.b is None else values[0] - values[1]
            return mean_outcome(text, clusters, inside, table.alpha, 1.0, f"{self.unit}s as clusters")
        ones = values == 1
        if self.b is None:
            found = proportion_interval(int(ones[0].sum()), n, table.alpha)
        else:
            only_a, only_b = int((ones[0] & ~ones[1]).sum()), int((ones[1] & ~ones[0]).sum())
            found = paired_proportion_interval(only_a, only_b, n, table.alpha, at_zero=bound == 0)
        return verdict_of(text, found, inside, 1.0, "exact binomial interval")


@dataclass(frozen=True)
class Spread(Kind):
    """a varies more than b over seeds: ratio of the standard deviations above `ratio`, from ten seeds on.

    The interval is the jackknife's with t, on the logarithm of the ratio; effect and interval are shown as ratios.
    """

    metric: str
    a: str
    b: str
    ratio: Number = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio <= 0:
            raise ValueError("Spread wants a ratio above 0")

    def outcome(self, table: Table) -> Outcome:
        text = f"spread of {self.metric} over {self.unit}s: {self.a} above {self.b}"
        text += f" by a factor of {self.ratio:g}" if self.ratio != 1 else ""
        values, lost, n = columns(table, self.unit, self.metric, (self.a, self.b))
        if lost:
            return Outcome(text, None, None, None, n, lost)
        if n < 3:
            return Outcome(text, None, None, None, n, f"{counted(n, 'replication')}, 10 are the least")
        try:
            found = spread_ratio(values[0], values[1], table.alpha)
        except ValueError as error:
            return Outcome(text, None, None, None, n, str(error))
        return verdict_of(text, found, (self.ratio, inf), 1.0, fewest=10)


@dataclass(frozen=True)
class Statistic(Kind):
    """A figure `fn(table)` of the whole table, from four seeds on.

    `fn` reads `table.values(metric, arm)` alone, whose keys it takes as labels: it is called again with one seed left
    out (jackknife with t), or, where it needs their full number, with seeds drawn with replacement (bootstrap standard
    error with t).  `extreme`: say "max" or "min" where fn takes one over arms.  The largest of several noisy effects
    lies above the truth, so a maximum may be claimed `at_most` only and a minimum `at_least` only; the other way
    8 % of null effects come out supported, and it is refused (as often, then, a true one is called contradicted, when
    several effects lie on the bound together).  `text` names the figure.
    """

    fn: Callable[[Table], Number]
    at_least: Number | None = None
    at_most: Number | None = None
    between: tuple[Number, Number] | None = None
    resample: Literal["jackknife", "bootstrap"] = "jackknife"
    extreme: Literal["max", "min"] | None = None
    text: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(bound is not None for bound in (self.at_least, self.at_most, self.between)) != 1:
            raise ValueError("Statistic wants one of at_least, at_most, between")
        if self.between is not None and not self.between[0] < self.between[1]:
            raise ValueError(f"the bounds {self.between[0]:g} and {self.between[1]:g} are not in rising order")
        if (self.extreme == "max" and self.at_most is None) or (self.extreme == "min" and self.at_least is None):
            raise ValueError("a maximum over arms may only be claimed at_most a bound, a minimum only at_least")

    def outcome(self, table: Table) -> Outcome:
        named = self.text or getattr(self.fn, "__name__", "statistic").replace("_", " ").strip()
        if self.between is not None:
            inside, text = self.between, f"{named} between {self.between[0]:g} and {self.between[1]:g}"
        elif self.at_most is not None:
            inside, text = (-inf, self.at_most), f"{named} at most {self.at_most:g}"
        else:
            inside, text = (self.at_least or 0.0, inf), f"{named} at least {self.at_least:g}"
        full = watch(table, self.unit)
        estimate = self._value(full)
        keys = sorted(full.found, key=lambda key: (isinstance(key, str), key))
        n = len(keys)
        if full.unknown:
            lost = sum(len(bad) for bad in full.unknown.values())
            where = ", ".join(f"{metric} of {table.stands_in.get(arm, arm)}" for metric, arm in full.unknown)
            return Outcome(text, None, None, None, n, f"{lost or 'all'} values missing or not finite: {where}")
        if not isfinite(estimate):
            return Outcome(text, None, None, None, n, "the statistic is not finite")
        if n < 4:
            return Outcome(text, estimate, None, None, n, f"{counted(n, 'replication')}, 4 are the least")
        if self.resample == "jackknife":
            left_out = [self._value(watch(table, self.unit, tuple(keys[:i] + keys[i + 1 :]))) for i in range(n)]
            if not all(map(isfinite, left_out)):
                return Outcome(text, estimate, None, None, n, "the statistic is not finite with one of them left out")
            return verdict_of(text, jackknife(estimate, left_out, table.alpha), inside, abs(estimate), fewest=4)
        draws = np.random.default_rng(0).integers(n, size=(DRAWS, n))
        drawn = [self._value(watch(table, self.unit, tuple(keys[i] for i in draw))) for draw in draws]
        whole = [value for value in drawn if isfinite(value)]
        if len(whole) < 0.95 * DRAWS:
            note = f"the statistic is not finite in {DRAWS - len(whole)} of {DRAWS} resamples"
            return Outcome(text, estimate, None, None, n, note)
        note = "" if len(whole) == DRAWS else f"{DRAWS - len(whole)} of {DRAWS} resamples left out: not finite"
        return verdict_of(text, bootstrap(estimate, whole, n, table.alpha), inside, abs(estimate), note, fewest=4)

    def _value(self, table: Table) -> float:
        try:
            with np.errstate(all="ignore"):
                return float(self.fn(table))
        except ZeroDivisionError:
            return nan


@dataclass(frozen=True)
class Exact(Kind):
    """A deterministic figure: one run, no interval.

    `target`: a number or the name of another arm; `relation`: how arm a stands to it, equality within `tolerance`
    (absolute).  Or `relation` is a function of the values of the arms `a` that says whether they fit, and `text` says
    what it asks.  Several seeds must agree: if one of them fails, it does not hold.
    """

    metric: str
    a: str | tuple[str, ...]
    target: Number | str | None = None
    relation: Literal["==", "<=", ">=", "<", ">"] | Callable[..., bool] = "=="
    tolerance: Number = 0.0
    text: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if callable(self.relation) == (self.target is not None):
            raise ValueError("Exact wants a target, or a function as relation")
        if not callable(self.relation) and not isinstance(self.a, str):
            raise ValueError("Exact compares one arm with a target; several arms want a function as relation")
        if self.tolerance < 0:
            raise ValueError("Exact wants a tolerance of at least 0")

    def outcome(self, table: Table) -> Outcome:
        first = (self.a,) if isinstance(self.a, str) else self.a
        arms = (*first, self.target) if isinstance(self.target, str) else first
        values, lost, n = columns(table, self.unit, self.metric, arms)
        text = self.text or self._text(first)
        if lost:
            return Outcome(text, None, None, None, n, lost)
        fits = [self._fits(*(float(value) for value in column)) for column in values.T]
        note = "exact"
        worst = fits.index(False) if not all(fits) else 0
        if any(fits) and not all(fits):
            note = joined(note, f"{self.unit}s disagree: {len(fits) - sum(fits)} of {len(fits)} do not fit")
        if np.ptp(values[0]) > max(self.tolerance, 1e-12 * size(values[0])):
            note = joined(note, f"from {values[0].min():.6g} to {values[0].max():.6g}")
        if len(arms) > 1:
            shown = ", ".join(f"{arm} {value:.6g}" for arm, value in zip(arms[1:], values[1:, worst], strict=True))
            note = joined(note, f"beside {shown}")
        return Outcome(text, float(values[0, worst]), None, all(fits), n, note)

    def _fits(self, value: float, *others: float) -> bool:
        if callable(self.relation):
            return bool(self.relation(value, *others))
        target = others[0] if others else float(self.target or 0.0)
        if self.relation == "==":
            # abs(a − b) of two decimals that differ by the tolerance itself may exceed it by a rounding error
            return abs(value - target) <= self.tolerance + 1e-15 * max(abs(value), abs(target)) * bool(self.tolerance)
        return {
            "<=": value <= target + self.tolerance,
            ">=": value >= target - self.tolerance,
            "<": value < target + self.tolerance,
            ">": value > target - self.tolerance,
        }[self.relation]

    def _text(self, arms: tuple[str, ...]) -> str:
        if callable(self.relation):
            return f"{self.metric} of {', '.join(arms)}: {getattr(self.relation, '__name__', 'a relation')}"
        words = {"==": "equal to", "<=": "at most", ">=": "at least", "<": "below", ">": "above"}[self.relation]
        target = self.target if isinstance(self.target, str) else f"{self.target:.10g}"
        return f"{self.metric} of {arms[0]} {words} {target}" + (f" ± {self.tolerance:g}" if self.tolerance else "")
