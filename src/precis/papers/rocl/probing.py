"""The linear layer of the claim of transfer, whose ridge is chosen for each encoder in the same way."""

from torch import nn

from precis.contrastive.robustness import robust_linear
from precis.papers.contrastive_sets import Pool

from .arms import Plan, judge

RIDGES = (1.0, 1e-1, 1e-2, 1e-3)


def held_out(pool: Pool) -> Pool:
    """The same with a fifth of the training pictures, the last, for its test."""
    kept = len(pool.images) * 4 // 5
    return Pool(pool.images[:kept], pool.labels[:kept], pool.images[kept:], pool.labels[kept:])


def probed(s: Plan, encoder: nn.Module, pool: Pool, seed: int) -> nn.Module:
    """The frozen encoder and a linear layer fitted on the pool's pictures as they are (LE).

    Its ridge is the one of `RIDGES` that leaves most of a held-out fifth of the training pictures right under the test
    attack, of equal ones the one with the better clean accuracy; with it the layer is fitted on all.
    """
    part = held_out(pool)
    scores = {}
    for ridge in RIDGES:
        found = judge(s, _fitted(encoder, part, ridge), part, seed)
        scores[ridge] = (found["robust"], found["clean"])
    return _fitted(encoder, pool, max(RIDGES, key=scores.__getitem__))


def _fitted(encoder: nn.Module, pool: Pool, ridge: float) -> nn.Module:
    layer = robust_linear(encoder, (pool.images, pool.labels), classes=pool.classes, ridge=ridge)
    return nn.Sequential(encoder, layer.to(pool.images.device)).eval()


def times_guessing(percent: float, pool: Pool) -> float:
    """A percentage of right answers in multiples of what guessing one of the pool's classes gives."""
    return percent * pool.classes / 100

