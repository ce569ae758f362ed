"""The verdict: what a claim's hypotheses, preconditions and broken arms say together.

A pure function of claim, table and profile's name; a judgement is recomputed, never stored as a measurement.

    a precondition fails or is unknown                          inconclusive, with its `why`
    one counting hypothesis is contradicted                     contradicted
    one counting hypothesis is undecided                        inconclusive
    all hold, and one with a broken arm in place holds as well  inconclusive: the mechanism does not move this number
    all hold, and of a broken arm nothing is known              inconclusive: the claim was not shown able to fail
    all hold, and with the broken arms none does                supported
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, NamedTuple

from precis.lab.claim import Claim, Hypothesis, Outcome, Precondition, Table, asked_at
from precis.lab.reading import watch
from precis.lab.words import fields_of


class Judgement(NamedTuple):
    """verdict: "supported", "contradicted", "inconclusive" or None (none is read), with the reason in a sentence.

    rows: text, effect, interval, holds, n, note, counts, unit, sabotaged, hypothesis (its kind and fields), one a
    hypothesis of this profile, each followed by its rows with a broken arm in place (sabotaged: {broken: the arm it
    stands for}, else None).
    preconditions: text, effect (the worst value), holds, n, note, why.
    """

    verdict: str | None
    reason: str
    rows: list[dict[str, Any]]
    preconditions: list[dict[str, Any]]


def judge(claim: type[Claim], table: Table, profile: str) -> Judgement:
    """Judge `claim` by the `table` of its trials at `profile`."""
    rows: list[dict[str, Any]] = []
    unseen: list[str] = []
    tested: set[str] = set()
    for hypothesis in claim.hypotheses:
        if not asked_at(hypothesis, profile):
            continue
        reading = watch(table, hypothesis.unit)
        rows.append(_row(hypothesis, hypothesis.outcome(reading)))
        for broken, arm in claim.sabotaged.items() if hypothesis.counts else ():
            if arm in reading.asked:
                tested.add(broken)
                row, known = _sabotage(hypothesis, table, broken, arm)
                rows.append(row)
                unseen += [] if known else [row["text"] + _noted(row)]
    preconditions = [_precondition(c, table) for c in claim.preconditions if asked_at(c, profile)]
    for broken, arm in claim.sabotaged.items():
        if broken not in tested:
            unseen.append(f"no counting hypothesis at {profile} reads {arm}, for which {broken} stands")
    verdict, reason = _verdict(rows, preconditions, unseen, profile)
    return Judgement(verdict, reason, rows, preconditions)


def _verdict(
    rows: Sequence[dict[str, Any]], preconditions: Sequence[dict[str, Any]], unseen: Sequence[str], profile: str
) -> tuple[str | None, str]:
    if profile == "smoke":
        return None, "smoke: no verdict is read"
    counting = [row for row in rows if row["counts"] and row["sabotaged"] is None]
    if not counting:
        return None, f"no hypothesis of this claim counts at {profile}"
    failed = [row for row in preconditions if not row["holds"]]
    if failed:
        return "inconclusive", _listed(
            f"{row['why'] or 'a precondition fails'} ({row['text']}{_noted(row)})" for row in failed
        )
    contradicted = [row for row in counting if row["holds"] is False]
    if contradicted:
        missed = _listed(row["text"] + _noted(row) for row in contradicted)
        return "contradicted", f"ruled out by what was measured: {missed}"
    undecided = [row for row in counting if row["holds"] is None]
    if undecided:
        return "inconclusive", "undecided: " + _listed(
            row["text"] + (_noted(row) or ", its interval lies on both sides") for row in undecided
        )
    broken = [row for row in rows if row["sabotaged"] is not None]
    held = [row["text"] for row in broken if row["holds"]]
    if held:
        return "inconclusive", f"the mechanism is not what moves this number: it also holds that {_listed(held)}"
    if unseen:
        return "inconclusive", f"the broken arm was not seen to lose: {_listed(unseen)}"
    several = "its hypothesis holds" if len(counting) == 1 else f"all {len(counting)} hypotheses hold"
    return "supported", several + (", and with the mechanism broken it does not" if broken else "")


def _row(hypothesis: Hypothesis, outcome: Outcome, sabotaged: dict[str, str] | None = None) -> dict[str, Any]:
    effect, interval = outcome.effect, outcome.interval
    return {
        "text": outcome.text,
        "effect": float(effect) if effect is not None and isfinite(effect) else None,
        "interval": [float(x) for x in interval] if interval is not None and all(map(isfinite, interval)) else None,
        "holds": None if outcome.holds is None else bool(outcome.holds),
        "n": int(outcome.n),
        "note": outcome.note,
        "counts": hypothesis.counts,
        "unit": hypothesis.unit,
        "sabotaged": sabotaged,
        "hypothesis": fields_of(hypothesis),
    }


def _sabotage(hypothesis: Hypothesis, table: Table, broken: str, arm: str) -> tuple[dict[str, Any], bool]:
    """The row with the broken arm in place, and whether its values were all there to be read."""
    reading = watch(replace(table, stands_in={**table.stands_in, arm: broken}), hypothesis.unit)
    row = _row(hypothesis, hypothesis.outcome(reading), {broken: arm})
    row["text"] += f", with {broken} in place of {arm}"
    return row, not reading.unknown


def _precondition(condition: Precondition, table: Table) -> dict[str, Any]:
    values = _every_value(condition.metric, condition.arm, table)
    bounds = [
        f"at {word} {bound:g}"
        for word, bound in (("least", condition.at_least), ("most", condition.at_most))
        if bound is not None
    ]
    low = -float("inf") if condition.at_least is None else condition.at_least
    high = float("inf") if condition.at_most is None else condition.at_most
    known = [value for value in values if isfinite(value)]
    short = [value for value in known if not low <= value <= high]
    holds: bool | None = None if len(known) < len(values) or not values else True
    notes = []
    if short:
        holds = False
        notes.append(f"{len(short)} of {len(values)} values fail")
    if len(known) < len(values) or not values:
        notes.append(f"{len(values) - len(known)} of {len(values)} values missing or not finite")
    worst = min(known, key=lambda value: min(value - low, high - value), default=None)
    return {
        "text": f"{condition.metric} of {condition.arm} {' and '.join(bounds) or 'known'} in every seed",
        "effect": worst,
        "holds": holds,
        "n": len(table.seeds),
        "note": "; ".join(notes),
        "why": condition.why,
    }


def _every_value(metric: str, arm: str, table: Table) -> list[float]:
    """The metric in every seed; where it is a dict, in every task of every seed."""
    found: list[float] = []
    rows = table.rows.get(arm, {})
    for seed in sorted(table.seeds):
        value = rows.get(seed, {}).get(metric)
        numbers = list(value.values()) if isinstance(value, dict) else [value]
        found += [float(x) if isinstance(x, int | float) else float("nan") for x in numbers]
    return found


def _listed(parts: Any) -> str:
    return "; ".join(parts)


def _noted(row: dict[str, Any]) -> str:
    return f" ({row['note']})" if row["note"] else ""
