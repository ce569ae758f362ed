"""Fitting a radiance field to photographs by the paper's recipe, and rendering whole pictures.

    loss = mean ‖C_coarse − C‖² + mean ‖C_fine − C‖²

64 stratified and 128 importance samples a ray, Adam at 5·10⁻⁴ with ε = 10⁻⁷, decaying to a tenth.
Mildenhall et al., ECCV 2020, §5.3 (arXiv 2003.08934).  The fast recipe: `nerf_fast`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerf_render import Rendered, over, render_rays
from precis.train.loop import Budget, Run, fit
from precis.train.schedule import exponential

Number = float | int
Renderer = Callable[[Rays], Rendered]
Measure = Callable[[int], dict[str, float]]


class Photographs(NamedTuple):
    """All pixels of all photographs in one list: colour [P,3] and opacity [P] (or None) as bytes, photograph [P],
    column and row [P,2]."""

    cameras: Cameras
    rgb: UInt8[Tensor, "p 3"]
    alpha: UInt8[Tensor, "p"] | None
    view: Int[Tensor, "p"]
    pix: Int[Tensor, "p 2"]

    def some(self, rows: Int[Tensor, "k"] | Bool[Tensor, "p"]) -> "Photographs":
        """A part of the pixels."""
        alpha = None if self.alpha is None else self.alpha[rows]
        return Photographs(self.cameras, self.rgb[rows], alpha, self.view[rows], self.pix[rows])

    def draw(self, n: int, generator: torch.Generator) -> tuple[Int[Tensor, "n"], Rays]:
        """n pixels at random, with repetition, and their rays (not of unit length)."""
        rows = torch.randint(len(self.rgb), (n,), generator=generator, device=generator.device).to(self.rgb.device)
        return rows, self.cameras.rays(self.view[rows].long(), self.pix[rows].long())

    def colours(
        self, rows: Int[Tensor, "n"], background: Number | Float[Tensor, "*c"]
    ) -> Float[Tensor, "n 3"]:
        """Colours in [0, 1] of pixels, before a background where they are not opaque."""
        rgb = self.rgb[rows].float() / 255
        if self.alpha is None:
            return rgb
        alpha = self.alpha[rows].float() / 255
        return over(rgb * alpha[:, None], alpha, background)


def photographs(
    cameras: Cameras, images: Sequence[UInt8[Tensor, "h w c"]] | UInt8[Tensor, "v h w c"],
    valid: Sequence[Bool[Tensor, "h w"]] | Bool[Tensor, "v h w"] | None = None,
) -> Photographs:  # fmt: skip
    """The pixels of `images` (RGB, or RGBA with straight alpha), without those that are not `valid`."""
    parts = []
    for v, image in enumerate(images):
        keep = torch.ones(image.shape[:2], dtype=torch.bool) if valid is None else valid[v].cpu()
        pix = cameras.pixels(v).cpu()[keep].to(torch.int32)
        parts.append((image.cpu()[keep], torch.full((len(pix),), v, dtype=torch.int32), pix))
    pixels, view, pix = (torch.cat(part).to(cameras.c2w.device) for part in zip(*parts))
    alpha = pixels[:, 3].contiguous() if pixels.shape[1] == 4 else None
    return Photographs(cameras, pixels[:, :3].contiguous(), alpha, view, pix)


def fit_dense(
    field: nn.Module, photos: Photographs, near: Number, far: Number, *, fine: nn.Module | None = None,
    samples: int = 64, fine_samples: int = 128, rays: int = 1024, lr: Number = 5e-4, decay: Number = 0.1,
    background: Number = 1.0, crop_steps: int = 0, generator: torch.Generator, steps: int | None = None,
    minutes: Number | None = None, shuffle: bool = False,
    measure: Measure | None = None, every: int = 100, log: Callable[..., None] | None = None,
    folder: Path | None = None, resume: bool = False,
) -> Run:  # fmt: skip
    """The paper's training; `fine` is the second network (None: one serves both passes).

    crop_steps: for so many steps only the middle half of each picture is used, against collapse to background.
    shuffle: see `render_rays`.  measure(step) runs every so many steps.
    """
    nets = [field] + ([] if fine is None else [fine])
    budget = Budget(steps=steps, minutes=minutes)
    middle = photos.some(_middle(photos)) if crop_steps else photos
    done, watch = Counter(), Watch(measure, every, log)

    def step(_: object) -> dict[str, Any]:
        watch.before(done.steps)
        pool = middle if done.steps < crop_steps else photos
        rows, lines = pool.draw(rays, generator)
        truth = pool.colours(rows, background)
        coarse, better = render_rays(
            field, lines, near, far, samples, fine_samples, fine=fine, background=background, generator=generator,
            shuffle=shuffle,
        )  # fmt: skip
        errors = [(made.rgb - truth).square().mean() for made in (coarse, better) if made is not None]
        done.steps += 1
        return {"loss": torch.stack(errors).sum(), "mse": errors[-1].detach()}

    weights = [p for net in nets for p in net.parameters()]
    optimizer = torch.optim.Adam(weights, lr=float(lr), eps=1e-7, fused=weights[0].device.type in ("cpu", "cuda"))
    keep = {"net": nn.ModuleList(nets), "generator": generator, "done": done}
    return fit(
        step, [0], budget=budget, optimizer=optimizer, schedule=exponential(decay),
        log=watch, folder=folder, resume=resume, keep=keep,
    )  # fmt: skip


def dense_renderer(
    field: Any, near: Number, far: Number, samples: int = 64, fine_samples: int = 128, *, fine: Any = None,
    background: Number | Tensor | None = 1.0, shuffle: bool = False,
    chunk: int = 1 << 16,
) -> Renderer:  # fmt: skip
    """Rays [R] to pixels with nothing random; depths are distances."""

    @torch.no_grad()
    def render(rays: Rays) -> Rendered:
        parts = []
        for o, d in zip(*(x.split(max(chunk // (samples + fine_samples), 1)) for x in rays)):
            lines = Rays(o, d)
            coarse, better = render_rays(field, lines, near, far, samples, fine_samples, fine=fine,
                                         background=background, shuffle=shuffle)  # fmt: skip
            made = better or coarse
            parts.append(made._replace(depth=made.depth * d.norm(dim=-1)))
        return joined(parts)

    return render


def render_view(render: Renderer, cameras: Cameras, view: int) -> Rendered:
    """One photograph's picture [H,W,3], opacity and depth [H,W] (Σ w t; divide by opacity for a mean)."""
    rays = cameras.all_rays(view)
    h, w = rays.o.shape[:2]
    made = render(Rays(rays.o.reshape(-1, 3), rays.d.reshape(-1, 3)))
    return Rendered(made.rgb.reshape(h, w, 3), made.opacity.reshape(h, w), made.depth.reshape(h, w), made.weights)


