"""What papers about blocks of image nets train for their claims: small classifiers, several seeds at once.

Every seed has its own pictures, first weights and order, the same for all arms of a claim.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import stack_module_state
from torch.nn.utils.rnn import pad_sequence

from precis.errors import RunFailed
from precis.lab.claim import Recorder, Tuning
from precis.lab.trial import streams
from precis.papers.pools import Pool, Split, at, draw, read_pool
from precis.train.classify import predict, to_channels_last, to_input
from precis.train.feed import index_batches
from precis.train.loop import Budget, fit
from precis.train.many import Many, ManySGD, fit_many
from precis.train.schedule import cosine

RATES = (0.05, 0.15, 0.45)  # at batch 32; multiplied by N/32
TUNING_SEEDS = 10_000
STACKED = 16  # pixels a side up to which one pass over all copies pays on a processor
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
    cosine, weight decay 1e-4 on all parameters (γ and β of norms too); the last, smaller batch is dropped.  Copies go
    through one pass, or, where the maps are large and a processor is faster so, one after another with the same result.
    """
    drawn = {seed: streams(seed) for seed in seeds}
    data = splits(pool, task, seeds, record.device)
    make = lambda seed: build(drawn[seed]["init"]).to(record.device)
    budget = Budget(steps=max(1, task.epochs * task.train // batch))
    if _apart(data):
        return _one_by_one(make, seeds, data, batch, budget, lr, drawn, record), data
    many = fit_many(
        make, seeds, (data.x, data.y), cross_entropy, own=(0, 1), size=batch, drop_last=True,
        order=[drawn[seed]["noise"] for seed in seeds], budget=budget, lr=lr * batch / 32, schedule=cosine(),
        optimizer=partial(ManySGD, momentum=0.9, weight_decay=1e-4), log=record.log,
    )  # fmt: skip
    return many, data


def _apart(data: Split) -> bool:
    """Whether copies are faster one after another: large maps on a processor."""
    return not data.x.is_cuda and data.x.shape[-1] > STACKED


def _one_by_one(
    build: Callable[[int], nn.Module], seeds: Sequence[int], data: Split, batch: int, budget: Budget, lr: float,
    drawn: Mapping[int, Mapping[str, torch.Generator]], record: Recorder,
) -> Many:  # fmt: skip
    """What `fit_many` makes of these nets, whose losses end where they are not finite."""
    began, nets, losses = time.perf_counter(), [], []
    for m, seed in enumerate(seeds):
        log = lambda step, total, m=m, **scalars: record.log(m * total + step, len(seeds) * total, **scalars)
        nets.append(to_channels_last(build(seed)).train())
        losses.append(_alone(nets[m], data.x[m], data.y[m], batch, budget, lr, drawn[seed]["noise"], log))
    curve = pad_sequence(losses, batch_first=True, padding_value=torch.nan)
    steps = curve.isfinite().sum(1)
    diverged = torch.tensor([int(n) < len(loss) for n, loss in zip(steps, losses)])
    params, buffers = stack_module_state(nets)
    return Many(params, buffers, {"loss": curve}, steps, diverged, time.perf_counter() - began, nets[0])


def _alone(
    net: nn.Module, x: Tensor, y: Tensor, batch: int, budget: Budget, lr: float, order: torch.Generator,
    log: Callable[..., None],
) -> Float[Tensor, "t"]:  # fmt: skip
    """Trains one net; its losses, up to the first that is not finite, before which the net stays."""
    losses: list[Tensor] = []

    def step(rows: Tensor) -> Tensor:
        loss = cross_entropy(net, (to_input(x[rows]), y[rows]))
        losses.append(loss.detach())
        return loss

    try:
        fit(
            step, index_batches(len(x), min(batch, len(x)), order, drop_last=True), budget=budget, schedule=cosine(),
            optimizer=torch.optim.SGD(net.parameters(), lr * batch / 32, momentum=0.9, weight_decay=1e-4), log=log,
        )  # fmt: skip
    except RunFailed:
        if not losses or losses[-1].isfinite():  # it was the memory
            raise
    return torch.stack(losses)


def cross_entropy(model: Any, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def error_of(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Percentage of wrong answers of one net in evaluation mode."""
    return 100 * float((predict(net, x, batch=512).argmax(1) != y).float().mean())


def errors(many: Many, data: Split) -> Float[Tensor, "m"]:
    """Percentage of wrong answers of every copy on its test pictures, in evaluation mode."""
    if _apart(data):
        each = zip(data.test_x, data.test_y)
        return torch.tensor([error_of(to_channels_last(many.module(m)), x, y) for m, (x, y) in enumerate(each)])
    logits = many.predict(data.test_x, own=True, batch=512)
    return 100 * (logits.argmax(2) != data.test_y).float().mean(1)


def error_name(seeds: Sequence[int]) -> str:
    """What the error is called: tuning's is measured on pictures held out of the training part."""
    return "validation_error" if seeds[0] >= TUNING_SEEDS else "error"
