"""The fit of a job: networks for any size, large pictures in tiles, several runs averaged, resumable."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from precis.fields.deep_image_prior import SkipNet, dip_input
from precis.fields.restoration import centre_pad, fit_untrained, padded_size
from precis.papers.job import Work
from precis.papers.restoring import place_of, seen_of
from precis.papers.tiles import Window, blend, cut, kept, tell
from precis.train.checkpoint import save_model

from .endings import stop_of, tell_of_stops
from .options import lr_of, network, paper_steps, size_of, steps_of
from .pictures import shown

CHECKPOINT = ".checkpoint"
RECOMPUTED = 1 << 20  # pixels from which the two finest scales are computed again in the backward pass


@dataclass(frozen=True)
class Problem:
    """What a task hands to the fit: `target` [1,C,h,w] was measured of a picture `factor` times as large.

    `guide`: a picture that serves as z (flash).  `operator`: from the picture to the target, if not the identity.
    `z_channels`: of a z of uniform noise.  `noise`: the deviation of the noise on z, `sigma` of that on the target,
    where it is known.  `case`: of `options.CASES`.
    """

    target: Tensor
    channels: int
    factor: int = 1
    mask: Tensor | None = None
    guide: Tensor | None = None
    meshgrid: bool = False
    z_channels: int = 32
    operator: Callable[[Tensor], Tensor] | None = None
    noise: float = 0.0
    sigma: float | None = None
    case: str = ""
    net: dict[str, Any] = field(default_factory=dict)


class Restored(NamedTuple):
    """Pictures [1,C,H,W], where the runs stopped, and the curves of the first fit."""

    best: Tensor
    ema: Tensor
    last: Tensor
    stopped: list[int]
    curve: dict[str, tuple[list[int], list[float]]]
    backtracks: int


def restore(job: Any, work: Work, problem: Problem) -> Restored:
    """Fit every tile in every run; their mean, put together."""
    default = 1024 if work.device.startswith("cuda") else 256
    size = (problem.target.shape[-2], problem.target.shape[-1])
    where = cut(size, job.tile, default, problem.factor, problem.mask)
    tell(work, where, problem.factor, _minutes(job, work, problem, where), "--steps, --minutes or --size small")
    _tell_of_steps(job, work, problem.case)
    fits: list[list[dict[str, Any]]] = []
    for k, window in enumerate(where):
        fits.append([])
        for run in range(job.runs):
            place, turn = work.folder / CHECKPOINT / f"{k}-{run}", ((k, len(where)), (run, job.runs))
            make = partial(_fit, job, work, problem, window, turn=turn)
            fits[-1].append(kept(place, make))
    mean = lambda name: [torch.stack([fit[name] for fit in runs]).mean(0) for runs in fits]
    best, ema, last = (blend(mean(name), where, size, problem.factor) for name in ("best", "ema", "last"))
    every = [fit for runs in fits for fit in runs]
    tell_of_stops(job, work, problem.sigma, every, steps_of(job, job.task, work.device, problem.case))
    return Restored(
        best, ema, last, [fit["at"] for fit in every], every[0]["curve"], sum(fit["backtracks"] for fit in every)
    )


def _fit(
    job: Any, work: Work, problem: Problem, window: Window, place: Path, *,
    turn: tuple[tuple[int, int], tuple[int, int]],
) -> dict[str, Any]:  # fmt: skip
    """One tile in one run; turn: which, as (number from 0, how many)."""
    (tile, tiles), (run, runs) = turn
    number, fits, seen = tile * runs + run, tiles * runs, seen_of(job)
    streams = _streams(job.seed, number)
    target = window.of(problem.target).to(work.device)
    mask = None if problem.mask is None else window.of(problem.mask).to(work.device)
    size = (target.shape[-2] * problem.factor, target.shape[-1] * problem.factor)
    multiple = 2 ** len(problem.net["down"])
    whole = padded_size((max(size[0], 2 * multiple), max(size[1], 2 * multiple)), multiple)
    z = _input(problem, window, whole, streams["input"])
    arguments = {"in_ch": z.shape[1], "out_ch": problem.channels, **problem.net}
    stop = stop_of(job, problem.sigma)
    recompute = 2 if whole[0] * whole[1] > RECOMPUTED else 0
    net = SkipNet(**arguments, recompute=recompute, generator=streams["init"]).to(work.device)
    steps, every = steps_of(job, job.task, work.device, problem.case), max(10, (job.steps or 500) // 20)

    def look(step: int, out: Tensor, average: Tensor) -> None:
        if fits == 1:
            work.image("restored", shown(seen(average)))

    fit = fit_untrained(
        net, z.to(work.device), target, operator=problem.operator, mask=mask, crop=size, steps=steps,
        minutes=None if job.minutes is None else job.minutes / fits, lr=lr_of(job, job.task, work.device, problem.case),
        input_noise=problem.noise, stop=stop, sigma=problem.sigma if stop == "noise" else None, callback=look,
        ema=_decay(steps), every=every, generator=streams["noise"], folder=place, resume=work.resume,
        log=lambda step, total, **scalars: work.log(number * total + step, fits * total, **scalars),
    )  # fmt: skip
    made = {
        "best": fit.best.cpu(), "ema": fit.ema.cpu(), "last": fit.last.cpu(), "at": fit.at,
        "backtracks": fit.backtracks,
        "curve": {name: (list(curve.steps), list(curve.values)) for name, curve in fit.curve.items()},
    }  # fmt: skip
    if (to := place_of(work, net, *turn)) is not None:
        save_net(to[0], net, arguments, to[1])
    return made


def save_net(folder: Path, net: SkipNet, arguments: dict[str, Any], name: str = "model") -> None:
    """Weights, and the arguments that build the network again."""
    save_model(folder, net, {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}, name=name)


def _decay(steps: int | None) -> float:
    """Of the average: the paper's 0.99, and in short runs a like share of the steps."""
    return 0.99 if steps is None else min(0.99, max(0.5, 1 - 10 / steps))


