"""What the claims have in common: the training of an arm, its linear stage, and the figures that judge it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.contrastive.supcon import LinearHead, SupConModel
from precis.data.corruptions import KINDS, corrupted
from precis.lab.claim import Metrics, Recorder
from precis.papers.contrastive_sets import SET_SEED, Pool, Setting
from precis.papers.contrastive_training import fit_arm, head_on, make_encoder, make_views, views_of
from precis.train.classify import predict
from precis.train.probe import embed

RIDGE = 1e-3  # of the linear stage: next to none, as in the paper
# Three strengths of each corruption, in the units of `precis.data.corruptions`.
STRENGTHS = {
    "noise": (0.1, 0.2, 0.3), "blur": (0.7, 1.0, 1.4), "contrast": (0.4, 0.6, 0.8), "pixelate": (1.5, 2.0, 3.0),
}  # fmt: skip


@dataclass(frozen=True)
class Plan(Setting):
    """A `Setting`; corruptions: those whose mean is judged, which training does not contain; minibatches: of
    `noise_batch` pictures, over which gradients are compared."""

    data: str = "glyphs"
    size: int = 16
    train: int = 720
    test: int = 720
    encoder: str = "conv:16x3"
    batch: int = 128
    steps: int = 100
    temperature: float = 0.1
    corruptions: tuple[str, ...] = ("blur", "contrast", "pixelate")
    minibatches: int = 16
    noise_batch: int = 256


class CrossEntropy(nn.Module):
    """The baseline: the encoder under a linear classifier, trained together on all views."""

    def __init__(self, encoder: nn.Module, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, head_on(encoder, generator, dim_out=classes, layers=1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.encoder(x))
        return logits

    def loss(self, views: Sequence[Tensor], labels: Tensor) -> Tensor:
        return F.cross_entropy(self(torch.cat(list(views))).float(), labels.repeat(len(views)))


def make_model(arm: str, s: Plan, pool: Pool, record: Recorder) -> nn.Module:
    """Encoder, and head or classifier, drawn by `init`: the same encoder for every arm of a seed."""
    start = record.streams["init"]
    encoder = make_encoder(s, pool.images, start)
    if arm == "ce":
        return CrossEntropy(encoder, pool.classes, start)
    tau = record.tuned.get("temperature", s.temperature)
    form = "in" if arm == "in" else "out"
    return SupConModel(encoder, head_on(encoder, start), tau, reduction_form=form)


def train(
    s: Plan, pool: Pool, model: nn.Module, labels: Tensor | None, record: Recorder, *, views: int = 2,
    extra: int = 0, watch: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """`views` of a picture, as many forward passes a step for any number of them; `data` orders the batches, `noise`
    makes the views.  `watch` is called at the start, in the middle and at the end; `extra`: steps more."""
    augment, done = views_of(s.views, s.size), 0

    def loss(chosen: Tensor) -> Tensor:
        nonlocal done
        if done in (0, s.steps // 2):
            watch()
        done += 1
        made = make_views(pool.images[chosen], augment, record.streams["noise"], views)
        return model.loss(made, None if labels is None else labels[chosen])  # type: ignore[operator,no-any-return]

    length = replace(s, batch=2 * s.batch // views, steps=s.steps + extra)
    fit_arm(length, model, loss, len(pool.images), record)
    watch()


def linear_steps(s: Plan, pool: Pool) -> int:
    """Steps of cross-entropy that present as many pictures as the linear stage: each once."""
    return math.ceil(len(pool.images) / (2 * s.batch))


def permuted(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The same labels, dealt to other pictures."""
    return labels[torch.randperm(len(labels), generator=generator).to(labels.device)]


def classifier(model: nn.Module, pool: Pool) -> Callable[[Tensor], Tensor]:
    """The linear stage on the frozen encoder: pictures → logits."""
    encoder: nn.Module = model.encoder  # type: ignore[assignment]
    h = embed(encoder, pool.images)
    head = LinearHead(h.shape[1], pool.classes, RIDGE).to(h.device).fit(h, pool.labels)
    return lambda x: head(embed(encoder, x))


def judge(s: Plan, pool: Pool, model: nn.Module) -> Metrics:
    """Percentages of right answers on the test pictures: `accuracy`, by kind of corruption (the mean of three
    strengths), `corrupted` (the mean of the kinds that count), the share of accuracy that is `kept` then, and of the
    linear stage on the encoder, `probe`, which is `accuracy` itself for what has no classifier of its own."""
    probe = classifier(model, pool)
    answer = (lambda x: predict(model, x)) if isinstance(model, CrossEntropy) else probe
    right = lambda call, x: 100 * float((call(x).argmax(1) == pool.test_labels).float().mean())
    found: Metrics = {"accuracy": right(answer, pool.test_images), "probe": right(probe, pool.test_images)}
    clean = pool.test_images.cpu().numpy()
    for kind in KINDS:
        worse = [torch.from_numpy(corrupted(clean, kind, strength, SET_SEED)) for strength in STRENGTHS[kind]]
        found[kind] = float(np.mean([right(answer, x.to(pool.images.device)) for x in worse]))
    found["corrupted"] = float(np.mean([found[kind] for kind in s.corruptions]))
    found["kept"] = 100 * float(found["corrupted"]) / max(float(found["accuracy"]), 1e-9)  # type: ignore[arg-type]
    return found
