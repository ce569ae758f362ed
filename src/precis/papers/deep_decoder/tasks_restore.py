"""Restoring a picture with a decoder that is too small for its damage: `denoise`, `superres`, `inpaint`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.images import Image, resize, shrink
from precis.fields.deep_decoder import DeepDecoder, layers_for
from precis.fields.restoration import Downsampler, fit_untrained
from precis.lab.figures import strip
from precis.papers.deep_image_prior.classical import biharmonic, non_local_means, total_variation
from precis.papers.deep_image_prior.level import level_of, nothing_to_do
from precis.papers.deep_image_prior.pictures import load_mask, load_picture
from precis.papers.job import Work
from precis.papers.work import save

from .options import sigma_of
from .pictures import (
    Metrics,
    compare,
    draw,
    finish,
    load,
    load_reference,
    longest_of,
    numpy,
    options_of,
    watch,
    write_curves,
)  # fmt: skip

MOST_ON_CPU = 64  # channels


def run_denoise(job: Any, work: Work) -> Metrics:
    """The width alone keeps the noise out; nothing is stopped early."""
    noisy = load(job, work, job.input, longest_of(job, work)).tensor(work.device)
    given = sigma_of(job.sigma or "auto")
    sigma = level_of(noisy, given, work)
    level = 255 * sigma
    found: Metrics = {} if given is not None else {"sigma_estimated": level}
    if nothing_to_do(job, sigma, work):
        return _untouched(job, work, noisy) | found
    width = next((k for limit, k in ((15, 192), (35, 128), (60, 64)) if level <= limit), 32)
    others = {
        "total variation": lambda: total_variation(noisy, 1.1 * sigma),
        "non-local means": lambda: non_local_means(noisy, 0.7 * sigma, sigma),
    }
    others = others if sigma else {}
    return _restore(job, work, noisy, noisy.shape, width, others, "noisy", default=(1000, 1900)) | found


def run_superres(job: Any, work: Work) -> Metrics:
    """A larger picture whose Lanczos reduction is INPUT."""
    factor = job.factor or 4
    small = load(job, work, job.input, max(8, longest_of(job, work) // factor)).tensor(work.device)
    shape = torch.Size([1, small.shape[1], factor * small.shape[-2], factor * small.shape[-1]])
    enlarged = lambda: torch.from_numpy(resize(small[0].cpu().numpy(), (shape[-2], shape[-1])))[None].to(small)
    return _restore(
        job, work, small, shape, 128, {"bicubic": enlarged}, "small",
        default=(1500, 2000), operator=Downsampler(factor).to(work.device),
    )  # fmt: skip


def run_inpaint(job: Any, work: Work) -> Metrics:
    """The unknown pixels from the known ones."""
    image, mask = _damaged(job, work)
    metrics = _restore(
        job, work, image, image.shape, 256, {"biharmonic": lambda: biharmonic(image, mask)}, "damaged",
        default=(1500, 40_000), rates=(0.01, 0.0025), mask=mask,
    )  # fmt: skip
    return metrics | {"share_known": float(mask.mean())}


def _restore(
    job: Any, work: Work, target: Tensor, shape: torch.Size, width: int, others: dict[str, Callable[[], Tensor]],
    before: str, *, default: tuple[int, int], rates: tuple[float, float] = (0.01, 0.01),
    operator: Any = None, mask: Tensor | None = None,
) -> Metrics:  # fmt: skip
    """Fit, and write the picture beside what one would do without a network.

    width: at 512×512, scaled with the root of the pixels.  default, rates: steps and rates on a processor, on CUDA.
    """
    size, cuda = (int(shape[-2]), int(shape[-1])), work.device.startswith("cuda")
    clean = load_reference(job, work, tuple(shape))
    if job.width is None:
        width = max(8, round(width * (size[0] * size[1]) ** 0.5 / 512))
        width = width if cuda else min(width, MOST_ON_CPU)
    else:
        width = job.width
    layers = layers_for(size)
    net = DeepDecoder(width, layers, shape[1], order=job.order, generator=draw(job, "init")).to(work.device)
    options = options_of(job, work, default[cuda], rates[cuda])
    fit = fit_untrained(
        net, net.input_for(size, job.seed), target, operator=operator, mask=mask, crop=size, stop="loss",
        callback=watch(work, "restored", clean), every=max(1, (options["steps"] or 1000) // 20), **options,
    )  # fmt: skip
    made = fit.best
    if mask is not None:
        made = torch.where(mask > 0.5, target, made)  # what is known stays
    work.image("restored", numpy(made))
    metrics: Metrics = {} if clean is None else compare("", made, clean)
    tiles, labels = [_shown(target, mask), numpy(made)], [before, "Deep Decoder"]
    for name, method in others.items():
        other = method()
        word = name.replace(" ", "_").replace("-", "_")
        work.image(word, numpy(other))
        tiles.append(numpy(other))
        labels.append(name)
        metrics |= {} if clean is None else compare(word, other, clean)
    if clean is not None:
        if target.shape == clean.shape and mask is None:
            metrics |= compare(before, target, clean)
        tiles.append(numpy(clean))
        labels.append("reference")
        shown = [metrics.get(f"psnr_{name.replace(' ', '_').replace('-', '_')}") for name in others]
        labels[1:-1] = [f"{a}, {b:.1f} dB" for a, b in zip(labels[1:-1], [metrics["psnr"], *shown], strict=True)]
    save(work.folder / "overview.png", strip(tiles, labels, size=max(size)))
    work.show("overview.png")
    write_curves(work, fit.curve)
    return metrics | finish(job, work, net) | {"training_loss": min(fit.curve["loss"].values)}


def _untouched(job: Any, work: Work, picture: Tensor) -> Metrics:
    """The files of a picture that needs nothing."""
    clean = load_reference(job, work, tuple(picture.shape))
    work.image("restored", numpy(picture))
    tiles, labels = [numpy(picture)], ["given, and kept"]
    if clean is not None:
        tiles, labels = [*tiles, numpy(clean)], [*labels, "reference"]
    save(work.folder / "overview.png", strip(tiles, labels, size=256))
    work.show("overview.png")
    return {} if clean is None else compare("", picture, clean)


def _damaged(job: Any, work: Work) -> tuple[Tensor, Tensor]:
    """The picture [1,C,H,W] and its mask [1,1,H,W], reduced to the size that is worked at.

    A pixel of a reduced picture is the mean of its known ones, and is known if most of them are.
    """
    given = load_picture(job.input, work, keep_alpha=True)
    known = load_mask(job, given, work)
    full = Image(given.pixels[0].numpy(), known[0].numpy(), {})
    small = shrink(full, longest_of(job, work))
    if small is full:
        return given.pixels.to(work.device), known.to(work.device)
    (h, w), (height, width) = given.size, small.pixels.shape[1:]
    work.note(f"{Path(job.input).name}: {w}×{h} pixels were reduced to {width}×{height} (--size)")
    assert small.alpha is not None
    parts = (small.pixels, small.alpha)
    pixels, share = (torch.from_numpy(np.ascontiguousarray(x))[None].to(work.device) for x in parts)
    return pixels, (share > 0.5).float()


def _shown(target: Tensor, mask: Tensor | None) -> np.ndarray:
    return numpy(target if mask is None else target * mask)
