"""Shares, spreads, statistics of a table and exact figures: what is particular to each."""

import numpy as np
import pytest
from scipy import stats
from tests.lab.tables import spread, table

from precis.lab import Exact, Proportion, Spread, Statistic
from precis.lab.statistics import one_sample


def test_share_of_outcomes_has_the_exact_interval():
    outcome = Proportion("m", "a", at_least=0.5).outcome(table(a=[1] * 9 + [0]))
    theirs = stats.binomtest(9, 10).proportion_ci(method="exact")
    assert outcome.interval == pytest.approx((theirs.low, theirs.high)) and outcome.effect == 0.9
    assert outcome.holds is True and "exact" in outcome.note


def test_paired_shares_agree_with_the_exact_mcnemar_test():
    for only_a, only_b, both in ((9, 1, 4), (6, 0, 0), (5, 0, 3), (8, 2, 0), (1, 9, 2), (0, 5, 1)):
        a, b = [1] * only_a + [0] * only_b + [1] * both, [0] * only_a + [1] * only_b + [1] * both
        p = stats.binomtest(only_a, only_a + only_b).pvalue
        holds = None if p > 0.05 else only_a > only_b
        assert Proportion("m", "a", "b").outcome(table(a=a, b=b)).holds is holds


def test_paired_shares_with_a_margin():
    a, b = [1] * 18 + [0] * 2, [0] * 19 + [1]
    assert Proportion("m", "a", "b", at_least=0.3).outcome(table(a=a, b=b)).holds is True
    assert Proportion("m", "a", "b", at_most=0.3).outcome(table(a=a, b=b)).holds is False


def test_shares_of_several_outcomes_take_seeds_as_clusters():
    a, b = [0.8, 0.7, 0.9, 1.0], [0.5, 0.5, 0.6, 0.4]
    outcome = Proportion("m", "a", "b").outcome(table(a=a, b=b))
    found = one_sample(np.subtract(a, b))
    assert outcome.interval == pytest.approx((found.low, found.high)) and "clusters" in outcome.note


def test_what_is_no_share():
    outcome = Proportion("m", "a", at_most=0.5).outcome(table(a=[0, 1, 2]))
    assert outcome.holds is None and outcome.effect is None and "no share" in outcome.note


def test_spread_wants_ten_seeds_and_arms_that_vary():
    few = Spread("m", "a", "b").outcome(table(a=spread(0, 9, 9), b=spread(0, 1, 9)))
    assert few.holds is None and "10 are the least" in few.note and few.effect == pytest.approx(9)
    flat = Spread("m", "a", "b").outcome(table(a=spread(0, 9, 12), b=[0.1] * 12))
    assert flat.holds is None and "vary" in flat.note


def gap(t):
    a, b = t.values("m", "a"), t.values("m", "b")
    return np.mean([a[key] - b[key] for key in a])


def median(t):
    return np.median(list(t.values("m", "a").values()))


def test_a_mean_as_a_statistic_is_the_paired_t_interval():
    a, b = [3.0, 4.0, 5.5, 4.1, 4.0], [1.0, 3.0, 2.0, 2.2, 0.1]
    found = one_sample(np.subtract(a, b))
    jack = Statistic(gap, at_least=0).outcome(table(a=a, b=b))
    assert jack.interval == pytest.approx((found.low, found.high)) and jack.n == 5 and jack.text == "gap at least 0"
    boot = Statistic(gap, at_least=0, resample="bootstrap", text="mean gap").outcome(table(a=a, b=b))
    assert boot.interval == pytest.approx((found.low, found.high), abs=0.1) and boot.text == "mean gap at least 0"


