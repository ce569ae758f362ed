"""The verdict: hypotheses, preconditions, broken arms, in that order of say."""

import json
from dataclasses import dataclass, replace
from math import nan

import numpy as np
import pytest
from tests.lab.tables import spread, table

from precis.lab import AtLeast, Claim, Exact, Greater, Less, Outcome, Precondition, Statistic, Table
from precis.lab.judge import judge


class Shown(Claim):
    name, statement, arms = "shown", "a is better than b", ("a", "b")
    hypotheses = (Greater("m", "a", "b", by=1),)


class Mechanism(Shown):
    arms = ("a", "b", "shuffled")
    sabotaged = {"shuffled": "a"}


GOOD, BAD, WIDE = table(a=spread(5), b=spread(1)[::-1]), table(a=spread(1), b=spread(5)[::-1]), table(
    a=spread(3, 4), b=spread(1)
)


@pytest.mark.parametrize(
    ("t", "verdict", "reason"),
    [
        (GOOD, "supported", "its hypothesis holds"),
        (BAD, "contradicted", "ruled out by what was measured: m of a above b by 1"),
        (WIDE, "inconclusive", "undecided: m of a above b by 1, its interval lies on both sides"),
    ],
)
def test_one_hypothesis(t, verdict, reason):
    found = judge(Shown, t, "quick")
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.preconditions == []
    (row,) = found.rows
    assert set(row) == {"text", "effect", "interval", "holds", "n", "note", "counts", "unit", "sabotaged", "hypothesis"}
    assert row["hypothesis"] == {"kind": "Greater", "metric": "m", "a": "a", "b": "b", "by": 1}
    assert row["counts"] is True and row["unit"] == "seed" and row["sabotaged"] is None and row["n"] == 5
    assert json.loads(json.dumps(found)) == [found.verdict, found.reason, found.rows, []]


def test_several_hypotheses():
    hypotheses = (Greater("m", "a", "b"), AtLeast("m", "a", 3), Less("m", "b", "a"))
    claim = type("Several", (Shown,), {"hypotheses": hypotheses})
    assert judge(claim, GOOD, "quick").verdict == "supported"
    assert judge(claim, GOOD, "quick").reason == "all 3 hypotheses hold"
    one_open = table(a=spread(5, 3), b=spread(-9))
    assert judge(claim, one_open, "quick").verdict == "inconclusive"
    # contradicted wins over undecided
    assert judge(claim, table(a=spread(0), b=spread(0, 3)), "quick").verdict == "contradicted"


def test_what_does_not_count_is_shown_only():
    context = AtLeast("m", "a", 100, counts=False)
    claim = type("Context", (Shown,), {"hypotheses": (*Shown.hypotheses, context)})
    found = judge(claim, GOOD, "quick")
    assert found.verdict == "supported" and found.rows[1]["holds"] is False and found.rows[1]["counts"] is False
    alone = type("Alone", (Shown,), {"hypotheses": (context,)})
    assert judge(alone, GOOD, "quick")[:2] == (None, "no hypothesis of this claim counts at quick")


def test_a_hypothesis_of_another_profile_is_left_out():
    claim = type("Full", (Shown,), {"hypotheses": (*Shown.hypotheses, AtLeast("m", "a", 100, profiles=("full",)))})
    assert len(judge(claim, GOOD, "quick").rows) == 1
    assert judge(claim, GOOD, "full").verdict == "contradicted"


def test_smoke_reads_no_verdict_but_runs_the_hypotheses():
    found = judge(Mechanism, GOOD, "smoke")
    assert found[:2] == (None, "smoke: no verdict is read") and found.rows[0]["holds"] is True


def test_a_missing_value_is_inconclusive_and_says_which():
    found = judge(Shown, table(a=[5, 5, nan], b=[1, 1, 1]), "quick")
    assert found.verdict == "inconclusive" and "1 of 6 values of m missing or not finite: a (seed 2)" in found.reason
    assert found.rows[0]["effect"] is None and found.rows[0]["interval"] is None


# The broken arm


def with_broken(values, t=GOOD):
    return replace(t, rows={**t.rows, "shuffled": {s: {"m": v} for s, v in enumerate(values)}})


