"""The job's work: the training, a classifier on what it gives, and, if asked for, cross-entropy beside it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from precis.contrastive.ntxent import ProjectionHead
from precis.contrastive.supcon import BalancedBatches, LinearHead, SupConModel
from precis.errors import InputError
from precis.papers.contrastive_pictures import Pictures
from precis.papers.contrastive_run import Recipe, run_contrastive
from precis.papers.job import Work
from precis.papers.work import save, save_table, writing
from precis.train.checkpoint import load_model, save_model
from precis.train.classify import predict, score

from .beside import Beside
from .confusions import confused_pairs

FEW = 2  # pictures of a class in a batch on average, below which batches are balanced
LEAST = 8  # pictures that a balanced batch has room for, at least
NAME, LIST = "classifier", "classes.json"


class _Made(NamedTuple):
    model: nn.Module
    pictures: Pictures


def run_supcon(job: Any, work: Work) -> dict[str, float | None]:
    """`run_contrastive` with the supervised loss, then the classifier and what it confuses."""
    made: list[_Made] = []

    def make(
        job: Any, pictures: Pictures, encoder: nn.Module, head: ProjectionHead, batch: int, generator: torch.Generator
    ) -> Recipe:
        _check(job, pictures)
        labels = pictures.labels[torch.from_numpy(pictures.trained)].to(work.device)
        supervised = SupConModel(encoder, head, job.temperature or 0.1, reduction_form=job.form)
        model: Any = supervised
        if job.compare == "ce":
            model = Beside(supervised, len(pictures.classes), generator)
        made.append(_Made(model, pictures))

        def loss(views: tuple[Tensor, ...], chosen: Tensor) -> Any:
            return model.loss(views, labels[chosen])

        return Recipe(model, loss, job.n_views, _batches(job, work, labels.cpu(), batch))

    metrics = run_contrastive(job, work, make)
    first = _classifier(work, *made[0]) if made else _classify_others(job, work)
    return first | {name: value for name, value in metrics.items() if name not in first}


def _check(job: Any, pictures: Pictures) -> None:
    if not pictures.labelled:
        raise InputError("classes are wanted, two at least: a sub-folder each, a column of labels, or --labels CSV "
                         "(`precis run ntxent` learns without)", file=job.input)  # fmt: skip
    counts = torch.bincount(pictures.labels[torch.from_numpy(pictures.trained)].clamp(min=-1) + 1)[1:]
    if int((counts > 1).sum()) < 2:
        raise InputError("at least two classes with two pictures to train on are wanted", file=job.input)


def _batches(job: Any, work: Work, labels: Tensor, batch: int) -> Any:
    """A function generator → batches; None: the plain ones."""
    known = labels[labels >= 0]
    missing = len(labels) - len(known)
    mean = batch * len(known) / len(labels) / len(known.unique())
    left_out = bool(missing) and job.unlabelled == "ignore"
    few = mean < FEW and batch >= LEAST
    if job.balanced == "no" or not (job.balanced == "yes" or left_out or few):
        if left_out:
            raise InputError("--unlabelled ignore draws balanced batches: leave --balanced at auto")
        if mean < FEW:
            work.note(f"a batch of {batch} has {mean:.1f} pictures of a class on average: many have no positive but "
                      "their own views (--balanced yes)")  # fmt: skip
        return None
    make = lambda generator: BalancedBatches(labels, batch, generator)
    plan = make(torch.Generator())
    work.note(f"batches are balanced: {plan.classes} classes with {plan.each} pictures each (a random batch of {batch} "
              f"has {mean:.1f} of a class on average)")  # fmt: skip
    if missing:
        work.note(f"the {missing} pictures without a label are in no batch")
    return make


@torch.no_grad()
def _classifier(work: Work, model: nn.Module, pictures: Pictures) -> dict[str, float | None]:
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
    if isinstance(model, Beside):
        said["ce"] = predict(model.classify, pictures.images[held]).argmax(1).cpu()
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
        work.note(f"supervised contrastive {found['linear'].value:.1%}, cross-entropy {found['ce'].value:.1%} of "
                  f"{int(held.sum())} held-out pictures; {int((first & ~second).sum())} are told by the first alone, "
                  f"{int((second & ~first).sum())} by the second")  # fmt: skip
    return metrics


def _table(path: Path, pictures: Pictures, fitted: Tensor, found: dict[str, Any]) -> None:
    """A row a class: pictures it was learned from and tested on, the share of them found, and of its answers right."""
    counts = torch.bincount(pictures.labels[fitted], minlength=len(pictures.classes))
    sides, rows = {"linear": "", "ce": "_ce"}, []
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
