"""Space that no instant fills: the visual hull of each instant's silhouettes, united over all instants.

A subject that moves has no hull of its own: only photographs of one instant may be intersected.  What lies in none of
these hulls is empty in every observation, whatever the deformation.  Beyond the scene's box nothing is known.
"""

from typing import Any

import torch
from torch import Tensor

from precis.data.captures import read_silhouettes
from precis.fields.nerf_cameras import Rays
from precis.fields.nerf_grid import OccupancyGrid, carve, march
from precis.fields.nerfies_fit import Pixels

from .opening import Opened

CHUNK = 1 << 15  # rays at a time


def hull_of(job: Any, opened: Opened, work: Any, cells: int) -> Tensor | None:
    """Live cells [cells³] of `opened.box`; None without masks, or with a note where masks and cameras disagree."""
    if job.masks is None or job.carve == "off":
        return None
    masks = read_silhouettes(job.masks, opened.names, opened.cameras.size.cpu().numpy())
    cameras, box = opened.cameras.to("cpu"), opened.box.cpu()
    instants: dict[int, list[int]] = {}
    for v in opened.train:
        instants.setdefault(int(opened.frame[v]), []).append(v)
    united = torch.zeros(cells**3, dtype=torch.bool)
    for views in instants.values():
        own = torch.ones(cells**3, dtype=torch.bool)
        for v in views:
            own &= carve(cameras[[v]], torch.from_numpy(masks[v])[None], box, cells)
        united |= own
    if not bool(united.any()):
        work.note("silhouettes and cameras disagree: nothing is left of any instant's hull; learning in the whole box")
        return None
    work.note(f"the silhouettes leave {float(united.float().mean()):.0%} of the box, all instants together")
    return united


@torch.no_grad()
def meeting(opened: Opened, hull: Tensor, cells: int) -> Pixels:
    """The training pixels whose rays meet a live cell: all others are background, exactly, and teach nothing."""
    grid = OccupancyGrid(opened.box, cells, hull.to(opened.box.device)).to(opened.box.device)
    live, pixels = grid.cells(grid.hull), opened.pixels
    stride = float(((grid.aabb[1] - grid.aabb[0]) / cells).min()) / 2
    kept = []
    for rows in torch.arange(len(pixels.view), device=pixels.view.device).split(CHUNK):
        rays: Rays = opened.cameras.rays(pixels.view[rows], pixels.pix[rows], unit=True)
        packed = march(rays, grid, stride, near=opened.near, far=opened.far, cells=live)
        kept.append(rows[packed.ptr.diff() > 0])
    some = torch.cat(kept)
    return pixels if not len(some) else Pixels(*(part[some] for part in pixels))