def test_the_broken_arm_must_lose():
    found = judge(Mechanism, with_broken(spread(1)), "quick")
    assert found.verdict == "supported" and found.reason.endswith("with the mechanism broken it does not")
    assert found.rows[1]["sabotaged"] == {"shuffled": "a"} and found.rows[1]["holds"] is False
    assert found.rows[1]["text"] == "m of a above b by 1, with shuffled in place of a"
    assert found.rows[1]["effect"] == pytest.approx(0)


def test_a_broken_arm_that_wins_as_well():
    found = judge(Mechanism, with_broken(spread(6)), "quick")
    assert found.verdict == "inconclusive"
    assert found.reason.startswith("the mechanism is not what moves this number: it also holds that m of a above b")


def test_a_broken_arm_left_undecided_has_not_held():
    found = judge(Mechanism, with_broken(spread(3, 4)), "quick")
    assert found.rows[1]["holds"] is None and found.verdict == "supported"


@pytest.mark.parametrize("t", [GOOD, with_broken([1, 1, 1, 1, nan]), with_broken([1, 1])])
def test_a_broken_arm_that_never_ran_proves_nothing(t):
    found = judge(Mechanism, t, "quick")
    assert found.verdict == "inconclusive" and "the broken arm was not seen to lose" in found.reason
    assert "missing or not finite: shuffled" in found.reason


def test_a_broken_arm_does_not_save_or_change_other_verdicts():
    assert judge(Mechanism, with_broken(spread(9), BAD), "quick").verdict == "contradicted"
    assert judge(Mechanism, with_broken(spread(1), WIDE), "quick").reason.startswith("undecided")


def test_only_hypotheses_that_count_and_read_the_arm_are_tried_with_the_broken_one():
    hypotheses = (
        Greater("m", "a", "b"), AtLeast("m", "b", 0), AtLeast("m", "a", 0, counts=False),
        Statistic(lambda t: sum(t.values("m", "a").values()), at_least=20, text="sum"),
    )
    claim = type("Some", (Mechanism,), {"hypotheses": hypotheses})
    found = judge(claim, with_broken(spread(0)), "quick")
    assert [row["text"] for row in found.rows if row["sabotaged"]] == [
        "m of a above b, with shuffled in place of a", "sum at least 20, with shuffled in place of a",
    ]
    assert found.verdict == "supported"


def test_a_broken_arm_that_no_hypothesis_tries_is_told():
    claim = type("Untried", (Mechanism,), {"hypotheses": (AtLeast("m", "b", 0),)})
    found = judge(claim, with_broken(spread(0)), "quick")
    assert found.verdict == "inconclusive"
    assert "no counting hypothesis at quick reads a, for which shuffled stands" in found.reason


def test_a_broken_baseline_in_its_place():
    class Baseline(Shown):
        arms = ("a", "b", "handicapped")
        sabotaged = {"handicapped": "b"}

    t = replace(GOOD, rows={**GOOD.rows, "handicapped": GOOD.rows["b"]})
    assert judge(Baseline, t, "quick").verdict == "inconclusive"
    t = replace(GOOD, rows={**GOOD.rows, "handicapped": GOOD.rows["a"]})
    assert judge(Baseline, t, "quick").verdict == "supported"


# Preconditions


def conditioned(*conditions):
    return type("Conditioned", (Shown,), {"preconditions": conditions})


def test_a_precondition_of_every_seed():
    fitted = Precondition("m", "a", at_least=4.9, why="the net was not fitted")
    t = table(a=[5, 5.1, 5.2], b=[1, 1, 1.1])
    assert judge(conditioned(fitted), t, "quick").verdict == "supported"
    found = judge(conditioned(fitted), table(a=[5, 4.8, 5.2], b=[1, 1, 1.1]), "quick")
    assert found.verdict == "inconclusive"
    assert found.reason == (
        "the net was not fitted (m of a at least 4.9 in every seed (1 of 3 values fail))"
    )
    (row,) = found.preconditions
    assert (row["holds"], row["effect"], row["n"], row["why"]) == (False, 4.8, 3, "the net was not fitted")
    # and it comes before a contradiction
    assert judge(conditioned(fitted), BAD, "quick").verdict == "inconclusive"


