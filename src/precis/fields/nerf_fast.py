"""The fast radiance field: samples only where something may be, features on planes or in hash tables.

As many samples a step whatever the rays are, in the live cells of an occupancy grid that silhouettes start and the
field keeps up to date; Huber loss before a random background where photographs have opacity; colours only for samples
that weigh something.
Müller et al., SIGGRAPH 2022 (arXiv 2201.05989); Chen et al., ECCV 2022 (arXiv 2203.09517); Li et al., ICCV 2023 (arXiv
2305.04966).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerf_fit import Counter, Measure, Photographs, Renderer, Watch, joined
from precis.fields.nerf_grid import Cells, OccupancyGrid, Packed, carve, hull_box, march, visible
from precis.fields.nerf_open import OPEN_BOX, OpenField, march_open
from precis.fields.nerf_planes import PlaneField
from precis.fields.nerf_render import Rendered, composite_weights, over, uniform
from precis.nn.segment import segment_sum
from precis.train.loop import Budget, Run, fit
from precis.train.schedule import Schedule, steps, warmup

Number = float | int
Kind = Literal["planes", "hash"]
CPU_SAMPLES, GPU_SAMPLES = 1 << 14, 1 << 18
CPU_STEPS, GPU_STEPS = 384, 1024  # of Δ along the box's diagonal
OPEN_SAMPLES = 128  # a ray, in all of space
GROWTH = ((0.15, 1.5), (0.35, 2.0))  # progress, and the resolution from there on, in multiples of the first


class FastModel(NamedTuple):
    """Field and grid over one box, and the length Δ of a step; `carved`: whether silhouettes left anything; `open`:
    the box is that of contracted space (see `nerf_open`)."""

    field: Any
    grid: OccupancyGrid
    step: float
    carved: bool
    open: bool = False

    def looking(self) -> Any:
        """The field as a function of positions in space."""
        return OpenField(self.field) if self.open else self.field

    def march(
        self, rays: Rays, near: Number, far: Number, cells: Cells | None = None,
        generator: torch.Generator | None = None,
    ) -> Packed:  # fmt: skip
        """Samples along unit rays where the grid is live, up to where the field is opaque."""
        if self.open:
            found = march_open(rays, self.grid, OPEN_SAMPLES, near=near, far=far, cells=cells, generator=generator)
        else:
            found = march(rays, self.grid, self.step, near=near, far=far, cells=cells, generator=generator)
        return visible(self.looking().density, rays, found)


def fast_model(
    cameras: Cameras, aabb: Float[Tensor, "2 3"], masks: Bool[Tensor, "v h w"] | None = None, *, kind: Kind = "planes",
    cells: int = 64, resolution: int = 64, finest: int = 512, open: bool = False,
    generator: torch.Generator | None = None,
) -> FastModel:  # fmt: skip
    """A field of planes of `resolution`, or of hash tables up to `finest`, on the part of `aabb` that the silhouettes
    leave (all of it, if they leave nothing or there are none); open: a field of all of space, of which the unit ball is
    seen as sharply as the rest together."""
    device = cameras.c2w.device
    here, box = cameras.to("cpu"), torch.tensor(OPEN_BOX) if open else aabb.float().cpu()
    hull = None
    if masks is not None and bool(masks.any()):  # where nothing is shown, only what no camera sees would be left
        rough = OccupancyGrid(box, 32, carve(here, masks, box, 32))
        if bool(rough.hull.any()):
            box = hull_box(rough)
            hull = carve(here, masks, box, cells)
    grid = OccupancyGrid(box, cells, hull)
    step = float((box[1] - box[0]).norm()) / (CPU_STEPS if device.type == "cpu" else GPU_STEPS)
    field: nn.Module
    if kind == "hash":
        from precis.fields.nerf_hash import HashField

        field = HashField(box, finest=finest, generator=generator)
    else:
        field = PlaneField(box, resolution, step=step, generator=generator)
    return FastModel(field.to(device), grid.to(device), step, hull is not None, open)


def fit_fast(
    model: FastModel, photos: Photographs, *, generator: torch.Generator, near: Number = 0.0,
    far: Number = float("inf"), samples: int | None = None, lr: Number = 2e-2, net_lr: Number = 1e-3,
    background: Number | Float[Tensor, "3"] | None = None, smooth: Number = 1e-3, steps: int | None = None,
    minutes: Number | None = None, measure: Measure | None = None, every: int = 100,
    log: Callable[..., None] | None = None, folder: Path | None = None, resume: bool = False,
) -> Run:  # fmt: skip
    """Train the model's field (PlaneField or HashField) on samples in live cells of its grid.

    Photographs with opacity are fitted before a random colour a ray, unless `background` is given; opaque ones before
    `background` (default white).  `smooth` weighs the planes' variation, and falls to nothing.
    """
    field, grid, device = model.field, model.grid, photos.rgb.device
    seen = model.looking()
    budget = Budget(steps=steps, minutes=minutes)
    goal = samples or (CPU_SAMPLES if device.type == "cpu" else GPU_SAMPLES)
    pool = hitting(photos, grid, near, far)
    factors = field.factors()
    rest = [p for p in field.parameters() if all(p is not f for f in factors)]
    groups = [{"params": factors, "lr": float(lr)}, {"params": rest, "lr": float(net_lr)}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=device.type in ("cpu", "cuda"))
    state, watch = Pace(field, goal), Watch(measure, every, log)
    white = 1.0 if background is None else background

    def advance(_: object) -> dict[str, Any]:
        watch.before(state.steps)
        state.grow(field, optimizer, budget.progress)
        if state.steps % 16 == 0:
            grid.update(field.density, model.step, generator, state.steps)
            state.cells = grid.cells()
        rows, lines = pool.draw(state.rays(), generator)
        lines = lines.unit()
        packed = model.march(lines, near, far, state.cells, generator)
        behind: Any = white
        if pool.alpha is not None and background is None:
            behind = uniform((len(rows), 3), lines.o, generator)
        made = render_packed(seen, lines, packed, behind)
        loss = F.huber_loss(made.rgb, pool.colours(rows, behind), delta=0.1)
        out = {"loss": loss, "mse": (made.rgb - pool.colours(rows, behind)).detach().square().mean()}
        if smooth and hasattr(field, "variation") and state.steps % 4 == 0:
            out["loss"] = loss + 4 * smooth * (1 - budget.progress) * field.variation()
        state.after(len(rows), len(packed.ray))
        return out

    keep = {"net": field, "grid": grid, "generator": generator, "pace": state}
    return fit(
        advance, [0], budget=budget, optimizer=optimizer, schedule=fast_schedule(),
        log=watch, folder=folder, resume=resume, keep=keep,
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
        packed = march(lines, grid, stride, near=near, far=far, cells=hull)
        found.append(rows[packed.ptr.diff() > 0])
    kept = torch.cat(found)
    return photos.some(kept) if len(kept) else photos


def fast_renderer(
    model: FastModel, *, near: Number = 0.0, far: Number = float("inf"),
    background: Number | Tensor | None = 1.0, chunk: int = 1 << 12,
) -> Renderer:  # fmt: skip
    """Rays [R] to pixels; a ray that meets no live cell is background, exactly."""

    seen = model.looking()

    @torch.no_grad()
    def render(rays: Rays) -> Rendered:
        cells = model.grid.cells()
        parts = []
        for o, d in zip(*(x.split(chunk) for x in rays.unit())):
            lines = Rays(o, d)
            packed = model.march(lines, near, far, cells)
            parts.append(render_packed(seen, lines, packed, background)._replace(weights=o[:, :0]))
        return joined(parts)

    return render


class Grown(Counter):
    """Steps done, and how often the planes of `field`, if it has any, have grown."""

    def __init__(self, field: Any) -> None:
        super().__init__()
        self.grown, self.sizes = 0, list[tuple[float, int]]()
        if hasattr(field, "upsample"):
            first = float(field.resolution.float().prod().pow(1 / 3))
            self.sizes = [(at, round(factor * first)) for at, factor in GROWTH]

    def grow(self, field: Any, optimizer: torch.optim.Optimizer, progress: float) -> None:
        """Finer planes, from which Adam begins anew, where it is time for them."""
        while self.grown < len(self.sizes) and progress >= self.sizes[self.grown][0]:
            field.upsample(self.sizes[self.grown][1])
            for p in field.factors():
                optimizer.state.pop(p, None)
            self.grown += 1


class Pace(Grown):
    """How many rays fill a step with the wanted samples, going by the last ones; and the cells now live."""

    def __init__(self, field: Any, goal: int) -> None:
        super().__init__(field)
        self.goal, self.per_ray = goal, 64.0
        self.cells: Cells | None = None

    def rays(self) -> int:
        return int(min(max(self.goal / max(self.per_ray, 1.0), 64), self.goal))

    def after(self, rays: int, samples: int) -> None:
        self.per_ray += (samples / rays - self.per_ray) * (1.0 if self.steps == 0 else 0.1)
        self.steps += 1
