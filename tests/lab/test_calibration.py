"""How often the verdict is wrong, simulated: the promise behind every "supported".

Each side of a 95 % interval errs in 2.5 % of checks; bounds below are that plus four standard errors of the simulation.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from precis.lab import (
    AtLeast,
    Claim,
    Differs,
    Equivalent,
    Greater,
    Interaction,
    Less,
    NotWorse,
    Ordered,
    Proportion,
    Spread,
    Statistic,
    Table,
    Trend,
)
from precis.lab.judge import judge
from precis.lab.statistics import look_alpha, looks, one_sample

ARMS = "abcd"
CHECKS = 1200


def tables(values, alpha=0.05):
    """A table for each of values [checks, arms, seeds]."""
    for check in values.tolist():
        yield Table(
            {arm: {s: {"m": x} for s, x in enumerate(row)} for arm, row in zip(ARMS, check)},
            tuple(range(len(check[0]))),
            alpha,
        )


def share(hypothesis, values, holds=True):
    return np.mean([hypothesis.outcome(t).holds is holds for t in tables(values)])


def at_most(rate, checks):
    return rate + 4 * np.sqrt(rate * (1 - rate) / checks)


def normal(checks, arms, seeds, means=0.0, key=0):
    """Paired seeds: what a seed does to all arms, and what it does to each."""
    generator = np.random.default_rng([key, arms, seeds])
    both = 3 * generator.standard_normal((checks, 1, seeds))
    return both + generator.standard_normal((checks, arms, seeds)) + np.reshape(means, (-1, 1))


def gap(t):
    a, b = t.values("m", "a"), t.values("m", "b")
    return sum(a[key] - b[key] for key in a) / len(a)


# Each with the truth on its bound, where it errs most often.
NULL = {
    "greater": (Greater("m", "a", "b", by=2), [2, 0]),
    "less": (Less("m", "a", "b"), [0, 0]),
    "not worse": (NotWorse("m", "a", "b", margin=1), [-1, 0]),
    "equivalent": (Equivalent("m", "a", "b", within=3), [3, 0]),
    "at least": (AtLeast("m", "a", 1), [1]),
    "trend": (Trend("m", ("a", "b", "c")), [0, 0, 0]),
    "interaction": (Interaction("m", ("a", "b"), ("c", "d")), [0, 0, 0, 0]),
    "ordered": (Ordered("m", ("a", "b", "c")), [9, 0, 0]),
    "statistic": (Statistic(gap, at_least=0), [0, 0]),
}


@pytest.mark.parametrize("name", NULL)
@pytest.mark.parametrize("seeds", [3, 5])
def test_no_true_effect_is_supported_in_2_5_percent_at_most(name, seeds):
    hypothesis, means = NULL[name]
    if name == "statistic":
        seeds += 1  # four are its least
    values = normal(CHECKS, len(means), seeds, means)
    wrong = share(hypothesis, values)
    assert 0.01 < wrong < at_most(0.025, CHECKS)
    if name not in ("equivalent", "ordered"):
        assert share(hypothesis, values, False) < at_most(0.025, CHECKS)


def test_differs_errs_in_5_percent():
    assert 0.03 < share(Differs("m", "a", "b", margin=0), normal(CHECKS, 2, 5)) < at_most(0.05, CHECKS)


def test_equivalence_and_difference_are_never_both_wrong_often():
    """Contradicted "differs": the truth lies on the margin."""
    values = normal(CHECKS, 2, 12, [1.5, 0])
    assert share(Differs("m", "a", "b", margin=1.5), values, False) < at_most(0.025, CHECKS)


def test_spread_of_arms_that_vary_alike():
    assert 0.01 < share(Spread("m", "a", "b"), normal(CHECKS, 2, 10)) < at_most(0.03, CHECKS)  # a jackknife: near 2.5 %


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_shares_err_in_2_5_percent_at_most(p):
    outcomes = (np.random.default_rng(1).random((CHECKS, 2, 9)) < p).astype(float)
    assert share(Proportion("m", "a", at_least=p), outcomes) < at_most(0.025, CHECKS)
    assert share(Proportion("m", "a", at_most=p), outcomes) < at_most(0.025, CHECKS)
    assert share(Proportion("m", "a", "b"), outcomes) < at_most(0.025, CHECKS)
    assert share(Proportion("m", "a", "b", at_least=-0.1), outcomes, False) < at_most(0.025, CHECKS)


def worst_gain(t):
    columns = [t.values("m", arm) for arm in "abc"]
    return max(sum(column.values()) / len(column) for column in columns)


def test_a_maximum_at_most_errs_rarely_and_the_other_way_often():
    """Why Statistic refuses a maximum with at_least: the largest of three noises looks like an effect."""
    values = np.random.default_rng(2).standard_normal((600, 3, 5))
    right = Statistic(worst_gain, at_most=0, extreme="max")
    assert share(right, values) < at_most(0.025, 600)
    undeclared = Statistic(worst_gain, at_least=0)
    assert share(undeclared, values) > 0.05
    leader = values - np.array([0, 3, 3]).reshape(1, 3, 1)  # one effect on the bound, the others well below
    assert share(right, leader) < at_most(0.03, 600)


# A claim, as it is judged


class Superior(Claim):
    name, statement, arms = "superior", "a is better", ("a", "b")
    hypotheses = (Greater("m", "a", "b"),)


def test_a_claim_without_effect_is_rarely_supported():
    verdicts = [judge(Superior, t, "quick").verdict for t in tables(normal(CHECKS, 2, 5, key=7))]
    assert verdicts.count("supported") < CHECKS * at_most(0.025, CHECKS)
    assert verdicts.count("contradicted") < CHECKS * at_most(0.025, CHECKS)


def until_verdict(claim, values, spend, schedule):
    """The share of checks that end supported when one looks again and again, and stops at the first clear verdict."""
    supported = 0
    for t in tables(values):
        for k, n in enumerate(schedule, 1):
            verdict = judge(claim, replace(t, seeds=t.seeds[:n], alpha=spend(k)), "quick").verdict
            if verdict != "inconclusive":
                supported += verdict == "supported"
                break
    return supported / len(values)


def test_looking_again_costs_nothing_with_the_spent_error_and_much_without():
    values = normal(800, 2, 20, key=8)
    schedule = looks(3, 20)
    assert until_verdict(Superior, values, look_alpha, schedule) < at_most(0.025, 800)
    # the plain interval after every seed: 12 % on both sides together, so 6 % and more on each
    assert until_verdict(Superior, values[:400], lambda k: 0.05, range(3, 21)) > 0.05


def test_the_intervals_of_all_looks_hold_together():
    generator = np.random.default_rng(9)
    schedule = looks(3, 40)
    missed = 0
    for values in generator.standard_normal((1500, 40)):
        found = [one_sample(values[:n], look_alpha(k)) for k, n in enumerate(schedule, 1)]
        missed += any(not i.low <= 0 <= i.high for i in found)
    assert missed / 1500 < at_most(0.05, 1500)


def test_looking_again_finds_a_true_effect():
    values = normal(150, 2, 20, [2, 0], key=10)
    assert until_verdict(Superior, values, look_alpha, looks(3, 20)) > 0.95
    three = [judge(Superior, t, "quick").verdict for t in tables(values[:, :, :3])]
    assert three.count("supported") < 0.9 * 150


@cache
def powers(name):
    hypothesis, means, ns = POWER[name]
    return [share(hypothesis, normal(250, len(means), n, means)) for n in ns]


POWER = {
    "greater": (Greater("m", "a", "b"), [1.5, 0], (3, 5, 10, 20)),
    "equivalent": (Equivalent("m", "a", "b", within=2), [0, 0], (3, 5, 10, 20)),
    "differs": (Differs("m", "a", "b", 0), [0, 1.5], (3, 5, 10, 20)),
    "trend": (Trend("m", ("a", "b", "c")), [0, 0.7, 1.4], (3, 5, 10, 20)),
    "interaction": (Interaction("m", ("a", "b"), ("c", "d")), [2, 0, 0, 0], (3, 5, 10, 20)),
    "statistic": (Statistic(gap, at_least=0), [1.5, 0], (4, 6, 10, 20)),
}


@pytest.mark.parametrize("name", POWER)
def test_power_grows_with_the_number_of_seeds(name):
    found = powers(name)
    assert found == sorted(found) and found[-1] > 0.9 and found[0] < 0.7
