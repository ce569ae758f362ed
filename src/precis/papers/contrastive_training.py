"""What the contrastive papers train alike, in claims and in jobs: encoder and head, views of pictures, and the loop.

An arm is a model, its loss of the chosen pictures, and `fit_arm`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from precis.contrastive.ntxent import ProjectionHead
from precis.lab.claim import Recorder
from precis.nn.backbones import backbone
from precis.train.augment import Augment, preset
from precis.train.classify import to_channels_last, to_input
from precis.train.feed import index_batches
from precis.train.loop import Budget, Run, fit, param_groups
from precis.train.schedule import cosine, warmup

Views = Callable[[Tensor, torch.Generator | None], Tensor]
Loss = Callable[[Tensor], Any]


def make_encoder(s: Any, images: Tensor, generator: torch.Generator) -> nn.Module:
    """The encoder of a seed, for pictures of `s.size` pixels, its first layer fitted to the training pictures."""
    net = backbone(s.encoder, (images.shape[1], s.size, s.size), generator=generator)
    net.input.fit(images)  # type: ignore[union-attr,operator]
    return net


def head_on(encoder: nn.Module, generator: torch.Generator, **options: Any) -> ProjectionHead:
    """A head for what the encoder gives; options as of `ProjectionHead`."""
    width: int = encoder.out_dim  # type: ignore[assignment]
    return ProjectionHead(width, generator=generator, **options)


def views_of(name: str, size: int, kind: str = "both") -> Augment:
    """The augmentation of a preset; of "crop" without its colours, of "colour" without its crop."""
    whole = preset(name, size)
    if kind == "crop":
        return Augment(size, crop=whole.crop, ratio=whole.ratio, flip=whole.flip)
    if kind == "colour":
        return Augment(size, flip=whole.flip, jitter=whole.jitter, jitter_p=whole.jitter_p, grey_p=whole.grey_p)
    return whole


def make_views(x: Tensor, views: Views, generator: torch.Generator, count: int = 2) -> tuple[Tensor, ...]:
    """So many views of each of the pictures uint8 [B,C,S,S], as a net takes them: count times [B,C,S,S] in 0 … 1."""
    return to_input(views(x.repeat(count, 1, 1, 1), generator)).split(len(x))


def optimise(
    model: nn.Module, loss: Loss, batches: Iterable[Tensor], device: str, *, lr: float, budget: Budget,
    rise: float = 0.05, **options: Any,
) -> Run:  # fmt: skip
    """AdamW (weight decay 1e-4); the rate rises in a line over that share of the run and falls as a cosine.

    loss(chosen): of the pictures with these places, or a dict with a "loss".  `options` of `fit`.
    """
    model = to_channels_last(model.to(device)).train()
    solver = torch.optim.AdamW(param_groups(model, 1e-4), lr=lr, foreach=True)
    return fit(
        lambda chosen: loss(chosen.to(device)), batches, budget=budget, optimizer=solver,
        schedule=warmup(rise, cosine()), **options,
    )  # fmt: skip


def fit_arm(
    s: Any, model: nn.Module, loss: Loss, n: int, record: Recorder, *, order: torch.Generator | None = None,
    rise: float = 0.05, suffix: str = "",
) -> Run:  # fmt: skip
    """`optimise` for the batch, steps, rate (unless it was tuned) and precision of `s`, on n pictures; curves are kept.

    order: of the batches; None: the record's stream `data`.  suffix: of the curves' names.
    """
    batches = index_batches(n, min(s.batch, n), record.streams["data"] if order is None else order, drop_last=True)
    run = optimise(
        model, loss, batches, record.device, lr=record.tuned.get("lr", s.lr), budget=Budget(steps=s.steps), rise=rise,
        precision=s.precision, log=record.log,
    )  # fmt: skip
    for name, curve in run.curves.items():
        record.curve(name + suffix, *curve)
    return run
