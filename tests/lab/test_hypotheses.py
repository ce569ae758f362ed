"""Means over paired seeds: what holds, what is contradicted, of what nothing is said; and what the interval is."""

import json
from dataclasses import FrozenInstanceError, replace
from math import inf, isfinite, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.lab.tables import spread, table

import precis.lab as lab
from precis.lab import (
    AtLeast,
    AtMost,
    Between,
    Differs,
    Equivalent,
    Exact,
    Greater,
    Hypothesis,
    Interaction,
    Less,
    NotWorse,
    Ordered,
    Proportion,
    Spread,
    Statistic,
    Trend,
)

HIGH, LOW, WIDE = spread(5), spread(1), spread(3, 4)  # WIDE: −5 … 11, an interval from −4.9 to 10.9


def mean_of_a(t):
    a = t.values("m", "a")
    return sum(a.values()) / len(a)


CASES = {  # hypothesis: (holds, contradicted, undecided) tables
    "greater": (Greater("m", "a", "b", by=3), table(a=HIGH, b=LOW[::-1]), table(a=LOW, b=HIGH), table(a=WIDE, b=LOW)),
    "less": (Less("m", "a", "b"), table(a=LOW, b=HIGH), table(a=HIGH, b=LOW[::-1]), table(a=WIDE, b=LOW)),
    "not worse": (
        NotWorse("m", "a", "b", margin=0.5), table(a=spread(1.1), b=LOW[::-1]), table(a=LOW, b=HIGH[::-1]),
        table(a=WIDE, b=LOW),
    ),
    "not worse, errors": (
        NotWorse("m", "a", "b", 1, maximise=False), table(a=spread(1.1), b=LOW[::-1]), table(a=HIGH, b=LOW[::-1]),
        table(a=WIDE, b=LOW),
    ),
    "equivalent": (
        Equivalent("m", "a", "b", within=1), table(a=LOW, b=LOW[::-1]), table(a=LOW, b=HIGH[::-1]),
        table(a=WIDE, b=LOW),
    ),
    "equivalent, target": (
        Equivalent("m", "a", 1, within=1), table(a=LOW), table(a=HIGH), table(a=WIDE),
    ),
    "equivalent, pairs": (
        Equivalent("m", ("a", "b", "c"), within=1), table(a=LOW, b=LOW[::-1], c=spread(1.2, 0.2)),
        table(a=LOW, b=LOW[::-1], c=HIGH), table(a=LOW, b=LOW[::-1], c=WIDE),
    ),
    "at least": (AtLeast("m", "a", 3), table(a=HIGH), table(a=LOW), table(a=WIDE)),
    "at most": (AtMost("m", "a", 3), table(a=LOW), table(a=HIGH), table(a=WIDE)),
    "between": (Between("m", "a", 4, 6), table(a=HIGH), table(a=LOW), table(a=WIDE)),
    "trend": (
        Trend("m", ("a", "b", "c"), by=1), table(a=LOW, b=spread(3, 0.2), c=HIGH),
        table(a=HIGH, b=spread(3, 0.2), c=LOW), table(a=LOW, b=LOW, c=WIDE),
    ),
    "trend, falling": (
        Trend("m", ("a", "b", "c"), falling=True), table(a=HIGH, b=spread(3, 0.2), c=LOW),
        table(a=LOW, b=spread(3, 0.2), c=HIGH), table(a=LOW, b=LOW, c=WIDE),
    ),
    "trend, power law": (
        Trend("m", ("a", "b", "c"), x=(1, 2, 4), log=True, between=(1.5, 2.5)),
        table(a=spread(1, 0.01), b=spread(4), c=spread(16)), table(a=spread(1, 0.01), b=spread(2), c=spread(4)),
        table(a=spread(1, 0.3), b=spread(4), c=spread(16)[::-1], alpha=1e-4),
    ),
    "trend, steps": (
        Trend("m", ("a", "b", "c"), steps=0.5), table(a=LOW, b=spread(3, 0.2), c=HIGH),
        table(a=LOW, b=spread(9, 0.2), c=HIGH), table(a=LOW, b=spread(5, 2), c=HIGH),
    ),
    "interaction": (
        Interaction("m", ("a", "b"), ("c", "d"), by=1), table(a=HIGH, b=LOW[::-1], c=LOW, d=LOW),
        table(a=LOW, b=HIGH[::-1], c=LOW, d=LOW), table(a=WIDE, b=LOW, c=LOW, d=LOW),
    ),
    "ordered": (
        Ordered("m", ("a", "b", "c")), table(a=HIGH, b=spread(3, 0.2), c=LOW), table(a=HIGH, b=LOW, c=spread(3, 0.2)),
        table(a=HIGH, b=LOW, c=spread(0, 1)),
    ),
    "proportion": (
        Proportion("m", "a", at_least=0.4), table(a=[1] * 8), table(a=[0] * 8), table(a=[1, 0] * 4),
    ),
    "proportion, at most": (
        Proportion("m", "a", at_most=0.4), table(a=[0] * 8), table(a=[1] * 8), table(a=[1, 0] * 4),
    ),
    "proportion, paired": (
        Proportion("m", "a", "b"), table(a=[1] * 8, b=[0] * 8), table(a=[0] * 8, b=[1] * 8),
        table(a=[1] * 5, b=[0] * 5),
    ),
    "proportion, clusters": (
        Proportion("m", "a", at_least=0.4), table(a=spread(0.7, 0.05)), table(a=spread(0.2, 0.05)),
        table(a=spread(0.5, 0.2)),
    ),
    "spread": (
        Spread("m", "a", "b", ratio=2), table(a=spread(0, 9, 12), b=spread(0, 1, 12)),
        table(a=spread(0, 1, 12), b=spread(0, 9, 12)), table(a=spread(0, 2.1, 12), b=[0, 7] * 6),
    ),
    "differs": (Differs("m", "a", "b", 1), table(a=LOW, b=HIGH[::-1]), table(a=LOW, b=LOW[::-1]), table(a=WIDE, b=LOW)),
    "statistic": (Statistic(mean_of_a, at_least=3), table(a=HIGH), table(a=LOW), table(a=WIDE)),
    "statistic, bootstrap": (
        Statistic(mean_of_a, between=(4, 6), resample="bootstrap"), table(a=HIGH), table(a=LOW), table(a=WIDE),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_kind_holds_is_contradicted_and_is_undecided(name):
    hypothesis, *tables = CASES[name]
    assert isinstance(hypothesis, Hypothesis)
    found = [hypothesis.outcome(t) for t in tables]
    assert [outcome.holds for outcome in found] == [True, False, None]
    for outcome, t in zip(found, tables):
        assert outcome.n == len(t.seeds) and outcome.text.startswith(found[0].text[:5])
        assert outcome.effect is not None and isfinite(outcome.effect)
        low, high = outcome.interval
        assert low <= outcome.effect <= high and json.dumps(outcome)


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_trials_does_not_matter(name):
    hypothesis, *tables = CASES[name]
    for t in tables:
        order = np.random.default_rng(0).permutation(len(t.seeds)).tolist()
        rows = {arm: {s: t.rows[arm][s] for s in order} for arm in reversed(t.rows)}
        assert hypothesis.outcome(replace(t, rows=rows, seeds=tuple(order))) == hypothesis.outcome(t)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bad", [nan, inf, -inf, None, "missing"])
def test_a_value_missing_or_not_finite_leaves_nothing_said(name, bad):
    hypothesis, t, *_ = CASES[name]
    rows = {arm: dict(by_seed) for arm, by_seed in t.rows.items()}
    rows["a"][2] = {} if bad == "missing" else {"m": bad}
    outcome = hypothesis.outcome(replace(t, rows=rows))
    assert (outcome.effect, outcome.interval, outcome.holds) == (None, None, None)
    assert "1" in outcome.note and "missing or not finite" in outcome.note and " a" in outcome.note
    lost = hypothesis.outcome(replace(t, rows={}))
    assert lost.holds is None and "missing or not finite" in lost.note


@pytest.mark.parametrize("name", CASES)
def test_a_smaller_alpha_only_widens(name):
    hypothesis, *tables = CASES[name]
    for t in tables:
        wide, narrow = hypothesis.outcome(replace(t, alpha=t.alpha / 12)), hypothesis.outcome(t)
        assert wide.interval[0] <= narrow.interval[0] and wide.interval[1] >= narrow.interval[1]
        assert wide.holds in (None, narrow.holds)


@pytest.mark.parametrize("name", CASES)
def test_two_seeds_say_nothing(name):
    hypothesis, t, *_ = CASES[name]
    outcome = hypothesis.outcome(replace(t, seeds=(0, 1)))
    assert outcome.holds is None and outcome.n == 2 and "least" in outcome.note
    assert hypothesis.outcome(replace(t, seeds=(0,))).holds is None


@pytest.mark.parametrize("name", CASES)
def test_the_common_options(name):
    hypothesis, *_ = CASES[name]
    assert (hypothesis.counts, hypothesis.profiles, hypothesis.unit) == (True, None, "seed")
    changed = replace(hypothesis, counts=False, profiles=("full",), unit="task")
    assert (changed.counts, changed.profiles, changed.unit) == (False, ("full",), "task")
    with pytest.raises(FrozenInstanceError):
        hypothesis.counts = False
    with pytest.raises(ValueError, match="unit"):
        replace(hypothesis, unit="arm")


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("proportion, paired", "spread")])
def test_tasks_as_replications(name):
    """A metric that is a dict of one number a task, the same numbers as the seeds had: the same outcome."""
    hypothesis, *tables = CASES[name]
    for t in tables:
        rows = {
            arm: {seed: {"m": {f"task {s:02}": row["m"] for s, row in by_seed.items()}} for seed in range(3)}
            for arm, by_seed in t.rows.items()
        }
        by_task = replace(hypothesis, unit="task").outcome(replace(t, rows=rows, seeds=(0, 1, 2)))
        by_seed = hypothesis.outcome(t)
        assert by_task.holds == by_seed.holds and by_task.n == by_seed.n
        assert by_task.effect == pytest.approx(by_seed.effect)
        del rows["a"][1]["m"]["task 00"]
        holed = replace(hypothesis, unit="task").outcome(replace(t, rows=rows, seeds=(0, 1, 2)))
        assert holed.holds is None and "missing or not finite" in holed.note
        # the dict is no number where seeds are asked for, and a number no dict where tasks are
        assert hypothesis.outcome(replace(t, rows=rows, seeds=(0, 1, 2))).holds is None
        assert replace(hypothesis, unit="task").outcome(t).holds is None


