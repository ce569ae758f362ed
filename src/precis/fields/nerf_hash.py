"""Features in hash tables of several resolutions, and the radiance field on them: fast on a GPU.

    N_l = ⌊N_min bˡ⌋,  b = exp((ln N_max − ln N_min)/(L − 1)),   h(i) = (i_x ⊕ 2654435761 i_y ⊕ 805459861 i_z) mod T

Each level stores F numbers at the corners of its grid, one to one where they are fewer than T, hashed otherwise, and
interpolates them; density is exp(u − 1) of a small MLP on all levels.
Müller et al., SIGGRAPH 2022, §3 and §5.4 (arXiv 2201.05989).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from precis.fields.encoding import SphericalHarmonics
from precis.fields.nerf_lookup import lookup

Number = float | int
PRIMES = (1, 2654435761 - (1 << 32), 805459861)  # as signed 32-bit numbers, whose products wrap alike
CLAMP = 15.0


class HashGrid(nn.Module):
    """x [N,3] in [0, 1]³ to [N, levels · features]."""

    def __init__(
        self, levels: int = 16, features: int = 2, log2_size: int = 19, coarsest: int = 16, finest: int = 512, *,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if levels < 1 or not 1 <= coarsest <= finest:
            raise ValueError(f"levels must be at least 1 and coarsest ≤ finest, got {levels}, {coarsest}, {finest}")
        self.levels, self.features, self.size, self.out_dim = levels, features, 1 << log2_size, levels * features
        growth = math.exp((math.log(finest) - math.log(coarsest)) / max(levels - 1, 1))
        self.resolutions = [int(coarsest * growth**level + 1e-6) for level in range(levels)]
        self.rows = [min((n + 1) ** 3, self.size) for n in self.resolutions]
        # One parameter a level: the gradient of a slice would be as large as the whole.
        draw = lambda rows: nn.Parameter((2 * torch.rand(rows, features, generator=generator) - 1) * 1e-4)
        self.tables = nn.ParameterList(draw(rows) for rows in self.rows)

    def forward(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n f"]:
        return torch.cat([lookup(table, *self.corners(x, level)) for level, table in enumerate(self.tables)], 1)

    def corners(self, x: Float[Tensor, "n 3"], level: int) -> tuple[Int[Tensor, "n 8"], Float[Tensor, "n 8"]]:
        """Rows within the level's table, and trilinear weights, of the eight corners around x."""
        n = self.resolutions[level]
        at = x.clamp(0, 1) * n
        low = at.detach().floor().clamp(max=n - 1)
        share = at - low
        cell = low.to(torch.int32)
        index, weights = [], []
        for corner in range(8):
            bits = [corner >> 2 & 1, corner >> 1 & 1, corner & 1]
            i = [cell[:, a] + bits[a] for a in range(3)]
            index.append(self._row(i, n))
            parts = [share[:, a] if bits[a] else 1 - share[:, a] for a in range(3)]
            weights.append(parts[0] * parts[1] * parts[2])
        return torch.stack(index, 1), torch.stack(weights, 1)

    def _row(self, i: list[Tensor], n: int) -> Tensor:
        if (n + 1) ** 3 <= self.size:
            return (i[0] * (n + 1) + i[1]) * (n + 1) + i[2]
        mixed = i[0] ^ (i[1] * PRIMES[1]) ^ (i[2] * PRIMES[2])
        return mixed & (self.size - 1)


class HashField(nn.Module):
    """A scene inside the box `aabb` [2,3]: a hash grid, a density MLP 1 × 64 → 16, a colour MLP 2 × 64 that also sees
    the direction (spherical harmonics of degree < 4).
    """

    aabb: Tensor

    def __init__(
        self, aabb: Float[Tensor, "2 3"] | Sequence[Sequence[Number]], *, levels: int = 16, log2_size: int = 19,
        finest: int = 512, width: int = 64, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("aabb", torch.as_tensor(aabb, dtype=torch.float32))
        self.arguments = {"levels": levels, "log2_size": log2_size, "finest": finest, "width": width}
        self.encoding = HashGrid(levels, 2, log2_size, min(16, finest), finest, generator=generator)
        self.harmonics = SphericalHarmonics(4)
        sizes = ((self.encoding.out_dim, width), (width, 16), (15 + self.harmonics.out_dim, width), (width, width),
                 (width, 3))  # fmt: skip
        self.mlp = nn.ModuleList(nn.utils.skip_init(nn.Linear, a, b) for a, b in sizes)
        for layer in self.mlp:
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def config(self) -> dict[str, Any]:
        """The arguments that build it again."""
        return {"aabb": self.aabb.tolist(), **self.arguments}

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

    def look(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 15"]]:
        """Density, and 15 numbers for `colour`."""
        u = (x - self.aabb[0]) / (self.aabb[1] - self.aabb[0])
        h = self.mlp[1](F.relu(self.mlp[0](self.encoding(u))))
        return clamped_exp(h[:, 0] - 1), h[:, 1:]

    def colour(self, h: Float[Tensor, "n 15"], d: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colour in [0, 1] from what `look` gave, seen along unit d."""
        y = F.relu(self.mlp[2](torch.cat([h, self.harmonics(d)], -1)))
        return self.mlp[4](F.relu(self.mlp[3](y))).sigmoid()

    def factors(self) -> list[nn.Parameter]:
        """The tables, which learn at a rate of their own."""
        return list(self.encoding.tables)


def clamped_exp(x: Tensor) -> Tensor:
    """eˣ with the gradient of e^min(x, 15)."""
    out: Tensor = _ClampedExp.apply(x)  # type: ignore[no-untyped-call]
    return out


class _ClampedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * x.clamp(max=CLAMP).exp()
