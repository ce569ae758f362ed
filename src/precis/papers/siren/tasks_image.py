"""Fit a picture, or evaluate the fit on another grid: `fit` and `resample`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.images import resize, write_image
from precis.fields.poisson import image_gradient, image_laplacian
from precis.fields.siren_fit import evaluate_image, fit_values, pixel_jitter, to_values
from precis.lab.figures import contact_sheet, strip
from precis.nn.coordinates import coordinate_grid
from precis.papers.job import Work
from precis.papers.work import save

from .common import (
    Metrics,
    Scalars,
    batch_of,
    draw,
    file_bytes,
    finish,
    make_net,
    numpy,
    psnr_of,
    training,
    write_curve,
)  # fmt: skip
from .pictures import (
    LUMA,
    Picture,
    gradient_picture,
    laplacian_picture,
    load_picture,
    luma,
    target_size,
    working_size,
)  # fmt: skip

MEASURED = 1 << 16  # pixels that a PSNR on the way is measured on


def run_fit(job: Any, work: Work) -> Metrics:
    """Φ(x) = picture; files for a person to judge the function and its derivatives by."""
    picture = load_picture(job, work, job.input, working_size(job, work))
    net, run = fit_picture(job, work, picture)
    h, w = picture.values.shape[1:]
    made = numpy(evaluate_image(net, (h, w), align_corners=job.align_corners))
    truth, shown = picture.back(picture.values), picture.back(made)
    metrics: Metrics = {"psnr": psnr_of(picture.visible(picture.values), picture.visible(made))}
    metrics["ssim"] = similarity(picture.visible(picture.values), picture.visible(made))
    work.image("reconstruction", shown)
    if not picture.rounded:
        write_image(work.folder / "reconstruction.tif", _stored(picture, made))
    error = np.abs(picture.visible(picture.values) - picture.visible(made)).mean(0)
    work.image("error", np.clip(10 * error, 0, 1))
    metrics |= _derivatives(job, work, net, picture, truth, shown, error)
    write_curve(work, "psnr.png", run, "psnr", "PSNR (dB)")
    metrics |= finish(work, net)
    return metrics | byte_counts(job, metrics, picture)


def run_resample(job: Any, work: Work) -> Metrics:
    """Fit, then evaluate on a finer or coarser grid, beside bicubic interpolation of the same pixels."""
    picture = load_picture(job, work, job.input, working_size(job, work, 2))
    h, w = picture.values.shape[1:]
    size = target_size(job, (h, w))
    jitter = pixel_jitter((h, w)) if size[0] * size[1] < h * w else None
    net, run = fit_picture(job, work, picture, jitter)
    fitted = numpy(evaluate_image(net, (h, w), align_corners=job.align_corners))
    made = numpy(evaluate_image(net, size, align_corners=job.align_corners))
    shown, bicubic = picture.back(made), picture.back(resize(picture.values, size))
    work.image("reconstruction", picture.back(fitted))
    work.image("resampled", shown)
    work.image("bicubic", bicubic)
    crops = _crops(picture, size, shown, bicubic)
    captions = [f"the picture, {w}×{h}", f"SIREN, {size[1]}×{size[0]}", "bicubic"]
    save(work.folder / "overview.png", strip(crops, captions, size=384))
    work.show("overview.png")
    write_curve(work, "psnr.png", run, "psnr", "PSNR (dB)")
    metrics: Metrics = {"psnr": psnr_of(picture.visible(picture.values), picture.visible(fitted))}
    metrics |= {"psnr_to_bicubic": psnr_of(shown, bicubic), "height": size[0], "width": size[1]}
    metrics |= finish(work, net)
    return metrics | byte_counts(job, metrics, picture)


def fit_picture(
    job: Any, work: Work, picture: Picture, jitter: Callable[..., Tensor] | None = None
) -> tuple[Any, Any]:
    """A net fitted to the picture's values; its PSNR and looks are measured on the way."""
    image = picture.tensor(work.device)
    coords, values = to_values(image, align_corners=job.align_corners)
    net = make_net(job, work, 2, len(values.T))
    options = training(job, work, look_at(job, work, picture))
    run = fit_values(net, coords, values, batch=batch_of(job), generator=draw(job, "batches"), jitter=jitter, **options)
    return net, run


def look_at(job: Any, work: Work, picture: Picture) -> Callable[[Any], Scalars]:
    """PSNR so far, on all pixels or on a coarser grid of them, and the picture for those who watch."""
    h, w = picture.values.shape[1:]
    step = max(1, int(np.ceil((h * w / MEASURED) ** 0.5)))
    grid = coordinate_grid((h, w), align_corners=job.align_corners).reshape(h, w, 2)[::step, ::step]
    part = picture.values[:, ::step, ::step]

    def measure(net: Any) -> Scalars:
        like = next(net.parameters())
        made = numpy((net(grid.reshape(-1, 2).to(like)) + 1) / 2).T.reshape(part.shape)
        work.image("reconstruction", picture.back(made))
        return {"psnr": min(psnr_of(picture.visible(part), picture.visible(made)), 120.0)}

    return measure


