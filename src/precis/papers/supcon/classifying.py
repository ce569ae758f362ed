"""The job's work: the training, a classifier on what it gives, and, if asked for, cross-entropy beside it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from precis.contrastive.ntxent import ProjectionHead
from precis.contrastive.supcon import LinearHead, SupConModel
from precis.errors import InputError
from precis.papers.contrastive_pictures import Pictures
from precis.papers.contrastive_run import Recipe, run_contrastive
from precis.papers.job import Work
from precis.papers.work import save, save_table, writing
from precis.train.checkpoint import load_model, save_model
from precis.train.classify import predict, score
from precis.train.probe import embed

from .batches import batches_of
from .beside import CrossEntropy, linear_steps, train_beside
from .confusions import confused_pairs

NAME, LIST = "classifier", "classes.json"


class _Made(NamedTuple):
    """What is trained, and, if it is asked for, cross-entropy's net, with the same first weights."""

    recipe: Recipe
    pictures: Pictures
    beside: CrossEntropy | None


def run_supcon(job: Any, work: Work) -> dict[str, float | None]:
    """`run_contrastive` with the supervised loss, then the classifier and what it confuses."""
    made: list[_Made] = []

    def make(
        job: Any, pictures: Pictures, encoder: nn.Module, head: ProjectionHead, batch: int, generator: torch.Generator
    ) -> Recipe:
        _check(job, pictures)
        labels = pictures.labels[torch.from_numpy(pictures.trained)].to(work.device)
        supervised = SupConModel(encoder, head, job.temperature or 0.1, reduction_form=job.form)
        beside = None
        if job.compare == "ce":
            beside = CrossEntropy(encoder, len(pictures.classes), generator).to(work.device)

        def loss(views: tuple[Tensor, ...], chosen: Tensor) -> Any:
            return supervised.loss(views, labels[chosen])

        batches = batches_of(job, work, labels.cpu(), batch)
        made.append(_Made(Recipe(supervised, loss, job.n_views, batches), pictures, beside))
        return made[0].recipe

    metrics = run_contrastive(job, work, make)
    if made and made[0].beside is not None:
        _train_beside(job, work, made[0], made[0].beside, metrics)
    first = _classifier(work, made[0].beside, made[0].pictures) if made else _classify_others(job, work)
    return first | {name: value for name, value in metrics.items() if name not in first}


def _check(job: Any, pictures: Pictures) -> None:
    if not pictures.labelled:
        raise InputError("classes are wanted, two at least: a sub-folder each, a column of labels, or --labels CSV "
                         "(`precis run ntxent` learns without)", file=job.input)  # fmt: skip
    counts = torch.bincount(pictures.labels[torch.from_numpy(pictures.trained)].clamp(min=-1) + 1)[1:]
    if int((counts > 1).sum()) < 2:
        raise InputError("at least two classes with two pictures to train on are wanted", file=job.input)


def _train_beside(job: Any, work: Work, made: _Made, model: CrossEntropy, metrics: dict[str, float | None]) -> None:
    """Cross-entropy at equal budget, and in the report what each arm had."""
    steps, batch, pictures = int(metrics["steps"] or 0), int(metrics["batch"] or 0), made.pictures
    fitted = int((pictures.labels[~torch.from_numpy(pictures.held)] >= 0).sum())
    more = linear_steps(fitted, job.n_views, batch)
    train_beside(job, work, pictures, model, made.recipe, batch, steps + more)
    metrics["ce_steps"] = float(steps + more)
    work.note(f"supervised contrastive had {steps} steps of {job.n_views} views of {batch} pictures, and then a linear "
              f"layer, fitted to the end on the {fitted} labelled pictures (linear_accuracy); cross-entropy had the "
              f"same first weights, batches and views, and {more} steps more, as many presentations as that layer's: "
              "ce_accuracy is of its own last layer, which was trained along with it, ce_linear_accuracy of a layer "
              "that is fitted on its encoder as the other arm's is")  # fmt: skip


