"""The job of CLAE: training beside the encoder that is kept, and how hard its pairs were."""

import io
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.contrastive.clae import CLAE, adversarial_bn, with_dual_bn
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

TEMPERATURES = {"nt_xent": 0.5, "plain": 0.1, "uel": 0.1}
PAIRS = 256  # pictures whose pairs are looked at
ATTACKED = 500  # held-out pictures, at most, of the accuracy under an attack
COLOURS = {"clean": "#2b7bba", "adversarial": "#cc4f0a"}


class Snapshot(NamedTuple):
    """Cosines of positives [N] and of negatives, of clean pairs and of adversarial ones."""

    positives: dict[str, np.ndarray]
    negatives: dict[str, np.ndarray]


def run_clae(job: Any, work: Work) -> dict[str, float | None]:
    """Train or embed, as the job says; returns the metrics."""
    eps = parse_eps(job.eps)
    if eps == 0 and job.weight:
        raise InputError("--eps 0 is no adversary: a size above 0, such as 4/255, or --weight 0")
    seen: dict[str, Any] = {}
    snapshots: list[Snapshot] = []

    def make(
        job: Any, pictures: Pictures, encoder: nn.Module, head: ProjectionHead, batch: int, generator: torch.Generator
    ) -> Recipe:
        tau = job.temperature or TEMPERATURES[job.base]
        model = CLAE(with_dual_bn(encoder), head, eps, job.weight, tau, job.base, source=job.source)
        views = _views(job, pictures, work.device)
        seen.update(pictures=pictures, encoder=encoder, model=model, views=views)
        snapshots.append(_snapshot(model.to(work.device), views))

        def loss(views: tuple[Tensor, ...], chosen: Tensor) -> dict[str, Tensor]:
            total, parts = model.loss(views[0], views[1])
            return {"loss": total, "clean": parts.clean, "adversarial": parts.adversarial}

        return Recipe(model, loss, passes=11 if job.weight else 6)

    metrics = run_contrastive(job, work, make)
    if seen:
        snapshots.append(_snapshot(seen["model"], seen["views"]))
        save(work.folder / "hardness.png", _picture(snapshots))
        work.show("hardness.png")
        work.show("gallery.png")
        clean, hard = (snapshots[-1].negatives[name].mean() for name in COLOURS)
        metrics |= {"negatives_cosine": float(clean), "negatives_cosine_adversarial": float(hard)}
    if seen and seen["pictures"].labelled:
        metrics |= _attacked(work, seen["pictures"], seen["encoder"], eps)
    return metrics


def _views(job: Any, p: Pictures, device: str) -> tuple[Tensor, Tensor]:
    """Two views of some pictures of the training."""
    x = p.images[torch.from_numpy(p.trained[:: max(1, len(p.trained) // PAIRS)][:PAIRS])].to(device)
    views, noise = preset(views_name(job, p), int(x.shape[-1])), torch.Generator().manual_seed(job.seed)
    return to_input(views(x, noise)), to_input(views(x, noise))


@torch.no_grad()
def _snapshot(model: CLAE, views: tuple[Tensor, ...]) -> Snapshot:
    """The pairs of a batch as the losses see them, with batch statistics; nothing of the model moves."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    was = model.training
    model.train()
    moved = model.adversary(views[0], views[1])
    z = F.normalize(model(torch.cat(views[:2]))[1].float(), dim=1)
    with adversarial_bn(model):
        attacked = F.normalize(model(moved)[1].float(), dim=1)
    model.load_state_dict(state)
    model.train(was)
    a, b = z.split(len(attacked))
    itself = torch.eye(len(a), dtype=torch.bool)
    pairs = {"clean": (a @ b.T).cpu(), "adversarial": (a @ attacked.T).cpu()}
    positives, negatives = ({k: s[mask].numpy() for k, s in pairs.items()} for mask in (itself, ~itself))
    return Snapshot(positives, negatives)


def _picture(snapshots: list[Snapshot]) -> bytes:
    """Histograms of cosines before and after training, each to a height of 1: positives filled, negatives as lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(snapshots), 3.2), layout="constrained")
    bins = np.linspace(-1, 1 + 1e-6, 61)
    for i, (title, shot) in enumerate(zip(("before training", "after training"), snapshots)):
        axes = figure.add_subplot(1, len(snapshots), i + 1)
        for name, colour in COLOURS.items():
            for cosines, fill, label in ((shot.positives, True, "same picture"), (shot.negatives, False, "others")):
                counts = np.histogram(cosines[name], bins)[0]
                axes.stairs(counts / counts.max(), bins, color=colour, fill=fill, alpha=0.45 if fill else 1,
                            linewidth=1.5, label=f"{label}, {name}")  # fmt: skip
        axes.set(title=title, xlabel="cosine with the anchor", yticks=[])
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.set_ylim(0, 1.5)
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=2)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160)
    return out.getvalue()


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
    return {"attacked_accuracy": found["attacked"]}
