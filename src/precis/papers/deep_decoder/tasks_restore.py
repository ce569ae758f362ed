"""Restoring a picture with a decoder that is too small for its damage: `denoise`, `superres`, `inpaint`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.images import Image, shrink
from precis.papers.deep_image_prior.classical import bicubic, biharmonic, non_local_means, total_variation
from precis.papers.deep_image_prior.pictures import load_mask, load_picture
from precis.papers.job import Work
from precis.papers.restoring import SLOW, check_enlarged, given_of, level_of, nothing_to_do, seen_of
from precis.papers.work import save

from .fitting import Problem, restore
from .options import sigma_of
from .pictures import Metrics, compare, load, load_reference, numpy, sheet, write_curves


def run_denoise(job: Any, work: Work) -> Metrics:
    """The width alone keeps the noise out; nothing is stopped early."""
    noisy = given_of(job, work)(load(job, work, job.input, job.size).tensor("cpu"))
    given = sigma_of(job.sigma or "auto")
    sigma = level_of(noisy, given, work)
    level = 255 * sigma
    found: Metrics = {} if given is not None else {"sigma_estimated": level}
    if nothing_to_do(job, sigma, work):
        return _untouched(job, work, seen_of(job)(noisy)) | found
    width = next((k for limit, k in ((15, 192), (35, 128), (60, 64)) if level <= limit), 32)
    others = {
        "total variation": lambda: total_variation(noisy, 1.1 * sigma),
        "non-local means": lambda: non_local_means(noisy, 0.7 * sigma, sigma),
    }
    return _restore(job, work, Problem(noisy, width, (1000, 1900)), others if sigma else {}, "noisy") | found


def run_superres(job: Any, work: Work) -> Metrics:
    """A larger picture whose Lanczos reduction is INPUT."""
    factor = job.factor or 4
    small = load(job, work, job.input, None if job.size is None else max(8, job.size // factor)).tensor("cpu")
    small = given_of(job, work)(small)
    h, w = small.shape[-2:]
    check_enlarged((h, w), factor, job.input)
    return _restore(
        job, work, Problem(small, 128, (1500, 2000), factor), {"bicubic": lambda: bicubic(small, factor)}, "given"
    )


def run_inpaint(job: Any, work: Work) -> Metrics:
    """The unknown pixels from the known ones."""
    image, mask = _damaged(job, work)
    image = given_of(job, work)(image)
    others: dict[str, Callable[[], Tensor]] = {"biharmonic": lambda: biharmonic(image, mask)}
    if int((1 - mask).sum()) > SLOW:
        others = {}
        work.note("biharmonic interpolation was left out: it takes minutes for so many unknown pixels")
    problem = Problem(image, 256, (1500, 40_000), mask=mask, rates=(0.01, 0.0025))
    return _restore(job, work, problem, others, "damaged") | {"share_known": float(mask.mean())}


def _restore(
    job: Any, work: Work, problem: Problem, others: dict[str, Callable[[], Tensor]], before: str
) -> Metrics:
    """Fit, and write the picture beside what one would do without a network."""
    target, mask, factor, seen = problem.target, problem.mask, problem.factor, seen_of(job)
    shape = (1, target.shape[1], factor * target.shape[-2], factor * target.shape[-1])
    clean = load_reference(job, shape)
    made, curve, sizes = restore(job, work, problem, clean)
    if mask is not None:
        made = torch.where(mask > 0.5, target, made)  # what is known stays
    made = seen(made)
    work.image("restored", numpy(made))
    metrics: Metrics = {} if clean is None else compare("", made, clean)
    given = seen(target if mask is None else target * mask)
    given = given.repeat_interleave(factor, -1).repeat_interleave(factor, -2)  # as large as the result, for the eye
    tiles, labels = [numpy(given), numpy(made)], [before, "Deep Decoder"]
    for name, method in others.items():
        other = seen(method())
        word = name.replace(" ", "_").replace("-", "_")
        work.image(word, numpy(other))
        tiles.append(numpy(other))
        labels.append(name)
        metrics |= {} if clean is None else compare(word, other, clean)
    if clean is not None:
        if factor == 1 and mask is None:
            metrics |= compare(before, given, clean)
        tiles.append(numpy(clean))
        labels.append("reference")
        shown = [metrics.get(f"psnr_{name.replace(' ', '_').replace('-', '_')}") for name in others]
        labels[1:-1] = [f"{a}, {b:.1f} dB" for a, b in zip(labels[1:-1], [metrics["psnr"], *shown], strict=True)]
    save(work.folder / "overview.png", sheet(tiles, labels))
    work.show("overview.png")
    write_curves(work, curve)
    return metrics | sizes


def _untouched(job: Any, work: Work, picture: Tensor) -> Metrics:
    """The files of a picture that needs nothing."""
    clean = load_reference(job, tuple(picture.shape))
    work.image("restored", numpy(picture))
    tiles, labels = [numpy(picture)], ["given, and kept"]
    if clean is not None:
        tiles, labels = [*tiles, numpy(clean)], [*labels, "reference"]
    save(work.folder / "overview.png", sheet(tiles, labels))
    work.show("overview.png")
    return {} if clean is None else compare("", picture, clean)


def _damaged(job: Any, work: Work) -> tuple[Tensor, Tensor]:
    """The picture [1,C,H,W] and its mask [1,1,H,W], reduced to --size if it is named.

    A pixel of a reduced picture is the mean of its known ones, and is known if most of them are.
    """
    given = load_picture(job.input, work, keep_alpha=True)
    known = load_mask(job, given, work)
    full = Image(given.pixels[0].numpy(), known[0].numpy(), {})
    small = full if job.size is None else shrink(full, job.size)
    if small is full:
        return given.pixels, known
    (h, w), (height, width) = given.size, small.pixels.shape[1:]
    work.note(f"{Path(job.input).name}: {w}×{h} pixels were reduced to {width}×{height} (--size)")
    assert small.alpha is not None
    pixels, share = (torch.from_numpy(np.ascontiguousarray(x))[None] for x in (small.pixels, small.alpha))
    return pixels, (share > 0.5).float()
