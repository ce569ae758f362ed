"""Which task an input and its options mean, which options a task takes, and a task's own defaults."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from precis.errors import InputError
from precis.papers.job import option_of


class Task(NamedTuple):
    """`module` holds `run_<task>`; `kinds` of INPUT; the options that it takes beside those of the fit; defaults."""

    module: str
    kinds: tuple[str, ...]
    takes: frozenset[str]
    steps: int = 1000
    lr: float = 1e-3
    batch: int = 4096
    omega: float = 30.0


PICTURE = frozenset({"size", "linear", "background"})
EQUATION = frozenset({"size", "speeds", "source", "source_width"})
TASKS = {
    "fit": Task("tasks_image", ("image",), PICTURE | {"align_corners"}),
    "resample": Task("tasks_image", ("image",), PICTURE | {"align_corners", "scale"}, steps=2000),
    "poisson": Task("tasks_gradient", ("image",), PICTURE | {"from_"}, lr=2e-4),
    "blend": Task("tasks_gradient", ("image",), PICTURE | {"blend", "alpha", "rule", "mask", "resize"}, lr=2e-4),
    "sdf": Task("tasks_shape", ("points",), frozenset({"estimate_normals", "mesh_resolution"}), 1500, 1e-4, 1400, 10.0),
    "audio": Task("tasks_signal", ("audio",), frozenset({"rate"}), lr=2e-4, omega=3000.0),
    "video": Task("tasks_signal", ("frames",), frozenset({"size", "align_corners", "background", "fps"}), 2000),
    "helmholtz": Task("tasks_field", ("image",), EQUATION | {"velocity", "wavenumber"}, 3000, 2e-4, 2048, 15.0),
    "wave": Task("tasks_field", ("image",), EQUATION | {"initial", "until"}, 3000, 2e-4, 2048),
    "prior": Task("tasks_prior", ("images",),
                  frozenset({"size", "background", "complete", "context", "samples", "interpolate", "render"}),
                  4000, 5e-4, 32),  # fmt: skip
}
SHARED = {"input", "seed", "device", "task", "steps", "minutes", "lr", "batch", "width", "omega"}


def settle(job: Any) -> str:
    """The task; InputError for an option that it does not take, or an INPUT of another kind."""
    task = _task_of(job)
    for f in dataclasses.fields(job):
        if f.name in SHARED or f.name in TASKS[task].takes or getattr(job, f.name) == f.default:
            continue
        takers = [name for name, other in TASKS.items() if f.name in other.takes]
        raise InputError(f"{option_of(type(job), f.name)} belongs to --task {' or '.join(takers)}, not to {task}")
    if job.input is not None:
        if job.velocity is not None and Path(job.input) != job.velocity:
            raise InputError("--velocity and INPUT both name the map; give one of them")
        _check_kind(task, job.input)
    return task


def _task_of(job: Any) -> str:
    if job.task is not None:
        return str(job.task)
    hints = {"blend": job.blend, "resample": job.scale or has_cross(job.size), "poisson": job.from_}
    hints["helmholtz"] = job.velocity
    for task, given in hints.items():
        if given:
            return task
    if job.input is None:
        return "fit"
    from precis.data import kinds_of

    found = kinds_of(job.input)
    for kind, task in (("audio", "audio"), ("points", "sdf"), ("frames", "video"), ("image", "fit")):
        if kind in found:
            return task
    raise InputError("this is a set of pictures: --task prior learns from one; else name one picture", file=job.input)


def _check_kind(task: str, given: str) -> None:
    from precis.data import kinds_of

    wanted = TASKS[task].kinds
    found = kinds_of(given)
    if not found & set(wanted):
        looks = " or ".join(sorted(found)) or "nothing that precis reads"
        raise InputError(f"--task {task} works on {wanted[0]}, and this looks like {looks}", file=given)


def has_cross(size: str | None) -> bool:
    return size is not None and "x" in size.lower().replace("×", "x")


def sizes(text: str) -> int | tuple[int, int]:
    """--size: N, or W×H as (height, width)."""
    parts = text.lower().replace("×", "x").split("x")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 1 or max(numbers) > 65_536:
        raise InputError(f"--size must be a number of pixels such as 256, or 640x480 for --task resample, got {text!r}")
    return numbers[0] if len(numbers) == 1 else (numbers[1], numbers[0])


def side(job: Any, default: int) -> int:
    """--size where it must be one number."""
    if job.size is None:
        return default
    found = sizes(job.size)
    if isinstance(found, tuple):
        raise InputError(f"--size {job.size}: width and height are for --task resample; here it is one number")
    return found


def pair(option: str, text: str) -> tuple[float, float]:
    """Two numbers with a comma."""
    import math

    try:
        a, b = (float(part) for part in text.split(","))
        if math.isfinite(a) and math.isfinite(b):
            return a, b
    except ValueError:
        pass
    raise InputError(f"{option} must be two numbers with a comma, such as 0.5,2; got {text!r}")
