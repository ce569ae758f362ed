"""The pictures of the contrastive papers' claims: embedded, made, of a standard set, or the user's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.data.embedded import digits
from precis.data.glyphs import glyphs, split_fonts
from precis.data.imageset import ImageSet
from precis.data.standard import load
from precis.data.toy_objects import toy_objects
from precis.errors import InputError

TUNING_SEEDS = 10_000
SET_SEED = 0  # of the made pictures: the same for every seed, as a data set is


@dataclass(frozen=True)
class Setting:
    """Which pictures, which net, how long.  `data`: digits, glyphs, objects, or a set of `precis.data.standard`.

    views: a preset of `train.augment`; labels: how many of each class the probe is given.
    """

    data: str = "digits"
    size: int = 8
    train: int = 1200
    test: int = 597
    encoder: str = "conv:24x3"
    batch: int = 256
    steps: int = 100
    lr: float = 3e-3
    temperature: float = 0.5
    views: str = "glyph"
    labels: int = 5
    precision: Literal["fp32", "bf16"] = "fp32"


class Pool(NamedTuple):
    """Training and test pictures uint8 [N,C,S,S] and their labels, which only supervised arms and judges see."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def to(self, device: str) -> "Pool":
        return Pool(*(t.to(device) for t in self))


def load_pool(s: Setting, source: Path | None) -> Pool:
    """The pictures of a setting, or the user's own set: one in five of each class for the test."""
    if source is not None:
        return _own(s, source)
    if s.data == "glyphs":
        x, y, test_x, test_y = characters("latin+digits", 36, s)
        return Pool(x[: s.train], y[: s.train], test_x[: s.test], test_y[: s.test])
    if s.data == "digits":
        parts = [digits(split="train"), digits(split="test")]
        as_bytes = lambda x: np.minimum(x.astype(np.int64) * 16, 255).astype(np.uint8)
        arrays = [(as_bytes(p.images), p.labels) for p in parts]
    elif s.data == "objects":
        scenes = toy_objects(s.train + s.test, generator=SET_SEED, size=s.size, texture=0)
        images, labels = scenes.images, scenes.factors["shape"][:, 0]
        arrays = [(images[: s.train], labels[: s.train]), (images[s.train :], labels[s.train :])]
    else:
        parts = [load(s.data, part, download=False) for part in ("train", "test")]
        arrays = [(p.images, p.labels) for p in parts]
    cut = [a[:n] for pair, n in zip(arrays, (s.train, s.test)) for a in pair]
    return Pool(*(torch.from_numpy(np.ascontiguousarray(a)) for a in cut))


def characters(alphabet: str, classes: int, s: Setting, size: int | None = None) -> Pool:
    """Some `s.train` and `s.test` pictures of the first so many classes of an alphabet, as many of each, mixed; those
    of the test are in other typefaces."""
    made: list[Tensor] = []
    for n, fonts, seed in zip((s.train, s.test), split_fonts(), (SET_SEED, SET_SEED + 1)):
        each = max(1, n // classes)
        found = glyphs(alphabet, fonts, size or s.size, each, levels=0, classes=classes, seed=seed)
        made += mixed(found.images, found.labels, seed)
    return Pool(*made)


def mixed(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
    """The same pictures and labels in a random order."""
    order = np.random.default_rng(seed).permutation(len(images))
    return torch.from_numpy(np.ascontiguousarray(images[order])), torch.from_numpy(labels[order])


def _own(s: Setting, source: Path) -> Pool:
    found = ImageSet.open(source, s.size)
    if found.labels is None or len(found.classes) < 2:
        raise InputError("at least two classes are wanted: a sub-folder each, or a column of labels", file=source)
    known = np.flatnonzero(found.labels >= 0)
    order = np.random.default_rng(SET_SEED).permutation(known)
    held = len(order) // 5
    if len(order) - held < 2 * s.batch or np.bincount(found.labels[order[held:]]).min() < s.labels:
        raise InputError(f"{2 * s.batch} training pictures or more, and {s.labels} of each class, are wanted, after "
                         "one in five has gone to the test", file=source)  # fmt: skip
    x, y = torch.from_numpy(found.images), torch.from_numpy(found.labels)
    return Pool(x[order[held:]], y[order[held:]], x[order[:held]], y[order[:held]])


def pool_of(pool: Pool, seed: int, device: str) -> Pool:
    """The pictures on the device; a tuning seed holds a fifth of the training pictures out as its test."""
    if seed >= TUNING_SEEDS:
        kept = len(pool.images) * 4 // 5
        pool = Pool(pool.images[:kept], pool.labels[:kept], pool.images[kept:], pool.labels[kept:])
    return pool.to(device)
