"""What an entry of `check` says, in words: numbers, hypotheses, verdicts, times; for pages, Markdown and RESULTS.md.

A row of `entry["hypotheses"]` may carry `hypothesis`, the fields of the hypothesis and its `kind`: then the sentence
names arms and metric, and the claimed side can be drawn; else its own text and numbers serve.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Number = int | float

VERDICTS = ("supported", "contradicted", "inconclusive", "no verdict", "not run")
MARKS = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "no verdict": "–", "not run": "–"}
MEANING = {
    "supported": "every counting hypothesis holds: its interval lies wholly on the claimed side",
    "contradicted": "the interval of at least one counting hypothesis lies wholly on the other side",
    "inconclusive": "the intervals do not tell, or something the claim rests on did not hold",
    "no verdict": "its trials ran, and no verdict is read from them",
    "not run": "nothing was run",
}
UNDECIDED = "undecided: too little to tell"  # of an arm broken on purpose


def verdict_of(entry: Row) -> str:
    """One of VERDICTS; a null verdict is "no verdict" where trials ran (smoke), else "not run"."""
    verdict = entry.get("verdict")
    if verdict in VERDICTS:
        return str(verdict)
    return "no verdict" if entry.get("n") and entry.get("ran", True) else "not run"


def number(value: Any, digits: int = 3) -> str:
    """A number as one would write it: 9.1, −0.002, 12,345, 3.2e−07; "–" for none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return _written(value, _decimals(value, digits), digits)


def _decimals(value: Number, digits: int) -> int:
    """Decimals at which a number has that many significant digits."""
    return 0 if not value or not math.isfinite(value) else max(0, digits - 1 - math.floor(math.log10(abs(value))))


def _written(value: Number, decimals: int, digits: int = 3) -> str:
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e6 or (isinstance(value, int) and abs(value) < 1e15):
        text = f"{value:,.{0 if isinstance(value, int) or value == 0 else decimals}f}"
        if "." in text and float(text.replace(",", "")) == int(value):
            text = text.split(".")[0]
        text = "0" if text == "-0" else text
    else:
        text = f"{value:.{digits - 1}e}".replace("e+", "e")
    return text.replace("-", "−")


def duration(seconds: Any) -> str:
    """41 s, 2.5 min, 1.2 h."""
    if not isinstance(seconds, int | float):
        return "–"
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def interval_words(interval: Any) -> str:
    """ "8.3 to 9.9", both ends to the same place: the second digit of the width."""
    if not interval:
        return ""
    low, high = map(float, interval)
    width = high - low
    decimals = _decimals(width, 2) if width else _decimals(high, 3)
    return f"{_written(low, decimals)} to {_written(high, decimals)}"


def replications(row: Row) -> str:
    """ "5 seeds", "12 tasks"."""
    return counted(row["n"], row.get("unit") or "seed") if row.get("n") else ""


def counted(n: int, noun: str) -> str:
    """ "1 picture", "2 pictures"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def sentence(row: Row, alpha: Number = 0.05) -> str:
    """ "siren's psnr is 9.1 above relu's, 95 % interval 8.3 to 9.9, 5 seeds"."""
    effect, interval = row.get("effect"), row.get("interval")
    if effect is None:
        return f"{row.get('text', '')}: no number"
    kind = as_played(row)
    width = interval[1] - interval[0] if interval else 0.0
    size = _written(abs(float(effect)), _decimals(width, 2) if width else _decimals(effect, 4), 4)
    said, turned = _two_arms(kind, effect, size)
    said = said or f"{row.get('text', '')}: {'−' if effect < 0 else ''}{size}"
    interval = (-interval[1], -interval[0]) if interval and turned else interval
    exact = kind.get("kind") == "Exact"
    level = f"{100 * (1 - alpha):.4g}\u00a0% interval"
    parts = [said, f"{level} {interval_words(interval)}" if interval else "exact" if exact else "", replications(row)]
    asked = "" if row.get("holds") else _asked(kind)
    return ", ".join(part for part in parts if part) + (f"; {asked} was claimed" if said and asked else "")


def fields_of(hypothesis: Any) -> dict[str, Any]:
    """{"kind": "Greater", "metric": "psnr", "a": "siren", …}: what a row carries as `hypothesis` beside its own fields.

    JSON values only: functions and infinite bounds are left out, and so is what is None.
    """
    kept: dict[str, Any] = {"kind": type(hypothesis).__name__}
    for field in dataclasses.fields(hypothesis) if dataclasses.is_dataclass(hypothesis) else ():
        value = getattr(hypothesis, field.name)
        if value is None or field.name in ("counts", "profiles", "unit"):
            continue
        value = list(value) if isinstance(value, tuple) else value
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            continue
        kept[field.name] = value
    return kept


def as_played(row: Row) -> dict[str, Any]:
    """The row's hypothesis with the broken arm's name in the place of the arm it plays."""
    kind, played = dict(row.get("hypothesis") or {}), {arm: b for b, arm in (row.get("sabotaged") or {}).items()}
    for name, value in kind.items():
        if name not in ("kind", "metric", "text", "unit"):
            kind[name] = [_played(v, played) for v in value] if isinstance(value, list) else _played(value, played)
    return kind


def _played(value: Any, played: Mapping[str, str]) -> Any:
    return played.get(value, value) if isinstance(value, str) else value


def arms_of(entry: Row) -> list[str]:
    """The claim's arms, then those broken on purpose."""
    places = (entry.get("arms"), entry.get("sabotaged"), entry.get("metrics"))
    return list(dict.fromkeys(arm for place in places for arm in place or ()))


