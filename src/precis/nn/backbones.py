"""The networks that methods are tried on, by name: `backbone("resnet20", (3, 32, 32), 10)`.

Every one takes pictures uint8 or float in [0,1] (a first layer, `input`, standardises them once it has been fitted) and
has `features(x) -> [B,out_dim]`, `stages(x) -> list`, `out_dim`, and `forward`: logits [B,K], features if classes=None.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.errors import InputError
from precis.nn.layers import Standardise, drawn_from, initialise
from precis.nn.norm import make_norm
from precis.nn.resnet import ResNet

__all__ = ["LeNet5", "MLP", "NAMES", "ConvNet", "ResNet", "Standardise", "backbone"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "tanh": torch.tanh, "gelu": F.gelu, "silu": F.silu,
}  # fmt: skip


class MLP(nn.Module):
    """Linear layers with an activation after each: sizes = (inputs, hidden, …); a picture is flattened.

    The last of `sizes` is `out_dim`; `classes` adds a linear layer after it.
    """

    def __init__(
        self, sizes: Sequence[int], activation: str = "relu", *, classes: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(sizes) < 2 or activation not in ACTIVATIONS:
            raise ValueError(f"at least two sizes and one of {', '.join(ACTIVATIONS)}: got {sizes}, {activation!r}")
        self.activation = activation
        with drawn_from(generator):
            self.input = Standardise(1)
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
            self.out_dim = sizes[-1]
            self.head = nn.Identity() if classes is None else nn.Linear(sizes[-1], classes)
            initialise(self, generator)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The activations [B,width] of every hidden layer."""
        x, found = self.input(x).flatten(1), []
        for layer in self.layers:
            x = ACTIVATIONS[self.activation](layer(x))
            found.append(x)
        return found

    def features(self, x: Tensor) -> Float[Tensor, "b out"]:
        return self.stages(x)[-1]

    def forward(self, x: Tensor) -> Float[Tensor, "b out"]:
        return self.head(self.features(x))


class ConvNet(nn.Module):
    """`depth` × (3×3 convolution, norm, ReLU) of widths w, 2w, 4w, …, stride 1 and then 2, and the mean over positions.

    For pictures up to about 32 pixels.
    """

    def __init__(
        self, in_channels: int = 3, width: int = 24, depth: int = 3, norm: str = "batch", classes: int | None = None,
        *, groups: int = 32, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [in_channels, *[width * 2**i for i in range(depth)]]
        with drawn_from(generator):
            self.input = Standardise(in_channels)
            self.blocks = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, 1 if i == 0 else 2, 1, bias=norm == "none"),
                    make_norm(norm, b, groups=groups), nn.ReLU(),
                )
                for i, (a, b) in enumerate(zip(widths, widths[1:]))
            )  # fmt: skip
            self.out_dim = widths[-1]
            self.head = nn.Identity() if classes is None else nn.Linear(self.out_dim, classes)
            initialise(self, generator)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The map after each block."""
        x, maps = self.input(x), []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def features(self, x: Tensor) -> Float[Tensor, "b out"]:
        return self.stages(x)[-1].mean((2, 3))

    def forward(self, x: Tensor) -> Float[Tensor, "b out"]:
        return self.head(self.features(x))


class LeNet5(nn.Module):
    """The Caffe variant that pruning papers use: convolutions 20 and 50 of 5×5, each max-pooled, and a layer of 500."""

    def __init__(
        self, classes: int | None = 10, *, in_channels: int = 1, size: int = 28,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        side = ((size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"LeNet-5 needs pictures of at least 16 pixels, got {size}")
        with drawn_from(generator):
            self.input = Standardise(in_channels)
            self.conv1, self.conv2 = nn.Conv2d(in_channels, 20, 5), nn.Conv2d(20, 50, 5)
            self.hidden = nn.Linear(50 * side**2, 500)
            self.out_dim = 500
            self.head = nn.Identity() if classes is None else nn.Linear(500, classes)
            initialise(self, generator)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Both pooled maps and the hidden layer [B,500]."""
        first = F.max_pool2d(self.conv1(self.input(x)), 2)
        second = F.max_pool2d(self.conv2(first), 2)
        return [first, second, F.relu(self.hidden(second.flatten(1)))]

    def features(self, x: Tensor) -> Float[Tensor, "b out"]:
        return self.stages(x)[-1]

    def forward(self, x: Tensor) -> Float[Tensor, "b out"]:
        return self.head(self.features(x))