def similarity(a: np.ndarray, b: np.ndarray) -> float | None:
    """SSIM; None for pictures smaller than its window."""
    from precis.nn.image import ssim

    if min(a.shape[1:]) < 11:
        return None
    return float(ssim(*(torch.from_numpy(np.ascontiguousarray(x))[None].float() for x in (a, b))))


def byte_counts(job: Any, metrics: Metrics, picture: Picture) -> Metrics:
    """What the weights take against the file, each by its own pixels."""
    h, w = picture.values.shape[1:]
    size, source = metrics["model_bytes"], file_bytes(job.input)
    assert size is not None
    return {
        "bytes_per_pixel": size / (h * w), "source_bytes": source,
        "source_bytes_per_pixel": source / (picture.full[0] * picture.full[1]),
    }  # fmt: skip


@torch.no_grad()
def net_derivatives(net: Any, shape: tuple[int, int], align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """Gradient [2,H,W] and Laplacian [H,W] of the luma of a net's picture in [0, 1], in units of coordinates."""
    like = next(net.parameters())
    grid = coordinate_grid(shape, align_corners=align_corners, device=like.device, dtype=like.dtype)
    mix = _luma_weights(net.out_dim).to(like) / 2  # the net's values are in −1 … 1
    parts = [net.jet(x, 2, True) for x in grid.split(1 << 14)]
    gradient = torch.cat([torch.einsum("nod,o->dn", jet.grad, mix) for jet in parts], 1)
    laplacian = torch.cat([jet.lap @ mix for jet in parts])
    return numpy(gradient).reshape(2, *shape), numpy(laplacian).reshape(shape)


def _luma_weights(outputs: int) -> Tensor:
    return torch.tensor([*LUMA, 0.0][:outputs] if outputs >= 3 else [1.0, 0.0][:outputs])


def _derivatives(
    job: Any, work: Work, net: Any, picture: Picture, truth: np.ndarray, shown: np.ndarray, error: np.ndarray
) -> Metrics:
    """The contact sheet: picture, gradient, Laplacian; of the photograph, of the fit, and their difference."""
    h, w = picture.values.shape[1:]
    grey = torch.from_numpy(luma(picture.values)).float()[None]
    true_g, true_l = numpy(image_gradient(grey)[0]), numpy(image_laplacian(grey)[0])
    net_g, net_l = net_derivatives(net, (h, w), job.align_corners)
    top_g = float(np.percentile(np.hypot(*true_g), 99)) or 1.0
    top_l = float(np.percentile(np.abs(true_l), 99)) or 1.0
    gradients = [gradient_picture(g, top_g) for g in (true_g, net_g)]
    laplacians = [laplacian_picture(x, top_l) for x in (true_l, net_l)]
    work.image("gradient", gradients[1])
    work.image("laplacian", laplacians[1])
    rows = [
        truth, shown, np.clip(10 * error, 0, 1), *gradients, np.clip(np.hypot(*(net_g - true_g)) / top_g, 0, 1),
        *laplacians, np.clip(np.abs(net_l - true_l) / top_l, 0, 1),
    ]  # fmt: skip
    names = ("value", "gradient", "Laplacian")
    header = ["photograph", "SIREN", "difference (value × 10)"]
    save(work.folder / "overview.png", contact_sheet(rows, columns=3, header=header, rows=names, size=256))
    work.show("overview.png")
    return {
        "psnr_gradient": psnr_of(true_g, net_g, float(np.ptp(true_g))) if np.ptp(true_g) else None,
        "psnr_laplacian": psnr_of(true_l, net_l, float(np.ptp(true_l))) if np.ptp(true_l) else None,
    }


def _stored(picture: Picture, made: np.ndarray) -> np.ndarray:
    """Values in the range of a float file, without alpha."""
    shown = picture.back(made)[:3]
    return shown * (picture.high - picture.low) + picture.low


def _crops(picture: Picture, size: tuple[int, int], shown: np.ndarray, bicubic: np.ndarray) -> list[np.ndarray]:
    """The same central window of the three, at most 384 pixels of the result high, so that single pixels are seen."""
    h, w = picture.values.shape[1:]
    share = min(1.0, 384 / max(size))
    out = []
    for x, (a, b) in ((picture.back(picture.values), (h, w)), (shown, size), (bicubic, size)):
        rows, columns = (max(1, round(n * share)) for n in (a, b))
        out.append(x[:, (a - rows) // 2 :, (b - columns) // 2 :][:, :rows, :columns])
    if size[0] > h:  # pixels of the picture as squares of the same size on the sheet
        pick = [np.arange(o) * i // o for o, i in zip(out[1].shape[1:], out[0].shape[1:])]
        out[0] = out[0][:, pick[0]][:, :, pick[1]]
    return out
