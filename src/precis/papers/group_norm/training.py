"""What the claims train: a small residual net with any normalisation, several seeds in one pass, at any batch size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.data.embedded import digits
from precis.data.imageset import ImageSet
from precis.data.standard import load
from precis.errors import InputError
from precis.lab.claim import Recorder, Tuning
from precis.lab.trial import streams
from precis.nn.resnet import ResNet
from precis.train.checkpoint import load_state, save_state
from precis.train.classify import predict
from precis.train.loop import Budget
from precis.train.many import Many, ManySGD, fit_many
from precis.train.schedule import cosine

NORMS = {"gn": "group", "bn": "batch", "ln": "layer", "in": "instance", "none": "none"}
RATES = (0.05, 0.15, 0.45)  # at batch 32; multiplied by N/32
TUNING_SEEDS = 10_000
TUNED = Tuning({"lr": RATES}, "validation_error", maximise=False)


@dataclass(frozen=True)
class Net:
    """Which pictures, how many of them, how long, and the net.  `data`: digits, or a set of `precis.data.standard`.

    strides: of the stages, whose last map is `size` divided by their product; channels_per_group: of group norm.
    """

    data: str = "digits"
    size: int = 8
    train: int = 1000
    test: int = 797
    epochs: int = 2
    stages: tuple[int, ...] = (1, 1, 1)
    widths: tuple[int, ...] = (32, 64, 64)
    strides: tuple[int, ...] = (2, 2, 2)
    stem_width: int = 32
    channels_per_group: int = 8


class Pool(NamedTuple):
    """Pictures [N,C,S,S] in [0,1] and labels; those from `border` on are for tests only (0: any may be either)."""

    images: Float[Tensor, "n c s s"]
    labels: Tensor
    classes: int
    border: int


def load_pool(settings: Net, source: Path | None) -> Pool:
    """The pictures of `settings`, or the user's own set at the same size."""
    if source is not None:
        found = ImageSet.open(source, settings.size)
        if found.labels is None or len(found.classes) < 2:
            raise InputError("at least two classes are wanted", file=source)
        known = found.labels >= 0
        images, labels = torch.from_numpy(found.images[known]), torch.from_numpy(found.labels[known])
        if len(images) < 100:
            raise InputError(f"at least 100 labelled pictures are wanted, got {len(images)}", file=source)
        return Pool(images.float() / 255, labels, len(found.classes), 0)
    if settings.data == "digits":
        made = digits(settings.size)
        return Pool(torch.from_numpy(made.images).float() / (16 if settings.size == 8 else 255),
                    torch.from_numpy(made.labels), 10, 0)  # fmt: skip
    parts = [load(settings.data, split, download=False) for split in ("train", "test")]
    images = torch.cat([torch.from_numpy(p.images) for p in parts])
    labels = torch.cat([torch.from_numpy(p.labels) for p in parts])
    return Pool(images.float() / 255, labels, len(parts[0].classes), len(parts[0].labels))


class Split(NamedTuple):
    """Training and test pictures of several seeds [M,n,C,S,S] and labels [M,n]."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def split(pool: Pool, settings: Net, seed: int, generator: torch.Generator, device: str) -> Split:
    """One seed's pictures, drawn by its generator; tuning seeds hold a fifth of the training part out as their test."""
    n = len(pool.images)
    if pool.border:
        order = torch.randperm(pool.border, generator=generator)[: settings.train]
        test = torch.arange(pool.border, n)[: settings.test]
    else:
        train = min(settings.train, n * 5 // 9)
        order = torch.randperm(n, generator=generator)
        order, test = order[:train], order[train : train + settings.test]
    if seed >= TUNING_SEEDS:
        kept = len(order) * 4 // 5
        order, test = order[:kept], order[kept:]
    return Split(*(t.to(device) for t in (pool.images[order], pool.labels[order], pool.images[test],
                                          pool.labels[test])))  # fmt: skip


def make_net(norm: str, settings: Net, pool: Pool, generator: torch.Generator) -> ResNet:
    """The net with its convolutions and head drawn by `generator`: the same for every norm."""
    return ResNet(
        settings.stages, settings.widths, strides=settings.strides, stem_width=settings.stem_width,
        in_channels=pool.images.shape[1], classes=pool.classes, norm=NORMS[norm], zero_init=norm != "none",
        channels_per_group=settings.channels_per_group, generator=generator,
    )  # fmt: skip


def cross_entropy(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def train(
    norm: str, batch: int, settings: Net, pool: Pool, seeds: Sequence[int], lr: float, record: Recorder,
    build: Callable[[torch.Generator], nn.Module] | None = None,
) -> tuple[Many, Split]:
    """Nets of all seeds, trained on the same number of samples at any batch size: SGD, momentum 0.9, rate ∝ batch,
    cosine, weight decay 1e-4 on all parameters (γ and β too, as in the paper); the last, smaller batch is dropped.

    Every seed has its own pictures, initial weights and order, the same for every norm.
    """
    drawn = {seed: streams(seed) for seed in seeds}
    build = build or (lambda generator: make_net(norm, settings, pool, generator))
    data = splits(pool, settings, seeds, record.device)
    many = fit_many(
        lambda seed: build(drawn[seed]["init"]).to(record.device), seeds, (data.x, data.y), cross_entropy, own=(0, 1),
        size=batch, drop_last=True, order=[drawn[seed]["noise"] for seed in seeds],
        budget=Budget(steps=max(1, settings.epochs * settings.train // batch)), lr=lr * batch / 32, schedule=cosine(),
        optimizer=partial(ManySGD, momentum=0.9, weight_decay=1e-4), log=record.log,
    )  # fmt: skip
    return many, data


def splits(pool: Pool, settings: Net, seeds: Sequence[int], device: str) -> Split:
    """`split` of every seed, stacked."""
    parts = [split(pool, settings, seed, streams(seed)["data"], device) for seed in seeds]
    return Split(*(torch.stack(tensors) for tensors in zip(*parts)))


def trained_bn(settings: Net, pool: Pool, seed: int, lr: float, record: Recorder) -> nn.Module:
    """The batch norm net of one seed, trained at 32 samples a batch, once for all claims that read it."""

    def make(folder: Path) -> None:
        many, _ = train("bn", 32, settings, pool, (seed,), lr, record)
        save_state(folder / "net.safetensors", dict(many.module(0).state_dict()))

    folder = record.shared("bn_32", make, [settings, lr])
    net = make_net("bn", settings, pool, torch.Generator().manual_seed(0)).to(record.device)
    net.load_state_dict(load_state(folder / "net.safetensors"))
    return net.eval()


def error_of(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Percentage of wrong answers of one net in evaluation mode."""
    return 100 * float((predict(net, x, batch=512).argmax(1) != y).float().mean())


def errors(many: Many, data: Split) -> Float[Tensor, "m"]:
    """Percentage of wrong answers of every copy on its test pictures, in evaluation mode."""
    logits = many.predict(data.test_x, own=True, batch=512)
    return 100 * (logits.argmax(2) != data.test_y).float().mean(1)


def error_name(seeds: Sequence[int]) -> str:
    """What the error is called: tuning's is measured on pictures held out of the training part."""
    return "validation_error" if seeds[0] >= TUNING_SEEDS else "error"


def positions(settings: Net) -> int:
    """Positions of the deepest map: with them, m = N · positions values make a batch statistic there."""
    return max(1, math.ceil(settings.size / math.prod(settings.strides))) ** 2
