"""Labelled pictures for claims: one pool, from which every seed draws its own training and test part."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from precis.data.embedded import digits
from precis.data.imageset import ImageSet
from precis.data.standard import load
from precis.errors import InputError


class Pool(NamedTuple):
    """Pictures [N,C,S,S] and labels [N]; those from `border` on are for tests only (0: any may be either)."""

    images: Tensor
    labels: Tensor
    classes: int
    border: int


class Split(NamedTuple):
    """Pictures [n,C,S,S] and labels [n] of one seed, or with an axis of seeds before."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def read_pool(
    data: str, size: int, source: Path | None, *, fewest: int = 100, whole_bytes: bool = False
) -> Pool:  # fmt: skip
    """`data`: digits, or a set of `precis.data.standard`; or `source`, the user's own, of `fewest` pictures at least.

    In 0…1 as float32; a standard set stays uint8 with `whole_bytes`, a quarter of the memory.  InputError for a source
    with fewer pictures or without two classes.
    """
    if source is not None:
        found = ImageSet.open(source, size)
        if found.labels is None or len(found.classes) < 2:
            raise InputError("at least two classes are wanted", file=source)
        known = found.labels >= 0
        if known.sum() < fewest:
            raise InputError(f"at least {fewest} labelled pictures are wanted, got {int(known.sum())}", file=source)
        images, labels = torch.from_numpy(found.images[known]), torch.from_numpy(found.labels[known])
        return Pool(images.float() / 255, labels, len(found.classes), 0)
    if data == "digits":
        made = digits(size)
        highest = 16 if size == 8 else 255
        return Pool(torch.from_numpy(made.images).float() / highest, torch.from_numpy(made.labels), 10, 0)
    parts = [load(data, part, download=False) for part in ("train", "test")]
    images, labels = (torch.cat([torch.from_numpy(getattr(p, name)) for p in parts]) for name in ("images", "labels"))
    if not whole_bytes:
        images = images.float() / 255
    return Pool(images, labels, len(parts[0].classes), len(parts[0].labels))


def draw(
    pool: Pool, most: int, train: int | None, test: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Indices of a training and a test part, of `train` and `test` pictures (None: all there are).

    Where the pool has no test part of its own, both are drawn: the first `most` at random may be trained on, what is
    behind them is for the test.
    """
    n = len(pool.images)
    if pool.border:
        return torch.randperm(pool.border, generator=generator)[:train], torch.arange(pool.border, n)[:test]
    order = torch.randperm(n, generator=generator)
    return order[:most][:train], order[most:][:test]


def at(pool: Pool, train: Tensor, test: Tensor) -> Split:
    """The pictures and labels with these indices."""
    return Split(pool.images[train], pool.labels[train], pool.images[test], pool.labels[test])