def _input(problem: Problem, window: Window, whole: tuple[int, int], generator: torch.Generator) -> Tensor:
    if problem.guide is not None:
        return centre_pad(window.of(problem.guide), whole)
    if problem.meshgrid:
        return dip_input("meshgrid", 2, whole)
    return dip_input("noise", problem.z_channels, whole, generator=generator)


def _streams(seed: int, number: int) -> dict[str, torch.Generator]:
    """Generators of one fit; those of the first depend on the job's seed alone."""
    names = ("init", "input", "noise")
    return {n: torch.Generator().manual_seed(3 * (seed * 100_003 + number) + i) for i, n in enumerate(names)}


def _tell_of_steps(job: Any, work: Work, case: str) -> None:
    """Note that a smaller network is fitted for fewer steps than the paper's."""
    steps, papers = steps_of(job, job.task, work.device, case), paper_steps(job.task, case)
    if job.steps is None and steps is not None and steps < papers:
        size = size_of(job, work.device)
        work.note(f"the {size} network was fitted for {steps:,} steps at the most; the paper's (--size paper) takes "
                  f"{papers:,}")  # fmt: skip


def _minutes(job: Any, work: Work, problem: Problem, where: list[Window]) -> float | None:
    """About how long the fits take on two cores; None on other devices, or where --minutes says it."""
    if work.device != "cpu" or job.minutes is not None:
        return None
    pixels = sum(h * w for h, w in (window.size for window in where)) * problem.factor**2
    work_of_a_pixel = {"small": 8e-6, "middle": 24e-6, "paper": 90e-6}[size_of(job, work.device)]  # seconds a step
    return pixels * work_of_a_pixel * (steps_of(job, job.task, work.device, problem.case) or 0) * job.runs / 60


def network_of(job: Any, work: Work, hole: str = "") -> dict[str, Any]:
    return network(job, job.task, work.device, hole)
