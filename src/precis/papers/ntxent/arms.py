"""What the claims have in common: pictures, the training of one arm, and the figures that judge a representation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from precis.contrastive.moco import MoCo, MomentumQueue
from precis.contrastive.ntxent import ProjectionHead, SimCLR
from precis.data.embedded import digits
from precis.data.glyphs import glyphs, split_fonts
from precis.data.imageset import ImageSet
from precis.data.standard import load
from precis.data.toy_objects import toy_objects
from precis.errors import InputError
from precis.lab.claim import Metrics, Recorder
from precis.nn.backbones import backbone
from precis.train.augment import Augment, preset
from precis.train.classify import to_channels_last, to_input
from precis.train.feed import index_batches
from precis.train.loop import Budget, Run, fit, param_groups
from precis.train.probe import LinearProbe, embed, first_of_each, knn_predict
from precis.train.schedule import cosine, warmup

TUNING_SEEDS = 10_000
SET_SEED = 0  # of the made pictures: the same for every seed, as a data set is

Views = Callable[[Tensor, torch.Generator | None], Tensor]


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
    """Training and test pictures uint8 [N,C,S,S] and their labels; the net sees no label."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_pool(s: Setting, source: Path | None) -> Pool:
    """The pictures of a setting, or the user's own set: one in five of each class for the test."""
    if source is not None:
        return _own(s, source)
    if s.data == "digits":
        parts = [digits(split="train"), digits(split="test")]
        as_bytes = lambda x: np.minimum(x.astype(np.int64) * 16, 255).astype(np.uint8)
        arrays = [(as_bytes(p.images), p.labels) for p in parts]
    elif s.data == "glyphs":
        arrays = []
        for n, fonts, seed in ((s.train, split_fonts()[0], SET_SEED), (s.test, split_fonts()[1], SET_SEED + 1)):
            made = glyphs("latin+digits", fonts, s.size, max(1, n // 36), levels=0, classes=36, seed=seed)
            order = np.random.default_rng(seed).permutation(len(made.images))
            arrays.append((made.images[order], made.labels[order]))
    elif s.data == "objects":
        scenes = toy_objects(s.train + s.test, generator=SET_SEED, size=s.size, texture=0)
        images, labels = scenes.images, scenes.factors["shape"][:, 0]
        arrays = [(images[: s.train], labels[: s.train]), (images[s.train :], labels[s.train :])]
    else:
        parts = [load(s.data, part, download=False) for part in ("train", "test")]
        arrays = [(p.images, p.labels) for p in parts]
    (x, y), (test_x, test_y) = arrays
    cut = [torch.from_numpy(np.ascontiguousarray(a)) for a in
           (x[: s.train], y[: s.train], test_x[: s.test], test_y[: s.test])]  # fmt: skip
    return Pool(*cut)


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
    return Pool(*(t.to(device) for t in pool))


def views_of(s: Setting, kind: str = "both") -> Augment:
    """The augmentation of a setting; of "crop" without its colours, of "colour" without its crop."""
    whole = preset(s.views, s.size)
    if kind == "crop":
        return Augment(s.size, crop=whole.crop, ratio=whole.ratio, flip=whole.flip)
    if kind == "colour":
        return Augment(s.size, flip=whole.flip, jitter=whole.jitter, jitter_p=whole.jitter_p, grey_p=whole.grey_p)
    return whole


def make_encoder(s: Setting, pool: Pool, generator: torch.Generator) -> nn.Module:
    """The encoder of a seed, its first layer fitted to the training pictures."""
    net = backbone(s.encoder, tuple(pool.images.shape[1:]), generator=generator)
    net.input.fit(pool.images)  # type: ignore[union-attr,operator]
    return net


def make_model(
    s: Setting, pool: Pool, streams: Mapping[str, torch.Generator], *, method: str = "simclr", head: bool = True,
    temperature: float | None = None,
) -> nn.Module:  # fmt: skip
    """Encoder and head drawn by `init`, the same for every arm of a seed; of MoCo, the queue after them.

    method: simclr; moco (K = half the pictures at most, a multiple of what a step brings; m = 0.99); "stale": moco
    whose queue never takes up a key.
    """
    encoder = make_encoder(s, pool, streams["init"])
    width: int = encoder.out_dim  # type: ignore[assignment]
    g: nn.Module = ProjectionHead(width, generator=streams["init"]) if head else nn.Identity()
    tau = s.temperature if temperature is None else temperature
    if method == "simclr":
        return SimCLR(encoder, g, tau)
    brought = 2 * s.batch
    size = max(brought, min(4096, len(pool.images) // 2) // brought * brought)
    model = MoCo(encoder, g, size, 0.99, tau, dim=None if head else width, generator=streams["init"])
    if method == "stale":
        model.queue = _StaleQueue(size, model.queue.keys.shape[1], streams["eval"])
    return model


class _StaleQueue(MomentumQueue):
    def push(self, keys: Tensor) -> None:
        """Nothing: the random vectors stay."""


def train(
    s: Setting, pool: Pool, model: nn.Module, views: Views, record: Recorder, *, shuffled: bool = False
) -> Run:
    """AdamW (weight decay 1e-4) under a cosine after 5 % warm-up.  `data` orders the batches, `noise` the views.

    shuffled: each picture's partner view is another picture's.
    """
    model = to_channels_last(model.to(pool.images.device)).train()
    order, noise = record.streams["data"], record.streams["noise"]
    solver = torch.optim.AdamW(param_groups(model, 1e-4), lr=s.lr, foreach=True)

    def step(chosen: Tensor) -> Tensor:
        x = pool.images[chosen.to(pool.images.device)]
        v1, v2 = to_input(views(torch.cat([x, x]), noise)).split(len(x))
        return model.loss(v1, v2.roll(1, 0) if shuffled else v2)  # type: ignore[operator,no-any-return]

    run = fit(
        step, index_batches(len(pool.images), min(s.batch, len(pool.images)), order, drop_last=True),
        budget=Budget(steps=s.steps), optimizer=solver, schedule=warmup(0.05, cosine()), precision=s.precision,
        log=record.log,
    )  # fmt: skip
    record.curve("loss", *run.curves["loss"])
    return run


def judge(s: Setting, pool: Pool, train_h: Tensor, test_h: Tensor, suffix: str = "") -> Metrics:
    """Percentages of right answers on the test pictures: of a linear probe on the first few labels of each class
    (`accuracy`), on all labels (`accuracy_all`), and of the neighbours' vote (`knn`)."""
    few = first_of_each(pool.labels, s.labels)
    k = min(200, max(1, len(train_h) // 10))
    votes = knn_predict(train_h, pool.labels, test_h, k).argmax(1)
    return {
        f"accuracy{suffix}": 100 * _probe(train_h[few], pool.labels[few], pool, test_h, "inner"),
        "accuracy_all": 100 * _probe(train_h, pool.labels, pool, test_h, 1e-3),
        "knn": 100 * float((votes == pool.test_labels).float().mean()),
    }


def _probe(h: Tensor, y: Tensor, pool: Pool, test_h: Tensor, ridge: Literal["inner"] | float) -> float:
    return LinearProbe(ridge).fit(h, y).accuracy(test_h, pool.test_labels).accuracy


def judge_encoder(s: Setting, pool: Pool, model: nn.Module, *, layer: Literal["h", "z"] = "h") -> Metrics:
    """`judge` of a model's representation h, or of what its head makes of it."""
    net = model if layer == "z" else model.encoder
    take = (lambda x: embed(net, x)) if layer == "h" else (lambda x: embed(_Projected(net), x))  # type: ignore[arg-type]
    return judge(s, pool, take(pool.images), take(pool.test_images))


class _Projected(nn.Module):
    """The second of what a model returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.model(x)[1]
        return z
