"""What a coordinate network is fitted to: values, derivatives, or a differential equation.

Losses take what the net's `jet` holds, and return one number, or one for each copy of a stack [M].  Nothing here
evaluates a net.  Equations and weights: Sitzmann et al., NeurIPS 2020, §4 and the released code (arXiv 2006.09661).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Number = float | int


def value_loss(
    pred: Float[Tensor, "*out o"], target: Float[Tensor, "*target o"], weight: Float[Tensor, "*w 1"] | None = None
) -> Float[Tensor, "*copies"]:
    """Mean of (Φ − y)² over rows and outputs, rows weighted where a weight (or a 0/1 mask) is given."""
    square = (pred - target).square()
    return (square if weight is None else square * weight).mean((-2, -1))


def gradient_loss(
    grad: Float[Tensor, "*out o d"], target: Float[Tensor, "*target o d"], scale: Number | Tensor = 1.0
) -> Float[Tensor, "*copies"]:
    """Mean over rows and outputs of ‖∇Φ − g‖² / scale, the scale usually the mean of ‖g‖²."""
    return (grad - target).square().sum(-1).mean((-2, -1)) / scale


def laplacian_loss(
    lap: Float[Tensor, "*out o"], target: Float[Tensor, "*target o"], scale: Number | Tensor = 1.0
) -> Float[Tensor, "*copies"]:
    """Mean over rows and outputs of (ΔΦ − l)² / scale."""
    return (lap - target).square().mean((-2, -1)) / scale


def eikonal_loss(
    pred: Float[Tensor, "*out 1"], grad: Float[Tensor, "*out d"], on_surface: Bool[Tensor, " n"],
    normals: Float[Tensor, "n d"],
) -> dict[str, Float[Tensor, "*copies"]]:  # fmt: skip
    """The four terms of a signed distance fit, weighted; their sum is the loss.

        3000 |Φ|_on + 100 e^{−100|Φ|}_off + 100 (1 − cos(∇Φ, n))_on + 50 | ‖∇Φ‖ − 1 |_all

    Every mean is over *all* rows, on the surface or not, as in the released code.  normals: unit; rows off the surface
    are not read.  pred [*,N,1], grad [*,N,d].
    """
    on = on_surface.to(pred.dtype)
    distance = pred.squeeze(-1).abs()
    cosine = F.cosine_similarity(grad, torch.where(on_surface[:, None], normals, 1.0).to(grad), dim=-1)
    return {
        "sdf": 3000 * (on * distance).mean(-1),
        "inter": 100 * ((1 - on) * torch.exp(-100 * distance)).mean(-1),
        "normal": 100 * (on * (1 - cosine)).mean(-1),
        "eikonal": 50 * (grad.norm(dim=-1) - 1).abs().mean(-1),
    }


def gaussian_source(
    x: Float[Tensor, "n 2"], centre: tuple[Number, Number] = (0.0, 0.0), variance: Number = 1e-4, cut: Number = 1e-5
) -> Float[Tensor, "n 2"]:
    """f = (1 + i) · N(x; centre, variance), real and imaginary part in two columns, 0 where it is below `cut`."""
    square = (x - x.new_tensor(centre)).square().sum(-1, keepdim=True)
    density = torch.exp(-square / (2 * variance)) / (2 * math.pi * variance)
    return torch.where(density < cut, 0.0, density).expand(-1, 2).contiguous()


def helmholtz_residual(
    value: Float[Tensor, "*out 2"], grad: Float[Tensor, "*out 2 2"], hess: Float[Tensor, "*out 2 2 2"],
    x: Float[Tensor, "n 2"], source: Float[Tensor, "n 2"], wavenumber: Number,
    squared_slowness: Float[Tensor, " n"] | float = 1.0, *, pml: Number = 0.5, a0: Number = 5.0,
) -> Float[Tensor, "*out 2"]:  # fmt: skip
    """Residual of the Helmholtz equation with perfectly matched layers, for complex Φ (real and imaginary output).

        ∂_1(e_2/e_1 ∂_1 Φ) + ∂_2(e_1/e_2 ∂_2 Φ) + e_1 e_2 m k² Φ − f,   e_a = 1 − i a_0 ((|x_a| − (1 − pml))_+ / pml)²

    on [−1, 1]²; m: squared slowness.  The sign of f is the code's (the text has −f).  For m = 1 and a unit source the
    field is (i/4) H⁽²⁾_0(k r).  pml = 0 leaves the layers out.
    """
    phi = torch.complex(value[..., 0], value[..., 1])
    first = torch.complex(grad[..., 0, :], grad[..., 1, :])
    second = torch.complex(hess[..., 0, :, :], hess[..., 1, :, :]).diagonal(dim1=-2, dim2=-1)
    depth = (x.abs() - (1 - pml)).clamp(min=0) / pml if pml > 0 else torch.zeros_like(x)
    slope = torch.sign(x) * 2 * depth / pml if pml > 0 else torch.zeros_like(x)
    e = torch.complex(torch.ones_like(x), -a0 * depth.square())
    de = torch.complex(torch.zeros_like(x), -a0 * slope)
    swapped = e.flip(-1)
    flux = swapped / e * (second - de / e * first)
    mass = e.prod(-1) * squared_slowness * wavenumber**2 * phi
    return torch.view_as_real(flux.sum(-1) + mass) - source


def helmholtz_loss(
    residual: Float[Tensor, "*out 2"], source: Float[Tensor, "n 2"]
) -> Float[Tensor, "*copies"]:
    """Sum of |residual|, on the source weighted with N/1000 for N rows."""
    weight = torch.where(source != 0, len(source) / 1e3, 1.0)
    return (residual.abs() * weight).sum((-2, -1))


def wave_residual(
    lap: Float[Tensor, "*out o"] | None = None, hess: Float[Tensor, "*out o d d"] | None = None,
    speed: Float[Tensor, " n"] | float = 1.0,
) -> Float[Tensor, "*out o"]:  # fmt: skip
    """Residual ∂²_t Φ − c² Δ_x Φ of the wave equation for coordinates (t, x…).

    Give `hess`, or as `lap` the Laplacian taken with `jet(..., weights=wave_weights(speed))`, which costs half.
    """
    if lap is not None:
        return lap
    if hess is None:
        raise ValueError("wave_residual needs lap or hess")
    second = hess.diagonal(dim1=-2, dim2=-1)
    c2 = torch.as_tensor(speed, dtype=second.dtype, device=second.device).square().unsqueeze(-1)
    return second[..., 0] - c2 * second[..., 1:].sum(-1)


def wave_weights(speed: Float[Tensor, " n"], d: int = 3) -> Float[Tensor, "n {d}"]:
    """Weights (1, −c², …) that make the Laplacian in (t, x…) the wave operator."""
    minus = -speed.square().unsqueeze(-1)
    return torch.cat([torch.ones_like(minus), minus.expand(-1, d - 1)], -1)


def wave_loss(
    residual: Float[Tensor, "*out 1"] | None, value: Float[Tensor, "*out 1"], velocity: Float[Tensor, "*out 1"],
    initial: Float[Tensor, "n 1"], at_start: Bool[Tensor, " n"],
) -> Float[Tensor, "*copies"]:  # fmt: skip
    """Σ|residual| + N/10 Σ|Φ − Φ_0| + N/100 Σ|∂_t Φ|, the last two over the rows at t = 0, with N rows in all.

    residual None: the first steps fit the initial condition alone.
    """
    n, start = len(at_start), at_start[:, None].to(value.dtype)
    loss = ((value - initial).abs() * start).sum((-2, -1)) * (n / 10)
    loss = loss + (velocity.abs() * start).sum((-2, -1)) * (n / 100)
    return loss if residual is None else loss + residual.abs().sum((-2, -1))
