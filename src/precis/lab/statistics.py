"""Intervals over few seeds, and how to look at them more than once without cheating.

The standard one is Student's t over the paired differences of the seeds, d̄ ± t_{n−1, 1−α/2} · s/√n: exact for normal
differences from n = 2 on, where a bootstrap of three seeds covers far too little.  `alpha` is the two-sided error.
All of it is deterministic, and does not depend on the order of the values.
"""

from collections.abc import Sequence
from math import comb, exp, inf, isfinite, sqrt
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A figure with its 1 − alpha interval, from n replications."""

    estimate: float
    low: float
    high: float
    n: int


def one_sample(values: Any, alpha: float = 0.05) -> Interval:
    """Mean of `values` [n] with Student's t interval; ValueError for fewer than two values, or one not finite."""
    values = _finite(values, at_least=2)
    if values[0] == values[-1]:  # sorted: all are equal, and the interval is to have no width at all
        return Interval(float(values[0]), float(values[0]), float(values[0]), len(values))
    return around(float(values.mean()), float(values.std(ddof=1)) / sqrt(len(values)), len(values), alpha)


def paired_interval(a: Any, b: Any, alpha: float = 0.05) -> Interval:
    """Mean of a − b, pair by pair (one pair a seed), with Student's t interval."""
    a, b = _pair(a, b, at_least=2)
    return one_sample(a - b, alpha)


def around(estimate: float, error: float, n: int, alpha: float = 0.05) -> Interval:
    """estimate ± t_{n−1, 1−α/2} · standard error."""
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 1 - alpha / 2)) * error
    return Interval(estimate, estimate - half, estimate + half, n)


def proportion_interval(successes: int, n: int, alpha: float = 0.05) -> Interval:
    """Share of `successes` in n independent trials, exact: Clopper and Pearson, Biometrika 26 (1934)."""
    from scipy.special import betaincinv

    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes in {n} trials")
    low = float(betaincinv(successes, n - successes + 1, alpha / 2)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - alpha / 2)) if successes < n else 1.0
    return Interval(successes / n, low, high, n)


def paired_proportion_interval(only_a: int, only_b: int, n: int, alpha: float = 0.05, *, at_zero: bool) -> Interval:
    """Difference of two shares over the same n trials, of which `only_a` went to a alone and `only_b` to b alone.

    `at_zero`: the question is whether the difference is 0.  Then, given the m = only_a + only_b pairs that differ, a's
    part of them is binomial with ½ (the exact McNemar test), and its interval is scaled by m/n.  Else each share has
    its own exact interval at alpha/2 and the difference takes their ends: never too narrow, by the union bound.
    """
    estimate, m = (only_a - only_b) / n, only_a + only_b
    if at_zero:
        if m == 0:
            return Interval(0.0, 0.0, 0.0, n)
        _, low, high, _ = proportion_interval(only_a, m, alpha)
        return Interval(estimate, (2 * low - 1) * m / n, (2 * high - 1) * m / n, n)
    a, b = proportion_interval(only_a, n, alpha / 2), proportion_interval(only_b, n, alpha / 2)
    return Interval(estimate, a.low - b.high, a.high - b.low, n)


class McNemar(NamedTuple):
    only_a: int
    only_b: int
    p: float


def mcnemar(a: Any, b: Any) -> McNemar:
    """Exact two-sided McNemar test of two 0/1 outcomes on the same examples [n]: p = 2 P(Bin(m, ½) ≤ the smaller)."""
    a, b = _pair(a, b, at_least=1)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("McNemar's test wants outcomes of 0 and 1")
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    m = only_a + only_b
    p = 1.0 if m == 0 else 2 * sum(comb(m, k) for k in range(min(only_a, only_b) + 1)) / 2**m
    return McNemar(only_a, only_b, min(1.0, p))


def jackknife(estimate: float, left_out: Any, alpha: float = 0.05) -> Interval:
    """t interval about `estimate`, from the n values `left_out` that it takes with one replication left out.

    se² = (n−1)/n · Σ (θ₍ᵢ₎ − θ̄)²  (Efron and Stein, Annals of Statistics 9, 1981); for a mean it is the t interval.
    """
    left_out = _finite(left_out, at_least=2)
    n = len(left_out)
    return around(estimate, sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum())), n, alpha)


def bootstrap(estimate: float, resampled: Any, n: int, alpha: float = 0.05) -> Interval:
    """t interval about `estimate` from the values it takes on resamples of its n replications.

    The bootstrap's standard error times √(n/(n−1)), so that for a mean it is the t interval; percentiles of so few
    replications would be too narrow.
    """
    return around(estimate, float(_finite(resampled, at_least=2).std()) * sqrt(n / (n - 1)), n, alpha)


