"""The fit behind denoise, superres and inpaint: a decoder for every tile, and the tiles put together."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from precis.fields.deep_decoder import DeepDecoder, layers_for, parameter_count
from precis.fields.restoration import Downsampler, fit_untrained
from precis.papers.job import Work
from precis.papers.tiles import Window, blend, cut, kept, tell
from precis.train.loop import Curve

from .pictures import CHECKPOINT, Metrics, draw, finish, options_of, psnr, watch

MOST_ON_CPU = 64  # channels
SECONDS = 4.5e-10  # of a step on two cores, a pixel and a squared channel


class Problem(NamedTuple):
    """`target` [1,C,h,w] was measured of a picture `factor` times as large; `mask` [1,1,h,w]: 1 where it is known.

    width: channels for 512×512 pixels.  steps, rates: of the task, on a processor and on CUDA.
    """

    target: Tensor
    width: int
    steps: tuple[int, int]
    factor: int = 1
    mask: Tensor | None = None
    rates: tuple[float, float] = (0.01, 0.01)


class Made(NamedTuple):
    """The picture [1,C,H,W], on the CPU; the curves of the first tile; of what size the decoders are."""

    picture: Tensor
    curve: dict[str, Curve]
    metrics: Metrics


def restore(job: Any, work: Work, problem: Problem, clean: Tensor | None) -> Made:
    """Fit every tile; what is finished is not fitted again by a resumed run."""
    cuda, (h, w) = work.device.startswith("cuda"), problem.target.shape[-2:]
    where = cut((h, w), job.tile, 512 if cuda else 256, problem.factor, problem.mask)
    size = _sides(where[0], problem.factor)
    width = job.width or _width(problem.width, size, cuda)
    tell(work, where, problem.factor, _minutes(job, work, problem, size, len(where), width), "--steps or --minutes")
    tiles = []
    for k, window in enumerate(where):
        fit = partial(_fit, job, work, problem, clean, window, width=width, turn=(k, len(where)))
        tiles.append(kept(work.folder / CHECKPOINT / str(k), fit))
    layers, channels = layers_for(size), problem.target.shape[1]
    metrics: Metrics = {
        "width": width, "layers": layers, "tiles": len(where),
        "parameters": len(where) * parameter_count(width, layers, channels),
        "training_loss": sum(tile["loss"] for tile in tiles) / len(tiles),
    }  # fmt: skip
    curve = {name: Curve(*lines) for name, lines in tiles[0]["curve"].items()}
    return Made(blend([tile["best"] for tile in tiles], where, (h, w), problem.factor), curve, metrics)


def _fit(
    job: Any, work: Work, problem: Problem, clean: Tensor | None, window: Window, place: Path, *, width: int,
    turn: tuple[int, int],
) -> dict[str, Any]:  # fmt: skip
    """One tile."""
    (k, tiles), factor, device = turn, problem.factor, work.device
    size, channels, cuda = _sides(window, factor), problem.target.shape[1], device.startswith("cuda")
    net = DeepDecoder(width, layers_for(size), channels, order=job.order, generator=draw(job, "init", k)).to(device)
    truth = None if clean is None else window.of(clean, factor).to(device)
    options = options_of(job, work, problem.steps[cuda], problem.rates[cuda])
    options |= {"folder": place, "minutes": None if job.minutes is None else job.minutes / tiles}
    fit = fit_untrained(
        net, net.input_for(size, job.seed + 100_003 * k), window.of(problem.target).to(device),
        operator=Downsampler(factor).to(device) if factor > 1 else None,
        mask=None if problem.mask is None else window.of(problem.mask).to(device), crop=size, stop="loss",
        callback=watch(work, "restored", truth) if tiles == 1 else _measure(truth),
        every=max(1, (options["steps"] or 1000) // 20),
        **options | {"log": lambda step, total, **more: work.log(k * total + step, tiles * total, **more)},
    )  # fmt: skip
    if tiles == 1:
        finish(job, work, net)
    curve = {name: (list(line.steps), list(line.values)) for name, line in fit.curve.items()}
    return {"best": fit.best.cpu(), "loss": min(fit.curve["loss"].values), "curve": curve}


def _measure(truth: Tensor | None) -> Callable[[int, Tensor, Tensor], dict[str, float]]:
    return lambda step, out, average: {} if truth is None else {"psnr": float(psnr(out.clamp(0, 1), truth))}


def _sides(window: Window, factor: int) -> tuple[int, int]:
    h, w = window.size
    return h * factor, w * factor


def _width(at_512: int, size: tuple[int, int], cuda: bool) -> int:
    """Channels for a tile, scaled with the root of its pixels."""
    width = max(8, round(at_512 * (size[0] * size[1]) ** 0.5 / 512))
    return width if cuda else min(width, MOST_ON_CPU)


def _minutes(job: Any, work: Work, problem: Problem, size: tuple[int, int], tiles: int, width: int) -> float | None:
    """About how long it takes on two cores; None on other devices, or where --minutes says it."""
    if work.device != "cpu" or job.minutes is not None:
        return None
    return SECONDS * width**2 * size[0] * size[1] * tiles * (job.steps or problem.steps[0]) / 60
