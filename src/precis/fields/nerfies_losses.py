"""What keeps a deformation field well behaved: robust penalties on its Jacobian and on what should not move.

    ρ(r; α, c) = |α − 2|/α · (((r/c)²/|α − 2| + 1)^{α/2} − 1)          α = −2: Geman–McClure, 2(r/c)²/((r/c)² + 4)

    elastic      c · ρ(‖log Σ‖; −2, c = 0.03),  J = ∂T/∂x = U Σ Vᵀ;   0 where T is rigid
    background   c · ρ(‖T(x) − x‖; −2, c = 0.001)  at points x that stand still

Park et al., ICCV 2021, §§3.3–3.4 (arXiv 2011.12948); ρ by Barron, CVPR 2019.  The released code multiplies ρ by c once
more, and so do these: a stated weight λ acts as c λ.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Number = float | int


def general_robust(sq_residual: Float[Tensor, "*n"], alpha: Number, scale: Number) -> Float[Tensor, "*n"]:
    """ρ of residuals whose squares are given; α from 2 (½ r²/c²) over 0 (Cauchy) to −∞ (Welsch), or above."""
    if scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    x = sq_residual / scale**2
    if alpha == 2:
        return x / 2
    if alpha == 0:
        return torch.log1p(x / 2)
    if alpha == -math.inf:
        return -torch.expm1(-x / 2)
    if alpha == math.inf:
        return torch.expm1(x / 2)
    if alpha == -2:
        return 2 * x / (x + 4)
    b = abs(alpha - 2)
    return b / alpha * torch.expm1(alpha / 2 * torch.log1p(x / b))


def log_singular_values(j: Float[Tensor, "*n 3 3"], eps: Number = 1e-6) -> Float[Tensor, "*n 3"]:
    """log σ_i of each matrix, σ ≥ eps, ascending: ½ log of the eigenvalues of JᵀJ.

    Eigenvalues have derivatives where eigenvectors have none (equal ones, as at the start of a training), so those of
    this function are always finite.
    """
    return torch.linalg.eigvalsh(j.mT @ j).clamp(min=eps**2).log() / 2


def elastic_loss(
    J: Float[Tensor, "*n 3 3"], weights: Float[Tensor, "*n"] | None = None, scale: Number = 0.03, eps: Number = 1e-6,
    kind: Literal["log_svals", "svals"] = "log_svals",
) -> Float[Tensor, ""]:  # fmt: skip
    """c · ρ(‖log Σ‖), or of ‖Σ − I‖ ("svals"); a mean, or with render weights [rays, samples] summed over the samples
    and averaged over the rays.  No gradient goes into the weights.

    One sample a ray that is drawn by `draw_sample` serves for all of them: J [rays,1,3,3], weights [rays,1].
    """
    values = log_singular_values(J, eps)
    residual = values if kind == "log_svals" else values.exp() - 1
    penalty = scale * general_robust(residual.square().sum(-1), -2, scale)
    if weights is None:
        return penalty.mean()
    return (weights.detach() * penalty).sum(-1).mean()


def draw_sample(
    weights: Float[Tensor, "r s"], generator: torch.Generator
) -> tuple[Int64[Tensor, "r"], Float[Tensor, "r"]]:
    """A sample of each ray, drawn in proportion to its render weight, and the ray's opacity.

    The mean over draws of opacity · h(sample) is Σ_s w_s h(s), at a share 1/S of the work.  On a ray without any weight
    the sample is uniform and the opacity 0.
    """
    w = weights.detach()
    mass = w.sum(-1)
    cdf = torch.cumsum(torch.where(mass[:, None] > 0, w, 1.0), -1)
    u = torch.rand(len(w), 1, generator=generator, dtype=w.dtype, device=generator.device).to(w.device)
    index = torch.searchsorted(cdf, u * cdf[:, -1:], right=True).squeeze(-1)
    return index.clamp(max=w.shape[1] - 1), mass


def background_loss(
    field: Callable[..., tuple[Tensor, Tensor | None]], points: Float[Tensor, "p 3"], codes: Float[Tensor, "p c"],
    alpha: Number | Float[Tensor, ""], scale: Number = 1e-3,
) -> Float[Tensor, ""]:  # fmt: skip
    """c · ρ(‖T(x) − x‖), the mean over points that do not move, each under a code of its own."""
    moved, _ = field(points, codes, alpha)
    return scale * general_robust((moved - points).square().sum(-1), -2, scale).mean()
