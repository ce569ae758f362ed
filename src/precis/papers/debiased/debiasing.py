"""The job's work: which τ⁺, the training, and what the model takes for negatives although it places them closest."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from precis.contrastive.debiased import LARGE, DebiasedSimCLR, class_prior
from precis.contrastive.ntxent import ProjectionHead
from precis.errors import InputError
from precis.lab.figures import contact_sheet
from precis.papers.contrastive_maps import PLAIN, RIGHT, WRONG, framed
from precis.papers.contrastive_outputs import neighbours
from precis.papers.contrastive_pictures import Pictures
from precis.papers.contrastive_run import Recipe, run_contrastive, views_name
from precis.papers.contrastive_training import make_views
from precis.papers.job import Work
from precis.papers.work import save, save_table
from precis.train.augment import preset

from .sweep import sweep

GUESS = 0.1
SAID = {1: "yes", 0: "no", -1: ""}
NEAREST, PAIRS, ABREAST = 5, 24, 6
KEY = ". Frames: green, of one class (a false negative); orange, of two; grey, not known"
BATCHES = 8  # that the share at the floor is measured on


def run_debiased(job: Any, work: Work) -> dict[str, float | None]:
    """`run_contrastive` with the debiased loss, and after it the share at the floor and the suspected negatives."""
    made: list[tuple[DebiasedSimCLR, Pictures, int]] = []

    def make(
        job: Any, pictures: Pictures, encoder: nn.Module, head: ProjectionHead, batch: int, generator: torch.Generator
    ) -> Recipe:
        build = lambda tau, f=encoder, g=head: model_of(job, f, g, tau)
        recipe = lambda model: recipe_of(model, job.positives)
        if job.sweep_tau is not None:
            tau = sweep(job, work, pictures, encoder, head, batch, build, recipe)
        else:
            tau = chosen_tau(job, work, pictures)
        if tau > LARGE:
            work.note(f"τ⁺ = {tau:.3g} is large: it says that {tau:.0%} of random pairs are of one kind")
        model = build(tau)
        made.append((model, pictures, batch))
        return recipe(model)

    metrics = run_contrastive(job, work, make)
    if not made:
        return metrics
    model, pictures, batch = made[0]
    metrics |= {"tau_plus": float(model.tau_plus), "at_floor": floor_share(job, model, pictures, batch, work.device)}
    if metrics["at_floor"] is not None and metrics["at_floor"] > 0.5:
        work.note(f"{metrics['at_floor']:.0%} of the anchors are at the floor, where negatives teach nothing: "
                  "--tau-plus is too large for this temperature and batch")  # fmt: skip
    return metrics | suspects(work, pictures)


def model_of(job: Any, encoder: nn.Module, head: nn.Module, tau_plus: float) -> DebiasedSimCLR:
    """The model of the job's options."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a large τ⁺ is told as a note
        return DebiasedSimCLR(encoder, head, job.temperature or 0.5, tau_plus)


def recipe_of(model: DebiasedSimCLR, positives: int) -> Recipe:
    """The loss and, to be watched, the share of anchors at the floor."""
    return Recipe(model, lambda views, chosen: model.parts(*views)._asdict(), positives + 1)


def chosen_tau(job: Any, work: Work, pictures: Pictures) -> float:
    """τ⁺ as --tau-plus says, with a note where it does not give the number."""
    if job.tau_plus not in ("auto", "labels", "unknown"):
        return float(job.tau_plus)
    known = pictures.labels[torch.from_numpy(pictures.trained)]
    known = known[known >= 0]
    if job.tau_plus == "labels" and not pictures.labelled:
        raise InputError("--tau-plus labels: there are no classes (sub-folders, or --labels FILE.csv); give a number, "
                         "1/(number of kinds) if they are alike frequent")  # fmt: skip
    if job.tau_plus == "unknown" or not pictures.labelled:
        work.note(f"τ⁺ is {GUESS:g}, a guess: if there are C kinds, alike frequent, --tau-plus is 1/C")
        return GUESS
    tau = class_prior(known)
    if tau >= 1:
        raise InputError("all labelled pictures that are trained on are of one class: give --tau-plus a number")
    work.note(f"τ⁺ is {tau:.3g}: how often two of the {len(known)} labelled training pictures are of one class")
    return tau


@torch.no_grad()
def floor_share(job: Any, model: DebiasedSimCLR, pictures: Pictures, batch: int, device: str) -> float:
    """Share of anchors at the floor, of the trained model on some batches of its pictures."""
    views = preset(views_name(job, pictures), int(pictures.images.shape[-1]))
    noise = torch.Generator().manual_seed(job.seed)
    order = torch.randperm(len(pictures.trained), generator=noise).numpy()
    model.eval()
    shares = []
    for part in range(0, min(len(order) - batch + 1, BATCHES * batch), batch):
        x = pictures.images[torch.from_numpy(pictures.trained[order[part : part + batch]])].to(device)
        shares.append(float(model.parts(*make_views(x, views, noise, job.positives + 1)).at_floor))
    return sum(shares) / len(shares)


def suspects(work: Work, p: Pictures) -> dict[str, float | None]:
    """`false_negatives.csv`: for each picture the negatives that lie closest to it, as the loss sees them, which are
    likely of its kind; a sheet of the closest pairs; and how many are of one class, where that is known."""
    with np.load(work.folder / "embeddings.npz") as arrays:
        z = torch.from_numpy(arrays["z"][p.trained])
    k = min(NEAREST, len(z) - 1)
    cosine, index = neighbours(z, k)
    labels = p.labels[torch.from_numpy(p.trained)]
    known = (labels[:, None] >= 0) & (labels[index] >= 0)
    same = labels[:, None] == labels[index]
    name = [p.names[i] for i in p.trained]
    alike = torch.where(known, same.long(), -1).tolist()
    lines = zip(index.tolist(), cosine.tolist(), alike)
    rows = ([name[i], r + 1, name[j], f"{c:.4f}", SAID[a]] for i, line in enumerate(lines)
            for r, (j, c, a) in enumerate(zip(*line)))  # fmt: skip
    head = ("name", "rank", "negative", "cosine", "same_class")
    save_table(work.folder / "false_negatives.csv", head, rows)
    _sheet(work.folder / "false_negatives.png", p, cosine, index, known, same)
    if not known.any():
        return {}
    return {"closest_same_class": float(same[known].float().mean()), "class_prior": class_prior(labels)}


def _sheet(path: Path, p: Pictures, cosine: Tensor, index: Tensor, known: Tensor, same: Tensor) -> None:
    """The closest pairs, each picture once; frames as in the gallery: one class, another, or not known."""
    tiles: list[np.ndarray] = []
    words: list[str] = []
    used: set[int] = set()
    for i in cosine[:, 0].argsort(descending=True).tolist():
        j = int(index[i, 0])
        if used & {i, j}:
            continue
        used |= {i, j}
        colour = PLAIN if not known[i, 0] else RIGHT if same[i, 0] else WRONG
        tiles.append(np.concatenate([framed(p.images[p.trained[at]], colour) for at in (i, j)], 2))
        words.append(f"{float(cosine[i, 0]):.2f}")
        if len(tiles) == PAIRS:
            break
    abreast = min(ABREAST, len(tiles))
    whole = len(tiles) // abreast * abreast
    title = "Closest pairs and their cosine" + (KEY if known.any() else "")
    sheet = contact_sheet(tiles[:whole], words[:whole], columns=abreast, title=title, size=72, gap=14)
    save(path, sheet)
