"""The fit behind denoise, superres and inpaint: a decoder for every tile, and the tiles put together."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from precis.fields.deep_decoder import DeepDecoder, layers_for, parameter_count
from precis.fields.restoration import Downsampler, fit_untrained
from precis.papers.job import Work
from precis.papers.restoring import place_of, seen_of
from precis.papers.tiles import Window, blend, cut, kept, tell
from precis.train.loop import Curve

from .pictures import CHECKPOINT, Metrics, draw, finish, options_of, psnr, watch

MOST_ON_CPU = 64  # channels
COARSEST = 2  # pixels on the shorter side of B_1, over a hole
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
    depths, channels = [_layers(problem, window) for window in where], problem.target.shape[1]
    _tell_of_holes(work, problem, where, depths)
    metrics: Metrics = {
        "width": width, "layers": max(depths), "tiles": len(where),
        "parameters": sum(parameter_count(width, layers, channels) for layers in depths),
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
    layers, seen = _layers(problem, window), seen_of(job)
    net = DeepDecoder(width, layers, channels, order=job.order, generator=draw(job, "init", k)).to(device)
    truth = None if clean is None else window.of(clean, factor).to(device)
    options = options_of(job, work, problem.steps[cuda], problem.rates[cuda])
    options |= {"folder": place, "minutes": None if job.minutes is None else job.minutes / tiles}
    fit = fit_untrained(
        net, net.input_for(size, job.seed + 100_003 * k), window.of(problem.target).to(device),
        operator=Downsampler(factor).to(device) if factor > 1 else None,
        mask=None if problem.mask is None else window.of(problem.mask).to(device), crop=size, stop="loss",
        callback=watch(work, "restored", truth, seen) if tiles == 1 else _measure(truth, seen),
        every=max(1, (options["steps"] or 1000) // 20),
        **options | {"log": lambda step, total, **more: work.log(k * total + step, tiles * total, **more)},
    )  # fmt: skip
    if (to := place_of(work, net, turn)) is not None:
        finish(job, to[0], net, to[1])
    curve = {name: (list(line.steps), list(line.values)) for name, line in fit.curve.items()}
    return {"best": fit.best.cpu(), "loss": min(fit.curve["loss"].values), "curve": curve}


def hidden(known: Tensor, layers: int) -> int:
    """How many quarters of the pixels of B_1 have no known pixel [1,1,h,w] in the part of the picture they stand for.

    Between the middles of its pixels B_1 is interpolated, and nothing but known pixels says what the decoder makes of
    the mixtures: where a whole quarter is unknown it may make anything of them, saturated colours for one.
    """
    half, (h, w) = 2 ** (layers - 1) // 2, known.shape[-2:]
    high, wide = ((-n % (2 * half)) for n in (h, w))
    margins = (wide // 2, wide - wide // 2, high // 2, high - high // 2)  # the picture is the middle of the output
    seen, inside = (F.max_pool2d(F.pad(x, margins), half) for x in (known, known.new_ones(known.shape)))
    return int(((inside > 0) & (seen == 0)).sum())


def _layers(problem: Problem, window: Window) -> int:
    """As many layers as for any picture of this size, and where they leave a hole to chance, more: B_1 gets coarser."""
    size = _sides(window, problem.factor)
    layers = layers_for(size)
    if problem.mask is None:
        return layers
    known = window.of(problem.mask)
    while hidden(known, layers) and -(-min(size) // 2**layers) >= COARSEST:
        layers += 1
    return layers


def _tell_of_holes(work: Work, problem: Problem, where: list[Window], depths: list[int]) -> None:
    """Note that the hole asked for more layers, or is larger than what any number of them bridges."""
    if problem.mask is None:
        return
    usual = [layers_for(_sides(window, problem.factor)) for window in where]
    if depths != usual:
        work.note(
            f"the decoder got {max(depths)} layers in place of {max(usual)}: its coarsest pixels should be larger than "
            "the hole"
        )
    if any(hidden(window.of(problem.mask), layers) for window, layers in zip(where, depths)):
        work.note(
            "the hole is larger than the coarsest pixels of the decoder: inside it nothing that is known says what to "
            "draw, and it may draw anything; biharmonic interpolation is the safer method here"
        )


def _measure(
    truth: Tensor | None, seen: Callable[[Tensor], Tensor]
) -> Callable[[int, Tensor, Tensor], dict[str, float]]:
    return lambda step, out, average: {} if truth is None else {"psnr": float(psnr(seen(out.clamp(0, 1)), truth))}


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
