"""What papers about blocks of image nets train for their claims: small classifiers, several seeds in one pass.

Every seed has its own pictures, first weights and order, the same for all arms of a claim.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.lab.claim import Recorder, Tuning
from precis.lab.trial import streams
from precis.papers.pools import Pool, Split, at, draw, read_pool
from precis.train.classify import predict
from precis.train.loop import Budget
from precis.train.many import Many, ManySGD, fit_many
from precis.train.schedule import cosine

RATES = (0.05, 0.15, 0.45)  # at batch 32; multiplied by N/32
TUNING_SEEDS = 10_000
TUNED = Tuning({"lr": RATES}, "validation_error", maximise=False)


@dataclass(frozen=True)
class Task:
    """Which pictures, how many of them, and how long.  `data`: digits, or a set of `precis.data.standard`."""

    data: str = "digits"
    size: int = 8
    train: int = 1000
    test: int = 797
    epochs: int = 2


@dataclass(frozen=True)
class Residual(Task):
    """A task, and the residual net that learns it.

    strides: of the stages, whose last map is `size` divided by their product; channels_per_group: of group norm.
    """

    stages: tuple[int, ...] = (1, 1, 1)
    widths: tuple[int, ...] = (32, 64, 64)
    strides: tuple[int, ...] = (2, 2, 2)
    stem_width: int = 32
    channels_per_group: int = 8


def load_pool(task: Task, source: Path | None) -> Pool:
    """The pictures of `task`, or the user's own set at the same size."""
    return read_pool(task.data, task.size, source)


def split(pool: Pool, task: Task, seed: int, generator: torch.Generator, device: str) -> Split:
    """One seed's pictures, drawn by its generator; tuning seeds hold a fifth of the training part out as their test."""
    train, test = draw(pool, min(task.train, len(pool.images) * 5 // 9), task.train, task.test, generator)
    if seed >= TUNING_SEEDS:
        kept = len(train) * 4 // 5
        train, test = train[:kept], train[kept:]
    return Split(*(t.to(device) for t in at(pool, train, test)))


def splits(pool: Pool, task: Task, seeds: Sequence[int], device: str) -> Split:
    """`split` of every seed, stacked."""
    parts = [split(pool, task, seed, streams(seed)["data"], device) for seed in seeds]
    return Split(*(torch.stack(tensors) for tensors in zip(*parts)))


def train(
    build: Callable[[torch.Generator], nn.Module], batch: int, task: Task, pool: Pool, seeds: Sequence[int], lr: float,
    record: Recorder,
) -> tuple[Many, Split]:  # fmt: skip
    """Nets of all seeds, trained on the same number of samples at any batch size: SGD, momentum 0.9, rate ∝ batch,
    cosine, weight decay 1e-4 on all parameters (γ and β of norms too); the last, smaller batch is dropped.
    """
    drawn = {seed: streams(seed) for seed in seeds}
    data = splits(pool, task, seeds, record.device)
    many = fit_many(
        lambda seed: build(drawn[seed]["init"]).to(record.device), seeds, (data.x, data.y), cross_entropy, own=(0, 1),
        size=batch, drop_last=True, order=[drawn[seed]["noise"] for seed in seeds],
        budget=Budget(steps=max(1, task.epochs * task.train // batch)), lr=lr * batch / 32, schedule=cosine(),
        optimizer=partial(ManySGD, momentum=0.9, weight_decay=1e-4), log=record.log,
    )  # fmt: skip
    return many, data


def cross_entropy(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


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
