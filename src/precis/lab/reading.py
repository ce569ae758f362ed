"""How a hypothesis reads a table and says what an interval means: what all kinds share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from precis.lab.claim import Hypothesis, Number, Outcome, Table
from precis.lab.statistics import Interval, one_sample
from precis.lab.words import counted

ROUNDING = 1e-12  # of the size of the numbers read: 0.9 − 0.8 lies on the bound 0.1, though not in floating point
FEWEST = 3  # replications from which anything is said

Keys = list[int | str]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What every hypothesis may carry.

    counts: False shows it without letting it into the verdict.  profiles: where it is judged (None: everywhere).
    unit: "seed", or "task" to take the tasks of a metric that is a dict as replications.
    """

    counts: bool = True
    profiles: tuple[str, ...] | None = None
    unit: str = "seed"

    def __post_init__(self) -> None:
        if self.unit not in ("seed", "task"):
            raise ValueError(f"unit is 'seed' or 'task', not {self.unit!r}")


@dataclass(frozen=True)
class Reading(Table):
    """A table that remembers the arms it was asked for, and which of their values were missing or not finite.

    `picks`: the replications that are read, by position (so one may come twice), for jackknife and bootstrap.
    """

    picks: tuple[int | str, ...] | None = None
    asked: set[str] = field(default_factory=set, compare=False)
    found: set[int | str] = field(default_factory=set, compare=False)
    unknown: dict[tuple[str, str], set[int | str]] = field(default_factory=dict, compare=False)

    def values(self, metric: str, arm: str) -> dict[int | str, float]:
        values = super().values(metric, arm)
        self.asked.add(arm)
        self.found.update(values)
        bad = {key for key, value in values.items() if not isfinite(value)}
        if bad or not values:
            self.unknown.setdefault((metric, arm), set()).update(bad)
        if self.picks is None:
            return values
        return {i: values.get(key, float("nan")) for i, key in enumerate(self.picks)}


def watch(table: Table, unit: str, picks: tuple[int | str, ...] | None = None) -> Reading:
    """`table` read by `unit`; what is asked of it is remembered by `table` too, if that is a Reading itself."""
    kept: dict[str, Any] = {}
    if isinstance(table, Reading):
        kept = {"asked": table.asked, "found": table.found, "unknown": table.unknown}
        picks = table.picks if picks is None else picks
    return Reading(table.rows, tuple(sorted(table.seeds)), table.alpha, unit, table.stands_in, picks, **kept)


def arms_read(hypothesis: Hypothesis) -> set[str] | None:
    """The arms that a hypothesis asks for: found by letting it judge a table in which nothing is.

    None: not known, since a function of its own cannot bear that.
    """
    empty = watch(Table({}, tuple(range(FEWEST))), hypothesis.unit)
    try:
        hypothesis.outcome(empty)
    except Exception:  # whatever a paper's function raises where there are no numbers
        return None
    return empty.asked


def columns(table: Table, unit: str, metric: str, arms: Sequence[str]) -> tuple[Any, str, int]:
    """Values [arms, n] in the order of the keys; what is missing, in words ("" if nothing); and how many are whole.

    A seed (or task) that one arm lacks is NaN there, and so are all that no arm has: nothing is left out silently.
    """
    reading = watch(table, unit)
    values = [reading.values(metric, arm) for arm in arms]
    keys = sorted(set().union(*values), key=lambda key: (isinstance(key, str), key))
    matrix = np.array([[column.get(key, np.nan) for key in keys] for column in values]).reshape(len(arms), len(keys))
    known = np.isfinite(matrix)
    read = [table.stands_in.get(arm, arm) for arm in arms]
    note = "" if known.size and known.all() else missing_note(metric, read, keys, known, unit)
    return matrix, note, int(known.all(axis=0).sum())


