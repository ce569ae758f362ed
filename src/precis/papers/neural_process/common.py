"""What all tasks share: how a net is trained and saved, and files of a run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from precis.papers.job import Work
from precis.papers.work import save
from precis.train.schedule import cosine

from .options import TASKS

CHECKPOINT = ".checkpoint"
END = 0.03  # the share of the rate that is left at the end of a training
Metrics = dict[str, float | int | None]


def draw(job: Any, purpose: str) -> torch.Generator:
    """A stream of random numbers for one purpose."""
    offset = ("init", "batches", "split", "eval").index(purpose)
    return torch.Generator().manual_seed(4 * job.seed + offset)


def training(job: Any, work: Work, show: Callable[[dict[str, float]], dict[str, float]] = dict) -> dict[str, Any]:
    """The options of a recipe: budget, schedule, progress, checkpoints in the run's folder."""
    task = TASKS[job.task]
    return {
        "steps": job.steps or (None if job.minutes else task.steps), "minutes": job.minutes, "lr": job.lr or task.lr,
        "schedule": cosine(END), "log": lambda step, total, **scalars: work.log(step, total, **show(scalars)),
        "clip": 5.0, "folder": work.folder / CHECKPOINT, "resume": work.resume,
    }  # fmt: skip


def batch_of(job: Any) -> int:
    return int(job.batch or TASKS[job.task].batch)


def width_of(job: Any) -> int:
    return int(job.width or TASKS[job.task].width)


def size_of(net: nn.Module) -> Metrics:
    return {"parameters": sum(p.numel() for p in net.parameters())}


def write_curve(work: Work, run: Any, label: str) -> None:
    """The training loss, its running mean over a fiftieth of the run, as loss.png."""
    import numpy as np

    from precis.lab.figures import curves

    work.curve("loss", *run.curves["loss"])
    steps, values = (np.asarray(x, float) for x in run.curves["loss"])
    span = max(1, len(values) // 50)
    smooth = np.convolve(values, np.ones(span) / span, "valid")
    save(work.folder / "loss.png", curves({"training": (steps[span - 1 :], smooth)}, y_label=label).png())