@torch.no_grad()
def _classifier(work: Work, other: CrossEntropy | None, pictures: Pictures) -> dict[str, float | None]:
    """Fit and save the linear stage; what it says of the held-out pictures, class by class and in pictures."""
    h = torch.from_numpy(np.load(work.folder / "embeddings.npz")["h"])
    labels, n = pictures.labels, len(pictures.classes)
    known = labels >= 0
    held = known & torch.from_numpy(pictures.held)
    head = LinearHead(h.shape[1], n).fit(h[known & ~held], labels[known & ~held])
    save_model(work.folder, head, {"dim": h.shape[1], "classes": n}, name=NAME)
    with writing(work.folder / LIST) as beside:
        beside.write_text(json.dumps(pictures.classes, ensure_ascii=False) + "\n", encoding="utf-8")
    if not bool(held.any()):
        return {}
    said = {"linear": head(h[held]).argmax(1)}
    if other is not None:
        said["ce"] = predict(other, pictures.images[held]).argmax(1).cpu()
        features = embed(other.encoder, pictures.images).cpu()
        fitted = LinearHead(h.shape[1], n).fit(features[known & ~held], labels[known & ~held])
        said["ce_linear"] = fitted(features[held]).argmax(1)
    found = {name: score(answer, labels[held], n) for name, answer in said.items()}
    _table(work.folder / "classes.csv", pictures, known & ~held, found)
    picture = confused_pairs(pictures, torch.nonzero(held)[:, 0], said["linear"])
    if picture is not None:
        save(work.folder / "confusions.png", picture)
        work.show("confusions.png")
        work.show("gallery.png")
    metrics: dict[str, float | None] = {}
    for name, one in found.items():
        metrics |= {f"{name}_accuracy": one.value, f"{name}_low": one.interval[0], f"{name}_high": one.interval[1]}
    if "ce" in said:
        first, second = (said[name] == labels[held] for name in ("linear", "ce"))
        work.note(f"supervised contrastive {found['linear'].value:.1%}, cross-entropy {found['ce'].value:.1%} (by a "
                  f"layer fitted afterwards {found['ce_linear'].value:.1%}) of {int(held.sum())} held-out pictures; "
                  f"{int((first & ~second).sum())} are told by the first alone, {int((second & ~first).sum())} by the "
                  "second")  # fmt: skip
    return metrics


def _table(path: Path, pictures: Pictures, fitted: Tensor, found: dict[str, Any]) -> None:
    """A row a class: pictures it was learned from and tested on, the share of them found, and of its answers right."""
    counts = torch.bincount(pictures.labels[fitted], minlength=len(pictures.classes))
    sides, rows = {"linear": "", "ce": "_ce", "ce_linear": "_ce_linear"}, []
    for c, name in enumerate(pictures.classes):
        shares: list[str] = []
        for one in found.values():
            right = float(one.confusion[c, c])
            for total in (float(one.confusion[c].sum()), float(one.confusion[:, c].sum())):
                shares.append(f"{right / total:.3f}" if total else "")
        tested = int(next(iter(found.values())).confusion[c].sum())
        rows.append([name, int(counts[c]), tested, *shares])
    columns = (f"{what}{sides[name]}" for name in found for what in ("recall", "precision"))
    save_table(path, ("class", "learned_from", "tested_on", *columns), rows)


@torch.no_grad()
def _classify_others(job: Any, work: Work) -> dict[str, float | None]:
    """`classified.csv` of --task embed: the likeliest class of each picture and its probability."""
    source = Path(job.model)
    if not (source / f"{NAME}.json").is_file() or not (source / LIST).is_file():
        work.note(f"there is no classifier in {source.name}: pictures are embedded, not classified")
        return {}
    head, classes = load_model(source, name=NAME), json.loads((source / LIST).read_text(encoding="utf-8"))
    arrays = np.load(work.folder / "embeddings.npz")
    share, best = head(torch.from_numpy(arrays["h"])).softmax(1).max(1)
    rows = ([name, classes[b], f"{p:.3f}"]
            for name, b, p in zip(arrays["names"].tolist(), best.tolist(), share.tolist()))  # fmt: skip
    save_table(work.folder / "classified.csv", ("name", "class", "probability"), rows)
    return {"classified": float(len(best)), "mean_probability": float(share.mean())}
