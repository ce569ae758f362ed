"""Which parts of space may hold something: an occupancy grid, made from silhouettes and kept up to date by the field.

    occ ← max(0.95 occ, σ(x) Δ) at a random x in each cell,   live = occ > min(mean occ, 0.005)

`march` walks along rays in steps of Δ and keeps the samples in live cells; `visible` cuts them off behind what the
field makes opaque; `carve` is the visual hull: a cell is dead if its projection is background in any photograph that
sees it.
Li et al., NerfAcc, ICCV 2023 (arXiv 2305.04966); Müller et al., SIGGRAPH 2022, §5.4 (arXiv 2201.05989);
Laurentini, PAMI 16, 1994.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerf_render import uniform
from precis.nn.segment import ptr_of, segment_cumsum

Number = float | int
DECAY, OPAQUE = 0.95, 8.0
THRESHOLD = 0.005  # half of what a field starts with, so that a cell dies by what was seen of it and not by chance
BLOCK = 32  # samples a ray that are looked at before it is asked for the first time whether the ray goes on
WARM = 256  # steps until which all cells are looked at


class Packed(NamedTuple):
    """Samples of all rays in one list: ray [E], its interval t0, t1 [E] (lengths), and where each ray's begin [R+1]."""

    ray: Int[Tensor, "e"]
    t0: Float[Tensor, "e"]
    t1: Float[Tensor, "e"]
    ptr: Int[Tensor, "r1"]


class Cells(NamedTuple):
    """Which cells are live [cells], and which are or touch a live one."""

    live: Bool[Tensor, "cells"]
    around: Bool[Tensor, "cells"]


