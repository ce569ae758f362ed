"""Contrastive learning: the loss, a step, the views and the neighbours' vote, against what one would otherwise use.

Loss: forward and backward of NT-Xent, against `pytorch_metric_learning` (left out where it is not installed; it lists
all pairs, so the batch is small) and against the usual lines of torch, also in chunks; `saved MB` is what the forward
pass keeps for the backward one.  Step: both views in one pass, against a
pass for each.  Views: the pictures of a step augmented as a batch, against Pillow, picture by picture.  Vote: 256
queries among 100,000 embeddings, against scikit-learn's brute-force neighbours and a weighted sum.  `ratio` is theirs
over ours.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from benchmarks._measured import versus
from benchmarks.vision import pillow_simclr
from precis.contrastive.ntxent import ProjectionHead, SimCLR, nt_xent
from precis.nn.backbones import backbone
from precis.nn.cost import saved_bytes
from precis.train.augment import preset
from precis.train.probe import knn_predict

BANK, QUERIES, DIM, K = 100_000, 256, 128, 200


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    few = max(3, repeats // 2)
    return [*_losses(repeats), _step(repeats), _views(few), *(_vote(chunk, few) for chunk in (4096, 32_768))]


def _losses(repeats: int) -> list[dict[str, Any]]:
    found = []
    for n, chunk, peer in ((64, None, _metric_learning()), (256, None, plain), (1024, None, plain), (1024, 256, plain)):
        if peer is None:
            continue
        z1, z2 = (torch.randn(n, DIM, requires_grad=True) for _ in range(2))
        ours = lambda a=z1, b=z2, c=chunk: nt_xent(a, b, 0.5, chunk=c)
        theirs = lambda a=z1, b=z2, f=peer: f(a, b)
        kept = {"saved MB": saved_bytes(ours) / 2**20, "their MB": saved_bytes(theirs) / 2**20}
        name = f"NT-Xent, 2 × {n} × {DIM}" + (f", chunks of {chunk}" if chunk else "")
        name += ", against plain torch" if peer is plain else ", against metric learning"
        found.append(versus(name, _backward(ours), _backward(theirs), repeats, **kept))
    return found


def plain(z1: Tensor, z2: Tensor) -> Tensor:
    """The loss as it is usually written: the diagonal dropped by a mask, and a cross-entropy."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    n = len(z1)
    s = (z @ z.T / 0.5)[~torch.eye(2 * n, dtype=torch.bool)].view(2 * n, 2 * n - 1)
    partner = torch.cat([torch.arange(n) + n - 1, torch.arange(n)])
    return F.cross_entropy(s, partner)


def _metric_learning() -> Callable[[Tensor, Tensor], Tensor] | None:
    if find_spec("pytorch_metric_learning") is None:
        return None
    from pytorch_metric_learning.losses import NTXentLoss

    loss = NTXentLoss(temperature=0.5)
    return lambda a, b: loss(torch.cat([a, b]), torch.arange(len(a)).repeat(2))


def _backward(loss: Callable[[], Tensor]) -> Callable[[], Any]:
    return lambda: loss().backward()


def _step(repeats: int) -> dict[str, Any]:
    encoder = backbone("conv:24x3", (1, 8, 8))
    model = SimCLR(encoder, ProjectionHead(96)).to(memory_format=torch.channels_last)
    v1, v2 = (torch.rand(256, 1, 8, 8) for _ in range(2))
    apart = lambda: nt_xent(model(v1)[1], model(v2)[1], 0.5).backward()
    return versus("SimCLR step, 2 × 256 of 8×8, one pass", lambda: model.loss(v1, v2).backward(), apart, repeats)


def _views(repeats: int) -> dict[str, Any]:
    images = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    pillow = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in images]
    views, generator = preset("simclr", 32), torch.Generator().manual_seed(0)
    ours = lambda: views(torch.cat([images, images]), generator)
    theirs = lambda: torch.stack([pillow_simclr(p) for p in (*pillow, *pillow)])
    return versus("two views of 256 pictures of 32×32", ours, theirs, repeats)


def _vote(chunk: int, repeats: int) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    bank, query = torch.randn(BANK, DIM, generator=g), torch.randn(QUERIES, DIM, generator=g)
    labels = torch.randint(0, 10, (BANK,), generator=g)
    peer = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(bank.numpy())

    def theirs() -> np.ndarray:
        distance, index = peer.kneighbors(query.numpy())
        votes = np.zeros((QUERIES, 10))
        weights, chosen = np.exp((1 - distance) / 0.07), labels.numpy()[index]
        for c in range(10):
            votes[:, c] = (weights * (chosen == c)).sum(1)
        return votes / votes.sum(1, keepdims=True)

    name = f"{K}-NN vote, {QUERIES} among {BANK:,}, chunks of {chunk:,}"
    return versus(name, lambda: knn_predict(bank, labels, query, K, classes=10, chunk=chunk), theirs, repeats)
