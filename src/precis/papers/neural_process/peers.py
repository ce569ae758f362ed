"""Gaussian processes beside the neural process: one kernel learnt from all functions, and one fitted to each."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from precis.fields.neural_process_gp import RBF, fit_gp, gp_marginals

from .reading import Function

MOST = 100  # points of a function, and functions, from which a kernel is learnt


@dataclass(frozen=True)
class Shared:
    """A kernel and a noise for each output, found by the marginal likelihood of all training functions together."""

    scale: Any
    kernels: list[tuple[RBF, float]]

    def predict(self, x: np.ndarray, y: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of y [m,dy] at `at`, given x and y."""
        inputs, places, values = self.scale.inputs(x), self.scale.inputs(at), self.scale.values(y)
        found = [gp_marginals(k, inputs, values[:, i : i + 1], places, s) for i, (k, s) in enumerate(self.kernels)]
        mean, std = (torch.cat([getattr(d, name) for d in found], -1).numpy() for name in ("mean", "stddev"))
        return mean * self.scale.y_std + self.scale.y_mean, std * self.scale.y_std


def shared_gp(functions: list[Function], scale: Any) -> Shared:
    """Learnt from at most a hundred points of at most a hundred functions."""
    some = sorted(functions, key=lambda f: -len(f.x))[:MOST]
    longest = min(MOST, len(some[0].x))
    x = torch.zeros(len(some), longest, some[0].x.shape[1])
    y, mask = torch.zeros(len(some), longest, some[0].y.shape[1]), torch.zeros(len(some), longest, dtype=torch.bool)
    for i, f in enumerate(some):
        rows = np.unique(np.linspace(0, len(f.x) - 1, min(longest, len(f.x))).astype(int))
        n = len(rows)
        x[i, :n], y[i, :n], mask[i, :n] = scale.inputs(f.x[rows]), scale.values(f.y[rows]), True
    return Shared(scale, [fit_gp(x, y[..., j : j + 1], mask) for j in range(y.shape[-1])])


def own_gp(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one would do for a single function: scikit-learn's GP with a kernel fitted to its own points."""
    fitted = [_fitted(x, y[:, i]) for i in range(y.shape[1])]
    low, span = x.min(0), np.ptp(x, axis=0)
    places = (at - low) / np.where(span > 0, span, 1.0)
    found = [gp.predict(places, return_std=True) for gp in fitted]
    return np.stack([m for m, _ in found], 1), np.stack([np.maximum(s, 1e-9) for _, s in found], 1)


def alone(f: Function) -> str:
    """One function: its GP in words, with the error of leaving each point out."""
    n = len(f.x)
    if n < 3:
        return f"and {n} points are too few for that too; give a table of many functions"
    rows = np.unique(np.linspace(0, n - 1, min(n, 200)).astype(int))
    x, y = f.x[rows], f.y[rows]
    gp = _fitted(x, y[:, 0])
    span = np.ptp(x, axis=0)
    kernel = gp.kernel_
    covariance = kernel((x - x.min(0)) / np.where(span > 0, span, 1.0))
    inverse = np.linalg.inv(covariance)
    centred = (y[:, 0] - y[:, 0].mean()) / (y[:, 0].std() or 1.0)
    left_out = (inverse @ centred) / np.diag(inverse) * (y[:, 0].std() or 1.0)
    length = float(np.max(kernel.k1.k2.length_scale * np.where(span > 0, span, 1.0)))
    noise = float(np.sqrt(kernel.k2.noise_level)) * float(y[:, 0].std())
    return (
        f"fitted to its {n} points, a GP has length scale {length:.3g} and noise {noise:.2g}, and predicts each point "
        f"from the others with RMSE {np.sqrt((left_out**2).mean()):.3g} (standard deviation of y {y[:, 0].std():.3g}); "
        "a neural process needs a table of many functions"
    )


def _fitted(x: np.ndarray, y: np.ndarray) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF as Quadratic
    from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel

    span = np.ptp(x, axis=0)
    inputs = (x - x.min(0)) / np.where(span > 0, span, 1.0)
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * Quadratic(0.2, (1e-3, 1e2)) + WhiteKernel(1e-2, (1e-6, 1e1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(inputs, y)
