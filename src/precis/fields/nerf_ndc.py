"""Forward-facing scenes in normalised device coordinates: what lies between a near plane and infinity becomes a cube.

    (x, y, z) ↦ (a_x x/z, a_y y/z, 1 + 2n/z),   a_x = −2 f_x/W, a_y = −2 f_y/H;   n: depth of the near plane

in the axes of the mean camera.  Rays stay straight, t = 0 … 1 along one is depth n … ∞, and samples even in t are even
in disparity.  As in the released code, the network sees positions in the cube and directions in the world: a direction
d′ of the cube at X, and a normal n′ of a surface there, are, up to a positive factor,

    d = ((d′_x (Z − 1) − X d′_z)/a_x, (d′_y (Z − 1) − Y d′_z)/a_y, −d′_z)
    n = (−a_x n′_x, −a_y n′_y, X n′_x + Y n′_y + (Z − 1) n′_z)   in the axes of the mean camera.

Mildenhall et al., ECCV 2020, appendix C (arXiv 2003.08934).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from precis.fields.nerf_cameras import Cameras, Rays, ndc_rays
from precis.fields.nerf_fit import Renderer
from precis.fields.nerf_render import Rendered

Number = float | int
LEAST = 1e-6  # of 1 − t: how near to infinity a depth is still told
AHEAD = 0.05  # the least cosine between a ray and the mean camera's axis


class Frustum(NamedTuple):
    """The mean camera of a forward-facing scene: `pose` [3,4] to the world, its lens, and the near plane's depth."""

    pose: Float[Tensor, "3 4"]
    focal: tuple[float, float]
    size: tuple[int, int]
    near: float

    @property
    def slopes(self) -> tuple[float, float]:
        """a_x and a_y."""
        return -2 * self.focal[0] / self.size[0], -2 * self.focal[1] / self.size[1]

    def local(self, rays: Rays) -> Rays:
        """World rays in the axes of the mean camera."""
        pose = self.pose.to(rays.o)
        return Rays((rays.o - pose[:, 3]) @ pose[:, :3], rays.d @ pose[:, :3])

    def rays(self, rays: Rays) -> Rays:
        """World rays [*,3] in the cube; they must go ahead (see `ahead`)."""
        return ndc_rays(self.local(rays), self.focal, self.size, self.near)

    def ahead(self, rays: Rays) -> Shaped[Tensor, "*n"]:
        """Which rays go the mean camera's way, and so have a place in the cube."""
        return -F.normalize(rays.d, dim=-1) @ self.pose[:, 2].to(rays.d) > AHEAD

    def ways(self, x: Float[Tensor, "*n 3"], d: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Unit directions in the world of directions d at x, both in the cube."""
        ax, ay = self.slopes
        behind = x[..., 2] - 1
        local = torch.stack([
            (d[..., 0] * behind - x[..., 0] * d[..., 2]) / ax, (d[..., 1] * behind - x[..., 1] * d[..., 2]) / ay,
            -d[..., 2],
        ], -1)  # fmt: skip
        return F.normalize(local @ self.pose[:, :3].T.to(x), dim=-1)

    def points(self, x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """World positions of points of the cube, whose Z is below 1."""
        ax, ay = self.slopes
        z = 2 * self.near / (x[..., 2] - 1)
        local = torch.stack([x[..., 0] * z / ax, x[..., 1] * z / ay, z], -1)
        pose = self.pose.to(x)
        return local @ pose[:, :3].T + pose[:, 3]

    def normals(self, x: Float[Tensor, "*n 3"], n: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Unit normals in the world of a surface with normals n at x, both in the cube."""
        ax, ay = self.slopes
        local = torch.stack([-ax * n[..., 0], -ay * n[..., 1], (x * n).sum(-1) - n[..., 2]], -1)
        return F.normalize(local @ self.pose[:, :3].T.to(x), dim=-1)

    def distances(self, rays: Rays, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """How far along world rays lies t of the cube."""
        o, d = self.local(rays)
        away = t / (1 - t).clamp(min=LEAST)
        return (-self.near - o[..., 2] - self.near * away) / d[..., 2] * d.norm(dim=-1)

    def plain(self) -> dict[str, Any]:
        """JSON values that build it again."""
        return {"pose": self.pose.tolist(), "focal": list(self.focal), "size": list(self.size), "near": self.near}


def frustum(cameras: Cameras, near: Number) -> Frustum:
    """That of the cameras' mean pose, with the first one's lens.

    Raises ValueError if a ray of any camera's corners does not go its way: the scene is not forward-facing.
    """
    mean = cameras.c2w.mean(0).cpu()
    back = F.normalize(mean[:, 2], dim=0)
    right = F.normalize(torch.linalg.cross(mean[:, 1], back), dim=0)
    pose = torch.stack([right, torch.linalg.cross(back, right), back, mean[:, 3]], -1)
    fx, fy = cameras.K[0, :2].tolist()
    width, height = (int(n) for n in cameras.size[0])
    made = Frustum(pose, (fx, fy), (width, height), float(near))
    for v in range(len(cameras)):
        w, h = (int(n) - 1 for n in cameras.size[v])
        pix = torch.tensor([[0, 0], [w, 0], [0, h], [w, h]], device=cameras.c2w.device)
        if not bool(made.ahead(cameras.rays(torch.full((4,), v, device=pix.device), pix)).all()):
            raise ValueError("the cameras do not all look one way")
    return made


def restored(plain: dict[str, Any]) -> Frustum:
    """What `Frustum.plain` wrote."""
    focal, size = plain["focal"], plain["size"]
    return Frustum(torch.tensor(plain["pose"]), (focal[0], focal[1]), (size[0], size[1]), plain["near"])


class NdcCameras(Cameras):
    """Cameras whose rays lie in the cube, for photographs to be learned from."""

    def __init__(self, cameras: Cameras, view: Frustum) -> None:
        super().__init__(cameras.c2w, cameras.K, cameras.size, model=cameras.model, pixel_center=cameras.pixel_center)
        self.distortion, self.view = cameras.distortion, view

    def rays(self, view: Int[Tensor, "*b"], pix: Shaped[Tensor, "*b 2"], *, unit: bool = False) -> Rays:
        rays = self.view.rays(super().rays(view, pix))
        return rays.unit() if unit else rays


class NdcField(nn.Module):
    """A field of positions in the cube and directions in the world, for a renderer that works in the cube."""

    def __init__(self, inner: Any, view: Frustum) -> None:
        super().__init__()
        self.inner, self.view = inner, view

    def forward(self, x: Float[Tensor, "*n 3"], d: Float[Tensor, "*m 3"], **more: Any) -> tuple[Tensor, Tensor]:
        """Density per length of the cube, and colour; d has the axes of x, or 1 for the samples of a ray."""
        found: tuple[Tensor, Tensor] = self.inner(x, self.view.ways(x[..., : d.shape[-2], :], d), **more)
        return found


def ndc_renderer(render: Renderer, view: Frustum, far: Number) -> Renderer:
    """World rays [R] to pixels by a renderer of the cube; depths are distances in the world, at most `far`.  Rays that
    do not go ahead see nothing."""

    @torch.no_grad()
    def draw(rays: Rays) -> Rendered:
        there = view.ahead(rays)
        some = Rays(rays.o[there], rays.d[there])
        rgb, opacity, depth = torch.zeros_like(rays.o), torch.zeros_like(rays.o[:, 0]), torch.zeros_like(rays.o[:, 0])
        if len(some.o):
            inside = view.rays(some)
            made = render(inside)
            t = made.depth / inside.d.norm(dim=-1) / made.opacity.clamp(min=LEAST)
            rgb[there], opacity[there] = made.rgb, made.opacity
            depth[there] = view.distances(some, t).clamp(max=float(far)) * made.opacity
        return Rendered(rgb, opacity, depth, rays.o[:, :0])

    return draw
