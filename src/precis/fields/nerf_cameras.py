"""Cameras of photographs: rays through pixels, pixels of points, lens distortion, camera paths.

Camera axes are OpenGL's: x right, y up, z backwards.  The ray of pixel (i, j) starts at the camera and goes along

    R ((u − c_x)/f_x, −(v − c_y)/f_y, −1),   (u, v) = (i + ½, j + ½),

so that a distance of t along it is a depth of t; `unit` makes it a distance.  Lenses bend (x, y) = (X/Z, Y/Z) to

    perspective   x r + 2 p₁ x y + p₂ (r² + 2x²),  r-factor (1 + k₁r² + k₂r⁴ + k₃r⁶ + k₄r⁸)/(1 + d₁r² + d₂r⁴ + d₃r⁶)
    fisheye       (x, y) θ(1 + k₁θ² + k₂θ⁴ + k₃θ⁶ + k₄θ⁸)/r,  θ = atan r

with y down, as OpenCV has it; `rays` undoes that by Newton's method, once a camera.

Mildenhall et al., ECCV 2020, §4 and appendix C (arXiv 2003.08934).
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Number = float | int
Model = Literal["perspective", "fisheye"]
COEFFICIENTS = ("k1", "k2", "k3", "k4", "p1", "p2", "d1", "d2", "d3")
NEWTON = 10


class Rays(NamedTuple):
    """Origins and directions [*,3] in the world."""

    o: Float[Tensor, "*n 3"]
    d: Float[Tensor, "*n 3"]

    def unit(self) -> "Rays":
        """The same rays with directions of length 1."""
        return Rays(self.o, F.normalize(self.d, dim=-1))


class Cameras:
    """V photographs' cameras: `c2w` [V,3,4], `K` [V,4] = fx, fy, cx, cy in pixels, `size` (W, H), or [V,2] of each.

    distortion: [V,9], in the order of `COEFFICIENTS`, or None.  `pixel_center` is added to whole pixel numbers: ½, or
    0 to reproduce NeRF's released code.
    """

    def __init__(
        self, c2w: Float[Tensor, "v 3 4"], K: Float[Tensor, "v 4"], size: tuple[int, int] | Int[Tensor, "v 2"], *,
        distortion: Float[Tensor, "v 9"] | None = None, model: Model = "perspective", pixel_center: Number = 0.5,
    ) -> None:  # fmt: skip
        self.c2w, self.K, self.model, self.pixel_center = c2w, K, model, pixel_center
        self.size = torch.tensor(size).expand(len(c2w), 2) if isinstance(size, tuple) else size
        straight = distortion is None or (model == "perspective" and not bool(distortion.any()))
        self.distortion = None if straight else distortion
        self._tables: Tensor | None = None
        self._place: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.c2w)

    def __getitem__(self, index: slice | Sequence[int] | Int[Tensor, "k"]) -> "Cameras":
        """Some of the cameras."""
        rows = list(index) if isinstance(index, Sequence) else index
        bent = None if self.distortion is None else self.distortion[rows]
        return self._like(self.c2w[rows], self.K[rows], self.size[rows], bent)

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras on another device."""
        bent = None if self.distortion is None else self.distortion.to(device)
        return self._like(self.c2w.to(device), self.K.to(device), self.size, bent)

    def moved(self, rotation: Float[Tensor, "3 3"], shift: Float[Tensor, "3"], scale: Number = 1.0) -> "Cameras":
        """The cameras after x ↦ scale (rotation x + shift)."""
        turned = rotation @ self.c2w[:, :, :3]
        place = scale * (self.c2w[:, :, 3] @ rotation.T + shift)
        return self._like(torch.cat([turned, place[:, :, None]], -1), self.K, self.size, self.distortion)

    def _like(self, c2w: Tensor, K: Tensor, size: Tensor, distortion: Tensor | None) -> "Cameras":
        return Cameras(c2w, K, size, distortion=distortion, model=self.model, pixel_center=self.pixel_center)

    @property
    def uniform(self) -> bool:
        """Whether all pictures have one size."""
        return bool((self.size == self.size[0]).all())

    def rays(self, view: Int[Tensor, "*b"], pix: Shaped[Tensor, "*b 2"], *, unit: bool = False) -> Rays:
        """Rays through `pix` (column, row; whole numbers or not) of photographs `view`."""
        xy = self._straight(view, pix)
        local = torch.stack([xy[..., 0], -xy[..., 1], -torch.ones_like(xy[..., 0])], -1)
        pose = self.c2w[view]
        rays = Rays(pose[..., 3], (pose[..., :3] * local.unsqueeze(-2)).sum(-1))
        return rays.unit() if unit else rays

    def all_rays(self, view: int, *, unit: bool = False) -> Rays:
        """All rays [H,W,3] of one photograph."""
        pix = self.pixels(view)
        return self.rays(torch.full(pix.shape[:-1], view, device=pix.device), pix, unit=unit)

    def pixels(self, view: int = 0) -> Int[Tensor, "h w 2"]:
        """Column and row of every pixel of a photograph."""
        width, height = (int(n) for n in self.size[view])
        device = self.c2w.device
        row, column = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device),
                                     indexing="ij")  # fmt: skip
        return torch.stack([column, row], -1)

    def project(
        self, view: Int[Tensor, "*b"], x: Float[Tensor, "*b 3"]
    ) -> tuple[Float[Tensor, "*b 2"], Float[Tensor, "*b"]]:
        """Where points fall: (column, row) in the convention of `rays`, and their depth (≤ 0: behind the camera)."""
        pose = self.c2w[view]
        local = ((x - pose[..., 3]).unsqueeze(-2) @ pose[..., :3]).squeeze(-2)
        depth = -local[..., 2]
        safe = torch.where(depth.abs() < 1e-9, 1e-9, depth)
        xy = torch.stack([local[..., 0] / safe, -local[..., 1] / safe], -1)
        if self.distortion is not None:
            xy = bend(xy, self.distortion[view], self.model)
        K = self.K[view]
        return xy * K[..., :2] + K[..., 2:] - self.pixel_center, depth

    def _straight(self, view: Tensor, pix: Tensor) -> Tensor:
        """(X/Z, Y/Z), y down, of pixels."""
        if self.distortion is not None and not pix.is_floating_point():
            tables, (start, width) = self._directions()
            return tables[start[view] + pix[..., 1] * width[view] + pix[..., 0]]
        K = self.K[view]
        bent = (pix.to(K) + self.pixel_center - K[..., 2:]) / K[..., :2]
        return bent if self.distortion is None else unbend(bent, self.distortion[view], self.model)

    def _directions(self) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Undistorted directions of every pixel, one after the other; where each view's begin, and its width."""
        if self._tables is None or self._place is None:
            assert self.distortion is not None
            like = torch.cat([self.K, self.distortion, self.size.to(self.K)], 1)
            kinds, kind = torch.unique(like, dim=0, return_inverse=True)
            tables, starts = [], [0]
            for k in range(len(kinds)):
                v = int((kind == k).nonzero()[0])
                bent = (self.pixels(v).to(self.K) + self.pixel_center - self.K[v, 2:]) / self.K[v, :2]
                bent = bent.reshape(-1, 2)
                tables.append(unbend(bent, self.distortion[v].expand(len(bent), -1), self.model))
                starts.append(starts[-1] + len(bent))
            self._tables = torch.cat(tables)
            self._place = (torch.tensor(starts, device=kind.device)[kind], self.size[:, 0].to(kind.device))
        return self._tables, self._place


