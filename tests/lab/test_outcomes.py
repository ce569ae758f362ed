"""Outcomes example by example: from the ledger's files to the rows of a report."""

import json
from pathlib import Path

import pytest
from tests.lab.evidence import SEEDS

from precis.lab.ledger import Ledger, Trial
from precis.lab.outcomes import compared, read_outcomes
from precis.lab.statistics import mcnemar, two_level_bootstrap


def right(arm: str, seed: int, i: int) -> int:
    return int((i * 7 + seed * 3) % 10 < {"method": 8, "baseline": 5, "other": 8}[arm])


@pytest.fixture
def trials(tmp_path: Path) -> tuple[list[Trial], Ledger]:
    ledger = Ledger(tmp_path / "home")
    keys = []
    for arm in ("method", "baseline", "other"):
        for seed in SEEDS:
            folder = tmp_path / f"{arm}-{seed}"
            folder.mkdir()
            ids = range(5 if arm == "other" else 0, 40)
            outcomes = [right(arm, seed, i) for i in ids]
            (folder / "examples-right.json").write_text(json.dumps({"ids": list(ids), "outcomes": outcomes}))
            record = {"examples": {"right": {"file": "examples-right.json", "n": len(outcomes)}}}
            keys.append(f"{arm}-{seed}")
            ledger.add(Trial(keys[-1], "p", "r", "c", arm, seed, "quick", {}, "d", "s", "cpu", {}, record, 1.0, 1.0, {},
                             "h", "2026-01-01T00:00:00+00:00"), folder)  # fmt: skip
    return list(ledger.trials(keys).values()), ledger


def test_rows_are_those_of_the_statistics(trials: tuple[list[Trial], Ledger]) -> None:
    outcomes = read_outcomes(*trials)["right"]
    rows = compared(outcomes, ["method", "baseline", "other", "absent"])
    assert [row["arms"] for row in rows] == ["method − baseline", "method − other"]
    gaps = [[right("method", s, i) - right("baseline", s, i) for i in range(40)] for s in SEEDS]
    found = two_level_bootstrap(gaps)
    assert rows[0]["difference"] == pytest.approx(found.estimate) and found.low < found.estimate < found.high
    told = rows[0]["95 % over seeds and examples"]
    assert [float(word) for word in told.split(" to ")] == pytest.approx([found.low, found.high], abs=5e-3)
    p = [mcnemar(*([right(arm, s, i) for i in range(40)] for arm in ("method", "baseline"))).p for s in SEEDS]
    assert rows[0]["McNemar's p, seed by seed"] == ", ".join(f"{one:.2g}" for one in p) and max(p) < 0.01
    assert rows[1]["difference"] == 0 and rows[1]["examples a seed"] == "35", "examples that both arms have"


def test_what_cannot_be_compared_is_left_out(trials: tuple[list[Trial], Ledger]) -> None:
    kept, ledger = trials
    for trial in kept:
        if trial.arm != "method":
            ledger.artefact(trial.record["files"]["examples-right.json"]).unlink(missing_ok=True)
    outcomes = read_outcomes(kept, ledger)["right"]
    assert set(outcomes) == {"method"} and compared(outcomes, ["method", "baseline"]) == []
    graded = {arm: {0: {"a": 0.5, "b": value}} for arm, value in (("x", 1.5), ("y", 0.5))}
    (row,) = compared(graded, ["x", "y"])
    assert row == {"arms": "x − y", "seeds": 1, "examples a seed": "2", "difference": 0.5}
