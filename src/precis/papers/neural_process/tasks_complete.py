"""Pictures from a few of their pixels, with what remains unknown, and the pixels to ask for next: `complete`."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.images import Image, as_float, composite, read_image
from precis.data.imageset import ImageSet
from precis.data.stack import square
from precis.errors import InputError
from precis.fields.neural_process import CNP
from precis.fields.neural_process_context import acquire, knn_predict, take
from precis.fields.neural_process_fit import fit_pixels
from precis.lab.figures import curves
from precis.lab.words import counted
from precis.nn.coordinates import coordinate_grid
from precis.papers.job import Work
from precis.papers.work import save, writing
from precis.train.checkpoint import save_model

from .calibration import Calibration
from .common import Metrics, batch_of, draw, size_of, training, width_of, write_curve
from .pictures import SHOWN, completion_sheet, numpy, veiled
from .tasks_functions import build

FEWEST, SCORED, NEXT = 200, 200, 20
AT_ONCE = 1 << 25  # distances, and units of a layer, that are in memory at once: 128 MB
LUMA = np.array([0.299, 0.587, 0.114])


def run_complete(job: Any, work: Work) -> Metrics:
    """Train on nine tenths of the pictures; complete one, or some that were held out."""
    size = job.size or 32
    asked = _context(job.context or str(min(100, size * size // 2)), size)  # read before the training, not after
    given = None if job.image is None else read_image(job.image)
    images = load_set(job, work, size)
    channels = images.shape[1]
    one = None if given is None else _picture(given, job.background or "white", channels, size)
    order = torch.randperm(len(images), generator=draw(job, "split"))
    held = max(20, min(SCORED, len(images) // 10))
    test, train = images[order[:held]].to(work.device), images[order[held:]].to(work.device)
    reserve = test[:0]
    if job.recalibrate:
        reserve, train = train[:held], train[held:]
    config = {"x_dim": 2, "y_dim": channels, "width": width_of(job), "min_sigma": job.min_sigma or 0.05,
              "latent": job.latent, "seed": job.seed}  # fmt: skip
    net = build(**config).to(work.device)
    grid, rows = coordinate_grid((size, size), device=work.device), train.flatten(2).mT.contiguous()
    run = fit_pixels(
        net, rows, grid, (size, size), generator=draw(job, "batches"), batch=batch_of(job),
        context=max(1, min(200, size * size // 2)), targets=min(256, size * size), **training(job, work),
    )  # fmt: skip
    net.eval()
    save_model(work.folder, net, config, component="precis.papers.neural_process.tasks_functions:build")
    sigma = errors_of(net, reserve, draw(job, "eval")).sigma_scale() if job.recalibrate else 1.0
    metrics = against_context(work, net, rows, test, draw(job, "eval"), sigma)
    if job.recalibrate:
        metrics["sigma_scale"] = sigma
        work.note(f"--recalibrate: σ is multiplied by {sigma:.3g}, the likeliest factor on {held} pictures that "
                  "neither the training nor the scores have seen.  model.safetensors has σ without it.")  # fmt: skip
    shown = test[:SHOWN] if one is None else one[None].to(work.device)
    metrics |= show(work, net, shown, asked, draw(job, "eval"), sigma, alone=one is not None)
    write_curve(work, run, "−log Q per pixel (nats)")
    return metrics | {"train_images": len(train), "held_out_images": len(test)} | size_of(net)


def load_set(job: Any, work: Work, size: int, least: int = FEWEST) -> Tensor:
    """float32 [N,C,size,size] in [0, 1]."""
    found = ImageSet.open(job.input, size, background=job.background or "white", keep_going=job.keep_going)
    if len(found) < least:
        raise InputError(f"{len(found)} pictures; at least {least} are needed to learn from", file=job.input)
    if found.write_skipped(work.folder):
        work.note(f"{counted(len(found.skipped), 'picture')} could not be read: skipped.csv")
    return torch.from_numpy(as_float(np.asarray(found.images)))


def errors_of(net: CNP, images: Tensor, generator: torch.Generator) -> Calibration:
    """Standardised errors of pixels that were not shown, by how many random ones were."""
    size, y = images.shape[-1], images.flatten(2).mT
    order = torch.rand(len(y), size * size, generator=generator).argsort(-1).to(y.device)
    grid, found, some = coordinate_grid((size, size), device=y.device), Calibration(), pictures_at_once(net, size)
    for count in counts_of(size):
        for rows, values in zip(order.split(some), y.split(some)):
            mean, sigma = _predict(net, grid, rows[:, :count], values)
            for z in take((values - mean) / sigma, rows[:, count:]):
                found.add(count, numpy(z))
    return found


def counts_of(size: int) -> list[int]:
    return [c for c in (4, 10, 30, 100, 300, 1000) if c < size * size]


def against_context(
    work: Work, net: CNP, train: Tensor, test: Tensor, generator: torch.Generator, sigma: float = 1.0
) -> Metrics:  # fmt: skip
    """MSE of held-out pictures by number of random pixels shown, beside the nearest pixels and the mean picture.

    And the coverage of the bands of σ times `sigma` over pixels that were not shown: calibration.png.
    """
    size = test.shape[-1]
    n, y = size * size, test.flatten(2).mT
    counts, bands, some = counts_of(size), Calibration(), pictures_at_once(net, size)
    order = torch.rand(len(y), n, generator=generator).argsort(-1).to(y.device)
    grid = coordinate_grid((size, size), device=y.device)
    ours, near, metrics = [], [], Metrics()
    for count in counts:
        rows = order[:, :count]
        mean, std = (torch.cat(parts) for parts in zip(
            *(_predict(net, grid, r, v, sigma) for r, v in zip(rows.split(some), y.split(some)))))  # fmt: skip
        for z in take((y - mean) / std, order[:, count:]):
            bands.add(count, numpy(z))
        nearest = torch.cat([neighbours(grid, r, take(v, r)) for r, v in zip(rows.split(some), y.split(some))])
        ours.append(float((mean - y).square().mean()))
        near.append(float((nearest - y).square().mean()))
    middle = 100 if 100 in counts else counts[len(counts) // 2]
    for count in (middle, *(c for c in counts if c != middle)):
        metrics |= {f"mse_{count}": ours[counts.index(count)], f"mse_{count}_knn": near[counts.index(count)]}
    flat = float((train.mean(0) - y).square().mean())
    lines = {"neural process": (counts, ours), "3 nearest pixels": (counts, near),
             "mean picture": (counts, [flat] * len(counts))}  # fmt: skip
    chart = curves(lines, x_label="pixels shown", y_label="MSE", log_x=True, log_y=True)
    save(work.folder / "context.png", chart.png())
    save(work.folder / "calibration.png", bands.chart().png())
    for note in bands.notes("pixels", mended=sigma != 1):
        work.note(note)
    coverage = {f"coverage_{level}": bands.at(level, middle) / 100 for level in (50, 90)}
    return metrics | {"mse_mean_picture": flat, "calibration_error": bands.error(middle)} | coverage


def pictures_at_once(net: CNP, size: int) -> int:
    """So many pictures of size² pixels that a layer of their predictions stays in memory."""
    widest = max(p.shape[0] for p in net.parameters() if p.ndim == 2)
    return max(1, min(64, AT_ONCE // (size * size * widest)))


def neighbours(grid: Tensor, rows: Tensor, shown: Tensor) -> Tensor:
    """All pixels [B,n,c] as the mean of the three nearest of those shown, a part of the pixels at a time."""
    part = max(1, AT_ONCE // rows.numel())
    return torch.cat([knn_predict(grid[rows], shown, g.expand(len(rows), -1, -1), 3) for g in grid.split(part)], 1)


def show(
    work: Work, net: CNP, images: Tensor, asked: Any, generator: torch.Generator, scale: float = 1.0, *, alone: bool
) -> Metrics:  # fmt: skip
    """Completions with their σ; for the first picture, the pixels that the network would ask for next."""
    size, y = images.shape[-1], images.flatten(2).mT
    grid = coordinate_grid((size, size), device=y.device)
    if isinstance(asked, Tensor):
        rows = asked.to(y.device).expand(len(y), -1)
    elif isinstance(asked, int):
        rows = torch.rand(len(y), size * size, generator=generator).argsort(-1)[:, :asked].to(y.device)
    else:
        rows = _pattern(asked, size).to(y.device).expand(len(y), -1)
    mean, sigma = _predict(net, grid, rows, y, scale)
    as_pictures = lambda t: t.mT.unflatten(2, (size, size))
    sheet = completion_sheet(images, list(rows), as_pictures(mean), as_pictures(sigma.mean(-1, keepdim=True)))
    save(work.folder / "completions.png", sheet)
    work.show("completions.png")
    if alone:
        work.image("completed", numpy(as_pictures(mean)[0].clamp(0, 1)))
        work.image("sigma", numpy(as_pictures(sigma.mean(-1, keepdim=True))[0, 0] / sigma.max()))
    first, budget = y[:1], min(size * size, rows.shape[1] + NEXT)
    order = acquire(lambda r: _normal(net, grid, r, first), 1, size * size, budget, start=rows[:1])
    added = order[0, rows.shape[1] :].tolist()
    with writing(work.folder / "next_pixels.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["rank", "row", "column"])
        out.writerows((k + 1, i // size, i % size) for k, i in enumerate(added))
    marked = veiled(images[0], rows[0])
    for k, i in enumerate(added):
        marked[:, i // size, i % size] = (1.0, 0.75 - 0.6 * k / NEXT, 0.1)
    work.image("next_pixels", np.kron(marked, np.ones((1, max(1, 256 // size), max(1, 256 // size)))))
    return {"mse_shown": float((mean - y).square().mean()), "pixels_shown": rows.shape[1]}


def _predict(net: CNP, grid: Tensor, rows: Tensor, y: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    found = _normal(net, grid, rows, y)
    return found.mean, scale * found.stddev


@torch.no_grad()
def _normal(net: CNP, grid: Tensor, rows: Tensor, y: Tensor) -> Any:
    return net(grid[rows], take(y, rows), grid.expand(len(y), -1, -1))


def _pattern(order: str, size: int) -> Tensor:
    """ordered: the upper half; half: the left one."""
    grid = torch.arange(size * size).view(size, size)
    half = grid[: size // 2] if order == "ordered" else grid[:, : size // 2]
    return half.reshape(1, -1)


def _context(text: str, size: int) -> Any:
    """A number of pixels, a pattern, or the rows [1,n] of the white pixels of a mask."""
    if text in ("ordered", "half"):
        return text
    if text.isdigit():
        if not 1 <= int(text) <= size * size:
            raise InputError(f"--context must be 1 to {size * size} pixels, got {text}")
        return int(text)
    if not Path(text).is_file():
        raise InputError(f"--context must be a number of pixels, ordered, half or a mask picture, and {text!r} is none")
    mask = read_image(text)
    grey = as_float(mask.pixels).mean(0)
    if grey.shape != (size, size):
        words = f"the mask is {grey.shape[1]}×{grey.shape[0]} pixels, and the pictures {size}×{size}; make them equal"
        raise InputError(words, file=text)
    rows = np.flatnonzero(grey.ravel() > 0.5)
    if not len(rows):
        raise InputError("the mask shows no pixel: white ones are shown", file=text)
    return torch.from_numpy(rows)[None]


def _picture(image: Image, background: str, channels: int, size: int) -> Tensor:
    """[C,size,size], the central square of a picture with as many channels as the set."""
    pixels = as_float(square(composite(image, background).pixels, size)).clip(0, 1)
    if channels == 1 and len(pixels) == 3:
        pixels = np.tensordot(LUMA, pixels, 1)[None]
    return torch.from_numpy(np.broadcast_to(pixels, (channels, size, size)).astype(np.float32))
