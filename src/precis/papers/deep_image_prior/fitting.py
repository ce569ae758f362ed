"""The fit of a job: networks for any size, large pictures in tiles, several runs averaged, resumable."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from precis.errors import InputError
from precis.fields.deep_image_prior import SkipNet, dip_input
from precis.fields.restoration import centre_pad, fit_untrained, padded_size
from precis.papers.job import Work
from precis.train.checkpoint import load_state, save_model, save_state

from .options import TASKS, network, size_of, steps_of
from .pictures import shown

CHECKPOINT = ".checkpoint"
OVERLAP = 32
RECOMPUTED = 1 << 20  # pixels from which the two finest scales are computed again in the backward pass
SIZES = {"small": 128 * 128, "middle": 256 * 256, "paper": 512 * 512}


@dataclass(frozen=True)
class Problem:
    """What a task hands to the fit: `target` [1,C,h,w] was measured of a picture `factor` times as large.

    `guide`: a picture that serves as z (flash).  `operator`: from the picture to the target, if not the identity.
    `noise`: the deviation of the noise on z, `sigma` of that on the target, where it is known.
    """

    target: Tensor
    channels: int
    factor: int = 1
    mask: Tensor | None = None
    guide: Tensor | None = None
    meshgrid: bool = False
    operator: Callable[[Tensor], Tensor] | None = None
    noise: float = 0.0
    sigma: float | None = None
    net: dict[str, Any] = field(default_factory=dict)


class Window(NamedTuple):
    """A square of the measured picture: rows and columns from … to."""

    top: int
    left: int
    bottom: int
    right: int

    def of(self, x: Tensor, factor: int = 1) -> Tensor:
        a, b, c, d = (n * factor for n in self)
        return x[..., a:c, b:d]


class Restored(NamedTuple):
    """Pictures [1,C,H,W], where the runs stopped, and the curves of the first fit."""

    best: Tensor
    ema: Tensor
    last: Tensor
    stopped: list[int]
    curve: dict[str, tuple[list[int], list[float]]]
    backtracks: int


def windows(size: tuple[int, int], tile: int, overlap: int) -> list[Window]:
    """Squares of `tile` that cover the picture and overlap by at least `overlap`, evenly spread; one if it fits."""
    spans = []
    for n in size:
        count = 1 if n <= tile else -(-(n - overlap) // (tile - overlap))
        starts = [round(i * (n - tile) / (count - 1)) for i in range(count)] if count > 1 else [0]
        spans.append([(start, min(start + tile, n)) for start in starts])
    return [Window(top, left, bottom, right) for top, bottom in spans[0] for left, right in spans[1]]


def blend(parts: list[Tensor], where: list[Window], size: tuple[int, int], factor: int) -> Tensor:
    """Tiles put together, each fading linearly towards its edges."""
    shape = (1, parts[0].shape[1], size[0] * factor, size[1] * factor)
    total, weights = torch.zeros(shape), torch.zeros(1, 1, *shape[2:])
    for part, window in zip(parts, where):
        ramps = [torch.minimum(torch.arange(1, n + 1), torch.arange(n, 0, -1)) / n for n in part.shape[-2:]]
        weight = torch.outer(*ramps)[None, None]
        window.of(total, factor).add_(part.cpu() * weight)
        window.of(weights, factor).add_(weight)
    return total / weights


def restore(job: Any, work: Work, problem: Problem) -> Restored:
    """Fit every tile in every run; their mean, put together."""
    cuda = work.device.startswith("cuda")
    tile = (1024 if cuda else 256) if job.tile is None else job.tile
    size = (problem.target.shape[-2], problem.target.shape[-1])
    side = max(64, tile) // problem.factor if tile else max(size)
    where = windows(size, side, OVERLAP // problem.factor) if tile and max(size) > side else [Window(0, 0, *size)]
    if len(where) > 1:
        work.note(f"the picture was fitted in {len(where)} tiles of {side * problem.factor} pixels (--tile)")
    _warn_of_size(job, work, problem, len(where))
    fits: list[list[dict[str, Any]]] = []
    for k, window in enumerate(where):
        fits.append([])
        for run in range(job.runs):
            place, turn = work.folder / CHECKPOINT / f"{k}-{run}", (k * job.runs + run, len(where))
            fits[-1].append(_finished(place) or _fit(job, work, problem, window, place, turn))
    mean = lambda name: [torch.stack([fit[name] for fit in runs]).mean(0) for runs in fits]
    best, ema, last = (blend(mean(name), where, size, problem.factor) for name in ("best", "ema", "last"))
    every = [fit for runs in fits for fit in runs]
    return Restored(
        best, ema, last, [fit["at"] for fit in every], every[0]["curve"], sum(fit["backtracks"] for fit in every)
    )


def _fit(
    job: Any, work: Work, problem: Problem, window: Window, place: Path, turn: tuple[int, int]
) -> dict[str, Any]:  # fmt: skip
    """One tile in one run."""
    number, tiles = turn
    fits, streams = tiles * job.runs, _streams(job.seed, number)
    target = window.of(problem.target).to(work.device)
    mask = None if problem.mask is None else window.of(problem.mask).to(work.device)
    if mask is not None and not mask.any():
        raise InputError("a tile holds no known pixel: fit the picture whole, with --tile 0")
    size = (target.shape[-2] * problem.factor, target.shape[-1] * problem.factor)
    multiple = 2 ** len(problem.net["down"])
    whole = padded_size((max(size[0], 2 * multiple), max(size[1], 2 * multiple)), multiple)
    z = _input(problem, window, whole, streams["input"])
    arguments = {"in_ch": z.shape[1], "out_ch": problem.channels, **problem.net}
    stop: Any = job.stop or TASKS[job.task].stop
    stop = "steps" if stop == "noise" and problem.sigma is None else stop
    recompute = 2 if whole[0] * whole[1] > RECOMPUTED else 0
    net = SkipNet(**arguments, recompute=recompute, generator=streams["init"]).to(work.device)
    steps, every = steps_of(job, job.task, work.device), max(10, (job.steps or 500) // 20)

    def look(step: int, out: Tensor, average: Tensor) -> None:
        if fits == 1:
            work.image("restored", shown(average))

    fit = fit_untrained(
        net, z.to(work.device), target, operator=problem.operator, mask=mask, crop=size, steps=steps,
        minutes=None if job.minutes is None else job.minutes / fits, lr=job.lr or TASKS[job.task].lr,
        input_noise=problem.noise, stop=stop, sigma=problem.sigma if stop == "noise" else None, callback=look,
        ema=_decay(steps), every=every, generator=streams["noise"], folder=place, resume=work.resume,
        log=lambda step, total, **scalars: work.log(number * total + step, fits * total, **scalars),
    )  # fmt: skip
    made = {
        "best": fit.best.cpu(), "ema": fit.ema.cpu(), "last": fit.last.cpu(), "at": fit.at,
        "backtracks": fit.backtracks,
        "curve": {name: (list(curve.steps), list(curve.values)) for name, curve in fit.curve.items()},
    }  # fmt: skip
    if fits == 1:
        save_model(work.folder, net, {name: list(v) if isinstance(v, tuple) else v for name, v in arguments.items()})
    save_state(place.with_suffix(".safetensors"), made)
    shutil.rmtree(place, ignore_errors=True)
    return made


def _decay(steps: int | None) -> float:
    """Of the average: the paper's 0.99, and in short runs a like share of the steps."""
    return 0.99 if steps is None else min(0.99, max(0.5, 1 - 10 / steps))


