"""A prior over pictures: a few pixels to a code, a code to a SIREN, a SIREN to a picture of any size: `prior`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.images import as_float, composite, read_image
from precis.data.imageset import ImageSet
from precis.data.stack import square
from precis.errors import InputError
from precis.fields.neural_process import SetEncoder
from precis.fields.siren import Siren
from precis.fields.siren_prior import HyperNetwork, SirenPrior, encode_images, fit_prior
from precis.lab.figures import contact_sheet, curves
from precis.lab.words import counted
from precis.nn.coordinates import coordinate_grid
from precis.papers.job import Work
from precis.papers.work import save
from precis.train.checkpoint import save_model

from .common import Metrics, Scalars, batch_of, draw, finish, numpy, training, write_curve
from .options import side
from .pictures import load_grey

FEWEST, SHOWN = 200, 6


def build_prior(channels: int, width: int, latent: int = 128, omega: float = 30.0, seed: int = 0) -> SirenPrior:
    """The prior of the job: SIRENs of this width, set encoder and hypernetwork of 2 × width (at most 256)."""
    generator = torch.Generator().manual_seed(seed)
    wide = min(256, 2 * width)
    encoder = SetEncoder(2 + channels, latent, (wide,) * 3, "sine", generator, last_activation=True)
    target = Siren(2, channels, width, first_omega=omega, generator=generator)
    return SirenPrior(encoder, HyperNetwork(latent, target, wide, generator=generator))


def run_prior(job: Any, work: Work) -> Metrics:
    """Train on nine tenths of the pictures; complete, draw, go between, and draw finer."""
    size = side(job, 32)
    images = load_set(job, work, size)
    asked = _asked(job, images.shape[1], size)  # read before hours of training, not after
    held = max(20, min(200, len(images) // 10))
    order = torch.randperm(len(images), generator=draw(job, "sample"))
    test, train = (images[part].to(work.device) for part in (order[:held], order[held:]))
    config = {"channels": images.shape[1], "width": job.width or (256 if work.device.startswith("cuda") else 64),
              "omega": job.omega or 30.0, "seed": job.seed}  # fmt: skip
    prior = build_prior(**config).to(work.device)
    n = size * size
    run = fit_prior(
        prior, train, generator=draw(job, "batches"), batch=batch_of(job),
        context=(max(1, min(10, n // 16)), max(1, min(200, n // 2))), **training(job, work, show=_shown),
    )
    save_model(work.folder, prior, config, component=f"{__name__}:build_prior")
    metrics = _against_context(work, prior, train, test, draw(job, "context"))
    rows = torch.stack([*asked["complete"]]) if asked["complete"] else test[:SHOWN]
    _completions(work, prior, rows.to(work.device), asked["context"], draw(job, "context"))
    _draws(job, work, prior, size, draw(job, "sample"))
    ends = asked["ends"] or (test[0], test[1 % len(test)])
    _between(work, prior, torch.stack([e.to(work.device) for e in ends]), size)
    work.show("completions.png")
    write_curve(work, "loss.png", run, "mse", "MSE of pixels in −1 … 1", log_y=True)
    return metrics | {"train_images": len(train), "held_out_images": len(test)} | finish(work, prior)


def load_set(job: Any, work: Work, size: int) -> Tensor:
    """float32 [N,C,size,size] in [0, 1]."""
    found = ImageSet.open(job.input, size, background=job.background or "white")
    if found.write_skipped(work.folder):
        work.note(f"{counted(len(found.skipped), 'picture')} could not be read: skipped.csv")
    if len(found) < FEWEST:
        (work.folder / "skipped.csv").unlink(missing_ok=True)
        raise InputError(f"{len(found)} pictures; a prior needs at least {FEWEST}", file=job.input)
    return torch.from_numpy(as_float(np.asarray(found.images)))


def knn_complete(train: Tensor, shown: Tensor, where: Tensor, k: int = 5) -> Tensor:
    """Mean of the k training pictures [N,C,P] that are nearest at the shown pixels; shown [B,C,n], where [B,n] of P."""
    out = []
    for values, rows in zip(shown, where):
        distance = (train[:, :, rows] - values).square().sum((1, 2))
        out.append(train[distance.topk(k, largest=False).indices].mean(0))
    return torch.stack(out)


@torch.no_grad()
def complete(prior: SirenPrior, images: Tensor, where: Tensor) -> Tensor:
    """Pictures [B,C,S,S] in [0, 1] from their pixels at `where` [B,n] (row-major) alone."""
    grid = coordinate_grid(images.shape[2:], device=images.device)
    values = images.flatten(2).mT * 2 - 1
    shown = torch.gather(values, 1, where[..., None].expand(-1, -1, values.shape[-1]))
    return ((prior(grid[where], shown, grid) + 1) / 2).mT.reshape(images.shape)


def _against_context(
    work: Work, prior: SirenPrior, train: Tensor, test: Tensor, generator: torch.Generator
) -> Metrics:  # fmt: skip
    """MSE of held-out pictures (pixels in 0 … 1) against the number of pixels shown, beside k nearest neighbours."""
    n = test.shape[-1] ** 2
    counts = [c for c in (4, 10, 30, 100, 300, 1000) if c < n] + [n]
    ours, neighbours = [], []
    flat, metrics = train.flatten(2), Metrics()
    for count in counts:
        where = torch.rand(len(test), n, generator=generator).topk(count, sorted=False).indices.to(test.device)
        made = complete(prior, test, where).clamp(0, 1)
        shown = torch.gather(test.flatten(2), 2, where[:, None].expand(-1, test.shape[1], -1))
        near = knn_complete(flat, shown, where).reshape(test.shape)
        ours.append(float((made - test).square().mean()))
        neighbours.append(float((near - test).square().mean()))
    middle = counts.index(100) if 100 in counts else len(counts) // 2
    metrics[f"mse_{counts[middle]}"], metrics[f"mse_{counts[middle]}_knn"] = ours[middle], neighbours[middle]
    for count, a, b in zip(counts, ours, neighbours):
        metrics |= {f"mse_{count}": a, f"mse_{count}_knn": b}
    lines = {"SIREN prior": (counts, ours), "5 nearest neighbours": (counts, neighbours)}
    chart = curves(lines, x_label="pixels shown", y_label="MSE", log_x=True, log_y=True)
    save(work.folder / "context.png", chart.png())
    return metrics


def _completions(work: Work, prior: SirenPrior, images: Tensor, context: Any, generator: torch.Generator) -> None:
    """Shown pixels, completion, picture; a mask or a number of pixels."""
    n = images.shape[-1] ** 2
    if isinstance(context, Tensor):
        where = context.to(images.device).expand(len(images), -1)
    else:
        count = min(context, n)
        where = torch.rand(len(images), n, generator=generator).topk(count, sorted=False).indices.to(images.device)
    made = complete(prior, images, where).clamp(0, 1)
    seen = torch.zeros(len(images), n, dtype=torch.bool, device=images.device).scatter_(1, where, True)
    mask = seen.reshape(len(images), 1, *images.shape[2:])
    colour = images.expand(-1, 3, -1, -1)
    blue = torch.tensor([0.16, 0.22, 0.36], device=images.device)[:, None, None]
    rows = [*torch.where(mask, colour, blue), *made, *images]
    names = [f"{where.shape[1]} pixels shown", "completed", "picture"]
    sheet = contact_sheet([numpy(x) for x in rows], columns=len(images), rows=names, size=128)
    save(work.folder / "completions.png", sheet)
    if len(images) == 1:
        work.image("completed", numpy(made[0]))


def _draws(job: Any, work: Work, prior: SirenPrior, size: int, generator: torch.Generator) -> None:
    """Functions drawn from the prior, on the grid of the pictures and on one that is finer."""
    count, factor = job.samples or 16, job.render or 3
    functions = prior.sample(count, generator)
    for name, side_ in (("samples", size), (f"samples_{factor}x", factor * size)):
        grid = coordinate_grid((side_, side_), device=next(prior.parameters()).device)
        values = torch.cat([functions(part) for part in grid.split(1 << 12)], 1)
        pictures = ((values + 1) / 2).mT.reshape(count, -1, side_, side_).clamp(0, 1)
        columns = int(np.ceil(count**0.5))
        save(work.folder / f"{name}.png", contact_sheet([numpy(x) for x in pictures], columns=columns, size=96))


@torch.no_grad()
def _between(work: Work, prior: SirenPrior, ends: Tensor, size: int, count: int = 8) -> None:
    """Pictures of codes on the line between two pictures' codes, each at its end."""
    codes = encode_images(prior, ends)
    share = torch.linspace(0, 1, count, device=codes.device)[:, None]
    grid = coordinate_grid((size, size), device=codes.device)
    values = prior.decode((1 - share) * codes[0] + share * codes[1], grid)
    made = ((values + 1) / 2).mT.reshape(count, -1, size, size).clamp(0, 1)
    labels = ["picture A", *(f"{100 * float(s):.0f} %" for s in share), "picture B"]
    save(work.folder / "interpolation.png", contact_sheet(
        [numpy(x) for x in (ends[0], *made, ends[1])], labels, columns=count + 2, size=96,
    ))  # fmt: skip


