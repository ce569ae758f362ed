"""Bytes that one picture costs, the limit of a depthwise network's speed, beside its multiply–accumulates."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from precis.nn.norm import fold_batchnorm
from precis.vision.mobilenet import MobileNetV2

from .memory import peak_bytes


class Traffic(NamedTuple):
    """Bytes of one evaluation, batch norms folded: the widest tensor, what depthwise filters read and write in all, and
    the most that live at once.  The first two as if every tensor existed whole.
    """

    widest: int
    depthwise: int
    peak: int


@torch.no_grad()
def traffic(model: MobileNetV2, x: Tensor, chunks: int = 1) -> Traffic:
    """Of the pictures x; `chunks`: parts in which wide tensors are computed, which the peak is measured with."""
    folded = in_parts(model, 1)
    outputs: list[int] = []
    moved: list[int] = []

    def count(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        outputs.append(out.nbytes)
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            moved.append(given[0].nbytes + out.nbytes)

    hooks = [m.register_forward_hook(count) for m in folded.modules() if isinstance(m, nn.Conv2d)]
    try:
        folded(x)
    finally:
        for hook in hooks:
            hook.remove()
    parts = in_parts(model, chunks)
    return Traffic(max(outputs), sum(moved), peak_bytes(lambda: parts(x)))


def in_parts(model: nn.Module, chunks: int) -> nn.Module:
    """A copy for evaluation with folded batch norms, which computes wide tensors in `chunks` parts."""
    folded = fold_batchnorm(model)
    folded.expansion_chunks = chunks  # type: ignore[assignment]
    return folded
