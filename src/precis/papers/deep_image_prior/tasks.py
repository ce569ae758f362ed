"""Denoise, repair JPEG blocks, enlarge, complete, and light without a flash."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from precis.errors import InputError
from precis.fields.restoration import Downsampler
from precis.lab.figures import strip
from precis.papers.job import Work
from precis.papers.restoring import SLOW, check_enlarged, given_of, level_of, nothing_to_do, seen_of
from precis.papers.work import save

from .classical import bicubic, biharmonic, non_local_means, total_variation, tv_inpaint
from .endings import write_curve
from .fitting import Problem, Restored, network_of, restore
from .options import TASKS, WEAK, noise_level
from .pictures import kind_of_hole, load_mask, load_picture, load_reference, luma, scores, shown

Metrics = dict[str, float | int | None]
Others = dict[str, Callable[[], Tensor]]


def run_denoise(job: Any, work: Work) -> Metrics:
    picture = given_of(job, work)(load_picture(job.input, work).pixels)
    truth = load_reference(job, _size(picture), picture.shape[1], work)
    sigma = level_of(picture, noise_level(job), work)
    if nothing_to_do(job, sigma, work):
        return _untouched(work, seen_of(job)(picture), truth)
    noise = 1 / 20 if sigma > 37.5 / 255 else TASKS["denoise"].noise
    case = "weak" if 0 < sigma < WEAK else ""
    net = network_of(job, work)
    problem = Problem(picture, picture.shape[1], noise=noise, sigma=sigma or None, case=case, net=net)
    made = restore(job, work, problem)
    others = _smoothers(picture, sigma) if sigma else {}
    return _finish(job, work, made, picture, truth, others, "noisy", sigma or None) | {"sigma": 255 * sigma}


def run_jpeg(job: Any, work: Work) -> Metrics:
    picture = given_of(job, work)(load_picture(job.input, work).pixels)
    truth = load_reference(job, _size(picture), picture.shape[1], work)
    problem = Problem(picture, picture.shape[1], z_channels=3, noise=TASKS["jpeg"].noise, net=network_of(job, work))
    made = restore(job, work, problem)
    return _finish(job, work, made, picture, truth, _smoothers(picture, 0.04), "JPEG")


def run_superres(job: Any, work: Work) -> Metrics:
    factor, seen = job.factor or 4, seen_of(job)
    picture = given_of(job, work)(load_picture(job.input, work).pixels)
    h, w = _size(picture)
    check_enlarged((h, w), factor, job.input)
    truth = load_reference(job, (h * factor, w * factor), picture.shape[1], work)
    noise = 0.05 if factor == 8 else TASKS["superres"].noise
    down = Downsampler(factor).to(work.device)
    case, net = "x8" if factor == 8 else "", network_of(job, work)
    problem = Problem(picture, picture.shape[1], factor, operator=down, noise=noise, case=case, net=net)
    made = restore(job, work, problem)
    others: Others = {"bicubic": lambda: bicubic(picture, factor)}
    enlarged = picture.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    metrics = _finish(job, work, made, enlarged, truth, others, "given")
    if truth is not None and min(truth.shape[-2:]) > 24:
        for name, x in (("", made.best), ("_bicubic", bicubic(picture, factor))):
            metrics[f"psnr_luma{name}"] = scores(luma(seen(x.clamp(0, 1))), luma(truth), 4)["psnr"]
    return metrics


def run_inpaint(job: Any, work: Work) -> Metrics:
    loaded = load_picture(job.input, work, keep_alpha=job.mask is None)
    picture, known = given_of(job, work)(loaded.pixels), load_mask(job, loaded, work)
    truth = load_reference(job, _size(picture), picture.shape[1], work)
    hole = kind_of_hole(known) if job.hole == "auto" else job.hole
    if job.hole == "auto":
        what = {"pixels": "single pixels", "text": "text or scratches", "large": "large regions"}[hole]
        work.note(f"what is unknown looks like {what}, and the network for these was taken; --hole chooses another")
    problem = Problem(
        picture * known, picture.shape[1], mask=known, meshgrid=hole == "large",
        noise=0.0 if hole == "large" else TASKS["inpaint"].noise, case=hole, net=network_of(job, work, hole),
    )  # fmt: skip
    made = restore(job, work, problem)
    fill = lambda x: torch.where(known > 0, picture, x)
    filled = made._replace(best=fill(made.best), ema=fill(made.ema), last=fill(made.last))
    others: Others = {"tv": lambda: tv_inpaint(picture, known)}
    if int((1 - known).sum()) <= SLOW:
        others["biharmonic"] = lambda: biharmonic(picture, known)
    else:
        work.note("biharmonic interpolation was left out: it takes minutes for so many unknown pixels")
    return _finish(job, work, filled, picture * known, truth, others, "known") | {"known": float(known.mean())}


def run_flash(job: Any, work: Work) -> Metrics:
    given = given_of(job, work)
    picture, guide = (given(load_picture(path, work).pixels) for path in (job.input, job.flash or job.companion))
    if _size(guide) != _size(picture):
        (h, w), (height, width) = _size(guide), _size(picture)
        raise InputError(f"the flash picture is {w}×{h} pixels, INPUT {width}×{height}", file=job.flash)
    truth = load_reference(job, _size(picture), picture.shape[1], work)
    problem = Problem(picture, picture.shape[1], guide=guide, net=network_of(job, work))
    made = restore(job, work, problem)
    others: Others = {"flash": lambda: guide}
    return _finish(job, work, made, picture, truth, others, "without flash")


def _untouched(work: Work, picture: Tensor, truth: Tensor | None) -> Metrics:
    """The files of a picture that needs nothing."""
    work.image("restored", shown(picture))
    tiles = {"given, and kept": picture} | ({} if truth is None else {"reference": truth})
    save(work.folder / "overview.png", strip([shown(x) for x in tiles.values()], list(tiles), size=256))
    work.show("overview.png")
    return {**scores(picture, truth), "stopped_at": 0, "sigma": 0.0}


def _smoothers(picture: Tensor, sigma: float) -> Others:
    """Classical methods with the parameters that suit noise of this deviation."""
    return {
        "tv": lambda: total_variation(picture, 0.9 * sigma),
        "nlm": lambda: non_local_means(picture, 0.7 * sigma, sigma),
    }


def _finish(
    job: Any, work: Work, made: Restored, given: Tensor, truth: Tensor | None, others: Others, label: str,
    sigma: float | None = None,
) -> Metrics:  # fmt: skip
    """Files, and the scores of everything if there is a reference."""
    seen = seen_of(job)
    classical = {name: seen(make().clamp(0, 1)) for name, make in others.items()}
    pictures = {"restored": seen(made.best), "average": seen(made.ema), "last": seen(made.last), **classical}
    given = seen(given)
    for name, x in pictures.items():
        work.image(name, shown(x))
    tiles = {label: given, "deep image prior": pictures["restored"], **classical}
    tiles |= {} if truth is None else {"reference": truth}
    save(work.folder / "overview.png", strip([shown(x) for x in tiles.values()], list(tiles), size=256))
    work.show("overview.png")
    write_curve(work, made.curve, made.stopped[0], sigma, len(made.stopped))
    metrics: Metrics = {}
    for name, x in {**pictures, "given": given}.items():
        for key, value in scores(x, truth).items():
            metrics[key if name == "restored" else f"{key}_{name}"] = value
    metrics["stopped_at"] = sum(made.stopped) / len(made.stopped)
    metrics["loss"] = made.curve["loss"][1][-1]
    if made.backtracks:
        work.note(f"the fit fell by more than 5 dB and was set back {made.backtracks} times")
    return metrics


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