def _asked(job: Any, channels: int, size: int) -> dict[str, Any]:
    """What --complete, --context and --interpolate name, read and checked."""
    found: dict[str, Any] = {"complete": [], "context": 100, "ends": None}
    if job.complete is not None:
        found["complete"] = [_picture(job, job.complete, channels, size)]
    if job.context is not None:
        found["context"] = _context(job.context, size)
    if job.interpolate is not None:
        names = job.interpolate.split(",")
        if len(names) != 2:
            raise InputError(f"--interpolate must be two pictures with a comma, A,B; got {job.interpolate!r}")
        found["ends"] = tuple(_picture(job, name.strip(), channels, size) for name in names)
    return found


def _context(text: str, size: int) -> Any:
    """A number of pixels, or the rows [1,n] of the white pixels of a mask."""
    if text.isdigit():
        if not 1 <= int(text) <= size * size:
            raise InputError(f"--context must be 1 to {size * size} pixels, or a mask picture; got {text}")
        return int(text)
    if not Path(text).is_file():
        raise InputError(f"--context must be a number of pixels or a mask picture, and {text!r} is neither")
    mask = load_grey(text)
    if mask.shape != (size, size):
        words = f"the mask is {mask.shape[1]}×{mask.shape[0]} pixels, and the pictures {size}×{size}; make them equal"
        raise InputError(words, file=text)
    rows = np.flatnonzero(mask.ravel() > 0.5)
    if not len(rows):
        raise InputError("the mask shows no pixel: white ones are shown", file=text)
    return torch.from_numpy(rows)[None]


def _picture(job: Any, path: str | Path, channels: int, size: int) -> Tensor:
    """[C,size,size], the central square of a picture with as many channels as the set."""
    pixels = as_float(square(composite(read_image(path), job.background or "white").pixels, size)).clip(0, 1)
    if channels == 1 and len(pixels) == 3:
        pixels = np.tensordot(np.array([0.299, 0.587, 0.114]), pixels, 1)[None]
    return torch.from_numpy(np.broadcast_to(pixels, (channels, size, size)).astype(np.float32))


def _shown(scalars: Scalars) -> Scalars:
    return {name: scalars[name] for name in ("loss", "mse") if name in scalars}
