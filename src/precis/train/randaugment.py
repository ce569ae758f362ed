"""RandAugment: n operations, drawn a sample, of one magnitude.  Cubuk, Zoph, Shlens, Le, 2020 (arXiv 1909.13719).

The fourteen operations of the paper's Figure 2.  The five geometric ones become parameters of the one resampling of
`train.augment`, which so comes before the recolouring; each sample keeps its order within either.  Ranges at magnitude
10: rotation 30°, shear 0.3, translation 0.45 of the side, enhancement factors 1 ± 0.9, 4 bits, threshold 0.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from precis.train import colour

OPERATIONS = ("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast",
              "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y")  # fmt: skip


class Drawn(NamedTuple):
    """`which` [B,n] into OPERATIONS, `sign` [B,n] of the signed ones, `strength` in [0,1]."""

    which: Tensor
    sign: Tensor
    strength: float


def draw(draws: Any, n: int, magnitude: float | int) -> Drawn:
    """n operations a sample, each equally likely; magnitude 0 … 10."""
    if n < 1 or not 0 <= magnitude <= 10:
        raise ValueError(f"randaugment takes at least one operation and a magnitude in 0 … 10, got {n}, {magnitude}")
    which = torch.stack([draws.integers(len(OPERATIONS)) for _ in range(n)], 1)
    sign = torch.stack([1 - 2 * draws.chance(0.5).to(draws.dtype) for _ in range(n)], 1)
    return Drawn(which, sign, magnitude / 10)


def geometry(drawn: Drawn) -> Iterator[dict[str, Tensor]]:
    """Parameters of the affine map of every round; samples whose operation is another one get the identity."""
    ranges = {"rotate": ("angle", math.pi / 6), "shear_x": ("shear", 0.3), "shear_y": ("shear_y", 0.3),
              "translate_x": ("dx", 0.9), "translate_y": ("dy", 0.9)}  # fmt: skip
    for column in range(drawn.which.shape[1]):
        which, sign = drawn.which[:, column], drawn.sign[:, column]
        yield {
            parameter: (which == OPERATIONS.index(name)) * sign * (reach * drawn.strength)
            for name, (parameter, reach) in ranges.items()
        }


def recolour(x: Tensor, drawn: Drawn) -> Tensor:
    """The operations on colours, round by round, each on the samples that drew it."""
    s, out = drawn.strength, x.clone()
    for column in range(drawn.which.shape[1]):
        which, sign = drawn.which[:, column], drawn.sign[:, column]
        for name in ("autocontrast", "equalize", "solarize", "color", "posterize", "contrast", "brightness",
                     "sharpness"):  # fmt: skip
            chosen = (which == OPERATIONS.index(name)).nonzero()[:, 0]
            if len(chosen):
                out[chosen] = operate(name, out[chosen], s, 1 + 0.9 * s * sign[chosen])
    return out


def operate(name: str, x: Tensor, strength: float | int, factor: Tensor) -> Tensor:
    """One operation on a batch; `factor` [B] for the enhancements, which are 1 at strength 0."""
    n = len(x)
    if name == "autocontrast":
        return colour.autocontrast(x)
    if name == "equalize":
        return colour.equalize(x)
    if name == "solarize":
        # 1 + a bit: at strength 0 nothing is inverted, white neither
        return colour.solarize(x, x.new_full((n,), 1 - strength if strength else 1.1))
    if name == "posterize":
        bits = torch.full((n,), 8 - round(4 * strength), device=x.device)
        return colour.posterize(x, bits)
    if name == "sharpness":
        return colour.sharpness(x, factor)
    chain = colour.ColourMatrix(x)
    change = {"color": chain.saturation, "contrast": chain.contrast, "brightness": chain.brightness}[name]
    return change(factor).apply(x)
