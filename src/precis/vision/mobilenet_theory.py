"""Why bottlenecks are linear: what ReLU destroys of a curve in few dimensions, and in how many directions pixels vary.

    y = ReLU(x T),  x [points,2] on a spiral, T [2,dim] normal;   loss = min_A ‖x − (y,1) A‖² / ‖x − x̄‖²

The paper (§3.2, Figure 1) brings the curve back with the inverse of T.  That leaves a floor at any dimension, since
ReLU halves the activations; the best affine read-out does not.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spiral(n_points: int = 200, turns: float | int = 2) -> Float[Tensor, "n 2"]:
    """Points of an Archimedean spiral around 0, radius up to 1, float64."""
    t = torch.linspace(0, 1, n_points, dtype=torch.float64)
    angle = 2 * math.pi * turns * t
    return torch.stack([t * angle.cos(), t * angle.sin()], 1)


def read_out(x: Float[Tensor, "n d"], y: Float[Tensor, "*trials n k"]) -> Float[Tensor, "*trials n d"]:
    """x as the best affine map of y gives it: its projection on the span of y's columns and 1."""
    centred = y - y.mean(-2, keepdim=True)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    kept = s > s[..., :1] * max(y.shape[-2:]) * torch.finfo(y.dtype).eps
    u = u * kept[..., None, :]
    mean = x.mean(0)
    return u @ (u.mT @ (x - mean)) + mean


def embedded(
    x: Float[Tensor, "n d"], dim: int, trials: int, generator: torch.Generator | None = None, *, relu: bool = True
) -> Float[Tensor, "{trials} n {dim}"]:
    """ReLU(x T), or x T without it, for `trials` draws of T [d,dim] with normal entries."""
    maps = torch.randn(trials, x.shape[1], dim, generator=generator, dtype=x.dtype)
    return (x @ maps).relu() if relu else x @ maps


def information_loss(
    dim: int, n_points: int = 200, trials: int = 50, *, relu: bool = True, generator: torch.Generator | None = None
) -> Float[Tensor, "{trials}"]:
    """The share of the spiral's variance that is lost in `dim` dimensions, a draw: 0 nothing, 1 all.

    ValueError for a dimension below 1.
    """
    if dim < 1 or n_points < 3 or trials < 1:
        raise ValueError(f"dim and trials from 1 and points from 3 are wanted, got {dim}, {trials}, {n_points}")
    x = spiral(n_points)
    left = (x - read_out(x, embedded(x, dim, trials, generator, relu=relu))).square().sum((1, 2))
    return left / (x - x.mean(0)).square().sum()


def components_needed(x: Float[Tensor, "n c"], share: float | int = 0.95) -> int:
    """How many principal components hold `share` of the variance of the rows of x."""
    if not 0 < share <= 1:
        raise ValueError(f"share lies in (0, 1], got {share}")
    wide = x.double()
    spectrum = torch.linalg.eigvalsh((wide - wide.mean(0)).mT @ (wide - wide.mean(0))).flip(0).clamp(min=0)
    total = spectrum.sum()
    if total == 0:
        return 0
    return int((spectrum.cumsum(0) < float(share) * total * (1 - 1e-12)).sum()) + 1
