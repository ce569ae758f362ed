"""What the claims have in common: training an encoder in one of the ways, and attacking a classifier on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from precis.contrastive.ntxent import SimCLR
from precis.contrastive.robustness import AttackSpec, SupervisedAT, robust_correct, robust_linear
from precis.contrastive.rocl import RoCL
from precis.lab.claim import Metrics, Recorder
from precis.nn.attacks import Norm
from precis.papers.contrastive_sets import Pool, Setting
from precis.papers.contrastive_training import fit_arm, head_on, make_encoder, make_views, views_of

STRONG = {"steps": 50, "restarts": 5}


@dataclass(frozen=True)
class Plan(Setting):
    """A `Setting`, the attack that is trained and tested against (ℓ∞ of radius eps, steps of 2.5 eps/number of them),
    the radii of norms that no training sees, and how long the linear layer is fitted on attacked pictures.

    strong: so many test pictures are also attacked in 50 steps from 5 starts.
    """

    eps: float = 0.1
    attack_steps: int = 3
    test_steps: int = 10
    l2: tuple[float, ...] = (0.28, 0.56)
    l1: tuple[float, ...] = (0.98, 1.49)
    linear_epochs: int = 10
    strong: int = 100


def passes(method: str, s: Plan) -> int:
    """Forward and backward passes of a picture that a step of a method makes, in sixths: of three for weights and
    input, of two for an input alone, of one forward."""
    k = 2 * s.attack_steps
    return {"simclr": 6, "noise": 9, "rocl": 10 + k, "at": 3 + k}[method]


def steps_of(method: str, s: Plan) -> int:
    """AT has as many passes in all as RoCL, so more steps; the others have RoCL's steps."""
    return round(s.steps * passes("rocl", s) / passes("at", s)) if method == "at" else s.steps


def train_encoder(
    method: str, s: Plan, pool: Pool, record: Recorder, streams: Mapping[str, torch.Generator] | None = None
) -> nn.Module:
    """The trained model of a method, its encoder drawn by `init`: SimCLR, RoCL, RoCL with random signs for the attack
    ("noise"), or with labels SupervisedAT.  `data` orders the batches, `noise` the views, `eval` begins the attacks;
    `streams`: others than the record's.
    """
    streams = record.streams if streams is None else streams
    model, views = _model(method, s, pool, streams["init"]), views_of(s.views, s.size)
    noise, starts = streams["noise"], streams["eval"]

    def loss(chosen: Tensor) -> Any:
        x = pool.images[chosen]
        if isinstance(model, SupervisedAT):
            (view,) = make_views(x, views, noise, 1)
            return model.loss(view, pool.labels[chosen], starts)
        v1, v2 = make_views(x, views, noise)
        if isinstance(model, SimCLR):
            return model.loss(v1, v2)
        assert isinstance(model, RoCL)
        total, parts = model.loss(v1, v2, starts)
        return {"loss": total, "clean": parts.clean}

    length = replace(s, steps=steps_of(method, s))
    fit_arm(length, model, loss, len(pool.images), record, order=streams["data"])
    return model.eval()


def _model(method: str, s: Plan, pool: Pool, generator: torch.Generator) -> nn.Module:
    encoder = make_encoder(s, pool.images, generator)
    if method == "at":
        return SupervisedAT(encoder, pool.classes, s.eps, None, s.attack_steps, generator=generator)
    head = head_on(encoder, generator)
    if method == "simclr":
        return SimCLR(encoder, head, s.temperature)
    attack = "noise" if method == "noise" else "instance"
    return RoCL(encoder, head, s.eps, None, s.attack_steps, s.temperature, attack=attack)


def classifier(
    s: Plan, encoder: nn.Module, pool: Pool, starts: torch.Generator, *, adversarial: bool = False
) -> nn.Module:
    """The frozen encoder and a linear layer fitted on the pool's labels (LE), or on attacked pictures (r-LE)."""
    layer = robust_linear(
        encoder, (pool.images, pool.labels), adversarial=adversarial, eps=s.eps, alpha=None, steps=s.attack_steps,
        epochs=s.linear_epochs, batch=s.batch, classes=pool.classes, generator=starts,
    )  # fmt: skip
    return nn.Sequential(encoder, layer).eval()


def judge(s: Plan, net: nn.Module, pool: Pool, seed: int) -> Metrics:
    """Percentages of test pictures told right: `clean`, and under the ℓ∞ attack of more steps than in training
    (`robust`)."""
    return {**_shares(net, pool, seed, {"clean": None, "robust": AttackSpec("robust", s.eps, steps=s.test_steps)})}


def judge_strong(s: Plan, net: nn.Module, pool: Pool, seed: int) -> float:
    """The percentage under 50 steps from 5 starts, of the first `s.strong` pictures."""
    first = Pool(pool.images, pool.labels, pool.test_images[: s.strong], pool.test_labels[: s.strong])
    return _shares(net, first, seed, {"": AttackSpec("strong", s.eps, **STRONG)})[""]  # type: ignore[arg-type]


def judge_unseen(s: Plan, net: nn.Module, pool: Pool, seed: int) -> Metrics:
    """Percentages under attacks in ℓ2 and ℓ1, and their mean (`unseen`)."""
    radii: list[tuple[Norm, float]] = [*(("l2", eps) for eps in s.l2), *(("l1", eps) for eps in s.l1)]  # type: ignore[list-item]
    attacks = {f"{norm}_{eps:g}": AttackSpec(norm, eps, norm, s.test_steps) for norm, eps in radii}
    found = _shares(net, pool, seed, attacks)
    return {**found, "unseen": math.fsum(found.values()) / len(found)}


def _shares(net: nn.Module, pool: Pool, seed: int, attacks: Mapping[str, AttackSpec | None]) -> dict[str, float]:
    starts = torch.Generator().manual_seed(seed)
    right = lambda attack: robust_correct(net, pool.test_images, pool.test_labels, attack, generator=starts)
    return {name: 100 * float(right(attack).float().mean()) for name, attack in attacks.items()}