def missing_note(metric: str, arms: Sequence[str], keys: Keys, known: Any, unit: str) -> str:
    """ "2 of 5 values of psnr missing or not finite: relu (seeds 1, 3)"."""
    if not keys:
        return f"no values of {metric}" + (" by task" if unit == "task" else "")
    where = []
    for arm, row in zip(arms, known, strict=True):
        lost = [str(key) for key, whole in zip(keys, row, strict=True) if not whole]
        if lost:
            shown = ", ".join(lost[:6]) + (", …" if len(lost) > 6 else "")
            where.append(f"{arm} ({unit}{'s' if len(lost) > 1 else ''} {shown})")
    return f"{int((~known).sum())} of {known.size} values of {metric} missing or not finite: {', '.join(where)}"


def side(low: float, high: float, inside: tuple[Number, Number], scale: float) -> bool | None:
    """True if the interval (low, high) lies wholly inside the bounds, False if wholly outside, else None.

    An interval of zero width that lies on a bound is on neither side; what rounding does to numbers of size `scale`
    counts as lying on it.
    """
    slack = ROUNDING * max([scale, *(abs(bound) for bound in inside if isfinite(bound))])
    if inside[0] + slack < low and high < inside[1] - slack:
        return True
    if high < inside[0] - slack or low > inside[1] + slack:
        return False
    return None


def verdict_of(
    text: str, found: Interval, inside: tuple[Number, Number], scale: float, note: str = "", fewest: int = FEWEST
) -> Outcome:
    """The outcome that an interval gives: `holds` if it lies inside the bounds, and there are enough replications."""
    if not all(map(isfinite, found[:3])):
        return Outcome(text, None, None, None, found.n, joined(note, "too large to compute with"))
    holds = side(found.low, found.high, inside, scale)
    if found.n < fewest:
        holds, note = None, joined(note, f"{counted(found.n, 'replication')}, {fewest} are the least")
    return Outcome(text, found.estimate, (found.low, found.high), holds, found.n, note)


def mean_outcome(
    text: str, values: Any, inside: tuple[Number, Number], alpha: float, scale: float, note: str = ""
) -> Outcome:
    """What the t interval of the mean of `values` [n] (all finite) says."""
    if len(values) < 2:
        effect = float(values[0]) if len(values) else None
        few = f"{counted(len(values), 'replication')}, {FEWEST} are the least"
        return Outcome(text, effect, None, None, len(values), few)
    if not np.isfinite(values).all():
        return Outcome(text, None, None, None, len(values), joined(note, "too large to compute with"))
    with np.errstate(over="ignore", invalid="ignore"):
        return verdict_of(text, one_sample(values, alpha), inside, scale, note)


def together(
    text: str, parts: Sequence[Outcome], strength: Callable[[float], float] = lambda effect: effect
) -> Outcome:
    """One outcome of several that must all hold: effect and interval of the weakest, all of them in the note.

    Contradicted if one is, but nothing is said if one could not be computed.  The weakest is one that is contradicted,
    else one undecided, and among those the one whose effect has the least `strength`.
    """
    if len(parts) == 1:
        return parts[0]._replace(text=text)
    rank = {False: 0, None: 1, True: 2}
    ranked: list[tuple[int, float, Outcome]] = []
    for part in parts:
        if part.effect is None:
            return part._replace(text=text)
        ranked.append((rank[part.holds], strength(part.effect), part))
    weakest = min(ranked, key=lambda entry: entry[:2])[2]
    note = joined(weakest.note, "all must hold: " + "; ".join(in_words(part) for part in parts))
    return weakest._replace(text=text, note=note)


def in_words(part: Outcome) -> str:
    """ "psnr of siren above relu +9.1 (8.3 to 9.9)"."""
    interval = "" if part.interval is None else f" ({part.interval[0]:.3g} to {part.interval[1]:.3g})"
    said = {True: "", None: " undecided", False: " contradicted"}[part.holds]
    return f"{part.text} {part.effect:+.3g}{interval}{said}"


def joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def size(*values: Any) -> float:
    """The largest magnitude among `values`: what rounding errors are measured by."""
    return max((float(np.max(np.abs(v))) for v in values if np.size(v)), default=0.0)
