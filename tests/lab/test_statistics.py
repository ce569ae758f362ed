import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from precis.lab import statistics as s

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=12), st.sampled_from([0.05, 0.025, 0.05 / 12]))
def test_paired_interval_is_scipys(pairs, alpha):
    a, b = np.array(pairs).T
    found = s.paired_interval(a, b, alpha)
    if np.ptp(a - b) == 0:
        assert found.low == found.high == found.estimate
        return
    theirs = stats.ttest_rel(a, b).confidence_interval(1 - alpha)
    scale = 1e-9 * max(1, np.abs(a).max(), np.abs(b).max())
    assert found.low == pytest.approx(theirs.low, rel=1e-7, abs=scale)
    assert found.high == pytest.approx(theirs.high, rel=1e-7, abs=scale)


def test_one_sample_is_scipys():
    values = np.random.default_rng(0).normal(2, 3, 7)
    found = s.one_sample(values, 0.01)
    assert (found.low, found.high) == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval(0.99)))
    assert found.n == 7 and found.estimate == pytest.approx(values.mean())


@pytest.mark.parametrize("n", [1, 3, 5, 20, 101])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6])
def test_proportion_interval_is_scipys_exact_one(n, alpha):
    for k in {0, 1, n // 2, n - 1, n}:
        theirs = stats.binomtest(k, n).proportion_ci(1 - alpha, method="exact")
        found = s.proportion_interval(k, n, alpha)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-10)


def test_proportion_interval_covers():
    """Exact coverage, summed over all outcomes: never below 95 %."""
    n = 12
    found = [s.proportion_interval(k, n) for k in range(n + 1)]
    for p in np.linspace(0.01, 0.99, 33):
        inside = [i.low <= p <= i.high for i in found]
        assert stats.binom.pmf(np.arange(n + 1), n, p)[inside].sum() >= 0.95


@pytest.mark.parametrize("at_zero", [True, False])
@pytest.mark.parametrize(("p10", "p01"), [(0.3, 0.3), (0.5, 0.5), (0.02, 0.02), (0.25, 0.25)])
def test_paired_proportions_of_equal_arms_err_rarely(at_zero, p10, p01):
    """All outcomes of n pairs enumerated: each side wrong with 2.5 % at most."""
    n = 9
    above = below = 0.0
    for only_a in range(n + 1):
        for only_b in range(n + 1 - only_a):
            weight = stats.multinomial.pmf([only_a, only_b, n - only_a - only_b], n, [p10, p01, 1 - p10 - p01])
            found = s.paired_proportion_interval(only_a, only_b, n, at_zero=at_zero)
            assert found.low <= found.estimate <= found.high
            above += weight * (found.low > 0)
            below += weight * (found.high < 0)
    assert above <= 0.025 and below <= 0.025


def test_paired_proportions_see_a_difference_and_are_symmetric():
    for at_zero in (True, False):
        clear = s.paired_proportion_interval(15, 1, 20, at_zero=at_zero)
        turned = s.paired_proportion_interval(1, 15, 20, at_zero=at_zero)
        assert clear.low > 0 and clear.estimate == pytest.approx(0.7)
        assert (turned.low, turned.high) == pytest.approx((-clear.high, -clear.low))


def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ():
    a = np.array([1, 1, 1, 1, 1, 0, 0, 1, 1, 0])
    b = np.array([0, 0, 0, 0, 0, 1, 0, 1, 0, 0])
    found = s.mcnemar(a, b)
    assert (found.only_a, found.only_b) == (6, 1)
    assert found.p == pytest.approx(stats.binomtest(6, 7).pvalue)
    assert s.mcnemar([1, 0], [1, 0]).p == 1.0
    with pytest.raises(ValueError, match="0 and 1"):
        s.mcnemar([0.5, 1], [0, 1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=4, max_size=9))
def test_resampling_a_mean_gives_the_t_interval(values):
    values = np.array(values)
    n = len(values)
    t = s.one_sample(values)
    left_out = [np.delete(values, i).mean() for i in range(n)]
    jack = s.jackknife(values.mean(), left_out)
    assert (jack.low, jack.high) == pytest.approx((t.low, t.high), abs=1e-8)
    # the variance of the mean over all n^n resamples is known: s²(n−1)/n² , two values that have it
    sd = values.std() / np.sqrt(n)
    boot = s.bootstrap(values.mean(), [values.mean() - sd, values.mean() + sd], n)
    assert (boot.low, boot.high) == pytest.approx((t.low, t.high), abs=1e-8)


def test_two_level_bootstrap():
    generator = np.random.default_rng(3)
    per_seed = [0.4 + 0.05 * generator.standard_normal() + 0.3 * generator.standard_normal(400) for _ in range(12)]
    found = s.two_level_bootstrap(per_seed)
    assert found.n == 12 and found.estimate == pytest.approx(np.mean([x.mean() for x in per_seed]))
    # variance of the two levels: between seeds, and within them
    between, within = np.var([x.mean() for x in per_seed]) / 12, np.mean([x.var() for x in per_seed]) / 400 / 12
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.sqrt(between + within), rel=0.1)
    assert found == s.two_level_bootstrap(per_seed)
    ragged = s.two_level_bootstrap([[1.0, 1.0], [1.0], [1.0, 1.0, 1.0]])
    assert ragged.low == ragged.high == 1.0


def test_spread_ratio():
    generator = np.random.default_rng(5)
    a, b = 3 * generator.standard_normal(40), generator.standard_normal(40)
    found = s.spread_ratio(a, b)
    assert found.low < 3 < found.high and found.estimate == pytest.approx(a.std() / b.std())
    turned = s.spread_ratio(b, a)
    assert (1 / turned.high, 1 / turned.low) == pytest.approx((found.low, found.high))
    for constant in (np.full(40, 0.1), np.r_[np.full(39, 0.1), 0.7]):
        with pytest.raises(ValueError, match="var"):
            s.spread_ratio(a, constant)


@given(st.integers(1, 40), st.integers(0, 200))
def test_looks_grow_by_a_quarter_and_end_at_the_most(first, more):
    found = s.looks(first, first + more)
    assert found[0] == first and found[-1] == first + more
    assert all(b > a for a, b in zip(found, found[1:]))
    assert all(b >= 1.25 * a for a, b in zip(found[:-1], found[1:-1]))


def test_looks_of_the_default_check():
    assert s.looks(3, 20) == [3, 4, 5, 7, 9, 12, 15, 19, 20]
    assert s.looks(5, 5) == [5]
    with pytest.raises(ValueError):
        s.looks(5, 4)


def test_looks_spend_the_whole_error_and_no_more():
    spent = np.cumsum([s.look_alpha(k) for k in range(1, 10_001)])
    assert spent[-1] < 0.05 and spent[-1] == pytest.approx(0.05 * (1 - 1 / 10_001))
    assert s.look_alpha(1) == 0.025
    with pytest.raises(ValueError):
        s.look_alpha(0)
    values = [1.0, 2.0, 4.0]
    assert s.always_valid(values, 2) == s.one_sample(values, 0.05 / 6)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, float("nan")], [1.0, float("inf"), 2.0], [[1.0, 2.0]]])
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError):
        s.one_sample(values)


def test_bad_pairs_are_refused():
    with pytest.raises(ValueError, match="unequal"):
        s.paired_interval([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError):
        s.proportion_interval(4, 3)
    with pytest.raises(ValueError):
        s.two_level_bootstrap([[1.0, 2.0]])