def test_a_null_among_tasks_is_not_known():
    t = table(a=[{"x": 1.0, "y": None}] * 3)
    assert "1 of 2 values" in AtLeast("m", "a", 0, unit="task").outcome(t).note


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=3, max_size=10))
def test_the_interval_is_that_of_the_paired_t_test(pairs):
    a, b = np.array(pairs).T
    outcome = Greater("m", "a", "b").outcome(table(a=a.tolist(), b=b.tolist()))
    if np.ptp(a - b) > 0:
        theirs = stats.ttest_rel(a, b).confidence_interval()
        assert outcome.interval == pytest.approx((theirs.low, theirs.high), abs=1e-7)
    assert Less("m", "b", "a").outcome(table(a=a.tolist(), b=b.tolist()))[1:4] == outcome[1:4]


def test_slopes_are_least_squares():
    generator = np.random.default_rng(0)
    y = np.exp(generator.normal(size=(4, 6)))
    t, arms = table(**dict(zip("abcd", y.tolist()))), tuple("abcd")
    x = np.array([1.0, 3.0, 4.0, 9.0])
    rank = [np.polyfit(range(4), column, 1)[0] for column in y.T]
    given_x = [np.polyfit(x, column, 1)[0] for column in y.T]
    power = [np.polyfit(np.log(x), np.log(column), 1)[0] for column in y.T]
    for hypothesis, slopes in (
        (Trend("m", arms), rank), (Trend("m", arms, x=tuple(x)), given_x),
        (Trend("m", arms, x=tuple(x), log=True), power),
    ):
        outcome = hypothesis.outcome(t)
        assert outcome.effect == pytest.approx(np.mean(slopes))
        assert outcome.interval == pytest.approx(tuple(stats.ttest_1samp(slopes, 0).confidence_interval()))


