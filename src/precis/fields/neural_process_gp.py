"""Gaussian processes: what a neural process learns to imitate, exact where the kernel is known.

    f ~ GP(0, k),   y = f(x) + ε,   ε ~ N(0, s²)
    E[f*|y] = K*ᵀ (K + s²I)⁻¹ y,    Cov[f*|y] = K** − K*ᵀ (K + s²I)⁻¹ K*

Batches of functions go through one Cholesky factorisation in float64.  The exact predictive costs O(n³) in the number
of observations, a neural process O(n).  `noise` is a standard deviation throughout: the notebook of Garnelo et al. adds
0.02² to the diagonal.  Rasmussen and Williams, 2006, §2.2 and §5.4; Garnelo et al., ICML 2018, §4.1 (arXiv 1807.01613).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Kernel = Callable[[Tensor, Tensor], Tensor]  # (x [*b,n,d], x' [*b,m,d]) -> [*b,n,m]
Number = float | int


@dataclass(frozen=True)
class RBF:
    """The exponentiated quadratic k(x, x') = amplitude² exp(−|x − x'|² / (2 lengthscale²))."""

    lengthscale: Number | Tensor = 0.4
    amplitude: Number | Tensor = 1.0

    def __call__(self, x: Float[Tensor, "*b n d"], z: Float[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
        square = (x[..., :, None, :] - z[..., None, :, :]).div(self.lengthscale).square().sum(-1)
        return self.amplitude**2 * torch.exp(-0.5 * square)


def sample_gp(
    kernel: Kernel, x: Float[Tensor, "*b n d"], noise: Number = 0.02, generator: torch.Generator | None = None
) -> Float[Tensor, "*b n 1"]:
    """Draw y = f(x) + ε for each row of locations; computed in float64, returned in the type of x.

    Raises ValueError for a negative noise.
    """
    if noise < 0:
        raise ValueError(f"noise is a standard deviation, at least 0; got {noise}")
    chol = _factor(kernel, x.double(), max(noise**2, 1e-10))
    z = torch.randn(*x.shape[:-1], 1, generator=generator, dtype=torch.float64)
    return (chol @ z.to(x.device)).to(x.dtype)


def gp_predict(
    kernel: Kernel, ctx_x: Float[Tensor, "*b n d"], ctx_y: Float[Tensor, "*b n 1"], tgt_x: Float[Tensor, "*b m d"],
    noise: Number = 0.02, mask: Bool[Tensor, "*b n"] | None = None,
) -> tuple[Float[Tensor, "*b m 1"], Float[Tensor, "*b m m"]]:
    """Mean and covariance, in float64, of the noise-free function at the targets; add noise² to the variance for y.

    mask: true where a context point is observed; what is masked changes nothing.  An empty context gives the prior.
    """
    cross, weights, y = _solve(kernel, ctx_x, ctx_y, tgt_x, noise, mask)
    prior = kernel(tgt_x.double(), tgt_x.double())
    return weights.mT @ y, prior - weights.mT @ cross


def gp_mean(
    kernel: Kernel, ctx_x: Float[Tensor, "*b n d"], ctx_y: Float[Tensor, "*b n 1"], tgt_x: Float[Tensor, "*b m d"],
    noise: Number = 0.02,
) -> Float[Tensor, "*b m 1"]:
    """The mean of `gp_predict` alone, with one solution in place of one a target: for many targets."""
    x, t = ctx_x.double(), tgt_x.double()
    chol = _factor(kernel, x, max(noise**2, 1e-10))
    return kernel(x, t).mT @ torch.cholesky_solve(ctx_y.double(), chol)


def gp_marginals(
    kernel: Kernel, ctx_x: Float[Tensor, "*b n d"], ctx_y: Float[Tensor, "*b n 1"], tgt_x: Float[Tensor, "*b m d"],
    noise: Number = 0.02, mask: Bool[Tensor, "*b n"] | None = None,
) -> torch.distributions.Normal:
    """The predictive of y at each target by itself, noise included: what a factored prediction can at best be."""
    cross, weights, y = _solve(kernel, ctx_x, ctx_y, tgt_x, noise, mask)
    one = tgt_x.double()[..., :1, :]
    prior = kernel(one, one)  # the kernel is stationary: the same at every place
    variance = prior - (weights * cross).sum(-2)[..., :, None]
    return torch.distributions.Normal(weights.mT @ y, (variance.clamp(min=0) + noise**2).sqrt())


def gp_log_likelihood(
    kernel: Kernel, x: Float[Tensor, "*b n d"], y: Float[Tensor, "*b n 1"], noise: Number | Tensor,
    mask: Bool[Tensor, "*b n"] | None = None,
) -> Float[Tensor, "*b"]:
    """log N(y; 0, K + noise²I) of the observed points, in nats; computed in the type of x."""
    eye = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    cov = kernel(x, x)
    if mask is not None:
        both = mask[..., :, None] & mask[..., None, :]
        cov, y = cov * both, y * mask[..., None]
    chol = torch.linalg.cholesky(cov + noise**2 * eye)
    white = torch.linalg.solve_triangular(chol, y, upper=False)[..., 0]
    diagonal = chol.diagonal(dim1=-2, dim2=-1).log()
    if mask is not None:
        diagonal = diagonal * mask
    n = x.shape[-2] if mask is None else mask.sum(-1)
    return -0.5 * white.square().sum(-1) - diagonal.sum(-1) - 0.5 * n * math.log(2 * math.pi)


def fit_gp(
    x: Float[Tensor, "b n d"], y: Float[Tensor, "b n 1"], mask: Bool[Tensor, "b n"] | None = None, *,
    steps: int = 60, least_noise: Number = 1e-3,
) -> tuple[RBF, float]:
    """The RBF kernel and noise that maximise the marginal likelihood of all functions together (L-BFGS, float64).

    One length scale for all input dimensions.  Starts at a quarter of the range of x and the data's own spread.
    """
    x, y = x.double(), y.double()
    seen = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device) if mask is None else mask
    spread = y[seen].square().mean().sqrt().clamp(min=1e-6)
    reach = (x[seen].amax(0) - x[seen].amin(0)).max().clamp(min=1e-6)
    theta = torch.stack([(reach / 4).log(), spread.log(), (spread / 5).log()]).requires_grad_(True)
    solver = torch.optim.LBFGS([theta], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        length, amplitude, noise = theta.exp()
        floor = (noise**2 + (least_noise * spread) ** 2).sqrt()
        value = -gp_log_likelihood(RBF(length, amplitude), x, y, floor, mask).sum() / seen.sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    length, amplitude, noise = theta.detach().exp().tolist()
    return RBF(length, amplitude), math.hypot(noise, least_noise * float(spread))


def _solve(
    kernel: Kernel, ctx_x: Tensor, ctx_y: Tensor, tgt_x: Tensor, noise: Number, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """K* [n,m], (K + s²I)⁻¹ K* [n,m], y [n,1]."""
    x, y, t = ctx_x.double(), ctx_y.double(), tgt_x.double()
    cross = kernel(x, t)
    if mask is not None:  # a masked point has no covariance with anything
        cross, y = cross * mask[..., None], torch.where(mask[..., None], y, 0.0)
    chol = _factor(kernel, x, max(noise**2, 1e-10), mask)
    return cross, torch.cholesky_solve(cross, chol), y


def _factor(kernel: Kernel, x: Tensor, variance: float, mask: Tensor | None = None) -> Tensor:
    cov = kernel(x, x)
    if mask is not None:
        cov = cov * (mask[..., :, None] & mask[..., None, :])
    cov.diagonal(dim1=-2, dim2=-1).add_(variance)
    return torch.linalg.cholesky(cov)
