"""Attacks: a step of RoCL, and an attack on a classifier, against what one would otherwise use.

Step: a whole training step, against the same step as it is usually written: an attack by `backward()`, which computes
weight gradients in every step of the attack, embeds the unattacked view anew in each, and passes the views one by one.
Attack: ten steps of ℓ∞ PGD, against captum (left out where it is not installed).  `ratio` is theirs over ours; both
sides compute the same numbers (seen in tests, or to be seen in `difference`).
"""

import copy
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._measured import versus
from precis.contrastive.ntxent import ProjectionHead, nt_xent
from precis.contrastive.rocl import RoCL, multi_view_nt_xent
from precis.nn.attacks import pgd
from precis.nn.backbones import backbone
from precis.train.classify import to_channels_last

EPS, ALPHA = 8 / 255, 0.007


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    cases = (("conv:16x3", 1, 8, 3), ("conv:32x4", 3, 32, 7))
    found = [_step(spec, channels, size, steps, max(3, repeats // 2)) for spec, channels, size, steps in cases]
    return [*found, *([_attack(repeats)] if find_spec("captum") else [])]


def _step(spec: str, channels: int, size: int, steps: int, repeats: int) -> dict[str, Any]:
    encoder = backbone(spec, (channels, size, size))
    mine = RoCL(encoder, ProjectionHead(encoder.out_dim), EPS, ALPHA, steps)  # type: ignore[arg-type]
    to_channels_last(mine)
    theirs = copy.deepcopy(mine)
    a, b = (torch.rand(128, channels, size, size).contiguous(memory_format=torch.channels_last) for _ in range(2))
    start = (a + EPS * (2 * torch.rand_like(a) - 1)).clamp(0, 1)
    name = f"RoCL step, {spec}, 128 of {size}×{size}, {steps} steps of attack"
    return versus(name, lambda: mine.loss(a, b)[0].backward(), lambda: plain_step(theirs, a, b, start), repeats)


def plain_step(model: RoCL, a: Tensor, b: Tensor, moved: Tensor) -> None:
    model.eval()
    for _ in range(model.steps):
        moved = moved.detach().requires_grad_()
        model.zero_grad()
        nt_xent(model(moved)[1], model(b)[1], model.temperature).backward()
        assert moved.grad is not None
        moved = a + (moved.detach() + ALPHA * moved.grad.sign() - a).clamp(-EPS, EPS)
        moved = moved.clamp(0, 1)
    model.zero_grad()
    model.train()
    z = torch.stack([model(x)[1] for x in (a, b, moved)])
    (multi_view_nt_xent(z, model.temperature) + nt_xent(z[2], z[1], model.temperature) / 256).backward()


def _attack(repeats: int) -> dict[str, Any]:
    from captum.robust import PGD

    net = to_channels_last(backbone("conv:32x4", (3, 32, 32), 10).eval())
    x, y = torch.rand(128, 3, 32, 32).contiguous(memory_format=torch.channels_last), torch.arange(128) % 10
    each = lambda logits, labels: F.cross_entropy(logits, labels, reduction="none")
    peer = PGD(net, each, lower_bound=0.0, upper_bound=1.0)
    peer.fgsm.zero_thresh = 0.0
    options = {"eps": EPS, "alpha": ALPHA, "steps": 10, "random_start": False}
    ours = lambda: pgd(lambda v: each(net(v), y), x, **options)  # type: ignore[arg-type]
    theirs = lambda: peer.perturb(x, EPS, ALPHA, 10, y, random_start=False, norm="Linf")
    apart = float((ours() - theirs().detach()).abs().max())
    return versus("PGD, ten steps, conv:32x4, 128 of 32×32, against captum", ours, theirs, repeats, difference=apart)