def pair_of(kind: Row) -> tuple[str, str] | None:
    """(x, y) of a hypothesis whose effect is the mean of x − y; None if it is not of two arms."""
    a, b = kind.get("a"), kind.get("b")
    if kind.get("kind") not in ("Greater", "Less", "NotWorse", "Equivalent", "Differs"):
        return None
    if not (isinstance(a, str) and isinstance(b, str)):
        return None
    turned = kind["kind"] == "Less" or kind.get("maximise") is False
    return (b, a) if turned else (a, b)


def claimed_side(kind: Row) -> tuple[Number | None, Number | None] | None:
    """Where the claim says the interval lies, None where a side is open; None if that is not one stretch."""
    name, get = str(kind.get("kind")), kind.get
    if name in ("Greater", "Less", "Interaction", "Ordered"):
        return (get("by") or 0.0, None)
    if name == "Spread":
        return (get("ratio"), None)
    if name == "NotWorse":
        return (-kind["margin"], None)
    if name == "Equivalent":
        target = get("target") if get("target") is not None else get("b")
        middle = target if isinstance(target, int | float) and isinstance(get("a"), str) else 0.0
        return (middle - kind["within"], middle + kind["within"])
    if name == "AtLeast":
        return (kind["value"], None)
    if name == "AtMost":
        return (None, kind["value"])
    if name == "Between":
        return (kind["low"], kind["high"])
    between = get("between")
    if name in ("Trend", "Statistic") and between:
        return (between[0], between[1])
    if name == "Trend":
        return (None, -(get("by") or 0.0)) if get("falling") else (get("by") or 0.0, None)
    if name in ("Proportion", "Statistic"):
        low, high = get("at_least"), get("at_most")
        return (0.0 if low is None and high is None else low, high)
    return None


def _two_arms(kind: Row, effect: Number, size: str) -> tuple[str, bool]:
    """The arm that the claim names first stands first, whichever way the effect is counted; and whether an interval of
    the effect has to be turned round to go with that."""
    pair, metric = pair_of(kind), kind.get("metric")
    if pair is None or not metric:
        return "", False
    a, b = kind["a"], kind["b"]
    straight = pair == (a, b)
    if not size.strip("0."):
        said, turned = f"is {'level with' if effect else 'equal to'}", not straight
    else:
        up, turned = (effect >= 0) == straight, effect < 0
        said = f"is {size} {'above' if up else 'below'}"
    return f"{a}'s {metric} {said} {b}'s", turned


def _asked(kind: Row) -> str:
    """What a claim of two arms says beyond a direction."""
    if pair_of(kind) is None:
        return ""
    name, by = kind["kind"], kind.get("by")
    if name in ("Greater", "Less") and by:
        return f"{by:.3g} {'above' if name == 'Greater' else 'below'}"
    if name == "NotWorse":
        return f"at most {kind['margin']:.3g} {'above' if kind.get('maximise') is False else 'below'}"
    return f"at most {kind['within']:.3g} apart" if name == "Equivalent" else ""


def held(row: Row) -> str:
    """What became of the hypothesis: holds, does not hold, undecided; of a sabotaged row, that it passed or lost."""
    if row.get("sabotaged"):
        return {True: "passed, and must not", False: "lost, as it must", None: UNDECIDED}[row.get("holds")]
    return {True: "holds", False: "does not hold", None: "undecided"}[row.get("holds")]


def is_well(row: Row) -> bool | None:
    """Whether the row speaks for the claim; None if it does not tell.  A broken arm does by losing: one that is
    undecided has not passed, which is all that the verdict asks, but was not seen to lose."""
    holds: bool | None = row.get("holds")
    return not holds if row.get("sabotaged") and holds is not None else holds


def sabotage_words(row: Row) -> str:
    """ "shuffled in the place of siren"."""
    return ", ".join(f"{broken} in the place of {arm}" for broken, arm in (row.get("sabotaged") or {}).items())


def headline(entry: Row) -> str:
    """The sentence that a person wants beside the verdict: the first counting hypothesis, or the reason."""
    rows = [r for r in entry.get("hypotheses") or [] if not r.get("sabotaged") and r.get("counts", True)]
    alpha = entry.get("alpha") or 0.05
    told = [sentence(r, alpha) for r in rows if r.get("effect") is not None]
    if verdict_of(entry) in ("supported", "contradicted") and told:
        if verdict_of(entry) == "contradicted":
            told = [sentence(r, alpha) for r in rows if r.get("holds") is False] or told
        return told[0] + (f" (and {len(told) - 1} more)" if len(told) > 1 else "")
    return str(entry.get("reason") or (told[0] if told else ""))


def scale_words(entry: Row) -> str:
    """ "quick (48×48, width 64, 5 seeds)"; with data of one's own what the settings were made for is no longer told as
    what was run: "quick (on pets, by the settings for: 8×8 digits, 2 epochs, 5 seeds)".
    """
    inside = [str(entry["scale"])] if entry.get("scale") else []
    if entry.get("data"):
        name = Path(str(entry["data"])).name
        inside = [f"on {name}, by the settings for: {inside[0]}" if inside else f"on {name}"]
    if entry.get("n"):
        inside.append(counted(entry["n"], "seed"))
    return f"{entry.get('profile', '')} ({', '.join(inside)})" if inside else str(entry.get("profile", ""))


def paper_of(entry: Row) -> str:
    return str(entry["id"]).split("/", 1)[0]


def claim_of(entry: Row) -> str:
    return str(entry["id"]).split("/", 1)[-1]


def listed(words: Any) -> str:
    """ "a, b and c"."""
    words = [str(w) for w in words]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
