"""A step of CLAE, against the step as it is usually written, and against SimCLR's (what the adversary costs).

As usually written: the adversary by `backward()` through both embeddings, which computes weight gradients that are
thrown away; the anchor embedded anew for the adversarial loss; each view in a pass of its own.  `ratio` is theirs over
ours; in the last row "theirs" is SimCLR's step, so that the ratio is below 1.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from benchmarks._measured import versus
from precis.contrastive.clae import CLAE, adversarial_bn, to_dual_bn
from precis.contrastive.ntxent import ProjectionHead, SimCLR, nt_xent
from precis.nn.backbones import backbone
from precis.train.classify import to_channels_last


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    return [*_rows("conv:24x3", 1, 16, repeats), *_rows("conv:32x4", 3, 32, max(3, repeats // 2))]


def _rows(spec: str, channels: int, size: int, repeats: int) -> list[dict[str, Any]]:
    encoder = backbone(spec, (channels, size, size))
    head = ProjectionHead(encoder.out_dim)  # type: ignore[arg-type]
    plain = to_channels_last(SimCLR(copy.deepcopy(encoder), copy.deepcopy(head)))
    mine = CLAE(to_dual_bn(encoder), head)
    to_channels_last(mine)
    theirs = copy.deepcopy(mine)
    a, b = (torch.rand(128, channels, size, size).contiguous(memory_format=torch.channels_last) for _ in range(2))
    ours = lambda: mine.loss(a, b)[0].backward()
    name = f"CLAE step, {spec}, 2 × 128 of {size}×{size}"
    return [
        versus(name, ours, lambda: plain_step(theirs, a, b), repeats),
        versus(f"{name}, against SimCLR's", ours, lambda: plain.loss(a, b).backward(), repeats),  # type: ignore[operator]
    ]


def plain_step(model: CLAE, a: Tensor, b: Tensor) -> None:
    model.train()
    x = a.clone().requires_grad_()
    with adversarial_bn(model):
        nt_xent(model(a)[1], model(x)[1], model.temperature).backward()
    assert x.grad is not None
    moved = (a + model.eps * x.grad.sign()).clamp(0, 1)
    model.zero_grad()
    clean = nt_xent(model(a)[1], model(b)[1], model.temperature)
    anchor = model(a)[1]
    with adversarial_bn(model):
        attacked = model(moved)[1]
    (clean + model.weight * nt_xent(anchor, attacked, model.temperature)).backward()
