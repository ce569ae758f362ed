"""A radiance field on planes and lines: fast on a CPU, where a gather costs less than a matrix product.

    σ(x) = softplus(Σ_m Σ_k P_mk(x_a, x_b) L_mk(x_c) + b)/Δ,   b = log(1/(1 − 10⁻²) − 1)

m runs over the three ways to split (x, y, z) into a plane and a line.  The appearance is made alike, its products go
through a linear map to 27 numbers, and an MLP of two layers of 64 that also sees the direction (spherical harmonics of
degree < 4) gives the colour.  b makes every step of length Δ one hundredth opaque at the beginning.
Chen et al., TensoRF, ECCV 2022 (arXiv 2203.09517); the start, Sun et al., CVPR 2022 (arXiv 2111.11215).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.encoding import SphericalHarmonics
from precis.fields.nerf_lookup import corners, lookup, ticks

Number = float | int
SPLITS = ((0, 1, 2), (0, 2, 1), (1, 2, 0))  # axes of the plane, and of the line
START = math.log(1 / (1 - 1e-2) - 1)


class PlaneField(nn.Module):
    """A scene inside the box `aabb` [2,3], a grid of about `resolution`³; `step` is the renderer's Δ.

    look(x) gives density and what `colour` needs of it; a renderer asks for colours only where there is weight.
    """

    resolution: Tensor
    aabb: Tensor

    def __init__(
        self, aabb: Float[Tensor, "2 3"] | Sequence[Sequence[Number]], resolution: int | Sequence[int] = 64, *,
        step: Number, density_parts: int = 8, colour_parts: int = 24, features: int = 27, width: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        box = torch.as_tensor(aabb, dtype=torch.float32)
        self.register_buffer("aabb", box)
        self.step = float(step)
        sizes = grid_shape(box, resolution) if isinstance(resolution, int) else tuple(resolution)
        self.register_buffer("resolution", torch.tensor(sizes), persistent=False)
        self.density_planes, self.density_lines = self._factors(density_parts, generator)
        self.colour_planes, self.colour_lines = self._factors(colour_parts, generator)
        self.basis = nn.utils.skip_init(nn.Linear, 3 * colour_parts, features, bias=False)
        self.harmonics = SphericalHarmonics(4)
        sizes_of = (features + self.harmonics.out_dim, width, width, 3)
        self.mlp = nn.ModuleList(nn.utils.skip_init(nn.Linear, a, b) for a, b in zip(sizes_of[:-1], sizes_of[1:]))
        for layer in (self.basis, *self.mlp):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def config(self) -> dict[str, Any]:
        """The arguments that build it again."""
        parts = self.density_planes[0].shape[1], self.colour_planes[0].shape[1]
        return {
            "aabb": self.aabb.tolist(), "resolution": self.resolution.tolist(), "step": self.step,
            "density_parts": parts[0], "colour_parts": parts[1], "features": self.basis.out_features,
            "width": self.mlp[0].out_features,
        }  # fmt: skip

    def _factors(self, parts: int, generator: torch.Generator | None) -> tuple[nn.ParameterList, nn.ParameterList]:
        n = [int(r) for r in self.resolution]
        draw = lambda rows: nn.Parameter(0.1 * torch.randn(rows, parts, generator=generator))
        planes = nn.ParameterList(draw(n[a] * n[b]) for a, b, _ in SPLITS)
        return planes, nn.ParameterList(draw(n[c]) for _, _, c in SPLITS)

    def forward(
        self, x: Float[Tensor, "*n 3"], d: Float[Tensor, "*m 3"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Density (0 outside of the box) and colour at x along unit d, which is broadcast to x."""
        flat = x.reshape(-1, 3)
        sigma, h = self.look(flat)
        inside = ((flat >= self.aabb[0]) & (flat <= self.aabb[1])).all(-1)
        ways = torch.broadcast_to(d, x.shape).reshape(-1, 3)
        return (sigma * inside).reshape(x.shape[:-1]), self.colour(h, ways).reshape(x.shape)

    def density(self, x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Density alone; outside of the box that of its border."""
        return self.look(x.reshape(-1, 3))[0].reshape(x.shape[:-1])

    def look(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 3"]]:
        """Density, and the position within the box for `colour`."""
        u = ((x - self.aabb[0]) / (self.aabb[1] - self.aabb[0])).clamp(0, 1)
        raw = sum(p.sum(-1) for p in self._products(u, self.density_planes, self.density_lines))
        return F.softplus(raw + START) / self.step, u  # type: ignore[arg-type]

    def colour(self, u: Float[Tensor, "n 3"], d: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colour in [0, 1] at positions that `look` gave, seen along unit d."""
        h = self.basis(torch.cat(self._products(u, self.colour_planes, self.colour_lines), -1))
        h = torch.cat([h, self.harmonics(d)], -1)
        for layer in self.mlp[:-1]:
            h = F.relu(layer(h))
        return self.mlp[-1](h).sigmoid()

    def _products(self, u: Tensor, planes: nn.ParameterList, lines: nn.ParameterList) -> list[Tensor]:
        n = (int(self.resolution[0]), int(self.resolution[1]), int(self.resolution[2]))
        at = ticks(u, n)
        out = []
        for (a, b, c), plane, line in zip(SPLITS, planes, lines):
            out.append(lookup(plane, *corners(*at, (a, b), n)) * lookup(line, *corners(*at, (c,), n)))
        return out

    def variation(self) -> Float[Tensor, ""]:
        """Mean squared difference of neighbours on the planes, density and appearance alike."""
        total = self.aabb.new_zeros(())
        n = [int(r) for r in self.resolution]
        for planes in (self.density_planes, self.colour_planes):
            for (a, b, _), plane in zip(SPLITS, planes):
                grid = plane.view(n[a], n[b], -1)
                total = total + (grid[1:] - grid[:-1]).square().mean() + (grid[:, 1:] - grid[:, :-1]).square().mean()
        return total

    def factors(self) -> list[nn.Parameter]:
        """Planes and lines, which learn at a higher rate than the rest."""
        return [*self.density_planes, *self.density_lines, *self.colour_planes, *self.colour_lines]

    @torch.no_grad()
    def upsample(self, resolution: int | Sequence[int]) -> None:
        """Planes and lines interpolated to a finer grid, in place: the parameters stay the same objects."""
        old = [int(r) for r in self.resolution]
        new = grid_shape(self.aabb, resolution) if isinstance(resolution, int) else tuple(resolution)
        for planes, lines in ((self.density_planes, self.density_lines), (self.colour_planes, self.colour_lines)):
            for (a, b, c), plane, line in zip(SPLITS, planes, lines):
                plane.data = _resized(plane.data.view(old[a], old[b], -1), (new[a], new[b]))
                line.data = _resized(line.data.view(old[c], 1, -1), (new[c], 1))
        self.resolution.copy_(torch.tensor(new))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A state of another resolution fits too."""
        names = [(f"{prefix}{kind}_lines.{m}", c) for kind in ("density",) for m, (_, _, c) in enumerate(SPLITS)]
        if all(name in state for name, _ in names):
            sizes = [0, 0, 0]
            for name, axis in names:
                sizes[axis] = len(state[name])
            if sizes != self.resolution.tolist():
                self.upsample(sizes)
        super()._load_from_state_dict(state, prefix, *rest)


def grid_shape(aabb: Float[Tensor, "2 3"], resolution: int) -> tuple[int, int, int]:
    """Grid points along each axis for cells that are about cubes, resolution³ in all."""
    side = aabb[1] - aabb[0]
    n = (side / side.prod().pow(1 / 3) * resolution).round().clamp(min=2).long()
    return int(n[0]), int(n[1]), int(n[2])


def _resized(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """[A,B,C] to [A'·B',C], bilinear, borders on borders."""
    if tuple(grid.shape[:2]) == size:
        return grid.reshape(-1, grid.shape[-1])
    made = F.interpolate(grid.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=True)[0]
    return made.permute(1, 2, 0).reshape(-1, grid.shape[-1]).contiguous()
