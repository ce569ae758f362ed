"""Deformation fields: a perceptron that carries a photograph's points into the canonical scene.

    SE3Field           T(x, ω) = exp of the twist (w, v) at x,   (w, v) = MLP(γ_α(x), ω)
    TranslationField   T(x, ω) = x + MLP(γ_α(x), ω)

γ_α opens its frequency bands one by one as α grows; the Jacobian ∂T/∂x is pushed forward together with the value, the
three directions and the value as one matrix product a layer.
Park et al., ICCV 2021, §§3.2 and 3.5 (arXiv 2011.12948).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.encoding import AnnealedFrequencyEncoding
from precis.fields.nerfies_se3 import screw, screw_tangents
from precis.nn.derivatives import ELEMENTWISE, Streams, propagate_activation, propagate_linear

Number = float | int


def cosine_window(bands: int, alpha: Number | Float[Tensor, ""]) -> Float[Tensor, " bands"]:
    """(1 − cos π clip(α − j, 0, 1))/2 for band j: α = 0 shuts all bands, α ≥ `bands` opens all (§3.5)."""
    return AnnealedFrequencyEncoding(1, bands).window(torch.as_tensor(alpha, dtype=torch.get_default_dtype()))


def make_codes(n: int, dim: int, generator: torch.Generator | None = None) -> nn.Parameter:
    """n codes, U[0, 0.05), a row a photograph."""
    return nn.Parameter(torch.empty(n, dim).uniform_(0, 0.05, generator=generator))


class _Warp(nn.Module):
    """The perceptron under both fields: `depth` layers of `width` ReLUs, the input once more before layer `skip`."""

    def __init__(
        self, outputs: int, num_codes: int, code_dim: int, bands: int, depth: int, width: int, skip: int,
        generator: torch.Generator | None,
    ) -> None:  # fmt: skip
        super().__init__()
        if min(num_codes, code_dim, depth, width) < 1 or bands < 0:
            raise ValueError("num_codes, code_dim, depth and width must be at least 1, bands at least 0")
        self.bands, self.skip, self.code_dim = bands, skip, code_dim
        self.codes = make_codes(num_codes, code_dim, generator)
        self.encoding = AnnealedFrequencyEncoding(3, bands)
        inputs = self.encoding.out_dim + code_dim
        self.layers: Any = nn.ModuleList()
        for i in range(depth):
            d_in = inputs if i == 0 else width + inputs if i == skip else width
            self.layers.append(_glorot(d_in, width, generator))
        self.head = _glorot(width, outputs, generator)
        with torch.no_grad():
            self.head.weight.uniform_(0, 1e-4, generator=generator)  # one-sided, as in the released code

    def streams(
        self, x: Float[Tensor, "*n 3"], code: Float[Tensor, "*m c"], alpha: Number | Tensor, order: int
    ) -> Float[Tensor, "streams rows o"]:
        """The head's outputs [1,N,o], and with `order` 1 their derivatives by x: [4,N,o]."""
        flat = x.reshape(-1, 3)
        window = self.encoding.window(torch.as_tensor(alpha, dtype=x.dtype, device=x.device))
        window = torch.cat([window.new_ones(3), window.repeat_interleave(6)])
        encoded = self.encoding.streams(flat, order)
        encoded = encoded._replace(data=encoded.data * window)
        h = encoded
        for i, layer in enumerate(self.layers):
            weight = layer.weight
            if i in (0, self.skip):  # the code's part of the product once a code, not once a point
                of_code = code @ weight[:, -self.code_dim :].T + layer.bias
                data = encoded.data if i == 0 else torch.cat([h.data, encoded.data], -1)
                h = propagate_linear(weight[:, : -self.code_dim], None, Streams(data, encoded.d, "none"))
                value = (h.data[0].view(*x.shape[:-1], -1) + of_code).view(1, len(flat), -1)
                h = h._replace(data=torch.cat([value, h.data[1:]]) if order else value)
            else:
                h = propagate_linear(weight, layer.bias, h)
            h = propagate_activation(ELEMENTWISE["relu"], h)
        return propagate_linear(self.head.weight, self.head.bias, h).data

    def extra_repr(self) -> str:
        shape = f"depth={len(self.layers)}, width={self.head.in_features}"
        return f"bands={self.bands}, {shape}, codes={list(self.codes.shape)}"


