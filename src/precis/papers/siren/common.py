"""What all tasks share: the net, how it is trained and saved, pictures of numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from precis.fields.siren import Siren
from precis.papers.job import Work
from precis.papers.work import save
from precis.train.checkpoint import save_model
from precis.train.schedule import cosine

from .options import TASKS

CHECKPOINT = ".checkpoint"
Metrics = dict[str, float | int | None]
Scalars = dict[str, float]


def make_net(job: Any, work: Work, in_dim: int, out_dim: int, width: int = 256) -> Siren:
    """A SIREN with the job's width and ω, its weights drawn from the job's seed alone."""
    width = job.width or width
    omega = job.omega or TASKS[job.task].omega
    return Siren(in_dim, out_dim, width, first_omega=omega, generator=draw(job, "init")).to(work.device)


def draw(job: Any, purpose: str) -> torch.Generator:
    """A stream of random numbers for one purpose."""
    offset = ("init", "batches", "context", "sample").index(purpose)
    return torch.Generator().manual_seed(4 * job.seed + offset)


def training(
    job: Any, work: Work, measure: Callable[[Any], Scalars] | None = None, *, looks: int = 20,
    show: Callable[[Scalars], Scalars] = lambda scalars: scalars,
) -> dict[str, Any]:  # fmt: skip
    """The options of a recipe: budget, cosine, progress, checkpoints in the run's folder, `looks` measurements.

    show: from the loop's scalars to what people see; what was measured last is always among it.
    """
    task = TASKS[job.task]
    steps = job.steps or (None if job.minutes else task.steps)
    last: Scalars = {}

    def log(step: int, total: int, **scalars: float) -> None:
        last.update(scalars)
        work.log(step, total, **show(dict(last)))

    return {
        "steps": steps, "minutes": job.minutes, "lr": job.lr or task.lr, "schedule": cosine(), "measure": measure,
        "every": max(1, (steps or 1000) // looks), "log": log, "folder": work.folder / CHECKPOINT,
        "resume": work.resume,
    }  # fmt: skip


def batch_of(job: Any) -> int:
    return int(job.batch or TASKS[job.task].batch)


def finish(work: Work, net: nn.Module) -> Metrics:
    """Save the weights; what the model takes."""
    net.requires_grad_(False)
    if isinstance(net, Siren):
        save_model(work.folder, net, {
            "in_dim": net.in_dim, "out_dim": net.out_dim, "width": net.width, "hidden_layers": net.hidden_layers,
            "omega": net.omega, "first_omega": net.first_omega,
        })  # fmt: skip
    size = (work.folder / "model.safetensors").stat().st_size
    return {"parameters": sum(p.numel() for p in net.parameters()), "model_bytes": size}


def write_curve(work: Work, name: str, run: Any, metric: str, label: str, *, log_y: bool = False) -> None:
    """A training curve as PNG."""
    from precis.lab.figures import curves

    if metric in run.curves:
        curve = run.curves[metric]
        save(work.folder / name, curves({metric: (curve.steps, curve.values)}, y_label=label, log_y=log_y).png())


def psnr_of(a: np.ndarray, b: np.ndarray, peak: float = 1.0) -> float:
    """−10 log₁₀ of the mean square difference over peak²; inf where the two are equal."""
    error = float(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))
    with np.errstate(divide="ignore"):
        return float(-10 * np.log10(error / peak**2))


def file_bytes(path: str | Path) -> int:
    return Path(path).stat().st_size


def diverging(values: np.ndarray, peak: float) -> np.ndarray:
    """[H,W] in −peak … peak to [3,H,W]: blue below, white at 0, red above."""
    x = np.clip(np.asarray(values, np.float64) / (peak or 1.0), -1, 1)
    red, blue = (np.array(colour)[:, None, None] for colour in ((0.70, 0.09, 0.17), (0.13, 0.40, 0.67)))
    ends = np.where(x > 0, red, blue)
    return np.asarray(1 - (1 - ends) * np.abs(x)[None] ** 0.8)


def numpy(x: Tensor) -> np.ndarray:
    return np.asarray(x.detach().float().cpu().numpy())