def test_a_bootstrap_keeps_the_number_of_seeds_and_the_pairs():
    lengths, torn = set(), []

    def watched(t):
        a, b = t.values("m", "a"), t.values("m", "b")
        lengths.add(len(a))
        torn.extend(key for key in a if a[key] != -b[key])
        return sum(a.values())

    Statistic(watched, at_least=0, resample="bootstrap").outcome(table(a=spread(2), b=[-x for x in spread(2)]))
    assert lengths == {5} and not torn
    Statistic(watched, at_least=0).outcome(table(a=spread(2), b=[-x for x in spread(2)]))
    assert lengths == {4, 5} and not torn


def test_a_statistic_that_swallows_what_is_missing_is_not_believed():
    def careless(t):
        return np.nanmean(list(t.values("m", "a").values()))

    outcome = Statistic(careless, at_least=0).outcome(table(a=[1, 2, 3, float("nan"), 2]))
    assert outcome.holds is None and "1 values missing or not finite: m of a" in outcome.note


def test_a_statistic_that_cannot_be_computed():
    assert Statistic(lambda t: 1 / gap(t), at_least=0).outcome(table(a=[1] * 4, b=[1] * 4)).holds is None
    # finite for all seeds, but not with the only seed that differs left out
    def inverse(t):
        return 1.0 / float(np.ptp(list(t.values("m", "a").values())))

    outcome = Statistic(inverse, at_least=0).outcome(table(a=[1, 1, 1, 2]))
    assert outcome.holds is None and "left out" in outcome.note and outcome.effect == 1
    drawn = Statistic(inverse, at_least=0, resample="bootstrap").outcome(table(a=[1, 1, 1, 2]))
    assert drawn.holds is None and "resamples" in drawn.note


def test_exact_needs_one_run_and_no_interval():
    outcome = Exact("m", "a", 1605632).outcome(table(a=[1605632]))
    assert (outcome.effect, outcome.interval, outcome.holds, outcome.n) == (1605632, None, True, 1)
    assert outcome.note == "exact"
    wrong = Exact("m", "a", 1605632).outcome(table(a=[1605633]))
    assert wrong.holds is False and wrong.effect == 1605633


@pytest.mark.parametrize(
    ("relation", "values"),
    [
        ("==", (True, False, False)), ("<=", (True, True, False)), (">=", (True, False, True)),
        ("<", (False, True, False)), (">", (False, False, True)),
    ],
)
def test_exact_relations(relation, values):
    found = [Exact("m", "a", 2, relation).outcome(table(a=[x])).holds for x in (2, 1, 3)]
    assert tuple(found) == values
    found = [Exact("m", "a", "b", relation).outcome(table(a=[x], b=[2])).holds for x in (2, 1, 3)]
    assert tuple(found) == values


def test_exact_within_a_tolerance():
    assert Exact("m", "a", 1.0, tolerance=0.1).outcome(table(a=[1.1])).holds is True
    assert Exact("m", "a", 1.0, tolerance=0.1).outcome(table(a=[1.11])).holds is False
    assert Exact("m", "a", 1e-10, "<=").outcome(table(a=[3e-14])).holds is True
    assert Exact("m", "a", 1.0, ">=", tolerance=0.1).outcome(table(a=[0.95])).holds is True


def test_exact_relation_of_several_arms():
    quarter = Exact("m", ("a", "b"), relation=lambda a, b: a == 4 * b, text="a takes four times what b takes")
    outcome = quarter.outcome(table(a=[1605632], b=[401408]))
    assert outcome.holds is True and outcome.text == "a takes four times what b takes"
    assert "b 401408" in outcome.note
    assert quarter.outcome(table(a=[1605632], b=[401409])).holds is False


def test_exact_seeds_that_disagree():
    outcome = Exact("m", "a", 12).outcome(table(a=[12, 12, 13]))
    assert outcome.holds is False and outcome.effect == 13 and outcome.n == 3
    assert "seeds disagree: 1 of 3 do not fit" in outcome.note and "from 12 to 13" in outcome.note


def test_exact_that_is_missing():
    outcome = Exact("m", "a", 12).outcome(table(a=[float("nan")]))
    assert outcome.holds is None and outcome.effect is None and "missing or not finite" in outcome.note
