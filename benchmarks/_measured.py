"""What several benchmarks need: a timed comparison as a row of the table, and the peak memory of a fresh process."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch

from precis.lab.timing import Timing, interleaved

_RESET = Path("/proc/self/clear_refs")


class Side(Protocol):
    """One of the sides of a comparison: a training that goes on where it was."""

    def run(self, steps: int) -> float:
        """The loss after so many more steps."""
        ...


def columns(what: str, threads: int, timing: Timing, steps: int) -> dict[str, Any]:
    """The columns of sides "plain" and "ours", each timed over blocks of `steps`."""
    return {
        "what": what, "threads": threads, "plain ms/step": 1e3 * timing.medians["plain"] / steps,
        "ours ms/step": 1e3 * timing.medians["ours"] / steps, "ratio": timing.ratio,
        "interval": between(timing.interval),
    }  # fmt: skip


def versus(
    what: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int, **more: Any
) -> dict[str, Any]:  # fmt: skip
    """A row that times "ours" against "theirs" in turns; `ratio` is theirs over ours."""
    timing = interleaved({"theirs": theirs, "ours": ours}, repeats, warmup=1)
    return {
        "what": what, "ours ms": 1e3 * timing.medians["ours"], "theirs ms": 1e3 * timing.medians["theirs"],
        "ratio": timing.ratio, "95 %": f"{timing.interval[0]:.2f}…{timing.interval[1]:.2f}",
        "threads": torch.get_num_threads(), **more,
    }  # fmt: skip


def between(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f}-{interval[1]:.2f}"


def peak_mb(make: Callable[..., Side], case: Any, tiny: Any, *more: Any) -> float:
    """Growth of a fresh process's peak memory, MB, by two steps of make(case, *more); 0 where Linux does not tell.

    `make` is a function of a module.  Two steps of `tiny` come first: they load what a step needs of the libraries.
    """
    if not _RESET.exists():
        return 0.0
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_growth, make, (tiny, case), more).result()


def _growth(make: Callable[..., Side], cases: tuple[Any, Any], more: tuple[Any, ...]) -> float:
    torch.set_num_threads(1)
    for case in cases:
        side = make(case, *more)
        _RESET.write_text("5")  # the peak starts from here
        before = _status("VmRSS")
        side.run(2)
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """A field of Linux's /proc/self/status, kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))
