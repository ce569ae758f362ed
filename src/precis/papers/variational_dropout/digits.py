"""What the claims train on: pictures with labels, split by the seed, the labels permuted where that is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from precis.data.embedded import digits
from precis.data.imageset import ImageSet
from precis.data.standard import load
from precis.errors import InputError
from precis.lab.trial import streams

TRAIN_SHARE = 0.8  # 1,437 of the 1,797 digits


@dataclass(frozen=True)
class Setting:
    """Pictures, net and training.  `data`: digits, or a set of `precis.data.standard`; 0 train or test: all there are.

    hold: the share of the steps at the full rate, from where it falls linearly to 0.  ramp: of the steps, between which
    the weight of the KL term rises from 0 to 1.
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
    ramp: tuple[float, float] = (0.05, 0.35)
    draws: int = 2000


class Pool(NamedTuple):
    """Pictures [N,C,S,S] in 0…1 and labels; those from `border` on are for tests only (0: any may be either)."""

    images: Float[Tensor, "n c s s"]
    labels: Int64[Tensor, "n"]
    classes: int
    border: int


class Split(NamedTuple):
    """Pictures [M,n,C,S,S] and labels [M,n] of M seeds."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def load_pool(settings: Setting, source: Path | None) -> Pool:
    """The pictures of `settings`, or the user's own at the same size."""
    if source is not None:
        found = ImageSet.open(source, settings.size)
        if found.labels is None or len(found.classes) < 2:
            raise InputError("at least two classes are wanted", file=source)
        known = found.labels >= 0
        if known.sum() < 200:
            raise InputError(f"at least 200 labelled pictures are wanted, got {int(known.sum())}", file=source)
        images, labels = torch.from_numpy(found.images[known]), torch.from_numpy(found.labels[known])
        return Pool(images.float() / 255, labels, len(found.classes), 0)
    if settings.data == "digits":
        made = digits(settings.size)
        return Pool(torch.from_numpy(made.images).float() / (16 if settings.size == 8 else 255),
                    torch.from_numpy(made.labels), 10, 0)  # fmt: skip
    parts = [load(settings.data, part, download=False) for part in ("train", "test")]
    images, labels = (torch.cat([torch.from_numpy(getattr(p, name)) for p in parts]) for name in ("images", "labels"))
    return Pool(images.float() / 255, labels, len(parts[0].classes), len(parts[0].labels))


def splits(pool: Pool, settings: Setting, seeds: Sequence[int], device: str, permuted: bool = False) -> Split:
    """Each seed's own pictures; `permuted` shuffles the labels of the training part among its pictures."""
    parts = [_split(pool, settings, streams(seed)["data"], permuted) for seed in seeds]
    return Split(*(torch.stack(tensors).to(device) for tensors in zip(*parts)))


def _split(pool: Pool, settings: Setting, generator: torch.Generator, permuted: bool) -> Split:
    n = len(pool.images)
    border = pool.border or round(TRAIN_SHARE * n)
    order = torch.randperm(border if pool.border else n, generator=generator)
    train, test = order[:border], torch.arange(border, n) if pool.border else order[border:]
    train, test = train[: settings.train or None], test[: settings.test or None]
    y = pool.labels[train]
    if permuted:
        y = y[torch.randperm(len(y), generator=generator)]
    return Split(pool.images[train], y, pool.images[test], pool.labels[test])
