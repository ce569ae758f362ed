"""The nets that claims and job compare: RevNets, their residual twins, and blocks that are broken on purpose."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.nn.cost import match_width
from precis.nn.replay import recomputed
from precis.nn.resnet import ResNet
from precis.nn.reversible import AdditiveCoupling, ReversibleSequence
from precis.vision.revnet import RevNet


class Checkpointed(nn.Module):
    """A residual net of which autograd keeps the input of every block, and computes the rest again."""

    def __init__(self, net: ResNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        x = recomputed(nn.Sequential(net.input, net.stem), x)
        for stage in net.blocks:
            assert isinstance(stage, nn.Sequential)
            for block in stage:
                x = recomputed(block, x)
        return net.head(net.last(x).mean((2, 3)))  # type: ignore[no-any-return]


def twin(units: Sequence[int], widths: Sequence[int], **options: Any) -> ResNet:
    """The plain net: pre-activated basic blocks, padded shortcuts."""
    return ResNet(units, widths, preact=True, shortcut="pad", **options)


def matched(
    units: Sequence[int], filters: Sequence[int], target: int, *, generator: torch.Generator, **options: Any
) -> RevNet:  # fmt: skip
    """A RevNet whose last stage is widened until it has `target` parameters, within 3 %."""
    build = lambda more, draw=None: RevNet(
        units, (*filters, filters[-1] + 2 * more), generator=draw or torch.Generator(), **options
    )
    return build(match_width(build, target, within=0.03), generator)  # type: ignore[no-any-return]


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


class Mixed(AdditiveCoupling):
    """Broken: its inverse gives each sample what belongs to the one before it in the batch."""

    def inverse(self, y1: Tensor, y2: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        x1, x2 = super().inverse(y1, y2, **kwargs)
        return x1.roll(1, 0), x2.roll(1, 0)


class Forgetful(AdditiveCoupling):
    """Broken: its inverse leaves F out."""

    def inverse(self, y1: Tensor, y2: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return y1, super().inverse(y1, y2, **kwargs)[1]


def break_blocks(net: RevNet, kind: type[AdditiveCoupling], only_first: bool = False) -> RevNet:
    """Put blocks of another kind, with the same functions, in the place of all couplings, or of the first alone."""
    for run in (m for m in net.modules() if isinstance(m, ReversibleSequence)):
        for i, block in enumerate(run.blocks):
            if isinstance(block, AdditiveCoupling):
                run.blocks[i] = kind(block.f, block.g)
                if only_first:
                    return net
    return net


def set_save(net: RevNet, save: str) -> RevNet:
    """Switch between "output" and "all"; the weights stay."""
    for module in (net, *(m for m in net.modules() if isinstance(m, ReversibleSequence))):
        module.save = save  # type: ignore[assignment]
    return net


def gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the mean cross-entropy as one vector."""
    loss = F.cross_entropy(net(x), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