def test_no_logarithm_of_zero():
    t = table(a=[1, 1, 0], b=[1, 2, 3])
    outcome = Trend("m", ("a", "b"), x=(1, 2), log=True).outcome(t)
    assert outcome.holds is None and "not above 0" in outcome.note


@pytest.mark.parametrize(
    ("hypothesis", "value"),
    [
        (Greater("m", "a", "b", by=0.1), 0.9),  # 0.9 − 0.8 is below 0.1 in floating point
        (Less("m", "b", "a", by=0.1), 0.9),
        (NotWorse("m", "b", "a", margin=0.1), 0.9),
        (Equivalent("m", "a", "b", within=0.1), 0.9),
        (AtLeast("m", "a", 0.9), 0.9),
        (AtMost("m", "a", 0.9), 0.9),
        (Between("m", "a", 0.9, 1), 0.9),
        (Trend("m", ("b", "a"), by=0.1), 0.9),
        (Interaction("m", ("a", "b"), ("a", "b")), 0.9),
        (Interaction("m", ("a", "b"), ("c", "d")), 0.3),  # (0.3 − 0.8) − (−0.3 − 0.2) is not quite 0
        (Differs("m", "a", "b", 0.1), 0.8),
    ],
)
def test_zero_width_on_the_bound_is_on_neither_side(hypothesis, value):
    t = table(a=[value] * 5, b=[0.8] * 5, c=[-0.3] * 5, d=[0.2] * 5)
    outcome = hypothesis.outcome(t)
    assert outcome.holds is (False if isinstance(hypothesis, Differs) else None)
    assert outcome.interval[1] - outcome.interval[0] < 1e-15


