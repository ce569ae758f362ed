"""What trials recorded example by example (`record.examples`), compared between arms: for a report's tables.

The verdict's interval is over seeds.  Beside it stand here the difference with seeds and examples both resampled
(`two_level_bootstrap`), and for outcomes of 0 and 1 the exact McNemar test of each seed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from precis.lab import words
from precis.lab.ledger import Ledger, Trial
from precis.lab.statistics import mcnemar, two_level_bootstrap

Outcomes = Mapping[str, Mapping[int, Mapping[Any, float]]]  # arm -> seed -> example -> outcome


def read_outcomes(trials: Sequence[Trial], ledger: Ledger) -> dict[str, Outcomes]:
    """{name: outcomes}; a file that is missing or altered beyond reading is left out."""
    found: dict[str, dict[str, dict[int, dict[Any, float]]]] = {}
    for trial in trials:
        for name, kept in trial.record.get("examples", {}).items():
            digest = trial.record.get("files", {}).get(kept["file"])
            try:
                told = json.loads(ledger.artefact(digest).read_text(encoding="utf-8")) if digest else {}
                its = dict(zip(told["ids"], map(float, told["outcomes"]), strict=True))
            except (OSError, ValueError, KeyError, TypeError):
                continue
            found.setdefault(name, {}).setdefault(trial.arm, {})[trial.seed] = its
    return dict(found)


def compared(outcomes: Outcomes, order: Sequence[str], alpha: float = 0.05) -> list[dict[str, Any]]:
    """The first arm of `order` against each other one, on the seeds and examples that both have."""
    first, *others = [arm for arm in order if arm in outcomes] or [""]
    rows = []
    for arm in others:
        pairs = {}
        for seed in sorted(set(outcomes[first]) & set(outcomes[arm])):
            a, b = outcomes[first][seed], outcomes[arm][seed]
            both = [key for key in a if key in b]
            if both:
                pairs[seed] = ([a[key] for key in both], [b[key] for key in both])
        if pairs:
            rows.append(_row(f"{first} − {arm}", pairs, alpha))
    return rows


def _row(label: str, pairs: Mapping[int, tuple[list[float], list[float]]], alpha: float) -> dict[str, Any]:
    gaps = [[x - y for x, y in zip(a, b)] for a, b in pairs.values()]
    sizes = sorted({len(gap) for gap in gaps})
    row: dict[str, Any] = {
        "arms": label, "seeds": len(gaps), "examples a seed": words.listed(sizes),
        "difference": sum(sum(gap) / len(gap) for gap in gaps) / len(gaps),
    }
    if len(gaps) > 1:
        found = two_level_bootstrap(gaps, alpha)
        row[f"{100 * (1 - alpha):.3g} % over seeds and examples"] = (
            f"{words.number(found.low, 3)} to {words.number(found.high, 3)}"
        )
    if all(value in (0.0, 1.0) for pair in pairs.values() for side in pair for value in side):
        row["McNemar's p, seed by seed"] = ", ".join(f"{mcnemar(a, b).p:.2g}" for a, b in pairs.values())
    return row
