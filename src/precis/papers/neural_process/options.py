"""Which task an input and its options mean, which options a task takes, and a task's own defaults."""

import dataclasses
from typing import Any, NamedTuple

from precis.errors import InputError
from precis.papers.job import option_of


class Task(NamedTuple):
    """`module` holds `run_<task>`; `kind` of INPUT; options that it takes beside those of the training; defaults."""

    module: str
    kind: str
    takes: frozenset[str]
    steps: int
    lr: float
    batch: int
    width: int


PICTURES = frozenset({"size", "background", "keep_going"})
TASKS = {
    "functions": Task("tasks_functions", "table", frozenset({"min_sigma", "latent", "recalibrate", "grid"}),
                      4000, 3e-3, 32, 128),
    "complete": Task("tasks_complete", "images", PICTURES | {"min_sigma", "latent", "recalibrate", "image", "context"},
                     5000, 3e-3, 32, 128),
    "few_shot": Task("tasks_few_shot", "images", PICTURES | {"ways", "shots"}, 1200, 2e-3, 16, 16),
}  # fmt: skip
SHARED = {"input", "seed", "device", "task", "steps", "minutes", "lr", "batch", "width"}


def settle(job: Any) -> str:
    """The task; InputError for an option that it does not take, or an INPUT of another kind."""
    task = _task_of(job)
    for f in dataclasses.fields(job):
        if f.name in SHARED or f.name in TASKS[task].takes or getattr(job, f.name) == f.default:
            continue
        takers = [name for name, other in TASKS.items() if f.name in other.takes]
        raise InputError(f"{option_of(type(job), f.name)} belongs to --task {' or '.join(takers)}, not to {task}")
    if job.input is not None:
        found = _kinds(job.input)
        if TASKS[task].kind not in found:
            looks = " or ".join(sorted(found)) or "nothing that precis reads"
            wanted = {"table": "a table of functions", "images": "a set of pictures"}[TASKS[task].kind]
            raise InputError(f"--task {task} works on {wanted}, and this looks like {looks}", file=job.input)
    return task


def _task_of(job: Any) -> str:
    if job.task is not None:
        return str(job.task)
    if job.ways is not None or job.shots is not None:
        return "few_shot"
    if job.image is not None or job.context is not None:
        return "complete"
    if job.input is not None:
        found = _kinds(job.input)
        if "images" in found:  # a CSV that names picture files is a table too
            return "complete"
    return "functions"


def _kinds(given: str) -> set[str]:
    from precis.data import kinds_of

    return kinds_of(given)
