import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF as Quadratic
from sklearn.gaussian_process.kernels import ConstantKernel

from precis.fields.neural_process_gp import (
    RBF,
    fit_gp,
    gp_log_likelihood,
    gp_marginals,
    gp_mean,
    gp_predict,
    sample_gp,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def problem():
    x = 4 * torch.rand(3, 7, 1, generator=seeded(), dtype=torch.float64) - 2
    at = 4 * torch.rand(3, 11, 1, generator=seeded(1), dtype=torch.float64) - 2
    return x, sample_gp(RBF(0.4), x, 0.02, seeded(2)), at


def test_predictions_are_those_of_scikit_learn(problem):
    x, y, at = problem
    mean, cov = gp_predict(RBF(0.4), x, y, at, 0.02)
    marginal = gp_marginals(RBF(0.4), x, y, at, 0.02)
    for b in range(3):
        peer = GaussianProcessRegressor(ConstantKernel(1.0) * Quadratic(0.4), alpha=4e-4, optimizer=None)
        peer.fit(x[b].numpy(), y[b, :, 0].numpy())
        m, s = peer.predict(at[b].numpy(), return_std=True)
        np.testing.assert_allclose(mean[b, :, 0], m, atol=1e-6)
        np.testing.assert_allclose(cov[b].diagonal().sqrt(), s, atol=1e-6)
        np.testing.assert_allclose(marginal.stddev[b, :, 0], np.sqrt(s**2 + 4e-4), atol=1e-6)
    torch.testing.assert_close(gp_mean(RBF(0.4), x, y, at, 0.02), mean)
    torch.testing.assert_close(marginal.mean, mean)


def test_likelihood_is_that_of_scipy(problem):
    x, y, _ = problem
    found = gp_log_likelihood(RBF(0.5, 1.3), x, y, 0.1)
    for b in range(3):
        cov = RBF(0.5, 1.3)(x[b], x[b]).numpy() + 0.01 * np.eye(7)
        assert abs(float(found[b]) - multivariate_normal(np.zeros(7), cov).logpdf(y[b, :, 0].numpy())) < 1e-8


def test_samples_have_the_covariance_of_the_kernel():
    x = torch.tensor([[-1.0], [-0.8], [0.1], [1.5]]).expand(10_000, 4, 1)
    y = sample_gp(RBF(0.4), x, 0.1, seeded())[..., 0].double()
    truth = RBF(0.4)(x[0].double(), x[0].double()) + 0.01 * torch.eye(4)
    error = (truth**2 + truth.diagonal()[:, None] * truth.diagonal()).div(10_000).sqrt()
    assert bool(((y.T @ y / 10_000 - truth).abs() < 4 * error).all())


def test_masked_points_change_nothing_and_no_points_give_the_prior(problem):
    x, y, at = problem
    mask = torch.arange(7).expand(3, 7) < 4
    junk = torch.where(mask[..., None], y, torch.nan)
    few, all_of_them = gp_predict(RBF(), x, junk, at, mask=mask), gp_predict(RBF(), x[:, :4], y[:, :4], at)
    for a, b in zip(few, all_of_them):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(
        gp_log_likelihood(RBF(), x, y, 0.1, mask), gp_log_likelihood(RBF(), x[:, :4], y[:, :4], 0.1)
    )
    mean, cov = gp_predict(RBF(), x[:, :0], y[:, :0], at)
    assert not mean.any()
    torch.testing.assert_close(cov, RBF()(at, at))


def test_marginal_likelihood_finds_the_kernel_that_drew_the_curves():
    x = 4 * torch.rand(200, 20, 1, generator=seeded()) - 2
    kernel, noise = fit_gp(x, sample_gp(RBF(0.5, 2.0), x, 0.2, seeded(1)))
    assert abs(math.log(kernel.lengthscale / 0.5)) < 0.1
    assert abs(math.log(kernel.amplitude / 2.0)) < 0.15
    assert abs(math.log(noise / 0.2)) < 0.1


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match="standard deviation"):
        sample_gp(RBF(), torch.zeros(2, 1), -0.1)