def bend(xy: Float[Tensor, "*b 2"], c: Float[Tensor, "*b 9"], model: Model) -> Float[Tensor, "*b 2"]:
    """What a lens makes of straight directions (X/Z, Y/Z)."""
    k1, k2, k3, k4, p1, p2, d1, d2, d3 = c.unbind(-1)
    x, y = xy.unbind(-1)
    if model == "fisheye":
        r = xy.norm(dim=-1).clamp(min=1e-12)
        t = r.atan().square()
        factor = r.atan() / r * (1 + t * (k1 + t * (k2 + t * (k3 + t * k4))))
        return xy * factor.unsqueeze(-1)
    r = xy.square().sum(-1)
    factor = (1 + r * (k1 + r * (k2 + r * (k3 + r * k4)))) / (1 + r * (d1 + r * (d2 + r * d3)))
    u = x * factor + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    v = y * factor + 2 * p2 * x * y + p1 * (r + 2 * y * y)
    return torch.stack([u, v], -1)


def unbend(bent: Float[Tensor, "n 2"], c: Float[Tensor, "n 9"], model: Model) -> Float[Tensor, "n 2"]:
    """The inverse of `bend`, in float64, by at most ten Newton steps with a finite-difference Jacobian."""
    goal, c = bent.double(), c.double()
    if model == "fisheye":
        return _unbend_fisheye(goal, c).to(bent)
    x, h = goal.clone(), 1e-6
    for _ in range(NEWTON):
        miss = bend(x, c, model) - goal
        if float(miss.abs().amax()) < 1e-12:
            break
        columns = [(bend(x + h * e, c, model) - bend(x - h * e, c, model)) / (2 * h)
                   for e in torch.eye(2, dtype=x.dtype, device=x.device)]  # fmt: skip
        a, b = columns
        det = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
        det = torch.where(det.abs() < 1e-9, 1e-9, det)
        x = x - torch.stack([b[:, 1] * miss[:, 0] - b[:, 0] * miss[:, 1],
                             a[:, 0] * miss[:, 1] - a[:, 1] * miss[:, 0]], -1) / det[:, None]  # fmt: skip
    return x.to(bent)


