"""A baseline that learns nothing: photographs laid on the visual hull and looked at from elsewhere."""

import numpy as np
import torch
import torch.nn.functional as F

from precis.data.scenes3d import Capture
from precis.fields.nerf_cameras import Rays
from precis.fields.nerf_grid import OccupancyGrid, carve, hull_box, march
from precis.lab.claim import Recorder

from .arms import nearest_views
from .fast import silhouettes
from .places import cameras_of


def warped(views: Capture, test: Capture, record: Recorder, count: int = 2) -> np.ndarray:
    """Each test pixel is the mean of what the `count` nearest photographs show where its ray meets the hull; white
    where it meets none."""
    cameras, targets = cameras_of(views, record).to("cpu"), cameras_of(test, record).to("cpu")
    grid = _hull(views, record)
    near = nearest_views(views, test)[:, :count]
    seen = torch.from_numpy(np.moveaxis(views.rgb(), -1, 1))
    cells = grid.cells(grid.hull)
    step = float((grid.aabb[1] - grid.aabb[0]).norm()) / 384
    out = []
    for v in range(len(targets)):
        rays = targets.all_rays(v, unit=True)
        flat = Rays(rays.o.reshape(-1, 3), rays.d.reshape(-1, 3))
        packed = march(flat, grid, step, near=views.near, far=views.far, cells=cells)
        hit = (packed.ptr.diff() > 0).nonzero()[:, 0]
        x = flat.o[hit] + packed.t0[packed.ptr[:-1][hit]][:, None] * flat.d[hit]
        picture = torch.ones(len(flat.o), 3)
        picture[hit] = torch.stack([_look(seen[n], cameras, int(n), x) for n in near[v]]).mean(0)
        out.append(picture.reshape(*rays.o.shape).numpy())
    return np.stack(out)


def _hull(views: Capture, record: Recorder) -> OccupancyGrid:
    """The visual hull in its own box; the whole box where photographs have no opacity."""
    masks, box = silhouettes(views), torch.from_numpy(views.aabb)
    if masks is None:
        return OccupancyGrid(box, 64)
    cameras = cameras_of(views, record).to("cpu")
    rough = OccupancyGrid(box, 32, carve(cameras, masks, box, 32))
    if not bool(rough.hull.any()):
        return OccupancyGrid(box, 64)
    box = hull_box(rough)
    return OccupancyGrid(box, 64, carve(cameras, masks, box, 64))


def _look(picture: torch.Tensor, cameras: object, view: int, x: torch.Tensor) -> torch.Tensor:
    """Colours [N,3] of a photograph [3,H,W] at the projections of points; its border colour beyond."""
    pix, _ = cameras.project(torch.full((len(x),), view), x)  # type: ignore[attr-defined]
    h, w = picture.shape[1:]
    at = (pix + 0.5) / torch.tensor([w, h]) * 2 - 1
    found = F.grid_sample(picture[None], at[None, None], padding_mode="border", align_corners=False)
    return found[0, :, 0].T
