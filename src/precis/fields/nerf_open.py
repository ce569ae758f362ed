"""Scenes without a border: all of space contracted into a ball of radius 2, and rays sampled ever more coarsely.

    contract(x) = x  for ‖x‖ ≤ 1,   (2 − 1/‖x‖) x/‖x‖  beyond
    t(s) = g⁻¹(s g(far) + (1 − s) g(near)),   g(t) = t/2 for t < 1, 1 − 1/(2t) beyond

Samples equal in s are equal near the middle and equal in disparity far away.  The occupancy grid lies in the contracted
space, and takes the part of a proposal network.
Barron et al., Mip-NeRF 360, CVPR 2022, §2–3 (arXiv 2111.12077).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.nerf_cameras import Rays
from precis.fields.nerf_grid import Cells, OccupancyGrid, Packed
from precis.fields.nerf_render import uniform
from precis.nn.segment import ptr_of

Number = float | int
OPEN_BOX = [[-2.0] * 3, [2.0] * 3]


def contract(x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """All of space into the ball of radius 2; the unit ball stays as it is."""
    r = x.norm(dim=-1, keepdim=True).clamp(min=1.0)
    return x * ((2 - 1 / r) / r)


def spaced(
    near: Number, far: Number, s: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Distances at shares s in [0, 1] of the way from near to far, in the spacing of g."""
    g = lambda t: t / 2 if t < 1 else 1 - 1 / (2 * t)
    y = (s * (g(far) - g(near)) + g(near)).clamp(max=1 - 1e-6)
    return torch.where(y < 0.5, 2 * y, 1 / (2 * (1 - y)))


class OpenField(nn.Module):
    """A field on the box ±2 of contracted space, as one of all space."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(
        self, x: Float[Tensor, "*n 3"], d: Float[Tensor, "*m 3"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Density and colour at x along unit d."""
        return self.inner(contract(x), d)

    def density(self, x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Density alone."""
        return self.inner.density(contract(x))

    def look(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Tensor]:
        """Density, and what `colour` needs."""
        return self.inner.look(contract(x))

    def colour(self, h: Tensor, d: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colour from what `look` gave."""
        return self.inner.colour(h, d)


@torch.no_grad()
def march_open(
    rays: Rays, grid: OccupancyGrid, count: int, *, near: Number, far: Number, cells: Cells | None = None,
    generator: torch.Generator | None = None,
) -> Packed:  # fmt: skip
    """`count` intervals a unit ray between near and far, `spaced`, of which those are kept whose middle lies in a live
    cell of the contracted grid."""
    live = (grid.cells() if cells is None else cells).live
    r, n = len(rays.o), grid.resolution
    edge = torch.arange(count + 1, device=rays.o.device, dtype=rays.o.dtype).expand(r, -1)
    if generator is not None:
        edge = edge + uniform((r, 1), rays.o, generator) - 0.5
    t = spaced(near, far, (edge / count).clamp(0, 1))
    middle = (t[:, 1:] + t[:, :-1]) / 2
    x = contract(rays.o[:, None] + middle[..., None] * rays.d[:, None])
    at = ((x - grid.aabb[0]) * (n / (grid.aabb[1] - grid.aabb[0]))).long().clamp(0, n - 1)
    cell = (at[..., 0] * n + at[..., 1]) * n + at[..., 2]
    ray, place = live[cell].nonzero(as_tuple=True)
    return Packed(ray, t[ray, place], t[ray, place + 1], ptr_of(torch.bincount(ray, minlength=r)))