class SE3Field(_Warp):
    """T(x, ω) = exp of the twist (w, v)(γ_α(x), ω) at x, an observation's point carried into the canonical scene.

    `codes` [num_codes, code_dim] are the photographs' ω.  `pivot` learns a point to turn about, `translation` a further
    shift (both off in the paper).  Weights Glorot-uniform, the head's U[0, 1e-4): T starts next to the identity.
    """

    def __init__(
        self, num_codes: int, code_dim: int = 8, bands: int = 8, depth: int = 6, width: int = 128, skip: int = 4,
        pivot: bool = False, translation: bool = False, *, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        outputs = 6 + 3 * pivot + 3 * translation
        super().__init__(outputs, num_codes, code_dim, bands, depth, width, skip, generator)
        self.pivot, self.translation = pivot, translation

    def forward(
        self, x: Float[Tensor, "*n 3"], code: Float[Tensor, "*m c"], alpha: Number | Float[Tensor, ""],
        jacobian: bool = False,
    ) -> tuple[Float[Tensor, "*n 3"], Float[Tensor, "*n 3 3"] | None]:  # fmt: skip
        """x' and, if asked for, ∂x'/∂x.  `code` has x's leading axes or ones in their place (one code a ray)."""
        out = self.streams(x, code, alpha, int(jacobian))
        parts = list(out.split(3, -1))
        flat = x.reshape(-1, 3)
        if not jacobian:
            w, v, *rest = (p[0] for p in parts)
            shift = rest[0] if self.pivot else 0.0
            moved = screw(w, v, flat + shift) - shift
            return (moved + rest[-1] if self.translation else moved).view(x.shape), None
        axes = torch.eye(3, dtype=x.dtype, device=x.device)[:, None].expand(3, len(flat), 3)
        w, v, *rest = parts
        start, d_start = (flat + rest[0][0], axes + rest[0][1:]) if self.pivot else (flat, axes)
        moved, tangents = screw_tangents(w[0], v[0], start, w[1:], v[1:], d_start)
        if self.pivot:
            moved, tangents = moved - rest[0][0], tangents - rest[0][1:]
        if self.translation:
            moved, tangents = moved + rest[-1][0], tangents + rest[-1][1:]
        return moved.view(x.shape), tangents.permute(1, 2, 0).reshape(*x.shape, 3)


class TranslationField(_Warp):
    """T(x, ω) = x + shift(γ_α(x), ω): the same perceptron with three outputs."""

    def __init__(
        self, num_codes: int, code_dim: int = 8, bands: int = 8, depth: int = 6, width: int = 128, skip: int = 4, *,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__(3, num_codes, code_dim, bands, depth, width, skip, generator)

    def forward(
        self, x: Float[Tensor, "*n 3"], code: Float[Tensor, "*m c"], alpha: Number | Float[Tensor, ""],
        jacobian: bool = False,
    ) -> tuple[Float[Tensor, "*n 3"], Float[Tensor, "*n 3 3"] | None]:  # fmt: skip
        """x' and, if asked for, ∂x'/∂x, as of `SE3Field`."""
        out = self.streams(x, code, alpha, int(jacobian))
        moved = x + out[0].view(x.shape)
        if not jacobian:
            return moved, None
        return moved, torch.eye(3, dtype=x.dtype, device=x.device) + out[1:].permute(1, 2, 0).reshape(*x.shape, 3)


def _glorot(d_in: int, d_out: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer with Glorot-uniform weights and zero bias; the global generator is left alone."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, d_in, d_out)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
