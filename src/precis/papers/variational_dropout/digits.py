"""What the claims train on: pictures with labels, split by the seed, the labels permuted where that is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from precis.lab.trial import streams
from precis.papers.pools import Pool, Split, at, draw, read_pool

TRAIN_SHARE = 0.8  # 1,437 of the 1,797 digits


@dataclass(frozen=True)
class Setting:
    """Pictures, net and training.  `data`: digits, or a set of `precis.data.standard`; 0 train or test: all there are.

    hold: the share of the steps at the full rate, from where it falls linearly to 0; second_hold: that of `second_net`.
    ramp: of the steps, between which the weight of the KL term rises from 0 to 1.  first: what the first weights are,
    He normal, or the paper's: N(0, 0.01²) of dense layers, Glorot uniform of convolutions.
    """

    data: str = "digits"
    size: int = 8
    train: int = 0
    test: int = 0
    net: str = "mlp:300-100"
    second_net: str = ""
    steps: int = 600
    batch: int = 100
    lr: float = 1e-2
    hold: float = 0.5
    second_hold: float = 0.5
    ramp: tuple[float, float] = (0.05, 0.35)
    draws: int = 2000
    first: Literal["he", "paper"] = "he"


def load_pool(settings: Setting, source: Path | None) -> Pool:
    """The pictures of `settings`, or the user's own at the same size."""
    return read_pool(settings.data, settings.size, source, fewest=200)


def splits(pool: Pool, settings: Setting, seeds: Sequence[int], device: str, permuted: bool = False) -> Split:
    """Each seed's own pictures; `permuted` shuffles the labels of the training part among its pictures."""
    parts = [_split(pool, settings, streams(seed)["data"], permuted) for seed in seeds]
    return Split(*(torch.stack(tensors).to(device) for tensors in zip(*parts)))


def _split(pool: Pool, settings: Setting, generator: torch.Generator, permuted: bool) -> Split:
    most = round(TRAIN_SHARE * len(pool.images))
    found = at(pool, *draw(pool, most, settings.train or None, settings.test or None, generator))
    return found._replace(y=found.y[torch.randperm(len(found.y), generator=generator)]) if permuted else found
