"""Rebuild a picture from its derivatives, or blend two by their gradients: `poisson` and `blend`."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from precis.data.images import resize
from precis.errors import InputError
from precis.fields.poisson import (
    align_gain_offset,
    align_mean,
    blend_gradients,
    gradient_rows,
    image_gradient,
    image_laplacian,
    solve_gradient,
    solve_laplacian,
)  # fmt: skip
from precis.fields.siren_fit import evaluate_image, fit_poisson
from precis.lab.figures import contact_sheet
from precis.nn.coordinates import coordinate_grid
from precis.papers.job import Work
from precis.papers.work import save

from .common import Metrics, Scalars, batch_of, draw, finish, make_net, numpy, psnr_of, training, write_curve
from .pictures import (
    Picture,
    gradient_picture,
    laplacian_picture,
    load_grey,
    load_picture,
    luma,
    size_of,
    working_size,
)  # fmt: skip
from .tasks_image import byte_counts


def run_poisson(job: Any, work: Work) -> Metrics:
    """∇Φ = ∇I, or ΔΦ = ΔI, alone; beside the exact least-squares solution by the cosine transform."""
    picture = load_picture(job, work, job.input, working_size(job, work), keep_alpha=False)
    image = picture.tensor(work.device)
    laplacian = job.from_ == "laplacian"
    align = align_gain_offset if laplacian else align_mean
    target = image_laplacian(image) if laplacian else image_gradient(image)
    exact = align(solve_laplacian(target) if laplacian else solve_gradient(target), image)
    net, run = _fit(job, work, target, image, "laplacian" if laplacian else "gradient")
    made = _settle(net, image, gain=laplacian)
    if laplacian:
        work.note("a Laplacian leaves a harmonic function open: the gain and offset closest to INPUT were taken")
    else:
        work.note("a gradient leaves a constant open: the mean of INPUT was taken")
    truth, shown, best = (picture.back(numpy(x)) for x in (image, made, exact))
    work.image("reconstruction", shown)
    work.image("exact", best)
    given = _derivative_picture(numpy(target))
    captions = [
        "photograph", f"its {'Laplacian' if laplacian else 'gradient'}: all that is given",
        f"SIREN, {psnr_of(truth, shown):.1f} dB", f"cosine transform, {psnr_of(truth, best):.1f} dB",
    ]  # fmt: skip
    save(work.folder / "overview.png", contact_sheet([truth, given, shown, best], captions, columns=2, size=256))
    work.show("overview.png")
    write_curve(work, "loss.png", run, "loss", "loss", log_y=True)
    metrics: Metrics = {"psnr": psnr_of(truth, shown), "psnr_exact": psnr_of(truth, best)}
    metrics |= finish(work, net)
    return metrics | byte_counts(job, metrics, picture)


def run_blend(job: Any, work: Work) -> Metrics:
    """∇Φ = α ∇I₁ + (1 − α) ∇I₂ (or the longer of the two); beside the exact least-squares composite."""
    alpha, rule = 0.5 if job.alpha is None else job.alpha, _rule(job)
    first, second, mask = _load_two(job, work)
    one, two = (x.tensor(work.device) for x in (first, second))
    m = None if mask is None else torch.from_numpy(mask).float().to(work.device)
    target = blend_gradients(image_gradient(one), image_gradient(two), alpha, rule, m)
    share = alpha if m is None else 1 - (1 - alpha) * m
    exact = align_mean(solve_gradient(target), share * one + (1 - share) * two)
    net, run = _fit(job, work, target, exact, "gradient")
    made = _settle(net, exact, gain=False)
    work.note("gradients leave a constant open: the mean of both pictures, weighted alike, was taken")
    spilt = float(((exact < 0) | (exact > 1)).float().mean())
    if spilt > 0.01:
        work.note(f"{100 * spilt:.0f} % of the exact composite lies outside of black and white and is clipped")
    top, bottom, shown, best = (first.back(numpy(x)) for x in (one, two, made, exact))
    work.image("blend", shown)
    work.image("exact", best)
    captions = [Path(job.input).stem, Path(job.blend or job.companion).stem, f"SIREN, {rule} of the gradients",
                f"exact composite ({psnr_of(best, shown):.1f} dB apart)"]  # fmt: skip
    save(work.folder / "overview.png", contact_sheet([top, bottom, shown, best], captions, columns=2, size=256))
    work.show("overview.png")
    write_curve(work, "loss.png", run, "loss", "loss", log_y=True)
    metrics: Metrics = {"psnr": psnr_of(best, shown), "clipped": spilt}
    return metrics | finish(work, net)


def _rule(job: Any) -> Literal["mean", "max"]:
    return "max" if job.rule == "max" else "mean"


def _fit(job: Any, work: Work, target: Tensor, reference: Tensor, kind: Any) -> tuple[Any, Any]:
    """A net whose derivatives are `target` [C,2,H,W] or [C,H,W]; on the way its PSNR to `reference` is measured.

    The net's values are in −1 … 1, as everywhere: twice the picture's, and so are the targets.
    """
    shape = tuple(reference.shape[1:])
    coords = coordinate_grid(shape, device=target.device, dtype=target.dtype)
    rows = gradient_rows(target) if kind == "gradient" else target.flatten(1).T.contiguous()
    net = make_net(job, work, 2, len(target))
    align = align_mean if kind == "gradient" else align_gain_offset

    def measure(net: Any) -> Scalars:
        made = numpy(align(evaluate_image(net, shape), reference)).clip(0, 1)
        work.image("reconstruction" if job.task == "poisson" else "blend", made)
        return {"psnr": min(psnr_of(numpy(reference).clip(0, 1), made), 120.0)}

    options = training(job, work, measure, looks=10)
    return net, fit_poisson(net, coords, 2 * rows, kind, batch=batch_of(job), generator=draw(job, "batches"), **options)


@torch.no_grad()
def _settle(net: Any, reference: Tensor, *, gain: bool) -> Tensor:
    """Put what the derivatives leave open (a constant; with `gain` a factor too) into the last layer; the picture."""
    shape, last = tuple(reference.shape[1:]), net.layers[-1]
    if gain:
        x, y = (z - z.mean((-2, -1), keepdim=True) for z in (evaluate_image(net, shape), reference))
        factor = (x * y).sum((-2, -1)) / x.square().sum((-2, -1)).clamp(min=1e-30)
        last.weight.mul_(factor[:, None])
        last.bias.mul_(factor)
    last.bias.add_(2 * (reference - evaluate_image(net, shape)).mean((-2, -1)))
    return evaluate_image(net, shape)


def _derivative_picture(target: np.ndarray) -> np.ndarray:
    grey = luma(target)
    size = np.abs(grey) if grey.ndim == 2 else np.hypot(*grey)
    peak = float(np.percentile(size, 99))
    return laplacian_picture(grey, peak) if grey.ndim == 2 else gradient_picture(grey, peak)


def _load_two(job: Any, work: Work) -> tuple[Picture, Picture, np.ndarray | None]:
    """Both pictures with one size and as many channels, and the mask."""
    path, longest = job.blend or job.companion, working_size(job, work)
    if path is None:
        raise InputError("--task blend needs a second picture: --blend FILE")
    sizes = size_of(job.input), size_of(path)
    if sizes[0] != sizes[1] and not job.resize:
        (h, w), (y, x) = sizes
        words = f"it is {x}×{y} pixels, and INPUT {w}×{h}; --resize brings it to the size of INPUT"
        raise InputError(words, file=path)
    first = load_picture(job, work, job.input, longest, keep_alpha=False)
    second = load_picture(job, work, path, max(longest, max(sizes[1])) if job.resize else longest, keep_alpha=False)
    shape = first.values.shape[1:]
    values = [first.values, np.clip(resize(second.values, shape), 0, 1)]
    channels = max(len(v) for v in values)
    one, two = (np.ascontiguousarray(np.broadcast_to(v, (channels, *shape))) for v in values)
    mask = None
    if job.mask is not None:
        if size_of(job.mask) != sizes[0]:
            y, x = size_of(job.mask)
            words = f"the mask is {x}×{y} pixels, and INPUT {sizes[0][1]}×{sizes[0][0]}; make them equal"
            raise InputError(words, file=job.mask)
        mask = load_grey(job.mask, shape)
    return first._replace(values=one), second._replace(values=two), mask
