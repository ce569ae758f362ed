"""KL divergence from a log-uniform prior to N(θ, αθ²), a function of log α alone: three ways.

    −D_KL = ½ log α − E log|ε| + C,   ε ~ N(1, α),   C so that D_KL → 0 as α → ∞

"sigmoid": −D ≈ k₁ σ(k₂ + k₃ log α) − ½ log(1 + 1/α) − k₁ for every α, to 0.0094 nats (Molchanov et al. 2017, §4.2).
"kingma":  −D ≈ ½ log α + c₁α + c₂α² + c₃α³ + C for α ≤ 1 only (Kingma, Salimans, Welling 2015, arXiv 1506.02557).
"exact":    D = (1/2α) ₂F₂(1,1; 3/2,2; −1/2α) = 2∫₀ˢ F(t)dt,   s = 1/√(2α),   dD/d log α = −s F(s),
with Dawson's integral F(s) = exp(−s²)∫₀ˢ exp(t²)dt.
"""

import math
from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Kind = Literal["sigmoid", "exact", "kingma"]
K1, K2, K3 = 0.63576, 1.87320, 1.48695
C1, C2, C3 = 1.16145124, -1.50204118, 0.58629921
LIMIT = (np.euler_gamma + math.log(2)) / 2  # D + ½ log α as α → 0; the paper's k₁ is a fit of it
RANGE, CELLS = 8.0, 512


def kl_divergence(log_alpha: Float[Tensor, "*shape"], kind: Kind = "sigmoid") -> Float[Tensor, "*shape"]:
    """D_KL of every weight, in nats; differentiable.  ValueError for another kind.

    "kingma" carries no constant in its paper; here it is the one that makes it exact as α → 0.
    """
    if kind == "sigmoid":
        return K1 * torch.sigmoid(-K2 - K3 * log_alpha) + 0.5 * F.softplus(-log_alpha)
    if kind == "kingma":
        alpha = log_alpha.exp()
        return LIMIT - 0.5 * log_alpha - alpha * (C1 + alpha * (C2 + alpha * C3))
    if kind == "exact":
        return _exact(log_alpha)
    raise ValueError(f"kind must be sigmoid, exact or kingma, got {kind!r}")


def _exact(u: Tensor) -> Tensor:
    """Quintic Hermite interpolation of tabulated values inside ±8 (error below 1e-12), series outside."""
    inside = u.clamp(-RANGE, RANGE)
    at = (inside + RANGE) * (CELLS / (2 * RANGE))
    cell = at.detach().floor().clamp(max=CELLS - 1)
    a = torch.from_numpy(_cells()).to(u)[cell.long()]
    t = at - cell
    value = a[..., 5]
    for k in range(4, -1, -1):
        value = value * t + a[..., k]
    alpha, s2 = u.clamp(max=-RANGE).exp(), 0.5 * (-u.clamp(min=RANGE)).exp()
    low = LIMIT - 0.5 * u - alpha * (1 / 2 + alpha * (3 / 4 + alpha * (5 / 2 + alpha * 105 / 8)))
    high = s2 * (1 - s2 / 3 * (1 - s2 * 4 / 15))
    return torch.where(u < -RANGE, low, torch.where(u > RANGE, high, value))


@cache
def _cells() -> np.ndarray:
    """Coefficients [512,6] of powers of the position t in 0…1 inside each cell of log α."""
    from scipy.special import dawsn

    width = 2 * RANGE / CELLS
    u = np.linspace(-RANGE, RANGE, CELLS + 1)
    slope = lambda v: -np.exp(-v / 2) / math.sqrt(2) * dawsn(np.exp(-v / 2) / math.sqrt(2))
    nodes, weights = np.polynomial.legendre.leggauss(8)
    pieces = slope(u[:-1, None] + width * (nodes + 1) / 2) @ weights * width / 2
    end = _exact_far(u[-1])
    value = end - np.append(np.cumsum(pieces[::-1])[::-1], 0.0)
    s = np.exp(-u / 2) / math.sqrt(2)
    first, second = width * slope(u), width**2 * s / 2 * (dawsn(s) + s * (1 - 2 * s * dawsn(s)))
    y, d, h = value[:-1], first[:-1], second[:-1] / 2
    rise = value[1:] - y - d - h
    turn = first[1:] - d - 2 * h
    bend = (second[1:] - second[:-1]) / 2
    return np.stack([y, d, h, 10 * rise - 4 * turn + bend, -15 * rise + 7 * turn - 2 * bend,
                     6 * rise - 3 * turn + bend], 1)  # fmt: skip


def _exact_far(u: float) -> float:
    """D at a large log α by the first terms of ₂F₂."""
    s2 = math.exp(-u) / 2
    return s2 - s2**2 / 3 + 4 * s2**3 / 45 - 2 * s2**4 / 105