def test_a_precondition_between_two_bounds_and_on_them():
    both = Precondition("m", "b", at_least=1, at_most=2, why="the control did not learn")
    assert judge(conditioned(both), table(a=[5] * 3, b=[1, 2, 1.5]), "quick").preconditions[0]["holds"] is True
    assert judge(conditioned(both), table(a=[5] * 3, b=[1, 2.1, 1.5]), "quick").preconditions[0]["effect"] == 2.1
    known = judge(conditioned(Precondition("m", "b")), GOOD, "quick").preconditions[0]
    assert known["holds"] is True and known["text"] == "m of b known in every seed"


def test_a_precondition_of_one_profile():
    hard = Precondition("m", "a", at_least=9, why="not fitted", profiles=("full",))
    easy = Precondition("m", "a", at_least=1, why="not fitted", profiles=("quick", "smoke"))
    claim = conditioned(hard, easy)
    assert [row["text"] for row in judge(claim, GOOD, "quick").preconditions] == ["m of a at least 1 in every seed"]
    assert judge(claim, GOOD, "quick").verdict == "supported" and judge(claim, GOOD, "full").verdict == "inconclusive"
    assert judge(claim, GOOD, "paper").preconditions == []


@pytest.mark.parametrize("b", [[1, nan, 1], [1, 1], [1, None, 1]])
def test_a_precondition_that_is_not_known(b):
    context = type("Unknown", (Shown,), {
        "preconditions": (Precondition("m", "b", at_most=2, why="no control"),), "hypotheses": (AtLeast("m", "a", 0),),
    })
    found = judge(context, table(a=[5, 5.1, 5], b=b), "quick")
    assert found.preconditions[0]["holds"] is None
    assert found.verdict == "inconclusive" and "1 of 3 values missing or not finite" in found.reason
    assert judge(context, replace(GOOD, rows={"a": GOOD.rows["a"]}), "quick").verdict == "inconclusive"


def test_a_precondition_on_every_task():
    t = table(a=[{"x": 1.0, "y": 3.0}, {"x": 1.0, "y": 0.5}])
    row = judge(conditioned(Precondition("m", "a", at_least=1)), t, "quick").preconditions[0]
    assert row["holds"] is False and row["effect"] == 0.5 and row["note"] == "1 of 4 values fail"


# What else may come


def test_a_hypothesis_of_a_papers_own_is_made_safe_for_json():
    @dataclass(frozen=True)
    class Own:
        counts: bool = True
        profiles: tuple[str, ...] | None = None
        unit: str = "task"

        def outcome(self, t: Table) -> Outcome:
            assert t.unit == "task" and t.values("m", "a")
            return Outcome("own", np.float64(nan), (0.0, float("inf")), np.bool_(True), 3, "")

    claim = type("WithOwn", (Shown,), {"hypotheses": (Own(),)})
    found = judge(claim, table(a=[{"x": 1.0}] * 3), "quick")
    assert found.verdict == "supported" and json.loads(json.dumps(found.rows[0], allow_nan=False))["effect"] is None


def test_one_run_of_exact_figures():
    claim = type("Counts", (Shown,), {"hypotheses": (Exact("m", "a", 12), Exact("m", "a", "b", ">"))})
    assert judge(claim, table(a=[12], b=[11]), "quick").verdict == "supported"
    assert judge(claim, table(a=[12], b=[13]), "quick").verdict == "contradicted"


def test_the_order_of_trials_does_not_matter():
    t = with_broken(spread(1))
    rows = {arm: dict(reversed(by_seed.items())) for arm, by_seed in reversed(t.rows.items())}
    turned = replace(t, seeds=t.seeds[::-1], rows=rows)
    assert judge(Mechanism, turned, "quick") == judge(Mechanism, t, "quick")


def test_the_alpha_of_a_look_is_kept():
    t = table(a=[3.0, 4.0, 5.2, 3.5], b=[1.0, 2.2, 1.0, 2.0])
    assert judge(Shown, t, "quick").verdict == "inconclusive"
    claim = type("Zero", (Shown,), {"hypotheses": (Greater("m", "a", "b"),)})
    assert judge(claim, t, "quick").verdict == "supported"
    assert judge(claim, replace(t, alpha=0.002), "quick").verdict == "inconclusive"
