"""Debiased contrastive learning: the loss, and a step, against the form that the paper's authors published.

Theirs exponentiates the similarities, cuts the negatives out of the matrix with a mask (made once here, though they
make it anew every step) and passes the views through the encoder one after the other; ours is one masked log-sum-exp,
and one pass.  With 2 × 128 pictures of 32×32 the one pass is the slower on Linux: its maps exceed the 32 MiB from which
the C library gives memory back after every use, as those of 2 × 112 do not.  `saved MB` is what the forward pass keeps
for the backward one, `ratio` is theirs over ours.  The last row is the cost of four positives over that of one, both
ours: 5/2 would be the encoder's.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._measured import versus
from precis.contrastive.debiased import DebiasedSimCLR, debiased_nt_xent
from precis.contrastive.ntxent import ProjectionHead
from precis.nn.backbones import backbone
from precis.nn.cost import saved_bytes

DIM, T, TAU = 128, 0.5, 0.1


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    losses = [_loss(n, chunk, repeats) for n, chunk in ((256, None), (1024, None), (1024, 256))]
    few = max(3, repeats // 2)
    steps = [_step(256, (1, 8, 8), repeats), _step(112, (3, 32, 32), few), _step(128, (3, 32, 32), few)]
    return [*losses, *steps, _positives(few)]


def published(mask: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of normalised views, in the form of the published code."""
    pairs = len(mask)
    count = pairs - 2

    def loss(z1: Tensor, z2: Tensor) -> Tensor:
        z = torch.cat([z1, z2])
        negative = ((z @ z.T) / T).exp().masked_select(mask).view(pairs, count)
        positive = ((z1 * z2).sum(1) / T).exp().repeat(2)
        rest = (negative.sum(1) - TAU * count * positive) / (1 - TAU)
        rest = rest.clamp(min=count * torch.e ** (-1 / T))
        return -(positive / (positive + rest)).log().mean()

    return loss


def _mask(n: int) -> Tensor:
    return ~torch.eye(n, dtype=torch.bool).repeat(2, 2)


def _loss(n: int, chunk: int | None, repeats: int) -> dict[str, Any]:
    views, form = torch.randn(2, n, DIM, requires_grad=True), published(_mask(n))
    ours = lambda: debiased_nt_xent(views, T, TAU, chunk=chunk)
    theirs = lambda: form(*F.normalize(views, dim=2))
    torch.testing.assert_close(ours(), theirs(), atol=1e-4, rtol=1e-4)
    kept = {"saved MB": saved_bytes(ours) / 2**20, "their MB": saved_bytes(theirs) / 2**20}
    name = f"loss, 2 × {n} × {DIM}" + (f", chunks of {chunk}" if chunk else "")
    return versus(name, lambda: ours().backward(), lambda: theirs().backward(), repeats, **kept)


def _model(shape: tuple[int, int, int]) -> DebiasedSimCLR:
    encoder = backbone("conv:24x3" if shape[1] <= 16 else "conv:32x4", shape)
    return DebiasedSimCLR(encoder, ProjectionHead(int(encoder.out_dim)), T, TAU).to(memory_format=torch.channels_last)


def _step(n: int, shape: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    model, form = _model(shape), published(_mask(n))
    v1, v2 = (torch.rand(n, *shape) for _ in range(2))
    apart = lambda: form(*(F.normalize(model(v)[1], dim=1) for v in (v1, v2))).backward()
    name = f"step, 2 × {n} of {shape[1]}×{shape[2]}"
    return versus(name, lambda: model.loss(v1, v2).backward(), apart, repeats)


def _positives(repeats: int) -> dict[str, Any]:
    model = _model((1, 8, 8))
    views = torch.rand(5, 256, 1, 8, 8)
    four, one = (lambda k=k: model.loss(*views[:k]).backward() for k in (5, 2))
    return versus("step with M = 1, against one with M = 4", one, four, repeats)
