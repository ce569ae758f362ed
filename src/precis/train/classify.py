"""Training and judging classifiers of pictures: data on the device as bytes, augmentation there, no loader workers."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from precis.errors import InputError
from precis.nn.layers import Standardise
from precis.train.ema import EMA
from precis.train.feed import index_batches
from precis.train.loop import Budget, Curve, fit, param_groups
from precis.train.schedule import Schedule, cosine

Number = int | float


class Classifier(NamedTuple):
    """The trained `model` (the average, if one was kept), its `curves` (loss, accuracy of batches), and the cost."""

    model: nn.Module
    curves: dict[str, Curve]
    steps: int
    seconds: float
    repeatable: bool


class Accuracy(NamedTuple):
    """Share of right answers, its exact 95 % interval, the share of each class, and counts [true, predicted]."""

    value: float
    interval: tuple[float, float]
    per_class: Float[Tensor, "k"]
    confusion: Int64[Tensor, "k k"]


def fit_classifier(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    budget: Budget,
    augment: Callable[[Tensor, torch.Generator | None], Tensor] | None = None,
    batch: int = 128,
    lr: Number = 0.1,
    schedule: Schedule | None = None,
    momentum: Number = 0.9,
    weight_decay: Number = 5e-4,
    skip_decay: tuple[str, ...] = ("bias", "norm"),
    label_smoothing: Number = 0.0,
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None,
    clip: Number | None = None,
    ema: Number | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    standardise: bool = True,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
    log: Callable[..., None] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
) -> Classifier:
    """Minimise the cross-entropy of `model` on (images uint8 or float [N,C,H,W] or features [N,D], labels [N]).

    SGD with Nesterov momentum under a cosine, or `optimizer(param groups)`; `skip_decay` as in `param_groups` (() skips
    nothing).  Batches come in an order of `generator`, which augmentation draws from too (default: seed 0); the last,
    incomplete one of an epoch is dropped.  Labels of −1 are left out.  A `Standardise` layer of the model that has seen
    nothing is fitted to the images.  `ema`: decay of a weight average, which becomes the model.  With `folder` and
    `resume` a run that was stopped goes on, as in `fit`.  The model is trained in place, in channels-last order.
    """
    images, labels = _on_device(data, device or _device_of(model))
    size = min(batch, len(images))
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    model = to_channels_last(model.to(images.device)).train()
    if standardise:
        for layer in model.modules():
            if isinstance(layer, Standardise) and _untouched(layer):
                layer.fit(images)
    groups = param_groups(model, weight_decay, skip_decay)
    solver = optimizer(groups) if optimizer is not None else torch.optim.SGD(
        groups, lr=float(lr), momentum=float(momentum), nesterov=momentum > 0, foreach=True
    )  # fmt: skip
    average = None if ema is None else EMA(model, ema)

    def step(chosen: Tensor) -> dict[str, Tensor]:
        chosen = chosen.to(images.device)
        x, y = images[chosen], labels[chosen]
        logits = model(to_input(x if augment is None else augment(x, generator)))
        loss = F.cross_entropy(logits.float(), y, label_smoothing=float(label_smoothing))
        return {"loss": loss, "accuracy": (logits.detach().argmax(1) == y).float().mean()}

    run = fit(
        step, index_batches(len(images), size, generator, drop_last=True), budget=budget, optimizer=solver,
        schedule=cosine() if schedule is None else schedule, log=log, ema=average, clip=clip, precision=precision,
        folder=folder, resume=resume, keep={"model": model, "generator": generator},
    )  # fmt: skip
    trained = model if average is None else average.model
    return Classifier(trained.eval(), run.curves, run.steps, run.seconds, run.repeatable)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, *, batch: int = 1024, precision: str = "fp32") -> Float[Tensor, "n k"]:
    """Logits [N,K] in evaluation mode for x uint8 or float [N,…]; modes are as before afterwards."""
    device, was = _device_of(model), {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext():
            return torch.cat([model(to_input(part.to(device))).float() for part in x.split(batch)])
    finally:
        for module, training in was.items():
            module.training = training


def accuracy(model: nn.Module, data: tuple[Tensor, Tensor], *, batch: int = 1024) -> Accuracy:
    """`score` of the model's predictions for (images, labels)."""
    logits = predict(model, data[0], batch=batch)
    return score(logits.argmax(1), data[1].to(logits.device), logits.shape[1])


def score(predicted: Int[Tensor, "n"], labels: Int[Tensor, "n"], classes: int) -> Accuracy:
    """Accuracy with the exact (Clopper–Pearson) interval; labels of −1 are left out; an absent class has NaN."""
    known = labels >= 0
    n = int(known.sum())
    if n == 0:
        raise InputError("there is no labelled picture to measure accuracy on")
    index = labels[known].long() * classes + predicted[known].long()
    confusion = torch.bincount(index, minlength=classes * classes).view(classes, classes).cpu()
    right = int(confusion.diagonal().sum())
    per_class = confusion.diagonal() / confusion.sum(1)
    return Accuracy(right / n, _exact_interval(right, n), per_class.float(), confusion)


def to_input(x: Tensor) -> Tensor:
    """Bytes as floats in [0,1]; maps in channels-last order, in which convolutions are fastest."""
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.float() / 255 if x.dtype == torch.uint8 else x


def to_channels_last(model: nn.Module) -> nn.Module:
    """The model with its four-dimensional weights in channels-last order, in place."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _on_device(data: tuple[Tensor, Tensor], device: str | torch.device) -> tuple[Tensor, Tensor]:
    images, labels = data
    if len(images) != len(labels) or not len(images):
        raise InputError(f"{len(images)} pictures and {len(labels)} labels: as many of both are wanted, from one")
    known = labels >= 0
    if not bool(known.all()):
        images, labels = images[known], labels[known]
        if not len(labels):
            raise InputError("no picture has a label")
    return images.to(device), labels.to(device).long()


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _untouched(layer: Standardise) -> bool:
    return bool((layer.mean == 0).all() and (layer.std == 1).all())


def _exact_interval(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = beta.ppf(tail, right, n - right + 1) if right else 0.0
    high = beta.ppf(1 - tail, right + 1, n - right) if right < n else 1.0
    return float(np.float64(low)), float(np.float64(high))
