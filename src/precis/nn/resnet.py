"""Residual networks: one class for all of them.  He, Zhang, Ren, Sun, CVPR 2016 and ECCV 2016 (pre-activation).

    x_{l+1} = f(shortcut(x_l) + F(x_l)),   F = conv–norm–ReLU–conv–norm (basic), 1×1–3×3–1×1 (bottleneck);
    pre-activation: x_{l+1} = shortcut(x_l) + F(x_l),  F = (norm–ReLU–conv) × 2 or 3, and norm–ReLU after the last block
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.nn.layers import Standardise, drawn_from, initialise
from precis.nn.norm import make_norm

EXPANSION = {"basic": 1, "bottleneck": 4}


class ResNet(nn.Module):
    """Maps [B,C,H,W] → logits [B,K], or features [B,out_dim] without `classes`.

    stages, widths: blocks and channels a stage; a bottleneck's output has 4 × its width.  `strides` of the stages:
    1, 2, 2, … by default.  stem: "small" 3×3, "large" 7×7/2 and max-pool, for pictures from about 100 pixels.
    preact: the second paper's order; the first block then starts without norm and ReLU, which the stem has had.
    shortcut where shapes change: "projection" 1×1 (with a norm, unless pre-activated), or "pad": average pooling and
    zero channels, half of them on either side.
    norm: a kind of `make_norm`; "none": biases instead, branches divided by √blocks; "fixup": Zhang, Dauphin, Ma, ICLR
    2019 (arXiv 1901.09321) §3: branches start at zero, L^(−1/(2m−2)) before the last convolution, scalar biases and
    scales (the head is initialised as everywhere else).
    zero_init: every branch starts at zero.  Convolutions: He normal, by fan-out.
    """

    def __init__(
        self, stages: Sequence[int], widths: Sequence[int], *, block: Literal["basic", "bottleneck"] = "basic",
        stem: Literal["small", "large"] = "small", preact: bool = False,
        shortcut: Literal["projection", "pad"] = "projection", norm: str = "batch", groups: int = 32,
        channels_per_group: int | None = None, zero_init: bool = False, in_channels: int = 3,
        classes: int | None = None, strides: Sequence[int] | None = None, stem_width: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        strides = tuple(strides or (1, *[2] * (len(stages) - 1)))
        if not len(stages) == len(widths) == len(strides) or min(*stages, *widths, *strides) < 1:
            raise ValueError(f"stages {stages}, widths {widths}, strides {strides}: one number from 1 a stage each")
        if norm == "fixup" and preact:
            raise ValueError("fixup is defined for the first paper's order: preact=False")
        self.preact = preact

        def normal(channels: int, zero: bool = False) -> nn.Module:
            kind = "none" if norm == "fixup" else norm
            return make_norm(kind, channels, groups=groups, channels_per_group=channels_per_group, zero_init=zero)

        channels = stem_width or widths[0]
        bare = norm in ("none", "fixup")
        with drawn_from(generator):
            self.input = Standardise(in_channels)
            kernel, stride = (7, 2) if stem == "large" else (3, 1)
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=bare), normal(channels), nn.ReLU(),
                *([nn.MaxPool2d(3, 2, 1)] if stem == "large" else []),
            )  # fmt: skip
            groups_of_blocks: list[nn.Sequential] = []
            for n, width, step in zip(stages, widths, strides):
                blocks: list[nn.Module] = []
                for i in range(n):
                    first = not groups_of_blocks and i == 0
                    args = (channels, width, step if i == 0 else 1, block, shortcut)
                    if norm == "fixup":
                        blocks.append(FixupBlock(*args))
                    else:
                        scale = sum(stages) ** -0.5 if norm == "none" else 1.0
                        blocks.append(Block(*args, normal, bare, preact, preact and first, zero_init, scale))
                    channels = width * EXPANSION[block]
                groups_of_blocks.append(nn.Sequential(*blocks))
            self.blocks = nn.ModuleList(groups_of_blocks)
            self.last = nn.Sequential(normal(channels), nn.ReLU()) if preact else nn.Identity()
            self.out_dim = channels
            self.head = nn.Identity() if classes is None else nn.Linear(channels, classes)
            initialise(self, generator)
            self._rescale(zero_init, sum(stages))

    @torch.no_grad()
    def _rescale(self, zero_init: bool, total: int) -> None:
        for module in self.modules():
            if isinstance(module, FixupBlock):
                module.rescale(total)
            elif isinstance(module, Block) and module.preact and zero_init:
                last: Any = module.convs[-1]
                last.weight.zero_()

    def stages(self, x: Tensor) -> list[Tensor]:
        """The map after each stage; the last one as the pooling sees it."""
        x, maps = self.stem(self.input(x)), []
        for stage in self.blocks:
            x = stage(x)
            maps.append(x)
        maps[-1] = self.last(maps[-1])
        return maps

    def features(self, x: Tensor) -> Float[Tensor, "b out"]:
        """Means over positions of the last map [B,out_dim]; x uint8, or float in [0,1]."""
        return self.stages(x)[-1].mean((2, 3))

    def forward(self, x: Tensor) -> Float[Tensor, "b out"]:
        return self.head(self.features(x))


class Block(nn.Module):
    """One residual block; see the module's equations.  `bare`: convolutions have biases, the branch a scale."""

    def __init__(
        self, c_in: int, width: int, stride: int, block: str, shortcut: str, normal, bare: bool, preact: bool,
        after_stem: bool, zero_init: bool, scale: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.preact, self.after_stem, self.scale = preact, after_stem, scale
        c_out = width * EXPANSION[block]
        self.convs = _convolutions(c_in, width, c_out, stride, block, bare)
        wide = [conv.in_channels if preact else conv.out_channels for conv in self.convs]
        last = len(wide) - 1
        self.norms = nn.ModuleList(
            nn.Identity() if after_stem and i == 0 else normal(c, zero_init and not preact and i == last)
            for i, c in enumerate(wide)
        )
        self.shortcut = _shortcut(c_in, c_out, stride, shortcut, None if preact else normal, bare)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            if self.preact:
                y = conv(y if self.after_stem and i == 0 else F.relu(norm(y)))
            else:
                y = norm(conv(y))
                y = F.relu(y) if i < len(self.convs) - 1 else y
        y = self.shortcut(x) + (y if self.scale == 1 else y * self.scale)
        return y if self.preact else F.relu(y)


class FixupBlock(nn.Module):
    """A block without normalisation: a scalar bias before every convolution and ReLU, a scale, a bias at the end."""

    def __init__(self, c_in: int, width: int, stride: int, block: str, shortcut: str) -> None:
        super().__init__()
        c_out = width * EXPANSION[block]
        self.convs = _convolutions(c_in, width, c_out, stride, block, False)
        self.shortcut = _shortcut(c_in, c_out, stride, shortcut, None, False)
        self.biases = nn.Parameter(torch.zeros(2 * len(self.convs)))
        self.gain = nn.Parameter(torch.ones(1))

    @torch.no_grad()
    def rescale(self, total: int) -> None:
        """Scale the weights of the branch, one of `total`, as the paper says."""
        convs: list[Any] = list(self.convs)
        for conv in convs[:-1]:
            conv.weight.mul_(total ** (-1 / (2 * len(convs) - 2)))
        convs[-1].weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        b, last = self.biases, len(self.convs) - 1
        y = x + b[0]
        x = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(y)
        for i, conv in enumerate(self.convs):
            y = conv(y)
            y = F.relu(y + b[2 * i + 1]) + b[2 * i + 2] if i < last else y * self.gain + b[2 * i + 1]
        return F.relu(x + y)


class Pad(nn.Module):
    """Average pooling by the stride, and zero channels, half of them before and half after."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        if c_out < c_in:
            raise ValueError(f"a padded shortcut cannot go from {c_in} to {c_out} channels")
        self.stride, self.before, self.after = stride, (c_out - c_in) // 2, math.ceil((c_out - c_in) / 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


def _convolutions(c_in: int, width: int, c_out: int, stride: int, block: str, bias: bool) -> nn.ModuleList:
    if block == "basic":
        shapes = [(c_in, width, 3, stride), (width, c_out, 3, 1)]
    elif block == "bottleneck":
        shapes = [(c_in, width, 1, 1), (width, width, 3, stride), (width, c_out, 1, 1)]
    else:
        raise ValueError(f"no block is called {block!r}: basic, bottleneck")
    return nn.ModuleList(nn.Conv2d(a, b, k, s, k // 2, bias=bias) for a, b, k, s in shapes)


def _shortcut(c_in: int, c_out: int, stride: int, kind: str, normal, bias: bool) -> nn.Module:
    if c_in == c_out and stride == 1:
        return nn.Identity()
    if kind == "pad":
        return Pad(c_in, c_out, stride)
    if kind != "projection":
        raise ValueError(f"no shortcut is called {kind!r}: projection, pad")
    conv = nn.Conv2d(c_in, c_out, 1, stride, bias=bias)
    return conv if normal is None else nn.Sequential(conv, normal(c_out))