def _finished(place: Path) -> dict[str, Any] | None:
    path = place.with_suffix(".safetensors")
    return load_state(path) if path.exists() else None


def _input(problem: Problem, window: Window, whole: tuple[int, int], generator: torch.Generator) -> Tensor:
    if problem.guide is not None:
        return centre_pad(window.of(problem.guide), whole)
    if problem.meshgrid:
        return dip_input("meshgrid", 2, whole)
    return dip_input("noise", 32, whole, generator=generator)


def _streams(seed: int, number: int) -> dict[str, torch.Generator]:
    """Generators of one fit; those of the first depend on the job's seed alone."""
    names = ("init", "input", "noise")
    return {n: torch.Generator().manual_seed(3 * (seed * 100_003 + number) + i) for i, n in enumerate(names)}


def _warn_of_size(job: Any, work: Work, problem: Problem, tiles: int) -> None:
    """On a CPU a large picture takes long; say how long before it begins."""
    if work.device.startswith("cuda") or job.minutes is not None:
        return
    pixels = problem.target[0, 0].numel() * problem.factor**2
    size = size_of(job, work.device)
    work_of_a_pixel = {"small": 8e-6, "middle": 24e-6, "paper": 90e-6}[size]  # seconds a step on two cores
    minutes = pixels * work_of_a_pixel * (steps_of(job, job.task, work.device) or 0) * job.runs / 60
    if minutes > 10:
        work.note(
            f"{pixels:,} pixels take about {minutes:.0f} minutes on two cores at the most; --steps, --minutes or "
            "--size small make it shorter"
        )


def network_of(job: Any, work: Work, hole: str = "") -> dict[str, Any]:
    return network(job, job.task, work.device, hole)
