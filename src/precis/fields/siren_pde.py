"""Recipes that fit a coordinate network to an equation: signed distances, the Helmholtz and the wave equation.

Nothing is known of the solution but the equation and its boundary values; rows are drawn anew for every step.  Losses
and their weights: `precis.fields.siren_losses`.  Sitzmann et al., NeurIPS 2020, §4.2–4.3 (arXiv 2006.09661).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from precis.fields.siren_fit import WHOLE, losses, train
from precis.fields.siren_losses import (
    eikonal_loss,
    gaussian_source,
    helmholtz_loss,
    helmholtz_residual,
    wave_loss,
    wave_weights,
)  # fmt: skip
from precis.train.loop import Budget, Run

Number = float | int
Map = Callable[[Tensor], Tensor]


class UnitBox(NamedTuple):
    """Points moved to the mean and scaled by one factor into [−1, 1]: x = centre + scale · points."""

    points: Float[Tensor, "n d"]
    centre: Float[Tensor, " d"]
    scale: float

    def back(self, points: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Points of the box in the units that they came in."""
        return points * self.scale + self.centre.to(points)


def to_unit_box(points: Float[Tensor, "n d"], margin: Number = 0.0) -> UnitBox:
    """Centre points by their mean and scale them into [−1 + margin, 1 − margin].

    Raises ValueError if they all lie in one place.
    """
    centre = points.mean(0)
    scale = float((points - centre).abs().max()) / (1 - margin)
    if not scale > 0:
        raise ValueError("the points all lie in one place")
    return UnitBox((points - centre) / scale, centre, scale)


def fit_sdf(
    net: Any, points: Float[Tensor, "n d"], normals: Float[Tensor, "m k"], *, generator: torch.Generator,
    batch: int = 1400, clip: Number | None = 1.0, lr: Number | Tensor = 1e-4, **options: Any,
) -> Run:  # fmt: skip
    """Fit the signed distance function of oriented points in [−1, 1]ᵈ, negative on the side the normals turn away from.

    Each step takes `batch` of the points (with replacement) and as many uniform in the box.  The curves hold the terms.
    """
    if points.shape != normals.shape:
        raise ValueError(f"points and normals must have one shape, got {tuple(points.shape)}, {tuple(normals.shape)}")
    normals = F.normalize(normals, dim=-1)
    on_surface = torch.arange(2 * batch, device=points.device) < batch

    def step(_: None) -> dict[str, Tensor]:
        rows = torch.randint(len(points), (batch,), generator=generator, device=generator.device).to(points.device)
        x = torch.cat([points[rows], _uniform(batch, points, generator)])
        n = torch.cat([normals[rows], torch.zeros_like(points[rows])])
        jet = net.jet(x, 1)
        terms = eikonal_loss(jet.value, jet.grad[..., 0, :], on_surface, n)
        return losses(sum(terms.values())) | {k: v.detach().sum() for k, v in terms.items()}  # type: ignore[arg-type]

    return train(net, step, WHOLE, clip=clip, lr=lr, keep={"generator": generator}, **options)


def fit_helmholtz(
    net: Any, *, generator: torch.Generator, wavenumber: Number = 20.0, squared_slowness: Map | None = None,
    centre: tuple[Number, Number] = (0.0, 0.0), variance: Number = 1e-4, batch: int = 4096, source_rows: int = 100,
    lr: Number | Tensor = 2e-5, **options: Any,
) -> Run:  # fmt: skip
    """Solve the Helmholtz equation on [−1, 1]² with absorbing layers, for a Gaussian source; net: 2 -> 2.

    squared_slowness: x [N,2] -> m [N] (default: 1), see `map_lookup`.  Of the rows of a step, uniform in the square,
    `source_rows` are drawn about the source, which would be met too rarely.
    """
    like = next(net.parameters())
    place = like.new_tensor(centre)

    def step(_: None) -> dict[str, Tensor]:
        x = _uniform(batch, like.new_empty(0, 2), generator)
        x[:source_rows] = place + 2 * variance**0.5 * _normal(x[:source_rows], generator)
        source = gaussian_source(x, centre, variance)
        m = 1.0 if squared_slowness is None else squared_slowness(x)
        jet = net.jet(x, 2)
        return losses(helmholtz_loss(helmholtz_residual(*_three(jet), x, source, wavenumber, m), source))

    return train(net, step, WHOLE, lr=lr, keep={"generator": generator}, **options)


def fit_wave(
    net: Any, initial: Map, *, generator: torch.Generator, speed: Map | None = None, until: Number = 0.4,
    batch: int = 4096, start_share: Number = 0.25, warm_up: Number = 0.02, steps: int | None = 1000,
    minutes: Number | None = None, lr: Number | Tensor = 2e-5, **options: Any,
) -> Run:  # fmt: skip
    """Solve ∂²_t Φ = c² ΔΦ on [−1, 1]² from Φ = initial, ∂_t Φ = 0 at t = 0; net: (t, x) 3 -> 1.

    initial: x [N,2] -> [N,1]; speed: x [N,2] -> c [N] (default: 1).  The first share `warm_up` of the run fits the
    initial condition alone; from then on times reach up to a bound that grows linearly to `until`.  `start_share` of
    the rows lie at t = 0.  (The paper: 0.02 of 100,000 steps, until 0.4.)
    """
    like = next(net.parameters())
    budget = Budget(steps=steps, minutes=minutes)
    at_start = torch.arange(batch, device=like.device) < max(1, round(start_share * batch))

    def step(_: None) -> dict[str, Tensor]:
        x = _uniform(batch, like.new_empty(0, 3), generator)
        reach = max(0.0, (budget.progress - warm_up) / (1 - warm_up)) * until
        x[:, 0] = torch.where(at_start, 0.0, (x[:, 0] + 1) / 2 * reach)
        if reach == 0:
            jet, residual = net.jet(x, 1), None
        else:
            c = like.new_ones(batch) if speed is None else speed(x[:, 1:])
            jet = net.jet(x, 2, True, weights=wave_weights(c))
            residual = jet.lap
        return losses(wave_loss(residual, jet.value, jet.grad[..., 0], initial(x[:, 1:]), at_start))

    return train(net, step, WHOLE, lr=lr, budget=budget, keep={"generator": generator}, **options)


def map_lookup(array: Float[Tensor, "h w"]) -> Map:
    """An array over [−1, 1]² (pixel centres) as x [N,2] -> [N]: bilinear, constant past the outer centres."""

    def look(x: Tensor) -> Tensor:
        grid = x.flip(-1)[None, None]  # grid_sample wants (column, row)
        kind = dict(mode="bilinear", padding_mode="border", align_corners=False)
        return F.grid_sample(array[None, None].to(x), grid, **kind)[0, 0, 0]  # type: ignore[arg-type]

    return look


def _three(jet: Any) -> tuple[Tensor, Tensor, Tensor]:
    return jet.value, jet.grad, jet.hess


def _uniform(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """n rows uniform in [−1, 1]ᵈ."""
    draw = torch.rand(n, like.shape[-1], generator=generator, device=generator.device, dtype=like.dtype)
    return draw.to(like.device) * 2 - 1


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    draw = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return draw.to(like.device)
