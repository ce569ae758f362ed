"""MobileNetV2: inverted residuals with linear bottlenecks, and the first MobileNet to compare it with.

    stem 3×3/2 → 32;  stages (t, c, n, s), n blocks of c channels, the first with stride s;  1×1 → 1280;  mean;  linear

ReLU destroys information in few dimensions, so the thin tensors between blocks stay linear, and the wide ones inside
have the non-linearity.  Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018, Table 2 (arXiv 1801.04381).
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from precis.nn.layers import Standardise, drawn_from
from precis.vision.mobilenet_blocks import (
    ConvNorm,
    InvertedResidual,
    Padding,
    SeparableConv2d,
    in_parts,
    initialise_blocks,
    make_divisible,
)  # fmt: skip

__all__ = [
    "LAYERS_V1", "STAGES", "InvertedResidual", "MobileNetV1", "MobileNetV2", "SeparableConv2d", "channels_of",
    "make_divisible",
]  # fmt: skip

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
LAYERS_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))

Images = Float[Tensor, "b c h w"] | UInt8[Tensor, "b c h w"]


class MobileNetV2(nn.Module):
    """Pictures [B,3,H,W], uint8 or float in [0,1], → logits [B,classes], or features [B,out_dim] if classes=None.

    width: the multiplier α of all channels, rounded by `make_divisible` to multiples of `round_to`.  The last 1×1
    convolution grows with α > 1 and does not shrink with α < 1 (§4), unless `shrink_last`.
    small: stride 1 in the stem and in the first stage that would halve, for pictures up to about 64 pixels (our
    choice; the paper has no such variant).  padding="tf" is for weights that were trained with TensorFlow.
    norm: a kind of `make_norm` (group norm has 8 groups).  linear, shortcut, expansion_chunks: of `InvertedResidual`.
    stages, stem, last: another body.  eps=1e-3, momentum=0.003 are those of slim.
    ValueError where a number is not positive.
    """

    def __init__(
        self, classes: int | None = 1000, width: float | int = 1.0, *, dropout: float | int = 0.2, round_to: int = 8,
        shrink_last: bool = False, norm: str = "batch", small: bool = False, padding: Padding = "symmetric",
        linear: bool = True, shortcut: Literal["bottleneck", "expansion", "none"] = "bottleneck",
        expansion_chunks: int = 1, in_channels: int = 3, stages: Sequence[Sequence[int]] = STAGES, stem: int = 32,
        last: int = 1280, eps: float = 1e-5, momentum: float = 0.1, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not width > 0 or round_to < 1 or (classes is not None and classes < 1):
            raise ValueError(f"width, round_to and classes must be above 0, got {width}, {round_to}, {classes}")
        made: dict[str, Any] = {"norm": norm, "padding": padding, "eps": eps, "momentum": momentum}
        first, thin, final = channels_of(
            width, round_to=round_to, shrink_last=shrink_last, stages=stages, stem=stem, last=last
        )
        halving = next((i for i, (_, _, _, s) in enumerate(stages) if s == 2), None)
        with drawn_from(generator):
            self.input = Standardise(in_channels)
            self.stem = ConvNorm(in_channels, first, 3, 1 if small else 2, **made)
            blocks: list[InvertedResidual] = []
            self.joins: list[bool] = []  # whether the block's wide tensor may be added to the next one's
            channels = first
            for i, ((t, _, n, s), c) in enumerate(zip(stages, thin)):
                for k in range(n):
                    stride = s if k == 0 and not (small and i == halving) else 1
                    block = InvertedResidual(
                        channels, c, stride=stride, expansion=t, linear=linear, shortcut=shortcut, **made
                    )
                    self.joins.append(k > 0 and blocks[-1].keeps_shape)
                    blocks.append(block)
                    channels = c
            self.blocks = nn.ModuleList(blocks)
            self.last = ConvNorm(channels, final, **made)
            self.out_dim = final
            self.dropout = nn.Dropout(float(dropout))
            self.head = nn.Identity() if classes is None else nn.Linear(final, classes)
            initialise_blocks(self, generator)
        self.wide_shortcuts = shortcut == "expansion"
        self.expansion_chunks = expansion_chunks

    @classmethod
    def for_small_images(cls, classes: int | None = 10, width: float | int = 1.0, **options: Any) -> "MobileNetV2":
        """The variant for pictures up to about 64 pixels: `small=True`."""
        return cls(classes, width, small=True, **options)

    @property
    def expansion_chunks(self) -> int:
        """Parts in which wide tensors are computed in evaluation mode; 2 to 5 are sensible, 1 is off.

        ValueError for less than 1, and with shortcut="expansion", which adds whole wide tensors.
        The first block has no expansion: its wide tensor is the stem's output, which is split with it.  Fold batch
        norms (`precis.nn.norm.fold_batchnorm`) before, not after, setting it.
        """
        return self._chunks

    @expansion_chunks.setter
    def expansion_chunks(self, chunks: int) -> None:
        if chunks < 1:
            raise ValueError(f"expansion_chunks must be at least 1, got {chunks}")
        if chunks > 1 and self.wide_shortcuts:
            raise ValueError("with shortcuts between wide tensors these must exist whole: expansion_chunks is 1 there")
        self._chunks = chunks
        for block in self.blocks:
            block.expansion_chunks = chunks  # type: ignore[assignment]

    def stages(self, x: Images) -> list[Tensor]:
        """The last map of each resolution, 1/2 … 1/32 of the picture (rounded up); the very last as the pooling has it.
        """
        maps: list[Tensor] = []
        last = self._walk(x, maps)
        return [*maps, last]

    def features(self, x: Images) -> Float[Tensor, "b d i j"]:
        """The last map [B,1280·max(α,1),⌈H/32⌉,⌈W/32⌉]."""
        return self._walk(x, None)

    def forward(self, x: Images) -> Float[Tensor, "b k"]:
        return self.head(self.dropout(self.features(x).mean((2, 3))))

    def _walk(self, x: Tensor, maps: list[Tensor] | None) -> Tensor:
        """The last map; the ones before each halving go into `maps`, for which the stem's output must be whole."""
        x, wide = self.input(x), None
        blocks: list[Any] = list(self.blocks)
        first = blocks[0]
        thin = isinstance(first.expand, nn.Identity) and not first.adds and not self.wide_shortcuts
        if self._chunks > 1 and not self.training and maps is None and thin:
            x = in_parts(x, self.stem, first.depthwise, first.project, self._chunks)
            blocks = blocks[1:]
        else:
            x = self.stem(x)
        for block, join in zip(blocks, self.joins[-len(blocks) :]):
            if block.stride == 2 and maps is not None:
                maps.append(x)
            if self.wide_shortcuts:
                x, wide = block.joined(x, wide if join else None)
            else:
                x = block(x)
        return self.last(x)


