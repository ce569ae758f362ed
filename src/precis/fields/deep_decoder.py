"""Deep Decoder: a picture as the few weights of an untrained network without convolutions.

    B_{i+1} = cn(relu(U_i B_i C_i)),  i = 1 … d,      x = sigmoid(B_{d+1} C_{d+1})

B_1 is a fixed random tensor, C_i mixes the k channels of a pixel, U_i doubles the sides (bilinear, none in one layer),
cn standardises each channel over the pixels and gives it a gain and an offset.  The weights, d k² + 2 d k + k c for c
output channels, are fewer than the pixels: they are a compressed picture, and cannot hold much noise.  Heckel, Hand,
ICLR 2019, §2 (arXiv 1810.03982).

The paper's text has U_i relu(cn(B_i C_i)), its code the order above (`order="code"`, the default).
"""

import math
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.deep_decoder_layer import mix, norm_relu_mix, relu_norm_mix

Upsampling = Literal["bilinear", "nearest", "convex", "none"]
Order = Literal["code", "paper", "upsample_last"]
SMALLEST = 4  # pixels on the shorter side of B_1


class DeepDecoder(nn.Module):
    """x from B_1, whatever the mode: there are no running statistics, each picture of a batch has its own.

    order: "code", mixing, upsampling, relu, standardising, with no upsampling in the last layer; "upsample_last", the
    same with none in the first (released as `upsample_first=False`); "paper", mixing, standardising, relu, upsampling.
    upsample: "bilinear" and "nearest" double the sides; "convex" takes each new pixel from a random place between four
    old ones, the places fixed; with "none" B_1 is as large as the picture.
    """

    def __init__(
        self, width: int = 128, layers: int = 6, out_ch: int = 3, upsample: Upsampling = "bilinear",
        order: Order = "code", sigmoid: bool = True, *, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if width < 1 or layers < 1 or out_ch < 1:
            raise ValueError(f"width, layers and out_ch must be at least 1, got {width}, {layers}, {out_ch}")
        if upsample not in ("bilinear", "nearest", "convex", "none"):
            raise ValueError(f'upsample must be "bilinear", "nearest", "convex" or "none", got {upsample!r}')
        if order not in ("code", "paper", "upsample_last"):
            raise ValueError(f'order must be "code", "paper" or "upsample_last", got {order!r}')
        self.width, self.layers, self.out_ch, self.upsample = width, layers, out_ch, upsample
        self.order, self.sigmoid = order, sigmoid
        draw = lambda c: nn.Parameter((2 * torch.rand(c, width, generator=generator) - 1) / math.sqrt(width))
        self.weights = nn.ParameterList([draw(c) for c in [width] * layers + [out_ch]])
        self.gains = nn.ParameterList([nn.Parameter(torch.ones(width)) for _ in range(layers)])
        self.offsets = nn.ParameterList([nn.Parameter(torch.zeros(width)) for _ in range(layers)])

    @property
    def factor(self) -> int:
        """Sides of the picture over sides of B_1."""
        return 1 if self.upsample == "none" else 2 ** (self.layers - 1)

    def input_for(self, size: tuple[int, int], seed: int = 0) -> Float[Tensor, "1 k h w"]:
        """B_1 ~ U(0, 0.1) for a picture of at least `size` = (H, W), from the seed alone on every machine."""
        h, w = (-(-n // self.factor) for n in size)
        raw = np.random.Philox(key=seed).random_raw(self.width * h * w)
        values = (raw >> np.uint64(40)).astype(np.float32) * np.float32(0.1 / 2**24)
        return torch.from_numpy(values.reshape(1, self.width, h, w)).to(self.weights[0])

    def forward(self, b1: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Pictures in (0, 1) (with `sigmoid`), `factor` times as large as b1 [b,k,h,w], k = width.

        The mixing after an upsampling is done before it, at a quarter of the pixels: the two commute.
        """
        if b1.shape[1] != self.width:
            raise ValueError(f"B_1 has {b1.shape[1]} channels, the decoder {self.width}")
        x = mix(b1.contiguous(memory_format=torch.channels_last), self.weights[0])
        layer = norm_relu_mix if self.order == "paper" else relu_norm_mix
        still = self.layers - 1 if self.order == "code" else 0
        for i in range(self.layers):
            up = _same if i == still else partial(UPSAMPLE[self.upsample], layer=i)
            x = layer(x, self.gains[i], self.offsets[i], self.weights[i + 1], up)
        return x.sigmoid() if self.sigmoid else x


def parameter_count(width: int, layers: int = 6, out_ch: int = 3) -> int:
    """d k² + 2 d k + k c."""
    return layers * width**2 + 2 * layers * width + width * out_ch


def width_for(parameters: int | float, layers: int = 6, out_ch: int = 3) -> int:
    """The width whose number of parameters is nearest; 0 if one of 1 has more than twice as many."""
    b = 2 * layers + out_ch
    low = int((math.sqrt(b * b + 4 * layers * max(parameters, 0.0)) - b) / (2 * layers))
    return min((low, low + 1), key=lambda k: abs(parameter_count(k, layers, out_ch) - parameters))


def width_for_ratio(ratio: float | int, size: tuple[int, int], layers: int = 6, out_ch: int = 3) -> int:
    """The width with about `ratio` parameters for each of the c H W values of a picture of `size` = (H, W).

    Raises ValueError for a ratio so small that the width would be below 4, naming the least one.
    """
    values = out_ch * size[0] * size[1]
    width = width_for(ratio * values, layers, out_ch)
    if width < 4:
        least = parameter_count(4, layers, out_ch) / values
        raise ValueError(
            f"ratio {ratio:g} leaves a decoder of {layers} layers less than 4 channels for {size[1]}×{size[0]} pixels; "
            f"the least is {math.ceil(least * 1e4) / 1e4:g}"
        )
    return width


def layers_for(size: tuple[int, int], layers: int = 6) -> int:
    """At most `layers`, fewer for small pictures, so that B_1 has at least 4 pixels a side (2 layers at the least)."""
    while layers > 2 and -(-min(size) // 2 ** (layers - 1)) < SMALLEST:
        layers -= 1
    return layers


def _same(x: Tensor) -> Tensor:
    return x


def _none(x: Tensor, layer: int) -> Tensor:
    return x


def _bilinear(x: Tensor, layer: int) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _nearest(x: Tensor, layer: int) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _convex(x: Tensor, layer: int) -> Tensor:
    """Each new pixel from a place uniform in the square of one old pixel around its own, bilinear between four."""
    sides = [2 * n for n in x.shape[-2:]]
    generator = torch.Generator().manual_seed(layer)
    jitter = torch.rand(*sides, 2, generator=generator, dtype=torch.float64) - 0.5
    rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) / 2 for n in sides)  # in old pixels
    places = torch.stack([columns.expand(sides), rows[:, None].expand(sides)], -1) + jitter
    grid = places * 2 / torch.tensor([x.shape[-1], x.shape[-2]]) - 1
    grid = grid.to(x)[None].expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


UPSAMPLE = {"bilinear": _bilinear, "nearest": _nearest, "convex": _convex, "none": _none}
