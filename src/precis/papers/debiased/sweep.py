"""Several values of τ⁺ tried briefly, and the one taken whose held-out pictures are told best by their neighbours."""

import copy
import csv
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from precis.contrastive.debiased import DebiasedSimCLR
from precis.errors import InputError
from precis.papers.contrastive_pictures import Pictures
from precis.papers.contrastive_run import Recipe, budget_of, train_recipe
from precis.papers.job import Work
from precis.papers.work import save_table
from precis.train.classify import score
from precis.train.probe import embed, knn_predict

SHARE = 0.2  # of the job's own training, for each value
FILE = "sweep.csv"

Build = Callable[[float, nn.Module, nn.Module], DebiasedSimCLR]


def sweep(
    job: Any, work: Work, pictures: Pictures, encoder: nn.Module, head: nn.Module, batch: int, build: Build,
    recipe: Callable[[DebiasedSimCLR], Recipe],
) -> float:  # fmt: skip
    """The best of `job.swept()`; all are trained alike from the same weights.  `sweep.csv` has what each came to, and
    what an interrupted run has already chosen."""
    values = job.swept()
    memory, held = _judged_on(job, pictures)
    rows = _earlier(work.folder / FILE) if work.resume else []
    if [row[0] for row in rows] != list(values):
        rows = []
        for i, tau in enumerate(values):
            model = build(tau, copy.deepcopy(encoder), copy.deepcopy(head))
            with tempfile.TemporaryDirectory() as scratch:
                brief = _Brief(work, Path(scratch), work.device, i, len(values))
                brief_job = _briefly(job, pictures, encoder)
                run = train_recipe(brief_job, brief, pictures, recipe(model), model.encoder, batch)
            rows.append((tau, _told(job, pictures, model.encoder, memory, held), run.curves["at_floor"].values[-1]))
        save_table(work.folder / FILE, ("tau_plus", "knn_accuracy", "at_floor"), rows)
    best = max(rows, key=lambda row: (row[1], -row[0]))
    said = ", ".join(f"{tau:g}: {told:.1%}" for tau, told, _ in rows)
    work.note(f"τ⁺ is {best[0]:g}: after short trainings neighbours tell held-out pictures best there ({said}); of "
              f"{len(held)} pictures, {100 / len(held) ** 0.5:.0f} points and less say little, and as they chose it, "
              "the accuracy on them is a little too good")  # fmt: skip
    return best[0]


@dataclass
class _Brief:
    """What one of the short trainings has for its work: a folder of its own, and progress under another name."""

    work: Work
    folder: Path
    device: str
    place: int
    places: int
    resume: bool = False

    def log(self, step: int, total: int, **scalars: float) -> None:
        named = {f"sweep_{name}": value for name, value in scalars.items()}
        self.work.log(self.place * total + step, self.places * total, **named)

    def note(self, text: str) -> None:
        """Nothing: the training proper says it."""

    def image(self, name: str, pixels: Any, step: int | None = None) -> None:
        """Nothing is drawn."""

    def show(self, file: str) -> None:
        """Nothing is left to look at."""


def _briefly(job: Any, pictures: Pictures, encoder: nn.Module) -> Any:
    budget = budget_of(job, pictures, encoder)
    if budget.minutes is not None:
        return replace(job, minutes=SHARE * budget.minutes)
    return replace(job, epochs=SHARE * (budget.epochs or 1.0))


def _judged_on(job: Any, p: Pictures) -> tuple[torch.Tensor, torch.Tensor]:
    """Places of the labelled pictures that vote, and of those that are asked."""
    known = p.labels.numpy() >= 0
    memory, held = (torch.from_numpy(np.flatnonzero(known & part)) for part in (~p.held, p.held))
    if not p.labelled or not len(held) or not len(memory):
        raise InputError("--sweep-tau compares values by how well neighbours tell held-out pictures of known classes, "
                         "and there are none: give classes (sub-folders, or --labels FILE.csv), or --tau-plus, "
                         "1/(number of kinds) if they are alike frequent")  # fmt: skip
    return memory, held


def _told(job: Any, p: Pictures, encoder: nn.Module, memory: torch.Tensor, held: torch.Tensor) -> float:
    labels, known = p.labels, torch.cat([memory, held])
    h = embed(encoder, p.images[known]).cpu()
    n = len(p.classes)
    votes = knn_predict(h[: len(memory)], labels[memory], h[len(memory) :], min(job.k, len(memory)), classes=n)
    return score(votes.argmax(1), labels[held], n).value


def _earlier(path: Path) -> list[tuple[float, float, float]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(float(a), float(b), float(c)) for a, b, c in list(csv.reader(file))[1:]]