def test_zero_width_off_the_bound_is_decided():
    t = table(a=[0.9] * 3, b=[0.7] * 3)
    assert Greater("m", "a", "b", by=0.1).outcome(t).holds is True
    assert Greater("m", "a", "b", by=0.3).outcome(t).holds is False
    assert Proportion("m", "a", "b").outcome(table(a=[1, 0, 1], b=[1, 0, 1])).holds is None


def test_numbers_too_large_to_compute_with():
    t = table(a=[1e308, -1e308, 1e308], b=[-1e308, 1e308, -1e308])
    for hypothesis in (Greater("m", "a", "b"), AtLeast("m", "a", 0), Interaction("m", ("a", "b"), ("b", "a"))):
        outcome = hypothesis.outcome(t)
        assert outcome.holds is None and outcome.effect is None and "too large" in outcome.note


def test_differs_that_is_smaller_than_its_margin():
    outcome = Differs("m", "a", "b", margin=1).outcome(table(a=spread(1.5, 0.01), b=[1.0] * 5))
    assert outcome.holds is True and "smaller than the margin" in outcome.note
    assert Differs("m", "b", "a", margin=0).outcome(table(a=HIGH, b=LOW)).holds is True


def test_several_parts_show_the_weakest():
    outcome = Ordered("m", ("a", "b", "c")).outcome(CASES["ordered"][2])
    assert outcome.effect == pytest.approx(-2) and outcome.holds is False
    assert "b − c -2" in outcome.note and "contradicted" in outcome.note and "a − b +4" in outcome.note
    alike = Equivalent("m", ("a", "b", "c"), within=3).outcome(table(a=LOW, b=LOW[::-1], c=spread(2, 0.2)))
    assert alike.holds is True and alike.effect == pytest.approx(-1)


@pytest.mark.parametrize(
    ("hypothesis", "text"),
    [
        (Greater("psnr", "siren", "relu", by=5), "psnr of siren above relu by 5"),
        (Less("mse", "siren", "relu"), "mse of siren below relu"),
        (NotWorse("accuracy", "a", "b", 0.02), "accuracy of a not worse than b by 0.02"),
        (Equivalent("m", ("a", "b", "c"), within=0.1), "m of a, b, c within 0.1"),
        (Equivalent("m", "a", target=2, within=0.1), "m of a within 0.1 of 2"),
        (Trend("m", ("a", "b")), "m rises over a, b"),
        (Trend("m", ("a", "b"), by=0.5, falling=True, steps=1), "m falls over a, b by 0.5 a step, no step back by 1"),
        (Trend("m", ("a", "b"), x=(1, 2), log=True, between=(1, 2)), "log–log slope of m over a, b between 1 and 2"),
        (Ordered("m", ("a", "b", "c")), "m of a above b above c"),
        (Proportion("solved", "a", at_least=0.7), "share of solved: a at least 0.7"),
        (Proportion("solved", "a", "b"), "share of solved: a above b"),
        (Exact("macs", "a", 12), "macs of a equal to 12"),
        (Exact("macs", "a", "b", "<"), "macs of a below b"),
    ],
)
def test_the_text_is_a_sentence(hypothesis, text):
    assert hypothesis.outcome(table(a=[1.0])).text == text


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Equivalent("m", "a", within=1),
        lambda: Equivalent("m", "a", "b", within=1, target=2),
        lambda: Equivalent("m", "a", "b"),
        lambda: Equivalent("m", ("a",), within=1),
        lambda: Between("m", "a", 2, 1),
        lambda: Ordered("m", ("a",)),
        lambda: Trend("m", ("a",)),
        lambda: Trend("m", ("a", "b"), x=(1, 2, 3)),
        lambda: Trend("m", ("a", "b"), x=(2, 1)),
        lambda: Trend("m", ("a", "b"), log=True),
        lambda: Trend("m", ("a", "b"), x=(0, 1), log=True),
        lambda: Trend("m", ("a", "b"), between=(1, 2), by=1),
        lambda: Differs("m", "a", "b", -1),
        lambda: Proportion("m", "a"),
        lambda: Proportion("m", "a", at_least=0.1, at_most=0.2),
        lambda: Spread("m", "a", "b", ratio=0),
        lambda: Statistic(mean_of_a),
        lambda: Statistic(mean_of_a, at_least=1, at_most=2),
        lambda: Statistic(mean_of_a, at_least=1, extreme="max"),
        lambda: Statistic(mean_of_a, at_most=1, extreme="min"),
        lambda: Statistic(mean_of_a, between=(2, 1)),
        lambda: Exact("m", "a"),
        lambda: Exact("m", ("a", "b"), 3),
        lambda: Exact("m", "a", 3, tolerance=-1),
        lambda: Exact("m", "a", 3, relation=max),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_written(wrong):
    with pytest.raises(ValueError):
        wrong()


def test_every_public_kind_is_given_by_the_lab():
    for name in lab.__all__:
        assert getattr(lab, name).__name__ == name or name == "Metrics"
