"""The template of the fast job: a canonical scene on planes and lines, with an appearance code in its colours.

    c = MLP(B a(x) + A ψ, Y(d))       a: appearance of `PlaneField`, B its linear map to 27 numbers, A a map of the code

Its gradient by x, which the deformation field learns from, is that of linear interpolation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.nerf_planes import PlaneField
from precis.fields.nerfies import DeformableNerf

Number = float | int


class PlaneTemplate(PlaneField):
    """A `PlaneField` that also takes an appearance code ψ [..., appearance_dim]; A starts at 0."""

    def __init__(
        self, aabb: Float[Tensor, "2 3"] | Sequence[Sequence[Number]], resolution: int = 64, *, step: Number,
        appearance_dim: int = 0, density_parts: int = 8, colour_parts: int = 24, width: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            aabb, resolution, step=step, density_parts=density_parts, colour_parts=colour_parts, width=width,
            generator=generator,
        )  # fmt: skip
        self.of_code: nn.Linear | None = None
        if appearance_dim:
            self.of_code = nn.utils.skip_init(nn.Linear, appearance_dim, self.basis.out_features, bias=False)
            nn.init.zeros_(self.of_code.weight)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "*n 3"], d: Float[Tensor, "*m 3"], code: Float[Tensor, "*k c"] | None = None
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Density (0 outside of the box) and colour at x along unit d; d and the code have the axes of x or 1."""
        flat = x.reshape(-1, 3)
        sigma, u = self.look(flat)
        inside = ((flat >= self.aabb[0]) & (flat <= self.aabb[1])).all(-1)
        h = self.basis(torch.cat(self._products(u, self.colour_planes, self.colour_lines), -1)).view(*x.shape[:-1], -1)
        if code is not None and self.of_code is not None:
            h = h + self.of_code(code)
        ways = self.harmonics(d)
        h = torch.cat([h, ways.expand(*h.shape[:-1], -1)], -1)
        for layer in self.mlp[:-1]:
            h = F.relu(layer(h))
        return (sigma * inside).view(x.shape[:-1]), self.mlp[-1](h).sigmoid()

    def density(self, x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Density alone, 0 outside of the box."""
        inside = ((x >= self.aabb[0]) & (x <= self.aabb[1])).all(-1)
        return super().density(x) * inside

    def fading(self, weight: Number) -> Callable[[float], Tensor]:
        """The planes' variation as a loss of this weight, which falls to 0 as progress goes from 0 to 1."""
        return lambda progress: weight * (1 - progress) * self.variation()


def rates(model: DeformableNerf, *, planes: Number, rest: Number, warp: Number, codes: Number) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer: planes and lines of the template (if it has any), field, its codes, the rest.

    Codes begin within 0.05 of each other: at the network's rate a few hundred steps would not part them.
    """
    factors = model.template.factors() if isinstance(model.template, PlaneTemplate) else []
    groups: list[dict[str, Any]] = [{"params": factors, "lr": planes}]
    if model.warp is not None:
        field = [p for p in model.warp.parameters() if p is not model.warp.codes]
        groups += [{"params": field, "lr": warp}, {"params": [model.warp.codes], "lr": codes}]
    taken = {id(p) for group in groups for p in group["params"]}
    groups.append({"params": [p for p in model.parameters() if id(p) not in taken], "lr": rest})
    return [group for group in groups if group["params"]]
