"""What the claims have in common: SimCLR or MoCo from one start, and its training."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from precis.contrastive.moco import MoCo, MomentumQueue
from precis.contrastive.ntxent import SimCLR
from precis.lab.claim import Recorder
from precis.papers.contrastive_sets import Pool, Setting
from precis.papers.contrastive_training import Views, fit_arm, head_on, make_encoder, make_views
from precis.train.loop import Run


def make_model(
    s: Setting, pool: Pool, streams: Mapping[str, torch.Generator], *, method: str = "simclr", head: bool = True,
    temperature: float | None = None,
) -> nn.Module:  # fmt: skip
    """Encoder and head drawn by `init`, the same for every arm of a seed; of MoCo, the queue after them.

    method: simclr; moco (K = half the pictures at most, a multiple of what a step brings; m = 0.99); "stale": moco
    whose queue never takes up a key.
    """
    encoder = make_encoder(s, pool.images, streams["init"])
    g: nn.Module = head_on(encoder, streams["init"]) if head else nn.Identity()
    tau = s.temperature if temperature is None else temperature
    if method == "simclr":
        return SimCLR(encoder, g, tau)
    brought = 2 * s.batch
    size = max(brought, min(4096, len(pool.images) // 2) // brought * brought)
    width: int | None = None if head else encoder.out_dim  # type: ignore[assignment]
    model = MoCo(encoder, g, size, 0.99, tau, dim=width, generator=streams["init"])
    if method == "stale":
        model.queue = _StaleQueue(size, model.queue.keys.shape[1], streams["eval"])
    return model


class _StaleQueue(MomentumQueue):
    def push(self, keys: Tensor) -> None:
        """Nothing: the random vectors stay."""


def train(
    s: Setting, pool: Pool, model: nn.Module, views: Views, record: Recorder, *, shuffled: bool = False
) -> Run:
    """`data` orders the batches, `noise` makes the views.  shuffled: each picture's partner is another's view."""

    def loss(chosen: Tensor) -> Tensor:
        v1, v2 = make_views(pool.images[chosen], views, record.streams["noise"])
        return model.loss(v1, v2.roll(1, 0) if shuffled else v2)  # type: ignore[operator,no-any-return]

    return fit_arm(s, model, loss, len(pool.images), record)
