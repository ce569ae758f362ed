"""Fitting a radiance field to photographs: the paper's recipe, and a fast one.

Paper (`fit_dense`): 64 stratified and 128 importance samples a ray, loss = coarse + fine squared error, Adam at 5·10⁻⁴
with ε = 10⁻⁷, decaying to a tenth.  Fast (`fit_fast`): samples only in live cells of an occupancy grid, as many a step
whatever the rays are, Huber loss before a random background, planes or hash grids that grow with the run.
Mildenhall et al., ECCV 2020, §5.3 (arXiv 2003.08934); Müller et al., SIGGRAPH 2022 (arXiv 2201.05989).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerf_grid import Cells, OccupancyGrid, Packed, march
from precis.fields.nerf_render import Rendered, composite_weights, over, render_rays, uniform
from precis.nn.segment import segment_sum
from precis.train.loop import Budget, Run, fit
from precis.train.schedule import Schedule, exponential, steps, warmup

Number = float | int
Renderer = Callable[[Rays], Rendered]
Measure = Callable[[int], dict[str, float]]
CPU_SAMPLES, GPU_SAMPLES = 1 << 14, 1 << 18
GROWTH = ((0.15, 1.5), (0.35, 2.0))  # progress, and the resolution from there on, in multiples of the first


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
    minutes: Number | None = None, shuffle: bool = False, ndc: Callable[[Rays], Rays] | None = None,
    measure: Measure | None = None, every: int = 100, log: Callable[..., None] | None = None,
    folder: Path | None = None, resume: bool = False,
) -> Run:  # fmt: skip
    """The paper's training; `fine` is the second network (None: one serves both passes).

    crop_steps: for so many steps only the middle half of each picture is used, against collapse to background.
    ndc: maps rays before they are rendered.  shuffle: see `render_rays`.  measure(step) runs every so many steps.
    """
    nets = [field] + ([] if fine is None else [fine])
    budget = Budget(steps=steps, minutes=minutes)
    middle = photos.some(_middle(photos)) if crop_steps else photos
    done = _Counter()

    def step(_: object) -> dict[str, Any]:
        pool = middle if done.steps < crop_steps else photos
        rows, lines = pool.draw(rays, generator)
        lines = lines if ndc is None else ndc(lines)
        truth = pool.colours(rows, background)
        coarse, better = render_rays(
            field, lines, near, far, samples, fine_samples, fine=fine, background=background, generator=generator,
            shuffle=shuffle,
        )  # fmt: skip
        errors = [(made.rgb - truth).square().mean() for made in (coarse, better) if made is not None]
        done.steps += 1
        return {"loss": torch.stack(errors).sum(), "mse": errors[-1].detach()}

    optimizer = torch.optim.Adam([p for net in nets for p in net.parameters()], lr=float(lr), eps=1e-7)
    keep = {"net": nn.ModuleList(nets), "generator": generator, "done": done}
    return fit(
        step, [None], budget=budget, optimizer=optimizer, schedule=exponential(decay),
        log=_watched(log, measure, every), folder=folder, resume=resume, keep=keep,
    )  # fmt: skip


def fit_fast(
    field: nn.Module, grid: OccupancyGrid, photos: Photographs, step: Number, *, generator: torch.Generator,
    near: Number = 0.0, far: Number = float("inf"), samples: int | None = None, lr: Number = 2e-2,
    net_lr: Number = 1e-3, background: Number | None = None, smooth: Number = 1e-3, steps: int | None = None,
    minutes: Number | None = None, measure: Measure | None = None, every: int = 100,
    log: Callable[..., None] | None = None, folder: Path | None = None, resume: bool = False,
) -> Run:  # fmt: skip
    """Train `field` (PlaneField or HashField) on samples in live cells of `grid`, in steps of length `step`.

    Photographs with opacity are fitted before a random colour a ray, unless `background` is given; opaque ones before
    `background` (default white).  `smooth` weighs the planes' variation, and falls to nothing.
    """
    device = photos.rgb.device
    budget = Budget(steps=steps, minutes=minutes)
    goal = samples or (CPU_SAMPLES if device.type == "cpu" else GPU_SAMPLES)
    pool = hitting(photos, grid, near, far)
    factors = field.factors()
    rest = [p for p in field.parameters() if all(p is not f for f in factors)]
    groups = [{"params": factors, "lr": float(lr)}, {"params": rest, "lr": float(net_lr)}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=device.type in ("cpu", "cuda"))
    state = _Pace(goal)
    grows = [(at, round(factor * float(field.resolution.float().prod().pow(1 / 3)))) for at, factor in GROWTH
             ] if hasattr(field, "upsample") else []  # fmt: skip
    white = 1.0 if background is None else background

    def advance(_: object) -> dict[str, Any]:
        while state.grown < len(grows) and budget.progress >= grows[state.grown][0]:
            field.upsample(grows[state.grown][1])
            for p in factors:
                optimizer.state.pop(p, None)
            state.grown += 1
        if state.steps % 16 == 0:
            grid.update(field.density, step, generator, state.steps)
            state.cells = grid.cells()
        rows, lines = pool.draw(state.rays(), generator)
        lines = lines.unit()
        packed = march(lines, grid, step, near=near, far=far, cells=state.cells, generator=generator)
        behind: Any = white
        if pool.alpha is not None and background is None:
            behind = uniform((len(rows), 3), lines.o, generator)
        made = render_packed(field, lines, packed, behind)
        loss = F.huber_loss(made.rgb, pool.colours(rows, behind), delta=0.1)
        out = {"loss": loss, "mse": (made.rgb - pool.colours(rows, behind)).detach().square().mean()}
        if smooth and hasattr(field, "variation") and state.steps % 4 == 0:
            out["loss"] = loss + 4 * smooth * (1 - budget.progress) * field.variation()
        state.after(len(rows), len(packed.ray))
        return out

    keep = {"net": field, "grid": grid, "generator": generator, "pace": state}
    return fit(
        advance, [None], budget=budget, optimizer=optimizer, schedule=fast_schedule(),
        log=_watched(log, measure, every), folder=folder, resume=resume, keep=keep,
    )  # fmt: skip


def fast_schedule() -> Schedule:
    """Up over the first fiftieth, then a third at a half, three quarters and nine tenths."""
    return warmup(0.02, steps((0.5, 0.75, 0.9), 0.33))


def render_packed(
    field: Any, rays: Rays, packed: Packed, background: Number | Tensor | None = None, *, least: Number = 1e-3
) -> Rendered:
    """Colours of unit rays from their packed samples; the field's colour is asked for only where a sample has a weight
    above `least`, its density everywhere."""
    o, d, middle = rays.o[packed.ray], rays.d[packed.ray], ((packed.t0 + packed.t1) / 2)[:, None]
    sigma, h = field.look(o + middle * d)
    weights = composite_weights(sigma, packed.t0, packed.t1, packed.ptr)
    n = len(rays.o)
    sums = segment_sum(torch.stack([weights, weights * middle[:, 0]], 1), packed.ray, n)
    seen = (weights.detach() > least).nonzero()[:, 0]
    colour = weights[seen, None] * field.colour(h[seen], d[seen])
    rgb = segment_sum(colour, packed.ray[seen], n)
    return Rendered(over(rgb, sums[:, 0], background), sums[:, 0], sums[:, 1], weights)


@torch.no_grad()
def hitting(photos: Photographs, grid: OccupancyGrid, near: Number, far: Number, chunk: int = 1 << 15) -> Photographs:
    """The pixels whose rays meet a cell of the hull: all others are background, exactly, and teach nothing."""
    if bool(grid.hull.all()):
        return photos
    stride = float(((grid.aabb[1] - grid.aabb[0]) / grid.resolution).min()) / 2
    hull, found = grid.cells(grid.hull), []
    for rows in torch.arange(len(photos.rgb), device=photos.rgb.device).split(chunk):
        lines = photos.cameras.rays(photos.view[rows].long(), photos.pix[rows].long(), unit=True)
        packed = march(lines, grid, stride, near=near, far=far, cells=hull, opaque=float("inf"))
        found.append(rows[packed.ptr.diff() > 0])
    kept = torch.cat(found)
    return photos.some(kept) if len(kept) else photos


def dense_renderer(
    field: Any, near: Number, far: Number, samples: int = 64, fine_samples: int = 128, *, fine: Any = None,
    background: Number | Tensor | None = 1.0, ndc: Callable[[Rays], Rays] | None = None, chunk: int = 1 << 16,
) -> Renderer:  # fmt: skip
    """Rays [R] to pixels with nothing random; depths are distances."""

    @torch.no_grad()
    def render(rays: Rays) -> Rendered:
        parts = []
        for o, d in zip(*(x.split(max(chunk // (samples + fine_samples), 1)) for x in rays)):
            lines = Rays(o, d) if ndc is None else ndc(Rays(o, d))
            coarse, better = render_rays(field, lines, near, far, samples, fine_samples, fine=fine,
                                         background=background)  # fmt: skip
            made = better or coarse
            parts.append(made._replace(depth=made.depth * d.norm(dim=-1)))
        return joined(parts)

    return render


def fast_renderer(
    field: Any, grid: OccupancyGrid, step: Number, *, near: Number = 0.0, far: Number = float("inf"),
    background: Number | Tensor | None = 1.0, chunk: int = 1 << 12,
) -> Renderer:  # fmt: skip
    """Rays [R] to pixels; a ray that meets no live cell is background, exactly."""

    @torch.no_grad()
    def render(rays: Rays) -> Rendered:
        cells = grid.cells()
        parts = []
        for o, d in zip(*(x.split(chunk) for x in rays.unit())):
            lines = Rays(o, d)
            packed = march(lines, grid, step, near=near, far=far, cells=cells)
            parts.append(render_packed(field, lines, packed, background)._replace(weights=o[:, :0]))
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


class _Counter:
    """Steps done, for a checkpoint."""

    def __init__(self) -> None:
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if isinstance(v, int | float)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class _Pace(_Counter):
    """How many rays fill a step with the wanted samples, going by the last ones; and the cells now live."""

    def __init__(self, goal: int) -> None:
        super().__init__()
        self.goal, self.per_ray, self.grown = goal, 64.0, 0
        self.cells: Cells | None = None

    def rays(self) -> int:
        return int(min(max(self.goal / max(self.per_ray, 1.0), 64), self.goal))

    def after(self, rays: int, samples: int) -> None:
        self.per_ray += (samples / rays - self.per_ray) * (1.0 if self.steps == 0 else 0.1)
        self.steps += 1


def _middle(photos: Photographs) -> Bool[Tensor, "p"]:
    size = photos.cameras.size.to(photos.pix.device)[photos.view.long()]
    return ((photos.pix + 0.5) / size - 0.5).abs().amax(-1) < 0.25


def _watched(
    log: Callable[..., None] | None, measure: Measure | None, every: int
) -> Callable[..., None] | None:
    """A log that measures every so many steps; what was measured last is always among the scalars."""
    if measure is None:
        return log
    last: dict[str, float] = {}
    due = [every]

    def watched(step: int, total: int, **scalars: float) -> None:
        if step >= due[0] or step == total:
            last.update(measure(step))
            due[0] = step + every
        if log is not None:
            log(step, total, **scalars, **last)

    return watched
