"""Pictures between file and decoder, the decoder of a job, and what all tasks write."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.data.images import Image, as_bytes, as_float, composite, read_image, resize, shrink
from precis.errors import InputError
from precis.fields.deep_decoder import DeepDecoder
from precis.lab.figures import strip
from precis.nn.image import psnr, ssim
from precis.papers.job import Work
from precis.papers.work import save
from precis.train.checkpoint import save_model

CHECKPOINT = ".checkpoint"
CAPTION, TALLEST = 310, 640  # pixels: the width of "Deep Decoder, 28.5 dB, 123,456 bytes"; half the tallest picture
Metrics = dict[str, float | int | None]


class Loaded(NamedTuple):
    """`values` float32 [C,H,W], within [0, 1] up to noise; `full`: (height, width) before it was reduced."""

    values: np.ndarray
    full: tuple[int, int]

    def tensor(self, device: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.values, np.float32))[None].to(device)


def load(job: Any, work: Work, path: str | Path, longest: int | None) -> Loaded:
    """Read a picture, reduced to `longest` if there is one; what is done is noted.  Values may leave [0, 1]: noise."""
    image: Image = read_image(path)
    full = (int(image.pixels.shape[1]), int(image.pixels.shape[2]))
    if image.alpha is not None:
        if (as_float(image.alpha) < 1).any():
            work.note(f"{Path(path).name}: transparent pixels were laid on {job.background} (--background)")
        image = composite(image, job.background)
    image = image if longest is None else shrink(image, longest)
    h, w = image.pixels.shape[1:]
    if (h, w) != full:
        work.note(f"{Path(path).name}: {full[1]}×{full[0]} pixels were reduced to {w}×{h} (--size)")
    values = as_float(image.pixels)
    low, high = float(values.min()), float(values.max())
    if low < -1 or high > 2:
        raise InputError(f"its values run from {low:.3g} to {high:.3g}; 0 to 1 is wanted", file=path)
    if min(h, w) < 8:
        raise InputError(f"{w}×{h} pixels are too few: the least is 8×8", file=path)
    return Loaded(values, full)


def longest_of(job: Any, work: Work) -> int:
    return int(job.size or (512 if work.device.startswith("cuda") else 256))


def load_reference(job: Any, shape: tuple[int, ...]) -> Tensor | None:
    """The clean picture [1,C,H,W] of --reference, reduced to the size that is worked at if it is larger."""
    if job.reference is None:
        return None
    values = as_float(composite(read_image(job.reference), job.background).pixels)
    (h, w), (height, width) = values.shape[1:], shape[-2:]
    if h > height and w > width and abs(h * width / w - height) <= (job.factor or 1):  # sides were rounded
        values = resize(values, (height, width))
    elif (h, w) != (height, width):
        raise InputError(f"the reference is {w}×{h} pixels, what is made {width}×{height}", file=job.reference)
    x = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None]
    return x.expand(-1, shape[1], -1, -1) if x.shape[1] == 1 else x if x.shape[1] == shape[1] else x.mean(1, True)


def draw(job: Any, purpose: str, tile: int = 0) -> torch.Generator:
    """A stream of random numbers for one purpose; that of the first tile depends on the job's seed alone."""
    return torch.Generator().manual_seed(2 * (job.seed + 100_003 * tile) + ("init", "noise").index(purpose))


def options_of(job: Any, work: Work, steps: int, lr: float) -> dict[str, Any]:
    """What every fit is given: budget, rate, progress, checkpoints in the run's folder."""
    return {
        "steps": job.steps or (None if job.minutes else steps), "minutes": job.minutes, "lr": job.lr or lr,
        "log": work.log, "folder": work.folder / CHECKPOINT, "resume": work.resume,
    }  # fmt: skip


def watch(
    work: Work, name: str, truth: Tensor | None = None, seen: Callable[[Tensor], Tensor] = lambda x: x
) -> Callable[[int, Tensor, Tensor], dict[str, float]]:
    """A callback: the picture so far, as `seen`, for those who watch, and its PSNR where a truth is known."""

    def look(step: int, out: Tensor, average: Tensor) -> dict[str, float]:
        picture = seen(out.clamp(0, 1))
        work.image(name, numpy(picture))
        return {} if truth is None else {"psnr": float(psnr(picture, truth))}

    return look


def finish(job: Any, folder: Path, net: DeepDecoder, name: str = "model") -> Metrics:
    """Save the weights; the size of the model."""
    net.requires_grad_(False)
    save_model(folder, net, {
        "width": net.width, "layers": net.layers, "out_ch": net.out_ch, "upsample": net.upsample, "order": net.order,
        "sigmoid": net.sigmoid,
    }, name=name)  # fmt: skip
    return {"width": net.width, "layers": net.layers, "parameters": sum(p.numel() for p in net.parameters())}


def compare(name: str, made: Tensor, truth: Tensor) -> Metrics:
    """PSNR, and SSIM where the picture holds its window, of the clipped picture."""
    made = made.clamp(0, 1)
    small = min(truth.shape[-2:]) < 11
    return {
        f"psnr_{name}" if name else "psnr": float(psnr(made, truth)),
        f"ssim_{name}" if name else "ssim": None if small else float(ssim(made, truth)),
    }


def write_curves(work: Work, curve: dict[str, Any]) -> None:
    """The loss, and the PSNR where a truth is known, over the steps."""
    from precis.lab.figures import curves

    for metric, label, log_y in (("loss", "training loss", True), ("psnr", "PSNR (dB)", False)):
        if metric in curve:
            chart = curves({metric: (curve[metric].steps, curve[metric].values)}, y_label=label, log_y=log_y)
            save(work.folder / f"{metric}.png", chart.png())
            work.curve(metric, curve[metric].steps, curve[metric].values)


def sheet(tiles: list[np.ndarray], labels: list[str]) -> bytes:
    """Pictures [C,h,w] of one size side by side, so large that their captions take one line."""
    h, w = tiles[0].shape[-2:]
    return strip(tiles, labels, size=min(h * -(-CAPTION // w), TALLEST))


def rounded(x: Tensor) -> np.ndarray:
    """[1,C,H,W] or [C,H,W] to uint8 [C,H,W]."""
    return as_bytes(numpy(x))


def numpy(x: Tensor) -> np.ndarray:
    x = x[0] if x.ndim == 4 else x
    return np.asarray(x.detach().float().clamp(0, 1).cpu().numpy())
