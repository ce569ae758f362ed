import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import dawsn

from precis.sparsity.variational_dropout_kl import LIMIT, kl_divergence


def by_quadrature(log_alpha: float) -> float:
    s = math.exp(-log_alpha / 2) / math.sqrt(2)
    inner = [p for p in (1, 3, 10, 100) if p < s] or None
    return 2 * quad(dawsn, 0, s, epsabs=1e-14, epsrel=1e-13, limit=500, points=inner)[0]


def test_exact_is_twice_the_integral_of_dawsons_function():
    values = torch.tensor([-20, -12, -8.0001, -8, -7.3, -5, -3.5, -3, -1.11, 0, 0.37, 3, 5.5, 8, 8.01, 12, 20]).double()
    found = kl_divergence(values, "exact")
    assert found.tolist() == pytest.approx([by_quadrature(v) for v in values.tolist()], rel=1e-9, abs=1e-12)
    published = {-8: 4.635014, -3: 2.107978, 0: 0.426686, 3: 0.024688, 8: 0.000168}
    at = kl_divergence(torch.tensor(list(published)).double(), "exact")
    assert at.tolist() == pytest.approx(list(published.values()), abs=5e-7)


def test_exact_is_the_hypergeometric_function():
    mpmath = pytest.importorskip("mpmath")
    for log_alpha in (-4.0, -1.0, 2.0):
        alpha = mpmath.exp(log_alpha)
        wanted = mpmath.hyp2f2(1, 1, 1.5, 2, -1 / (2 * alpha)) / (2 * alpha)
        assert float(kl_divergence(torch.tensor(log_alpha).double(), "exact")) == pytest.approx(float(wanted), rel=1e-9)


def test_slope_of_the_exact_divergence():
    u = torch.linspace(-12, 12, 401, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kl_divergence(u, "exact").sum(), u)
    s = np.exp(-u.detach().numpy() / 2) / math.sqrt(2)
    assert np.abs(slope.numpy() + s * dawsn(s)).max() < 1e-9


@pytest.mark.parametrize("log_alpha", [-6.0, -2.0, 0.0, 2.0])
def test_exact_is_the_expectation_it_stands_for(log_alpha):
    rng = np.random.default_rng(0)
    epsilon = 1 + math.exp(log_alpha / 2) * rng.standard_normal(400_000)
    draws = -0.5 * log_alpha + np.log(np.abs(epsilon)) + LIMIT
    found = float(kl_divergence(torch.tensor(log_alpha).double(), "exact"))
    assert abs(found - draws.mean()) < 3 * draws.std() / math.sqrt(len(draws))


def test_the_approximation_follows_and_the_old_one_explodes():
    u = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    off = (kl_divergence(u) - kl_divergence(u, "exact")).abs()
    assert off.max() < 0.0094 and float(u[off.argmax()]) == pytest.approx(-3.5, abs=0.05)
    old = kl_divergence(u, "kingma")
    small = u < -6
    assert (old - kl_divergence(u, "exact")).abs()[small].max() < off[small].max()
    assert float(kl_divergence(torch.tensor(3.0), "kingma")) < -4000
    with pytest.raises(Exception, match="kingma"):
        kl_divergence(u, "cubic")


@given(st.floats(-30, 30), st.sampled_from(["sigmoid", "exact"]))
def test_divergence_is_positive_falls_and_vanishes(log_alpha, kind):
    here, there = kl_divergence(torch.tensor([log_alpha, log_alpha + 0.5]).double(), kind).tolist()
    assert here > there > 0
    assert log_alpha < 16 or here < 1e-7


def test_single_precision_and_no_weights():
    u = torch.linspace(-8, 8, 100)
    for kind in ("sigmoid", "exact"):
        found = kl_divergence(u, kind)
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), kl_divergence(u.double(), kind), atol=2e-6)
        assert kl_divergence(torch.empty(0, 3), kind).shape == (0, 3)