def _unbend_fisheye(goal: Tensor, c: Tensor) -> Tensor:
    """Newton on θ(1 + k₁θ² + …) = |goal|, then the direction at that angle (kept below 89°)."""
    k = c[:, :4]
    radius = goal.norm(dim=-1)
    theta = radius.clone()
    for _ in range(NEWTON):
        t = theta.square()
        value = theta * (1 + t * (k[:, 0] + t * (k[:, 1] + t * (k[:, 2] + t * k[:, 3])))) - radius
        slope = 1 + t * (3 * k[:, 0] + t * (5 * k[:, 1] + t * (7 * k[:, 2] + t * 9 * k[:, 3])))
        theta = (theta - value / slope).clamp(0, math.radians(89))
    return goal * (theta.tan() / radius.clamp(min=1e-12)).unsqueeze(-1)


def ndc_rays(rays: Rays, focal: tuple[Number, Number], size: tuple[int, int], near: Number = 1.0) -> Rays:
    """Rays of forward-facing scenes in normalised device coordinates: depth near … ∞ becomes t = 0 … 1.

    Origins are moved to the plane z = −near first.  t′ = 1 − o_z/(o_z + t d_z) (appendix C, eq. 25–26).
    """
    o, d = rays
    width, height = size
    o = o + ((-near - o[..., 2]) / d[..., 2]).unsqueeze(-1) * d
    ax, ay = -2 * focal[0] / width, -2 * focal[1] / height
    x, y = o[..., 0] / o[..., 2], o[..., 1] / o[..., 2]
    start = torch.stack([ax * x, ay * y, 1 + 2 * near / o[..., 2]], -1)
    along = torch.stack([
        ax * (d[..., 0] / d[..., 2] - x), ay * (d[..., 1] / d[..., 2] - y), -2 * near / o[..., 2],
    ], -1)  # fmt: skip
    return Rays(start, along)


def look_at(
    position: Float[Tensor, "n 3"], target: Float[Tensor, "3"], up: Float[Tensor, "3"]
) -> Float[Tensor, "n 3 4"]:
    """c2w of cameras at `position` that look at `target`."""
    back = F.normalize(position - target, dim=-1)
    right = F.normalize(torch.linalg.cross(up.expand_as(back), back), dim=-1)
    return torch.stack([right, torch.linalg.cross(back, right), back, position], -1)


def focus(cameras: Cameras) -> Float[Tensor, "3"]:
    """The point nearest to all optical axes (least squares)."""
    axis, place = cameras.c2w[:, :, 2].double(), cameras.c2w[:, :, 3].double()
    away = torch.eye(3, dtype=axis.dtype, device=axis.device) - axis[:, :, None] * axis[:, None]
    inverse = torch.linalg.pinv(away.sum(0), rcond=1e-6)
    middle = place.mean(0)
    return (middle + inverse @ (away @ (place - middle)[:, :, None]).sum(0)[:, 0]).to(cameras.c2w)


def orbit(cameras: Cameras, n: int, target: Float[Tensor, "3"] | None = None) -> Cameras:
    """n cameras on a circle around `target` (default: `focus`), at the mean height and distance of the given ones.

    The circle's axis is the mean of the cameras' upward axes; lenses and size are those of the first camera.
    """
    target = focus(cameras) if target is None else target
    up = F.normalize(cameras.c2w[:, :, 1].mean(0), dim=0)
    offset = cameras.c2w[:, :, 3] - target
    height = (offset @ up).mean()
    flat = offset - (offset @ up)[:, None] * up
    radius = flat.norm(dim=1).mean().clamp(min=1e-6)
    east = F.normalize(flat[int(flat.norm(dim=1).argmax())], dim=0)
    north = torch.linalg.cross(up, east)
    angle = torch.arange(n, device=up.device) * (2 * math.pi / n)
    place = target + height * up + radius * (angle.cos()[:, None] * east + angle.sin()[:, None] * north)
    return _along(cameras, look_at(place, target, up))


def spiral(cameras: Cameras, n: int, depth: Number, *, turns: int = 2, reach: Number = 0.9) -> Cameras:
    """n cameras on a spiral about the mean pose that look at a point `depth` before it, for forward-facing scenes."""
    mean = cameras.c2w.mean(0)
    back, up = F.normalize(mean[:, 2], dim=0), F.normalize(mean[:, 1], dim=0)
    right = F.normalize(torch.linalg.cross(up, back), dim=0)
    axes = torch.stack([right, torch.linalg.cross(back, right), back])
    spread = torch.quantile(((cameras.c2w[:, :, 3] - mean[:, 3]) @ axes.T).abs(), reach, dim=0)
    angle = torch.arange(n, device=up.device) * (2 * math.pi * turns / n)
    local = torch.stack([angle.cos(), -angle.sin(), -(angle / 2).sin()], -1) * spread
    return _along(cameras, look_at(mean[:, 3] + local @ axes, mean[:, 3] - depth * back, up))


def _along(cameras: Cameras, c2w: Tensor) -> Cameras:
    n = len(c2w)
    bent = None if cameras.distortion is None else cameras.distortion[:1].expand(n, -1)
    return cameras._like(c2w, cameras.K[:1].expand(n, -1), cameras.size[:1].expand(n, -1), bent)
