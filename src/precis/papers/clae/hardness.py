"""The job of CLAE: training beside the encoder that is kept, and how hard its pairs were."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from precis.contrastive.clae import CLAE, with_dual_bn
from precis.contrastive.ntxent import ProjectionHead
from precis.contrastive.robustness import AttackSpec, robust_accuracy, robust_linear
from precis.errors import InputError
from precis.nn.attacks import parse_eps
from precis.papers.contrastive_pictures import Pictures
from precis.papers.contrastive_run import Recipe, run_contrastive, views_name
from precis.papers.job import Work
from precis.papers.work import save
from precis.train.augment import preset
from precis.train.classify import to_input

from .pairs import KINDS, Watched, picture

TEMPERATURES = {"nt_xent": 0.5, "plain": 0.1, "uel": 0.1}
PAIRS = 256  # pictures whose pairs are looked at
ATTACKED = 500  # held-out pictures, at most, of the accuracy under an attack


def run_clae(job: Any, work: Work) -> dict[str, float | None]:
    """Train or embed, as the job says; returns the metrics."""
    eps = parse_eps(job.eps)
    if eps == 0 and job.weight:
        raise InputError("--eps 0 is no adversary: a size above 0, such as 4/255, or --weight 0")
    seen: dict[str, Any] = {}

    def make(
        job: Any, pictures: Pictures, encoder: nn.Module, head: ProjectionHead, batch: int, generator: torch.Generator
    ) -> Recipe:
        tau = job.temperature or TEMPERATURES[job.base]
        model = CLAE(with_dual_bn(encoder), head, eps, job.weight, tau, job.base, source=job.source).to(work.device)
        watched = Watched(model, _views(job, pictures, work.device))
        seen.update(pictures=pictures, encoder=encoder, watched=watched)

        def loss(views: tuple[Tensor, ...], chosen: Tensor) -> dict[str, Tensor]:
            watched.before_step()
            total, parts = model.loss(views[0], views[1])
            return {"loss": total, "clean": parts.clean, "adversarial": parts.adversarial}

        return Recipe(watched, loss, passes=11 if job.weight else 6)

    metrics = run_contrastive(job, work, make)
    if seen:
        last = seen["watched"].look()
        save(work.folder / "hardness.png", picture(seen["watched"].moments))
        work.show("hardness.png")
        work.show("gallery.png")
        clean, hard = (last[kind][1].mean() for kind in KINDS)
        metrics |= {"negatives_cosine": float(clean), "negatives_cosine_adversarial": float(hard)}
    if seen and seen["pictures"].labelled:
        metrics |= _attacked(work, seen["pictures"], seen["encoder"], eps)
    return metrics


def _views(job: Any, p: Pictures, device: str) -> tuple[Tensor, Tensor]:
    """Two views of some pictures of the training."""
    x = p.images[torch.from_numpy(p.trained[:: max(1, len(p.trained) // PAIRS)][:PAIRS])].to(device)
    views, noise = preset(views_name(job, p), int(x.shape[-1])), torch.Generator().manual_seed(job.seed)
    return to_input(views(x, noise)), to_input(views(x, noise))


def _attacked(work: Work, p: Pictures, encoder: nn.Module, eps: float) -> dict[str, float | None]:
    """Accuracy of a linear layer on held-out pictures, as they are and under twenty steps of PGD of size eps."""
    labels = p.labels.numpy()
    train, test = np.flatnonzero((labels >= 0) & ~p.held), np.flatnonzero((labels >= 0) & p.held)[:ATTACKED]
    if not len(test) or eps == 0:
        return {}
    device = next(encoder.parameters()).device
    layer = robust_linear(encoder, (p.images[train].to(device), p.labels[train].to(device)), classes=len(p.classes))
    found = robust_accuracy(
        nn.Sequential(encoder, layer), p.images[test].to(device), p.labels[test].to(device),
        attacks=[AttackSpec("attacked", eps)], generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    work.note(f"a linear layer is right on {100 * found['clean']:.1f} % of {len(test)} held-out pictures, and on "
              f"{100 * found['attacked']:.1f} % under an attack of {255 * eps:.3g}/255; the method does not aim at "
              "robustness")  # fmt: skip
    return {"clean_accuracy_attacked_layer": found["clean"], "attacked_accuracy": found["attacked"]}
