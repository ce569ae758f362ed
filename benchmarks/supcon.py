"""Supervised contrastive learning: the loss and a step, against what one would otherwise use.

Loss: forward and backward of L_out, against `pytorch_metric_learning` (left out where it is not installed; it lists all
pairs, so the batch is small) and against the masks of all pairs with which the loss is usually written; `saved MB` is
what the forward pass keeps for the backward one.  Step: two views of 256 pictures through a small encoder, the same
network with either loss.  Linear stage: the classifier on cached representations by L-BFGS, against 100 epochs of
stochastic gradient descent as in the authors' scripts; `accuracy` and theirs are of the pictures it was fitted to.
`ratio` is theirs over ours.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._measured import versus
from benchmarks.contrastive import _backward
from precis.contrastive.ntxent import ProjectionHead
from precis.contrastive.supcon import LinearHead, SupConModel, sup_con
from precis.nn.backbones import backbone
from precis.nn.cost import saved_bytes
from precis.train.classify import to_channels_last

DIM, TAU = 128, 0.1


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    return [*_losses(repeats), _step(repeats), _linear(max(3, repeats // 3))]


def _losses(repeats: int) -> list[dict[str, Any]]:
    found = []
    cases = ((64, 10, None, _metric_learning()), (256, 10, None, masked), (512, 100, None, masked),
             (1024, 100, None, masked), (1024, 100, 256, masked))  # fmt: skip
    for n, classes, chunk, peer in cases:
        if peer is None:
            continue
        z, y = torch.randn(n, 2, DIM, requires_grad=True), torch.arange(n) % classes
        ours = lambda z=z, y=y, c=chunk: sup_con(z, y, temperature=TAU, chunk=c)
        theirs = lambda z=z, y=y, f=peer: f(z, y)
        kept = {"saved MB": saved_bytes(ours) / 2**20, "their MB": saved_bytes(theirs) / 2**20}
        name = f"L_out, 2 × {n} × {DIM}, {classes} classes" + (f", chunks of {chunk}" if chunk else "")
        name += ", against masks" if peer is masked else ", against metric learning"
        found.append(versus(name, _backward(ours), _backward(theirs), repeats, **kept))
    return found


def masked(z: Tensor, y: Tensor) -> Tensor:
    """The loss by a mask of positives and one of others, all pairs by all pairs in float32."""
    rows = F.normalize(z.transpose(0, 1).flatten(0, 1), dim=1)
    labels = y.repeat(z.shape[1])
    other = 1 - torch.eye(len(rows))
    positive = (labels[:, None] == labels[None]).float() * other
    s = rows @ rows.T / TAU
    s = s - s.max(1, keepdim=True).values.detach()
    log_p = s - (s.exp() * other).sum(1, keepdim=True).log()
    return -((positive * log_p).sum(1) / positive.sum(1)).mean()


def _metric_learning() -> Callable[[Tensor, Tensor], Tensor] | None:
    if find_spec("pytorch_metric_learning") is None:
        return None
    from pytorch_metric_learning.losses import SupConLoss

    loss = SupConLoss(temperature=TAU)
    return lambda z, y: loss(z.flatten(0, 1), y.repeat_interleave(z.shape[1]))


def _step(repeats: int) -> dict[str, Any]:
    encoder = backbone("conv:24x3", (1, 8, 8))
    model: Any = to_channels_last(SupConModel(encoder, ProjectionHead(96)))
    views, y = [torch.rand(256, 1, 8, 8) for _ in range(2)], torch.arange(256) % 10

    def theirs() -> None:
        z = model(torch.cat(views))[1]
        masked(torch.stack(z.split(256), 1), y).backward()

    return versus("step, 2 × 256 of 8×8", lambda: model.loss(views, y).backward(), theirs, repeats)


def _linear(repeats: int) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(2000) % 10
    h = torch.randn(10, 96, generator=g)[y] + 1.5 * torch.randn(2000, 96, generator=g)
    kept: dict[str, Any] = {}

    def ours() -> None:
        kept["accuracy"] = float((LinearHead(96, 10, 1e-3).fit(h, y)(h).argmax(1) == y).float().mean())

    def theirs() -> None:
        layer = torch.nn.Linear(96, 10)
        solver = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
        for _ in range(100):
            for part in torch.randperm(2000).split(512):
                solver.zero_grad()
                F.cross_entropy(layer(h[part]), y[part]).backward()
                solver.step()
        kept["their accuracy"] = float((layer(h).argmax(1) == y).float().mean())

    row = versus("linear stage, 2,000 × 96, 10 classes", ours, theirs, repeats)
    return row | kept
