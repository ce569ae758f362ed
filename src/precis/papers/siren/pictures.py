"""Pictures between file and net: working size, alpha, linear light, ranges; their derivatives as pictures."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.data.images import Image, as_bytes, as_float, colour_of, composite, read_image, resize, shrink
from precis.errors import InputError
from precis.papers.job import Work
from precis.papers.light import from_srgb, to_srgb

from .options import has_cross, side, sizes

LUMA = (0.299, 0.587, 0.114)


class Picture(NamedTuple):
    """`values` float32 [C,H,W] in [0, 1] are what is fitted; `back` brings such values to what is stored and shown.

    With `alpha` the last channel is the alpha, and the others are multiplied by it.  `low`, `high`: the range of a
    float file.  `rounded`: the file has 8 bits.  `full`: (height, width) before it was reduced.
    """

    values: np.ndarray
    alpha: bool
    linear: bool
    rounded: bool
    low: float
    high: float
    full: tuple[int, int]

    def tensor(self, device: str) -> Tensor:
        return torch.from_numpy(np.array(self.values, np.float32)).to(device)

    def back(self, values: np.ndarray) -> np.ndarray:
        """Fitted values [C,h,w] as a picture [1|3|4,h,w] in [0, 1]: straight alpha, sRGB, rounded if the file is."""
        values = np.clip(values, 0, 1).astype(np.float32)
        colour, alpha = (values[:-1], values[-1:]) if self.alpha else (values, None)
        if alpha is not None:
            colour = np.clip(colour / np.maximum(alpha, 1 / 255), 0, 1)
        colour = to_srgb(torch.from_numpy(colour)).numpy() if self.linear else colour
        if alpha is not None:
            colour = np.concatenate([np.broadcast_to(colour, (3, *colour.shape[1:])), alpha])
        return as_float(as_bytes(colour)) if self.rounded else colour.astype(np.float32)

    def visible(self, values: np.ndarray) -> np.ndarray:
        """`back` with the colours multiplied by alpha again: what a PSNR is measured on."""
        shown = self.back(values)
        return np.concatenate([shown[:3] * shown[3:], shown[3:]]) if self.alpha else shown


def working_size(job: Any, work: Work, factor: int = 1) -> int:
    default = factor * (1024 if work.device.startswith("cuda") else 256)
    return default if job.task == "resample" and has_cross(job.size) else side(job, default)


def load_picture(
    job: Any, work: Work, path: str | Path, longest: int, *, keep_alpha: bool = True
) -> Picture:  # fmt: skip
    """Read a picture for fitting, reduced to `longest`; what is done to it is noted."""
    image = read_image(path)
    full = image.pixels.shape[1:]
    image, low, high = _in_range(_flatten(job, work, image, keep_alpha), work)
    image = shrink(image, longest)
    if image.pixels.shape[1:] != full:
        h, w = image.pixels.shape[1:]
        work.note(f"{Path(path).name}: {full[1]}×{full[0]} pixels were reduced to {w}×{h} (--size)")
    values = as_float(image.pixels)
    if job.linear:
        values = from_srgb(torch.from_numpy(values)).numpy()
    if image.alpha is not None:
        alpha = as_float(image.alpha)
        values = np.concatenate([values * alpha, alpha])
    rounded = image.meta.get("bits", 8) <= 8
    return Picture(np.clip(values, 0, 1), image.alpha is not None, job.linear, rounded, low, high, (full[0], full[1]))


def load_grey(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """A picture's luma [H,W] in [0, 1], on black where it is transparent."""
    pixels = as_float(composite(read_image(path), "black").pixels)
    if pixels.min() < 0 or pixels.max() > 1:
        raise InputError(f"its values run from {pixels.min():.3g} to {pixels.max():.3g}; 0 to 1 is wanted", file=path)
    grey = luma(pixels)
    return grey if size is None else resize(grey[None], size)[0].clip(0, 1)


def size_of(path: str | Path) -> tuple[int, int]:
    """(height, width) of a picture, upright."""
    h, w = read_image(path).pixels.shape[1:]
    return int(h), int(w)


def luma(pixels: np.ndarray) -> np.ndarray:
    """[C,…] to […]; alpha is not read."""
    return np.asarray(pixels[0] if len(pixels) < 3 else np.tensordot(np.array(LUMA), pixels[:3], 1))


def target_size(job: Any, shape: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that --scale or --size W×H ask for."""
    wanted = sizes(job.size) if job.size else None
    if isinstance(wanted, tuple):
        if job.scale is not None:
            raise InputError("--scale and --size WxH both say how large the result is; give one of them")
        return wanted
    if job.scale is None:
        raise InputError("--task resample needs --scale 2.5 or --size 640x480")
    h, w = (max(1, round(n * job.scale)) for n in shape)
    if h * w > 100_000_000:
        raise InputError(f"--scale {job.scale:g} makes {w}×{h} pixels, more than 100 million")
    return h, w


def gradient_picture(gradient: np.ndarray, peak: float) -> np.ndarray:
    """[2,H,W] (row, column) to [3,H,W]: the hue is the direction, the brightness the length, `peak` brightest."""
    from matplotlib.colors import hsv_to_rgb

    down, right = gradient
    hue = (np.arctan2(down, right) / (2 * np.pi)) % 1
    value = np.clip(np.hypot(down, right) / (peak or 1.0), 0, 1) ** 0.7
    return np.moveaxis(hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.75), value], -1)), -1, 0)


def laplacian_picture(laplacian: np.ndarray, peak: float) -> np.ndarray:
    """[H,W] to grey, 0 in the middle."""
    return np.asarray(0.5 + 0.5 * np.clip(laplacian / (peak or 1.0), -1, 1))


def _flatten(job: Any, work: Work, image: Image, keep_alpha: bool) -> Image:
    """Alpha as --background says."""
    if job.background is not None:
        colour_of(job.background)  # a colour that is none is told even where nothing is transparent
    if image.alpha is None:
        return image
    if (image.alpha == (255 if image.alpha.dtype == np.uint8 else 1)).all():
        return image._replace(alpha=None)
    if keep_alpha and job.background is None:
        work.note("the picture has alpha: it is fitted as one more output, and the colours are multiplied by it")
        return image
    work.note(f"transparent pixels were laid on {job.background or 'white'} (--background)")
    return composite(image, job.background or "white")


def _in_range(image: Image, work: Work) -> tuple[Image, float, float]:
    """Float pictures outside [0, 1] are brought into it."""
    if image.pixels.dtype == np.uint8:
        return image, 0.0, 1.0
    low, high = float(image.pixels.min()), float(image.pixels.max())
    if low >= 0 and high <= 1:
        return image, 0.0, 1.0
    work.note(f"values from {low:.4g} to {high:.4g} were brought to 0 … 1; PSNR is relative to that range")
    pixels = (image.pixels - low) / ((high - low) or 1.0)
    return image._replace(pixels=pixels.astype(np.float32)), low, high