class OccupancyGrid(nn.Module):
    """resolution³ cells of the box `aabb` [2,3]: `occ` = σΔ seen there, `hull` = what may ever be live; `young`: all of
    the hull is, since too little is known of it."""

    aabb: Tensor
    young: Tensor
    occ: Tensor
    hull: Tensor

    def __init__(
        self, aabb: Float[Tensor, "2 3"], resolution: int = 64, hull: Bool[Tensor, "cells"] | None = None
    ) -> None:
        super().__init__()
        cells = resolution**3
        self.resolution = resolution
        self.register_buffer("aabb", torch.as_tensor(aabb, dtype=torch.float32))
        self.register_buffer("occ", torch.zeros(cells))
        self.register_buffer("young", torch.tensor(True))
        self.register_buffer("hull", torch.ones(cells, dtype=torch.bool) if hull is None else hull.reshape(-1))

    @property
    def live(self) -> Bool[Tensor, "cells"]:
        """Cells that hold, or may hold, something."""
        if bool(self.young) or not bool(self.hull.any()):
            return self.hull
        return (self.occ > self.occ[self.hull].mean().clamp(max=THRESHOLD)) & self.hull

    def cells(self, live: Bool[Tensor, "cells"] | None = None) -> "Cells":
        """The live cells (default: as they are now) for `march`."""
        live = self.live if live is None else live
        n = self.resolution
        around = F.max_pool3d(live.view(1, 1, n, n, n).float(), 3, 1, 1) > 0
        return Cells(live, around.reshape(-1))

    def centres(self, cells: Int[Tensor, "k"], jitter: Float[Tensor, "k 3"] | None = None) -> Float[Tensor, "k 3"]:
        """Their middles, or points at `jitter` in [0, 1)³ within them."""
        n = self.resolution
        at = torch.stack([cells // (n * n), cells // n % n, cells % n], -1).to(self.aabb)
        return self.aabb[0] + (at + (0.5 if jitter is None else jitter)) / n * (self.aabb[1] - self.aabb[0])

    @torch.no_grad()
    def update(
        self, density: Callable[[Tensor], Tensor], step: Number, generator: torch.Generator | None, done: int = 0
    ) -> None:
        """Look at the field: in all cells of the hull for the first steps, in which none dies, then in a quarter of
        them at random and as many live ones."""
        self.young.fill_(done < WARM)
        cells = self.hull.nonzero()[:, 0]
        if done >= WARM:
            live = self.live.nonzero()[:, 0]
            quarter = max(len(cells) // 4, 1)
            pick = [group[_some(len(group), quarter, cells, generator)] for group in (cells, live) if len(group)]
            cells = torch.unique(torch.cat(pick))
        x = self.centres(cells, uniform((len(cells), 3), self.aabb, generator))
        seen = torch.cat([density(part) for part in x.split(1 << 16)]) * step if len(x) else x[:, 0]
        self.occ[cells] = torch.maximum(self.occ[cells] * DECAY, seen.to(self.occ))


def _some(n: int, k: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randint(n, (k,), generator=generator, device=device).to(like.device)


def box_span(
    rays: Rays, aabb: Float[Tensor, "2 3"], near: Number = 0.0, far: Number = float("inf")
) -> tuple[Float[Tensor, "r"], Float[Tensor, "r"]]:
    """Where rays enter and leave a box, between near and far (entry ≥ exit: never)."""
    inverse = 1 / torch.where(rays.d.abs() < 1e-12, 1e-12, rays.d)
    a, b = (aabb[0] - rays.o) * inverse, (aabb[1] - rays.o) * inverse
    return torch.minimum(a, b).amax(-1).clamp(min=near), torch.maximum(a, b).amin(-1).clamp(max=far)


@torch.no_grad()
def march(
    rays: Rays, grid: OccupancyGrid, step: Number, *, near: Number = 0.0, far: Number = float("inf"),
    cells: Cells | None = None, generator: torch.Generator | None = None,
) -> Packed:  # fmt: skip
    """Samples in live cells along unit rays, in steps that begin at the box, shifted by one random share of a step a
    ray (none without a generator).

    Runs of steps no longer than two cells are looked at first, in the live cells grown by one, and passed over whole.
    """
    cells = grid.cells() if cells is None else cells
    first, last = box_span(rays, grid.aabb, near, far)
    r, n = len(rays.o), grid.resolution
    side = float(((grid.aabb[1] - grid.aabb[0]) / n).min())
    run = int(min(max(2 * side / step, 1), 8))
    shift = first.new_zeros(r) if generator is None else uniform((r,), first, generator)
    begin = first + shift * step
    count = int(((last - begin) / (run * step)).clamp(min=0).amax().ceil()) if r else 0
    number = torch.arange(count, device=first.device, dtype=first.dtype)
    scale = n / (grid.aabb[1] - grid.aabb[0])
    place = ((rays.o - grid.aabb[0]) * scale, rays.d * scale)
    start = begin[:, None] + number * (run * step)
    o, d = (x.unsqueeze(1) for x in place)
    maybe = cells.around[_cell(o, d, start + 0.5 * run * step, n)] & (start < last[:, None])
    ray, block = maybe.nonzero(as_tuple=True)
    t = (start[ray, block][:, None] + torch.arange(run, device=first.device) * step).reshape(-1)
    ray = ray.repeat_interleave(run)
    middle = t + 0.5 * step
    cell = _cell(place[0][ray], place[1][ray], middle, n)
    keep = (cells.live[cell] & (middle < last[ray])).nonzero()[:, 0]
    ray, t = ray[keep], t[keep]
    return Packed(ray, t, t + step, ptr_of(torch.bincount(ray, minlength=r)))


@torch.no_grad()
def visible(
    density: Callable[[Tensor], Tensor], rays: Rays, packed: Packed, opaque: Number = OPAQUE
) -> Packed:
    """The samples in front of which the field's optical depth is below `opaque`, asked for front to back in blocks.

    The grid cannot tell: it has the largest density of a cell, and a ray that grazes a surface crosses cells in which
    others end.  Cut off there, the field would have to paint what lies behind onto what is grazed.
    """
    n, first, block = len(rays.o), 0, BLOCK
    place = torch.arange(len(packed.ray), device=packed.ray.device) - packed.ptr[packed.ray]
    passed = torch.zeros(n, dtype=packed.t0.dtype, device=packed.t0.device)
    kept, longest = [], int(packed.ptr.diff().amax()) if n else 0
    while first < longest:
        now = ((place >= first) & (place < first + block) & (passed < opaque)[packed.ray]).nonzero()[:, 0]
        ray, t0, t1 = packed.ray[now], packed.t0[now], packed.t1[now]
        optical = density(rays.o[ray] + ((t0 + t1) / 2)[:, None] * rays.d[ray]) * (t1 - t0)
        before = segment_cumsum(optical, ptr_of(torch.bincount(ray, minlength=n)), exclusive=True) + passed[ray]
        kept.append(now[before < opaque])
        passed = passed.index_add(0, ray, optical)
        first, block = first + block, 3 * (first + block)  # 32, 96, 384, …
    if not kept:
        return packed
    rows = torch.cat(kept).sort().values
    ray = packed.ray[rows]
    return Packed(ray, packed.t0[rows], packed.t1[rows], ptr_of(torch.bincount(ray, minlength=n)))


def _cell(o: Float[Tensor, "*r 3"], d: Float[Tensor, "*r 3"], t: Float[Tensor, "*e"], n: int) -> Int[Tensor, "*e"]:
    """Number of the cell at o + t d, all in cells."""
    cell = torch.addcmul(o[..., 0], d[..., 0], t).to(torch.int32).clamp_(0, n - 1)
    for a in (1, 2):
        cell = cell * n + torch.addcmul(o[..., a], d[..., a], t).to(torch.int32).clamp_(0, n - 1)
    return cell


@torch.no_grad()
def carve(
    cameras: Cameras, masks: Bool[Tensor, "v h w"], aabb: Float[Tensor, "2 3"], resolution: int = 64
) -> Bool[Tensor, "cells"]:
    """The visual hull: cells whose projection, widened by half the cell's diagonal and a pixel, meets the silhouette in
    every photograph that sees them (a cell outside of a picture, or behind the camera, is not seen)."""
    from scipy.ndimage import distance_transform_edt

    grid = OccupancyGrid(aabb, resolution)
    cells = torch.arange(resolution**3)
    half = float((grid.aabb[1] - grid.aabb[0]).norm()) / resolution / 2
    for v in range(len(cameras)):
        far = torch.from_numpy(distance_transform_edt(~masks[v].cpu().numpy())).float()
        if not bool(masks[v].any()):
            far = torch.full(far.shape, float("inf"))
        pix, depth = cameras.project(torch.full((len(cells),), v), grid.centres(cells))
        column, row = (pix + 0.5).floor().long().unbind(-1)
        height, width = far.shape
        seen = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        distance = far[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        reach = half * float(cameras.K[v, :2].max()) / depth.clamp(min=1e-6) + 1
        cells = cells[~(seen & (distance > reach))]
    hull = torch.zeros(resolution**3, dtype=torch.bool)
    hull[cells] = True
    return hull


def hull_box(grid: OccupancyGrid, margin: int = 1) -> Float[Tensor, "2 3"]:
    """The box of the hull's cells, `margin` cells wider, inside the grid's own."""
    n = grid.resolution
    at = grid.hull.view(n, n, n).nonzero()
    low, high = (at.amin(0) - margin).clamp(min=0), (at.amax(0) + 1 + margin).clamp(max=n)
    side = (grid.aabb[1] - grid.aabb[0]) / n
    return torch.stack([grid.aabb[0] + low * side, grid.aabb[0] + high * side])
