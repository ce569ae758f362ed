"""What MobileNets are made of: separable convolutions, and inverted residuals with linear bottlenecks.

    separable:  y = ReLU6(N(P ReLU6(N(D x))))                 D 3×3 depthwise, P 1×1
    inverted:   y = N(P ReLU6(N(D ReLU6(N(E x))))) [+ x]      E 1×1 from k to t·k channels, D with stride s, P to k'

N is a normalisation, ReLU6(x) = min(max(x, 0), 6); nothing follows the projection P, and x is added if s = 1 and
k = k'.  Sandler, Howard, Zhu, Zhmoginov, Chen, CVPR 2018, §3 (arXiv 1801.04381); the separable block is that of Howard
et al. 2017 (arXiv 1704.04861).
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.nn.layers import initialise
from precis.nn.norm import BatchNorm, make_norm

Padding = Literal["symmetric", "tf"]
GROUPS = 8  # of group norm, as in slim's definition of the network with it


def make_divisible(v: float | int, divisor: int = 8, min_value: int | None = None) -> int:
    """The multiple of `divisor` nearest to v channels, at least `min_value` (`divisor`), never more than 10 % below v.

    make_divisible(32 · 0.35) = 16: 8 would be more than a tenth below 11.2.
    """
    rounded = max(divisor if min_value is None else min_value, int(v + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * v else rounded


class ConvNorm(nn.Module):
    """Convolution without bias, normalisation, ReLU6: (B,C,H,W) → (B,C',⌈H/s⌉,⌈W/s⌉).

    padding: "symmetric", kernel // 2 on all sides, or "tf", TensorFlow's SAME, which at stride 2 leaves the top and the
    left of an even side without.  norm: a kind of `make_norm` ("none": a bias instead).  eps, momentum: of batch norm.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, activation: bool = True,
        norm: str = "batch", padding: Padding = "symmetric", eps: float = 1e-5, momentum: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if padding not in ("symmetric", "tf") or kernel % 2 == 0 or stride not in (1, 2):
            raise ValueError(f"padding 'symmetric' or 'tf', an odd kernel and stride 1 or 2: got {padding!r}, "
                             f"{kernel}, {stride}")  # fmt: skip
        self.lopsided = padding == "tf" and stride == 2
        self.conv = nn.Conv2d(
            c_in, c_out, kernel, stride, 0 if self.lopsided else kernel // 2, groups=groups, bias=norm == "none"
        )
        self.norm = make_norm(norm, c_out, groups=GROUPS, eps=eps, momentum=momentum)
        self.act = nn.ReLU6() if activation else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        return self.act(self.norm(self.conv(self.padded(x))))

    def padded(self, x: Tensor) -> Tensor:
        """x with what `conv` does not pad itself."""
        if not self.lopsided:
            return x
        half = self.conv.kernel_size[0] // 2
        height, width = x.shape[2], x.shape[3]
        return F.pad(x, (half - 1 + width % 2, half, half - 1 + height % 2, half))

    def piece(self, x: Tensor, a: int, b: int) -> Tensor:
        """Channels a … b of the output in evaluation mode; x are all inputs, or those channels of a depthwise one."""
        conv = self.conv
        bias = None if conv.bias is None else conv.bias[a:b]
        groups = b - a if conv.groups > 1 else 1
        y = F.conv2d(self.padded(x), conv.weight[a:b], bias, conv.stride, conv.padding, 1, groups)
        norm = self.norm
        if isinstance(norm, BatchNorm):
            own: list[Any] = [norm.running_mean, norm.running_var, norm.weight, norm.bias]
            mean, variance, weight, offset = (t[a:b] for t in own)
            y = F.batch_norm(y, mean, variance, weight, offset, eps=norm.eps)
        elif not isinstance(norm, nn.Identity):
            raise ValueError("channels in pieces want batch norm, whose channels do not see each other")
        return self.act(y)


@torch.no_grad()
def initialise_blocks(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """He normal by fan-out, where a depthwise kernel has the K² outputs of its own channel, not those of all channels.

    `initialise` counts all; a depthwise kernel would start √C times too small, and since norms make its size irrelevant
    to what is computed, would be trained at C times the rate of the others.
    """
    initialise(module, generator)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            layer.weight.mul_(layer.groups**0.5)


def in_parts(x: Tensor, first: ConvNorm, depthwise: ConvNorm, project: ConvNorm, parts: int) -> Tensor:
    """project(depthwise(first(x))), 1/parts of the wide channels at a time: exact, and the wide tensor never exists.

        P f(x) = Σ_i P_i f_i(x),   f_i the channels of part i   (§5.1 of the paper)
    """
    wide = project.conv.in_channels
    edges = [wide * i // parts for i in range(parts + 1)]
    total: Tensor | None = None
    for a, b in zip(edges, edges[1:]):
        if a == b:
            continue
        piece = depthwise.piece(first.piece(x, a, b), a, b)
        part = F.conv2d(piece, project.conv.weight[:, a:b])
        total = part if total is None else total + part
    assert total is not None
    if project.conv.bias is not None:
        total = total + project.conv.bias.view(-1, 1, 1)
    return project.act(project.norm(total))


class SeparableConv2d(nn.Module):
    """A depthwise and a pointwise convolution, each with norm and ReLU6: (B,C,H,W) → (B,C',⌈H/s⌉,⌈W/s⌉).

    Costs 1/C' + 1/K² of the standard convolution's multiply–accumulates.  activation: "relu6", or "none".
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, norm: str = "batch",
        activation: Literal["relu6", "none"] = "relu6", *, padding: Padding = "symmetric",
    ) -> None:  # fmt: skip
        super().__init__()
        on = activation == "relu6"
        self.depthwise = ConvNorm(
            c_in, c_in, kernel, stride, groups=c_in, activation=on, norm=norm, padding=padding
        )
        self.pointwise = ConvNorm(c_in, c_out, activation=on, norm=norm)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        return self.pointwise(self.depthwise(x))


class InvertedResidual(nn.Module):
    """A thin tensor is expanded, filtered and projected back: (B,C,H,W) → (B,C',⌈H/s⌉,⌈W/s⌉).

    expansion: t; with 1 there is no expanding convolution.  linear=False puts ReLU6 after the projection.
    shortcut: "bottleneck" between the thin ends, "none", or "expansion" between wide tensors of neighbouring blocks,
    which `joined` adds (`forward` of one block alone then adds nothing).
    `expansion_chunks` = S computes the wide channels in S parts in evaluation mode (`in_parts`): memory falls to about
    1/S, the result is the same.  ValueError for less than one, and for another norm than batch norm.
    """

    def __init__(
        self, c_in: int, c_out: int, *, stride: int = 1, expansion: int = 6, linear: bool = True,
        shortcut: Literal["bottleneck", "expansion", "none"] = "bottleneck", norm: str = "batch",
        padding: Padding = "symmetric", expansion_chunks: int = 1, eps: float = 1e-5, momentum: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if shortcut not in ("bottleneck", "expansion", "none") or expansion < 1 or expansion_chunks < 1:
            raise ValueError(f"shortcut bottleneck, expansion or none, an expansion and chunks from 1: got "
                             f"{shortcut!r}, {expansion}, {expansion_chunks}")  # fmt: skip
        made: dict[str, Any] = {"norm": norm, "eps": eps, "momentum": momentum}
        wide = expansion * c_in
        self.stride, self.expansion_chunks = stride, expansion_chunks
        self.keeps_shape = stride == 1 and c_in == c_out
        self.adds = shortcut == "bottleneck" and self.keeps_shape
        self.expand = ConvNorm(c_in, wide, **made) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, 3, stride, groups=wide, padding=padding, **made)
        self.project = ConvNorm(wide, c_out, activation=not linear, **made)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        if self.expansion_chunks > 1 and not self.training and isinstance(self.expand, ConvNorm):
            y = in_parts(x, self.expand, self.depthwise, self.project, self.expansion_chunks)
        else:
            y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y

    def joined(
        self, x: Float[Tensor, "b c h w"], wide: Float[Tensor, "b k h w"] | None = None
    ) -> tuple[Float[Tensor, "b d i j"], Float[Tensor, "b k h w"]]:
        """The output, and the wide tensor with the previous block's `wide` added to it, for the next block."""
        expanded = self.expand(x)
        expanded = expanded if wide is None else expanded + wide
        return self.project(self.depthwise(expanded)), expanded