def _cifar(n: int, **fixed: Any) -> dict[str, Any]:
    return {"stages": (n, n, n), "width": 16, "times": (1, 2, 4), "stem": "small", **fixed}


def _imagenet(stages: tuple[int, ...], block: str) -> dict[str, Any]:
    return {"stages": stages, "width": 64, "times": (1, 2, 4, 8), "stem": "large", "block": block}


NAMES: dict[str, dict[str, Any]] = {
    "resnet18": _imagenet((2, 2, 2, 2), "basic"),
    "resnet34": _imagenet((3, 4, 6, 3), "basic"),
    "resnet50": _imagenet((3, 4, 6, 3), "bottleneck"),
    "resnet101": _imagenet((3, 4, 23, 3), "bottleneck"),
    "resnet20": _cifar(3, shortcut="pad"),
    "resnet32": _cifar(5, shortcut="pad"),
    "resnet56": _cifar(9, shortcut="pad"),
    "resnet110": _cifar(18, shortcut="pad"),
    "resnet164": _cifar(18, block="bottleneck", preact=True),
    "small_resnet": _cifar(1) | {"width": 24},
}


OPTIONS: dict[str, type] = {
    "width": int, "norm": str, "stem": str, "shortcut": str, "groups": int, "channels_per_group": int, "block": str,
    "preact": bool, "zero_init": bool,
}  # fmt: skip


def backbone(
    spec: str, in_shape: Sequence[int], classes: int | None = None, *, generator: torch.Generator | None = None,
    **options: Any,
) -> nn.Module:  # fmt: skip
    """A network by name for pictures [C,H,W] (`in_shape`; of a perceptron any shape).

    mlp:300-100 · conv:24x3 (width × depth) · lenet300 · lenet5 · resnet18, 34, 50, 101 (large stem) · resnet20, 32, 56,
    110 (small stem, padded shortcuts), 164 (pre-activated bottlenecks) · small_resnet (7 convolutions, width 24).
    A residual net's options follow a colon, `small_resnet:width=12,norm=fixup`, `resnet18:stem=small`,
    `resnet32:preact`, or are given as keywords.  InputError for what does not exist.
    """
    name, _, tail = spec.strip().partition(":")
    common: dict[str, Any] = {"classes": classes, "generator": generator}
    if name in ("mlp", "lenet300"):
        hidden = [300, 100] if name == "lenet300" and not tail else _numbers(tail, "-", spec)
        return MLP((math.prod(in_shape), *hidden), **common, **options)
    if name == "conv":
        numbers = _numbers(tail or "24x3", "x", spec)
        if len(numbers) != 2:
            raise InputError(f"{spec}: width x depth is wanted, such as conv:24x3")
        return ConvNet(in_shape[0], width=numbers[0], depth=numbers[1], **common, **options)
    if name == "lenet5":
        if min(in_shape[1:], default=0) < 16 or in_shape[1] != in_shape[2]:
            raise InputError(f"lenet5 takes square pictures of at least 16 pixels, got {tuple(in_shape)}")
        return LeNet5(in_channels=in_shape[0], size=in_shape[1], **common, **options)
    if name not in NAMES:
        raise InputError(f"no network is called {name!r}: mlp, conv, lenet300, lenet5, {', '.join(NAMES)}")
    made = dict(NAMES[name]) | _options(tail, spec) | options
    width, times = made.pop("width"), made.pop("times")
    return ResNet(made.pop("stages"), [width * t for t in times], in_channels=in_shape[0], **common, **made)


def _numbers(text: str, mark: str, spec: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(mark)]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise InputError(f"{spec}: whole numbers with '{mark}' between them are wanted")
    return numbers


def _options(text: str, spec: str) -> dict[str, Any]:
    """key=value, …; a key alone is a switch turned on."""
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        kind = OPTIONS.get(key)
        try:
            if kind is None:
                raise ValueError
            found[key] = {"": True, "1": True, "0": False}[value] if kind is bool else kind(value)
            if kind is int and found[key] < 1:
                raise ValueError
        except (ValueError, KeyError):
            raise InputError(f"{spec}: {part!r} is no option; there are {', '.join(OPTIONS)}") from None
    return found
