"""Neural radiance field: a small network from position and viewing direction to density and colour, one a scene.

    (σ, c) = F(γ_L(x), γ_M(d)),   γ_L(x) = (x, sin 2⁰x, cos 2⁰x, …, sin 2^{L−1}x, cos 2^{L−1}x)

Eight layers of 256, the encoded position fed in again after the fifth; density from the trunk, colour from the trunk
and the encoded direction.  The paper's text has 2ᵏπ and no x of its own in γ, and two angles for a direction; this is
its code.  Rendering: `nerf_render`; recipes: `nerf_fit`.
Mildenhall et al., ECCV 2020, §3 and §5 (arXiv 2003.08934).
"""

from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.encoding import FrequencyEncoding

TINY: dict[str, Any] = {
    "depth": 4, "width": 64, "skip": 1, "pos_bands": 6, "dir_bands": 2, "colour_width": 32, "density": "softplus",
}  # fmt: skip
GAIN, SHIFT = 10.0, -3.0  # of softplus densities: half a unit of length at the beginning


class RadianceField(Protocol):
    """What a renderer asks of a scene."""

    def __call__(
        self, x: Float[Tensor, "*n 3"], d: Float[Tensor, "*m 3"]
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Density (1/length) and colour in [0, 1] at x, seen along unit d; d is broadcast to x."""

    def density(self, x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """The density alone."""


class NerfMLP(nn.Module):
    """The paper's network: 595,844 parameters by default, Glorot-uniform weights, zero biases.

    skip: the encoded position is put before the output of layer `skip` + 1.  density: "relu" (the paper's) or
    "softplus": 10 softplus(raw − 3), which cannot die and reaches solid densities in few steps.
    view_dependent=False leaves the direction out of the colour's layer and nothing else.  code_dim: length of a code
    that joins the direction, per photograph.  unit: the network works in lengths of 1/unit, for scenes that are smaller
    than the encoding and the first densities are made for.
    """

    def __init__(
        self, depth: int = 8, width: int = 256, skip: int = 4, pos_bands: int = 10, dir_bands: int = 4,
        view_dependent: bool = True, *, colour_width: int = 128, density: Literal["relu", "softplus"] = "relu",
        code_dim: int = 0, unit: float | int = 1, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not (depth >= 1 and 0 <= skip):
            raise ValueError(f"a trunk needs a layer and a skip from 0, got depth={depth}, skip={skip}")
        self.skip, self.activation, self.unit = skip, density, float(unit)
        self.position = FrequencyEncoding(3, pos_bands)
        self.direction = FrequencyEncoding(3, dir_bands) if view_dependent else None
        wide = self.position.out_dim
        inputs = [wide] + [width + (wide if i == skip else 0) for i in range(depth - 1)]
        self.trunk = nn.ModuleList(_linear(n, width) for n in inputs)
        self.sigma = _linear(width, 1)
        self.bottleneck = _linear(width, width)
        beside = (0 if self.direction is None else self.direction.out_dim) + code_dim
        self.colour = _linear(width + beside, colour_width)
        self.rgb = _linear(colour_width, 3)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(
        self, x: Float[Tensor, "*n 3"], d: Float[Tensor, "*m 3"], code: Float[Tensor, "*k c"] | None = None, *,
        noise: Float[Tensor, "*n"] | None = None,
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:  # fmt: skip
        """Density and colour; d (and `code`) have the axes of x or 1, so that rays [B,1,3] serve samples [B,n,3].

        noise is added to the raw density, as the paper does (std 1) for real photographs.
        """
        h = self._features(x)
        raw = self.sigma(h).squeeze(-1)
        width = h.shape[-1]
        beside = [] if self.direction is None else [self.direction(d)]
        beside += [] if code is None else [code]
        # The part of the layer that sees the direction is evaluated once a ray, not once a sample.
        hidden = F.linear(self.bottleneck(h), self.colour.weight[:, :width], self.colour.bias)
        if beside:
            hidden = hidden + F.linear(torch.cat(beside, -1), self.colour.weight[:, width:])
        return self._activate(raw if noise is None else raw + noise), self.rgb(F.relu(hidden)).sigmoid()

    def density(self, x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Density alone: half the work."""
        return self._activate(self.sigma(self._features(x)).squeeze(-1))

    def _features(self, x: Tensor) -> Tensor:
        encoded = self.position(x if self.unit == 1 else self.unit * x)
        h = encoded
        for i, layer in enumerate(self.trunk):
            h = F.relu(layer(h))
            if i == self.skip and i < len(self.trunk) - 1:
                h = torch.cat([encoded, h], -1)
        return h

    def _activate(self, raw: Tensor) -> Tensor:
        made = F.relu(raw) if self.activation == "relu" else GAIN * F.softplus(raw + SHIFT)
        return made if self.unit == 1 else self.unit * made


def tiny_nerf(
    pos_bands: int = 6, dir_bands: int = 2, view_dependent: bool = True, *, width: int = 64,
    generator: torch.Generator | None = None,
) -> NerfMLP:  # fmt: skip
    """A network for experiments on a CPU: 4 × 64, L = 6 and 2, softplus density; one serves both passes."""
    options = TINY | {"pos_bands": pos_bands, "dir_bands": dir_bands, "width": width}
    return NerfMLP(view_dependent=view_dependent, generator=generator, **options)


def _linear(wide: int, out: int) -> nn.Linear:
    """A layer without torch's own draw of weights, which would use the global generator."""
    return nn.utils.skip_init(nn.Linear, wide, out)
