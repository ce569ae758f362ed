"""Restoring a picture with a decoder that is too small for its damage: `denoise`, `superres`, `inpaint`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.images import as_float, composite, read_image
from precis.errors import InputError
from precis.fields.deep_decoder import DeepDecoder, layers_for
from precis.fields.restoration import Downsampler, fit_untrained
from precis.lab.figures import strip
from precis.papers.deep_image_prior.classical import bicubic, biharmonic, non_local_means, total_variation
from precis.papers.job import Work

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
    write,
    write_curves,
)  # fmt: skip

MOST_ON_CPU = 64  # channels


def run_denoise(job: Any, work: Work) -> Metrics:
    """The width alone keeps the noise out; nothing is stopped early."""
    noisy = load(job, work, job.input, longest_of(job, work)).tensor(work.device)
    sigma = sigma_of(job.sigma or "auto")
    found: Metrics = {}
    if sigma is None:
        sigma = estimate_sigma(noisy)
        work.note(f"the noise was estimated: σ = {255 * sigma:.1f} of 255")
        found["sigma_estimated"] = 255 * sigma
    level = 255 * sigma
    width = next((k for limit, k in ((15, 192), (35, 128), (60, 64)) if level <= limit), 32)
    others = {
        "total variation": lambda: total_variation(noisy, 1.1 * sigma),
        "non-local means": lambda: non_local_means(noisy, 0.7 * sigma, sigma),
    }
    return _restore(job, work, noisy, noisy.shape, width, others, "noisy", default=(1000, 1900, 0.01, 0.01)) | found


def run_superres(job: Any, work: Work) -> Metrics:
    """A larger picture whose Lanczos reduction is INPUT."""
    factor = job.factor or 4
    small = load(job, work, job.input, max(8, longest_of(job, work) // factor)).tensor(work.device)
    shape = torch.Size([1, small.shape[1], factor * small.shape[-2], factor * small.shape[-1]])
    return _restore(
        job, work, small, shape, 128, {"bicubic": lambda: bicubic(small, factor)}, "small",
        default=(1500, 2000, 0.01, 0.01), operator=Downsampler(factor).to(work.device),
    )  # fmt: skip


def run_inpaint(job: Any, work: Work) -> Metrics:
    """The unknown pixels from the known ones."""
    picture = load(job, work, job.input, longest_of(job, work), keep_alpha=True)
    known = _known(job, work, picture.alpha, picture.values.shape[1:])
    image = picture.tensor(work.device)
    mask = torch.from_numpy(known)[None, None].to(image)
    metrics = _restore(
        job, work, image, image.shape, 256, {"biharmonic": lambda: biharmonic(image, mask)}, "damaged",
        default=(1500, 40_000, 0.01, 0.0025), mask=mask,
    )  # fmt: skip
    return metrics | {"share_known": float(known.mean())}


def _restore(
    job: Any, work: Work, target: Tensor, shape: torch.Size, width: int, others: dict[str, Callable[[], Tensor]],
    before: str, *, default: tuple[int, int, float, float], operator: Any = None, mask: Tensor | None = None,
) -> Metrics:  # fmt: skip
    """Fit, and write the picture beside what one would do without a network.

    width: at 512×512, scaled with the root of the pixels.  default: steps on a processor and on CUDA, rates alike.
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
    options = options_of(job, work, default[cuda], default[2 + cuda])
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
    write(work, "overview.png", strip(tiles, labels, size=max(size)))
    work.show("overview.png")
    write_curves(work, fit.curve)
    return metrics | finish(job, work, net) | {"training_loss": min(fit.curve["loss"].values)}


def estimate_sigma(image: Tensor) -> float:
    """σ of white noise in a picture [1,C,H,W], from the median of a filter that cancels planes and slopes' crossings.

    The difference of two Laplacians, [1 −2 1; −2 4 −2; 1 −2 1], has gain 6 on white noise; MAD/0.6745.
    """
    x = image[0].double()
    d = lambda y, dim: y.narrow(dim, 0, y.shape[dim] - 2) - 2 * y.narrow(dim, 1, y.shape[dim] - 2) + y.narrow(
        dim, 2, y.shape[dim] - 2
    )
    return max(float(d(d(x, -1), -2).abs().median()) / (6 * 0.6745), 1e-3)


def _known(job: Any, work: Work, alpha: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """[H,W] of 0 and 1."""
    if job.mask is not None:
        pixels = as_float(composite(read_image(job.mask), "black").pixels)
        grey = pixels.mean(0)
        if grey.shape != tuple(shape):
            from precis.data.images import resize

            (h, w), (height, width) = grey.shape, shape
            if abs(h / w - height / width) > 0.02 or min(h, w) < min(height, width):
                raise InputError(f"the mask is {w}×{h} pixels, the picture {width}×{height}", file=job.mask)
            grey = resize(grey[None], (height, width))[0]
            work.note(f"the mask was reduced from {w}×{h} to {width}×{height} pixels with the picture")
        name: Any = job.mask
    elif alpha is not None and (alpha < 1).any():
        grey, name = alpha[0], job.input
        work.note("the picture's alpha is the mask: what is transparent is unknown")
    else:
        raise InputError("--task inpaint needs --mask FILE, white where the picture is known, or a picture with alpha")
    if ((grey > 0.1) & (grey < 0.9)).mean() > 0.01:
        work.note("more than 1 % of the mask is grey: it was cut at one half")
    known = (grey > 0.5).astype(np.float32)
    known = 1 - known if job.invert_mask else known
    share = float(known.mean())
    if share in (0.0, 1.0):
        words = "all known: there is nothing to do" if share else "all unknown: there is nothing to go by"
        raise InputError(f"the mask says that the picture is {words} (white is known; --invert-mask)", file=name)
    if share < 0.05:
        work.note(f"only {100 * share:.1f} % of the picture is known; is the mask inverted (--invert-mask)?")
    return known


def _shown(target: Tensor, mask: Tensor | None) -> np.ndarray:
    return numpy(target if mask is None else target * mask)