def channels_of(
    width: float | int, *, round_to: int = 8, shrink_last: bool = False, stages: Sequence[Sequence[int]] = STAGES,
    stem: int = 32, last: int = 1280,
) -> tuple[int, tuple[int, ...], int]:  # fmt: skip
    """Channels of the stem, of every stage, and of the last convolution at the width multiplier `width`."""
    scaled = lambda c: make_divisible(c * width, round_to)
    final = scaled(last) if width > 1 or shrink_last else last
    return scaled(stem), tuple(scaled(c) for _, c, _, _ in stages), final


class MobileNetV1(nn.Module):
    """The first MobileNet: a stem and separable convolutions; pictures [B,3,H,W] → logits [B,classes].

    Howard et al. 2017, Table 1 (arXiv 1704.04861).  layers: (channels, stride) of each; width: multiplies all channels,
    rounded down, at least 8.  separable=False has standard 3×3 convolutions in their place (its Table 4).
    """

    def __init__(
        self, classes: int | None = 1000, width: float | int = 1.0, *, layers: Sequence[Sequence[int]] = LAYERS_V1,
        stem: int = 32, stem_stride: int = 2, separable: bool = True, norm: str = "batch",
        padding: Padding = "symmetric", in_channels: int = 3, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not width > 0:
            raise ValueError(f"width must be above 0, got {width}")
        scaled = lambda c: max(int(c * width), 8)
        channels = scaled(stem)
        with drawn_from(generator):
            self.input = Standardise(in_channels)
            self.stem = ConvNorm(in_channels, channels, 3, stem_stride, norm=norm, padding=padding)
            made: list[nn.Module] = []
            for c, stride in layers:
                if separable:
                    made.append(SeparableConv2d(channels, scaled(c), 3, stride, norm, padding=padding))
                else:
                    made.append(ConvNorm(channels, scaled(c), 3, stride, norm=norm, padding=padding))
                channels = scaled(c)
            self.layers = nn.ModuleList(made)
            self.out_dim = channels
            self.head = nn.Identity() if classes is None else nn.Linear(channels, classes)
            initialise_blocks(self, generator)

    def features(self, x: Images) -> Float[Tensor, "b d i j"]:
        """The last map."""
        x = self.stem(self.input(x))
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, x: Images) -> Float[Tensor, "b k"]:
        return self.head(self.features(x).mean((2, 3)))
