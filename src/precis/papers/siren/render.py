"""A shaded picture of a signed distance function by sphere tracing.

A ray from a pinhole camera steps by the distance itself until it meets the surface; the light stands at the camera's
upper left.  Hart, The Visual Computer 12, 1996.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 0.95  # shapes lie within 0.9; at the faces of the box, where little is trained, the function may dip below 0
INK, PAPER = (0.93, 0.80, 0.60), (1.0, 1.0, 1.0)


@torch.no_grad()
def shaded(
    distance: Callable[[Tensor], Tensor], gradient: Callable[[Tensor], Tensor], *, azimuth: float = 35.0,
    elevation: float = 25.0, away: float = 3.4, size: tuple[int, int] = (384, 384), steps: int = 64,
    device: torch.device | str = "cpu",
) -> np.ndarray:  # fmt: skip
    """Pixels [3,height,width] of the zero set of distance [N,3] -> [N] in the box; `size` is (width, height).

    gradient [N,3] -> [N,3] shades it.  Angles in degrees about the z axis; `away`: the camera's distance to the middle.
    """
    width, height = size
    origin, rays, axes = camera(azimuth, elevation, away, width, height, device)
    low, high = box_span(origin, rays)
    t, alive = low.clone(), low < high
    for _ in range(steps):  # the learned distance is not exact: nine tenths of it
        rows = alive.nonzero()[:, 0]
        if not len(rows):
            break
        d = distance(origin + t[rows, None] * rays[rows])
        t[rows] += torch.where(d.abs() < 1e-3, 0.0, 0.9 * d)
        alive[rows] = (d.abs() >= 1e-3) & (t[rows] < high[rows])
    hit = ((t < high) & (low < high)).nonzero()[:, 0]
    picture = torch.tensor(PAPER, device=device).expand(height * width, 3).clone()
    if len(hit):
        points = origin + t[hit, None] * rays[hit]
        met = distance(points).abs() < 0.004  # a ray that ran out of steps has met nothing
        hit, points = hit[met], points[met]
        picture[hit] = _light(gradient(points), rays[hit], axes)
    return np.asarray(picture.T.reshape(3, height, width).cpu().numpy())


def lookup(grid: Tensor) -> Callable[[Tensor], Tensor]:
    """Values [x,y,z] on a grid that reaches to the faces of [−1, 1]³ as a function [N,3] -> [N], trilinear.

    Rays march through that, and only what they meet is asked of the net: many times faster, blind to what is smaller
    than a cell.
    """
    volume = grid[None, None]

    def look(x: Tensor) -> Tensor:
        at = x.flip(-1)[None, None, None]  # grid_sample wants the last axis first
        return F.grid_sample(volume, at, align_corners=True, padding_mode="border")[0, 0, 0, 0]

    return look


def camera(
    azimuth: float, elevation: float, away: float, width: int, height: int, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """Origin [3], unit rays [height·width, 3] and axes [3,3] (right, up, back) of a camera that looks at the middle.

    It sees 40° of height (of width, if that is less); z is up.
    """
    a, e = np.radians([azimuth, np.clip(elevation, -89, 89)])
    back = torch.tensor([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], dtype=torch.float32, device=device)
    right = F.normalize(torch.linalg.cross(torch.tensor([0.0, 0, 1], device=device), back), dim=0)
    up = torch.linalg.cross(back, right)
    reach = float(np.tan(np.radians(20)))
    x = (torch.arange(width, device=device) + 0.5 - width / 2) / (min(width, height) / 2) * reach
    y = (height / 2 - torch.arange(height, device=device) - 0.5) / (min(width, height) / 2) * reach
    grid = y[:, None, None] * up + x[None, :, None] * right - back
    return away * back, F.normalize(grid.reshape(-1, 3), dim=1), torch.stack([right, up, back])


def box_span(origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the cube of half-side REACH (entry behind exit: never)."""
    near, far = (-REACH - origin) / rays, (REACH - origin) / rays
    return torch.minimum(near, far).amax(1).clamp(min=0), torch.maximum(near, far).amin(1)


def _light(gradient: Tensor, rays: Tensor, axes: Tensor) -> Tensor:
    """A lamp at the camera's upper left, a sky from above, a little gloss."""
    n = F.normalize(gradient, dim=1)
    lamp = F.normalize(-0.7 * axes[0] + 0.6 * axes[1] + axes[2], dim=0)
    lit = (n @ lamp).clamp(min=0)[:, None]
    sky = 0.5 + 0.5 * n[:, 2:]
    gloss = (n * F.normalize(lamp - rays, dim=1)).sum(1, keepdim=True).clamp(min=0) ** 40
    colour = torch.tensor(INK, device=rays.device) * (0.25 + 0.75 * lit) + 0.08 * sky + 0.2 * gloss
    inside = (n * rays).sum(1, keepdim=True) > 0.1  # where a surface is open
    return torch.where(inside, 0.5 * colour, colour).clamp(0, 1)