def two_level_bootstrap(
    outcomes: Sequence[Any], alpha: float = 0.05, draws: int = 2000, seed: int = 0
) -> Interval:
    """Mean over seeds of the mean outcome of a seed's examples; seeds are resampled, then examples within each.

    `outcomes`: one array [examples] a seed (or an array [seeds, examples]), for two arms the differences example by
    example.  Percentile interval: shown beside the t interval, never in its place when there are few seeds.
    """
    examples = [_finite(seed_outcomes, at_least=1) for seed_outcomes in outcomes]
    n = len(examples)
    if n < 2:
        raise ValueError("a bootstrap over seeds wants at least two")
    generator = np.random.default_rng(seed)
    picked = generator.integers(n, size=(draws, n))
    means = np.empty((draws, n))
    for s, values in enumerate(examples):
        where = np.flatnonzero(picked == s)
        rows = max(1, 2_000_000 // len(values))
        for block in (where[i : i + rows] for i in range(0, len(where), rows)):
            chosen = generator.integers(len(values), size=(len(block), len(values)))
            means.flat[block] = values[chosen].mean(axis=1)
    low, high = np.quantile(means.mean(axis=1), [alpha / 2, 1 - alpha / 2])
    return Interval(float(np.mean([values.mean() for values in examples])), float(low), float(high), n)


def spread_ratio(a: Any, b: Any, alpha: float = 0.05) -> Interval:
    """Ratio of the standard deviations of a and b [n], paired: delete-one jackknife of its logarithm, with t.

    ValueError if one of them does not vary.  From about ten pairs on (fewer say nothing of a spread).
    """
    a, b = _pair(a, b, at_least=3)
    if not isfinite(ratio := _log_ratio(a, b)):
        raise ValueError("an arm does not vary at all")
    left_out = [_log_ratio(np.delete(a, i), np.delete(b, i)) for i in range(len(a))]
    if not all(map(isfinite, left_out)):
        raise ValueError("an arm varies in one replication alone")
    found = jackknife(ratio, left_out, alpha)
    return Interval(_exp(found.estimate), _exp(found.low), _exp(found.high), found.n)


def looks(first: int, most: int) -> list[int]:
    """The numbers of seeds at which one looks: `first`, then each time at least a quarter more, the last is `most`."""
    if not 1 <= first <= most:
        raise ValueError(f"looks from {first} to {most} seeds")
    found = [first]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, -(-5 * found[-1] // 4))))
    return found


def look_alpha(k: int, total: float = 0.05) -> float:
    """The two-sided error of look k = 1, 2, …: total / (k(k+1)); over all looks, however many, the sum is `total`.

    Spending the error by a rule fixed beforehand is Lan and DeMets (Biometrika 70, 1983); here the parts are added by
    Bonferroni's inequality and not by a joint distribution.  P(any look errs) ≤ Σ P(look k errs) ≤ Σ αₖ = total needs
    nothing but that the interval of each look, taken alone at its fixed number of seeds, errs with αₖ at most.  So it
    holds for every kind of hypothesis, and whatever makes one stop or go on; and a claim of several hypotheses that is
    wrongly supported has at least one that wrongly holds, so its error is not above that one's.  What an interval only
    approximates (a jackknife, t on skewed values), it approximates here too.
    """
    if k < 1:
        raise ValueError("looks are counted from 1")
    return total / (k * (k + 1))


def always_valid(values: Any, look: int, total: float = 0.05) -> Interval:
    """The t interval of look number `look`; the intervals of all looks hold together with probability 1 − total."""
    return one_sample(values, look_alpha(look, total))


def _log_ratio(a: Any, b: Any) -> float:
    if min(np.ptp(a), np.ptp(b)) == 0:
        return inf
    return float(np.log(np.std(a, ddof=1)) - np.log(np.std(b, ddof=1)))


def _exp(x: float) -> float:
    return exp(x) if x < 700 else inf


def _finite(values: Any, at_least: int) -> Any:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < at_least:
        raise ValueError(f"needs a list of at least {at_least} values, not an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite")
    return np.sort(values)  # so that sums do not depend on the order


def _pair(a: Any, b: Any, at_least: int) -> tuple[Any, Any]:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"pairs of unequal number: {a.shape} and {b.shape}")
    _finite(a, at_least), _finite(b, at_least)
    return a, b
