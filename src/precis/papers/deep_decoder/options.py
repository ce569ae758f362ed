"""Which task an input and its options mean, and which options a task takes."""

import dataclasses
from pathlib import Path
from typing import Any

from precis.errors import InputError
from precis.papers.job import option_of
from precis.papers.tiles import check_tile

MAGIC = b"\x89PDD"
FIT = {"steps", "minutes", "lr", "width", "order", "size", "background"}
RESTORE = FIT | {"reference", "tile", "linear"}
TAKES = {
    "compress": FIT | {"ratio", "rates", "bytes", "bits"}, "decompress": set[str](), "denoise": RESTORE | {"sigma"},
    "superres": RESTORE | {"factor"}, "inpaint": RESTORE | {"mask", "invert_mask"},
}  # fmt: skip
MODULES = {
    "compress": "tasks_code", "decompress": "tasks_code", "denoise": "tasks_restore", "superres": "tasks_restore",
    "inpaint": "tasks_restore",
}  # fmt: skip
RATES = (0.008, 0.016, 0.031, 0.062, 0.125)  # the paper's two among them
MOST_RATES = 12
SHARED = {"input", "seed", "device", "task"}


def settle(job: Any) -> str:
    """The task; InputError for an option that it does not take, or an INPUT of another kind."""
    task = _task_of(job)
    for f in dataclasses.fields(job):
        if f.name in SHARED or f.name in TAKES[task] or getattr(job, f.name) == f.default:
            continue
        takers = [name for name, options in TAKES.items() if f.name in options]
        raise InputError(f"{option_of(type(job), f.name)} belongs to --task {' or '.join(takers)}, not to {task}")
    chosen = [f"--{name}" for name in ("ratio", "rates", "width", "bytes") if getattr(job, name) is not None]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)} each say how large the decoder is; give one of them")
    if job.sigma is not None:
        sigma_of(job.sigma)
    if job.rates is not None:
        rates_of(job.rates)
    check_tile(job.tile)
    if job.input is not None:
        _check_input(task, Path(job.input))
    return task


def sigma_of(text: str) -> float | None:
    """--sigma in [0, 1]; None for auto."""
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 255:
        raise InputError(f"--sigma must be auto, or a number above 0 and up to 255, got {text!r}")
    return value / 255


def rates_of(text: str) -> list[float]:
    """The ratios of --rates: weights a value of the picture."""
    if text == "auto":
        return list(RATES)
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not (2 <= len(found) <= MOST_RATES and all(0 < ratio <= 10 for ratio in found)):
        raise InputError(
            f"--rates must be auto, or two to {MOST_RATES} ratios above 0 and up to 10 with commas between, as in "
            f"0.01,0.031,0.125, got {text!r}"
        )
    return found


def _task_of(job: Any) -> str:
    if job.task is not None:
        return str(job.task)
    if job.input is not None and is_code(Path(job.input)):
        return "decompress"
    for option, task in (("mask", "inpaint"), ("factor", "superres"), ("sigma", "denoise")):
        if getattr(job, option) is not None:
            return task
    return "compress"


def is_code(path: Path) -> bool:
    """Whether a file is, or by its name should be, a code."""
    if path.suffix.lower() == ".pdd":
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def _check_input(task: str, path: Path) -> None:
    from precis.data import kinds_of

    if not path.exists():
        raise InputError("no such file; INPUT is a picture or a .pdd file", file=path)
    if not path.is_file():
        raise InputError("INPUT is one picture or one .pdd file, not a folder", file=path)
    if task == "decompress":
        return
    if is_code(path):
        raise InputError(f"this is a .pdd code: --task decompress brings its picture back; {task} works on a picture",
                         file=path)  # fmt: skip
    found = kinds_of(path)
    if "image" not in found:
        looks = " or ".join(sorted(found)) or "nothing that precis reads"
        raise InputError(f"--task {task} works on a picture, and this looks like {looks}", file=path)
