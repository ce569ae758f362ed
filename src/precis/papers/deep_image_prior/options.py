"""Which task the options mean, which options a task takes, and the network and steps of each."""

import dataclasses
import math
from typing import Any, NamedTuple

from precis.errors import InputError
from precis.papers.job import option_of
from precis.papers.tiles import check_tile


class Task(NamedTuple):
    """`module` holds `run_<task>`; the options that it takes beside the shared ones; its own defaults.

    `steps`: with smaller networks than the paper's, `paper_steps`: with the paper's (but see CASES); `noise`: σ_p;
    `stop`: the default rule.
    """

    module: str
    takes: frozenset[str]
    steps: int
    paper_steps: int
    lr: float = 0.01
    noise: float = 0.0
    stop: str = "steps"


class Case(NamedTuple):
    """The paper's settings where a task has several; `lr` None: the task's."""

    paper_steps: int
    lr: float | None = None


CASES = {
    "pixels": Case(11_000, 0.001),  # inpaint: scattered pixels
    "large": Case(5001),  # inpaint: large regions (text and scratches: as the task)
    "x8": Case(4000),  # superres
    "weak": Case(3000),  # denoise: the fit has to come closer; the paper's notebook has so many, its table 1,800
}
WEAK = 15 / 255
FIT = frozenset({"reference", "runs", "tile", "stop", "linear"})
TASKS = {
    "denoise": Task("tasks", FIT | {"sigma"}, 1800, 1800, noise=1 / 30, stop="noise"),
    "jpeg": Task("tasks", FIT, 1000, 2400, noise=1 / 30),
    "superres": Task("tasks", FIT | {"factor"}, 1000, 2000, noise=0.03),
    "inpaint": Task("tasks", FIT | {"mask", "invert_mask", "hole"}, 1500, 6001, noise=0.03),
    "flash": Task("tasks", FIT | {"flash"}, 601, 601, lr=0.1),
    "invert": Task("task_invert", frozenset({"model", "weights", "layer"}), 1500, 3100, lr=0.001),
    "curves": Task("task_curves", frozenset(), 400, 2400),
}
SHARED = {"input", "seed", "device", "task", "steps", "minutes", "lr", "size"}
HINTS = {"inpaint": "mask", "superres": "factor", "flash": "flash"}


def settle(job: Any) -> str:
    """The task; InputError for an option that it does not take or that makes no sense."""
    task = job.task or next((t for t, field in HINTS.items() if getattr(job, field) is not None), None)
    task = task or ("invert" if job.model or job.layer else "denoise")
    for f in dataclasses.fields(job):
        if f.name in SHARED or f.name in TASKS[task].takes or getattr(job, f.name) == f.default:
            continue
        takers = [name for name, other in TASKS.items() if f.name in other.takes]
        raise InputError(f"{option_of(type(job), f.name)} belongs to --task {' or '.join(takers)}, not to {task}")
    if job.factor not in (None, 2, 4, 8):
        raise InputError(f"--factor must be 2, 4 or 8, got {job.factor}")
    noise_level(job)
    if job.weights is not None and job.model is None:
        raise InputError("--weights go with --model file.py:build")
    if task == "flash" and job.flash is None and job.companion is None and job.input is not None:
        raise InputError("--task flash needs --flash FILE, the picture with flash; INPUT is the one without")
    if job.stop == "noise" and task != "denoise":
        raise InputError(f"--stop noise needs to know the noise: it is for --task denoise, not for {task}")
    check_tile(job.tile)
    return str(task)


def noise_level(job: Any) -> float | None:
    """--sigma on the scale 0 … 1; None: to be estimated."""
    if job.sigma == "auto":
        return None
    try:
        value = float(job.sigma)
    except ValueError:
        value = math.nan
    if not 0 < value <= 255:
        raise InputError(f"--sigma must be auto or a number above 0 and up to 255, got {job.sigma!r}")
    return value / 255


def network(job: Any, task: str, device: str, hole: str = "") -> dict[str, Any]:
    """Arguments of `SkipNet` (but for in_ch, out_ch): the paper's for each task, with the channels of the size."""
    size = size_of(job, device)
    width, scales = {"small": (32, 4), "middle": (64, 5), "paper": (128, 5)}[size]
    if task == "jpeg":
        widths = tuple(min(8 * 2**i, width * 2) for i in range(scales))
        return {"down": widths, "up": widths, "skip": (0,) * (scales - 2) + (4, 4)}
    if task == "invert":
        scales = 6 if size == "paper" else scales
        widths, filters = (16, 32, 64, 128, 128, 128)[:scales], (7, 7, 5, 5, 3, 3)[:scales]
        return {"down": widths, "up": widths, "skip": (4,) * scales, "down_filter": filters, "up_filter": filters,
                "downsample": "avg", "upsample": "nearest", "pad": "zero"}  # fmt: skip
    skip: int = {"large": 0, "text": width}.get(hole, 4)
    made: dict[str, Any] = {"down": (width,) * scales, "up": (width,) * scales, "skip": (skip,) * scales}
    return made | ({"upsample": "nearest"} if hole in ("large", "text") else {})


def size_of(job: Any, device: str) -> str:
    return str(job.size or ("paper" if device.startswith("cuda") else "small"))


def steps_of(job: Any, task: str, device: str, case: str = "") -> int | None:
    """The most steps; None: --minutes alone."""
    if job.steps is not None:
        return int(job.steps)
    if job.minutes is not None:
        return None
    return paper_steps(task, case) if size_of(job, device) == "paper" else TASKS[task].steps


def paper_steps(task: str, case: str = "") -> int:
    return CASES[case].paper_steps if case in CASES else TASKS[task].paper_steps


def lr_of(job: Any, task: str, device: str, case: str = "") -> float:
    """Adam's rate; the paper's slow one for scattered pixels goes with its many steps."""
    slow = CASES[case].lr if case in CASES and size_of(job, device) == "paper" else None
    return float(job.lr or slow or TASKS[task].lr)
