"""The recipe that fits a deformable radiance field to posed photographs of something that moves.

    loss = mean ‖C − C*‖² (of both passes) + λ · elastic + μ · background

Elastic: of the coarse pass, on one sample a ray, drawn from its render weights (`draw_sample`): the same expectation as
the paper's sum over all samples, for 1/128 of its Jacobians.  Background: static points, moved by noise of 0.001, each
under the code of a random photograph.  Bands open over the first 60 % of the run.  Adam, 1e-3 → 1e-4 exponentially.
Park et al., ICCV 2021, §§3.3–3.5 and 4 (arXiv 2011.12948); there, 80,000 of 250,000 steps open the bands.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerfies import DeformableNerf, Passes, render_views
from precis.fields.nerfies_losses import background_loss, draw_sample, elastic_loss
from precis.train.loop import Budget, Run, fit, index_batches
from precis.train.schedule import Schedule, exponential

Number = float | int
NOISE = 1e-3  # standard deviation of the static points' noise
OPEN = 0.6  # the part of a run over which the bands open


class Pixels(NamedTuple):
    """P pixels: their photograph, place (column, row) and colour."""

    view: Int64[Tensor, "p"]
    pix: Int64[Tensor, "p 2"]
    rgb: UInt8[Tensor, "p 3"]


def all_pixels(cameras: Cameras, images: UInt8[Tensor, "v h w 3"]) -> Pixels:
    """Every pixel of photographs of one size."""
    v, h, w, _ = images.shape
    grid = cameras.pixels(0).reshape(-1, 2)
    return Pixels(torch.arange(v).repeat_interleave(h * w).to(grid), grid.repeat(v, 1), images.reshape(-1, 3))


def annealed(bands: int, part: Number = OPEN) -> Callable[[float], float]:
    """α as a function of progress: from 0 to `bands` over the first `part` of a run."""
    return lambda progress: bands * min(progress / part, 1.0)


def fit_deformable(
    model: DeformableNerf, cameras: Cameras, pixels: Pixels, near: Number, far: Number, *, rays: int = 6144,
    samples: int = 128, fine_samples: int = 128, background: Number | Float[Tensor, "3"] | None = None,
    frame: Tensor | None = None, alpha: Callable[[float], float] | None = None, elastic: Number = 0.01,
    elastic_schedule: Schedule | None = None,
    static_points: Float[Tensor, "n 3"] | None = None, background_weight: Number = 1.0, background_points: int = 1024,
    render: Callable[..., Passes] = render_views, extra: Callable[[float], Tensor] | None = None, lr: Number = 1e-3,
    groups: list[dict[str, Any]] | None = None, schedule: Schedule | None = None, steps: int | None = None,
    minutes: Number | None = None, generator: torch.Generator | None = None, noise: torch.Generator | None = None,
    measure: Callable[[DeformableNerf, float], dict[str, float]] | None = None, every: int = 50,
    log: Callable[..., None] | None = None, folder: str | Path | None = None, resume: bool = False,
) -> Run:  # fmt: skip
    """Train `model` in place; rays are along unit directions.

    frame: the code of each camera [V] (default: its number).  alpha(progress): default `annealed(bands)`.  elastic: λ,
    times `elastic_schedule(progress)`; background_weight: μ, of `static_points` if there are any.  render: as
    `render_views`.  extra(progress): a further loss, of the template say.  groups: parameter groups with rates of their
    own (default: the whole model, `lr`).  generator: of batches and samples; noise: of the two terms, which so shift
    nothing else.  measure(model, α) -> scalars for the curves, every so many steps.
    """
    warp = model.warp
    opened = alpha or (annealed(warp.bands) if warp is not None else lambda progress: 0.0)
    of_frame = torch.arange(len(cameras), device=pixels.view.device) if frame is None else frame
    device = cameras.c2w.device
    draw = generator or torch.Generator().manual_seed(0)
    shake = noise or torch.Generator().manual_seed(1)
    budget = Budget(steps=steps, minutes=minutes)
    groups = groups or [{"params": list(model.parameters()), "lr": float(lr)}]
    optimizer = torch.optim.Adam(groups, eps=1e-8, fused=device.type in ("cpu", "cuda"))
    done = {"steps": 0}

    def step(rows: Tensor) -> dict[str, Tensor | float]:
        progress = budget.progress
        a = opened(progress)
        scalars: dict[str, Any] = {}
        if measure is not None and done["steps"] % every == 0:
            scalars |= measure(model, a)
        done["steps"] += 1
        rows = rows.to(device)
        view = pixels.view[rows]
        ray = cameras.rays(view, pixels.pix[rows], unit=True)
        codes = model.codes(of_frame[view])
        passes = render(model, ray, codes, a, near, far, samples, fine_samples, background=background, generator=draw)
        truth = pixels.rgb[rows].to(ray.o) / 255
        loss = sum((p.rgb - truth).square().mean() for p in (passes.coarse, passes.fine) if p is not None)
        scalars["mse"] = (passes.best.rgb.detach() - truth).square().mean()
        weight = elastic * (elastic_schedule(progress) if elastic_schedule else 1.0)
        if warp is not None and weight:
            penalty = _elastic(model, ray, passes, codes, a, shake)
            loss = loss + weight * penalty
            scalars["elastic"] = penalty.detach()
        if warp is not None and static_points is not None and background_weight:
            penalty = _background(warp, static_points, background_points, a, shake)
            loss = loss + background_weight * penalty
            scalars["background"] = penalty.detach()
        return scalars | {"loss": loss if extra is None else loss + extra(progress)}

    return fit(
        step, index_batches(len(pixels.view), rays, draw, drop_last=len(pixels.view) >= rays), budget=budget,
        optimizer=optimizer, schedule=schedule or exponential(0.1), log=log, folder=folder, resume=resume,
        keep={"model": model, "draw": draw, "shake": shake},
    )  # fmt: skip


def _elastic(
    model: DeformableNerf, rays: Rays, passes: Passes, codes: Any, alpha: float, generator: torch.Generator
) -> Tensor:
    index, mass = draw_sample(passes.coarse.weights, generator)
    t = passes.t.gather(-1, index[:, None])
    _, jacobian = model.canonical(rays.o + t * rays.d, codes, alpha, jacobian=True)
    assert jacobian is not None
    return elastic_loss(jacobian[:, None], mass[:, None])


def _background(warp: Any, points: Tensor, n: int, alpha: float, generator: torch.Generator) -> Tensor:
    def pick(high: int) -> Tensor:
        return torch.randint(high, (n,), generator=generator, device=generator.device).to(points.device)

    noise = torch.randn(n, 3, generator=generator, device=generator.device).to(points)
    return background_loss(warp, points[pick(len(points))] + NOISE * noise, warp.codes[pick(len(warp.codes))], alpha)