def joined(parts: Sequence[Rendered]) -> Rendered:
    """Renderings of parts of a list of rays, as one."""
    return Rendered(*(torch.cat(part) for part in zip(*parts)))


class Counter:
    """Steps done, for a checkpoint."""

    def __init__(self) -> None:
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if isinstance(v, int | float)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def _middle(photos: Photographs) -> Bool[Tensor, "p"]:
    size = photos.cameras.size.to(photos.pix.device)[photos.view.long()]
    return ((photos.pix + 0.5) / size - 0.5).abs().amax(-1) < 0.25


class Watch:
    """Calls measure(step) after every so many steps and after the last; what it found last is among all logged scalars.

    `before` is called at the beginning of a step with the number of those done, the object itself as a log.
    """

    def __init__(self, measure: Measure | None, every: int, log: Callable[..., None] | None) -> None:
        self.measure, self.every, self.log = measure, every, log
        self.found: dict[str, float] = {}
        self.at = 0

    def before(self, done: int) -> None:
        if self.measure is not None and done % self.every == 0 and done > self.at:
            self.at = done
            self.found.update(self.measure(done))

    def __call__(self, step: int, total: int, **scalars: float) -> None:
        if self.measure is not None and step == total > self.at:
            self.at = step
            self.found.update(self.measure(step))
        if self.log is not None:
            self.log(step, total, **scalars, **self.found)
