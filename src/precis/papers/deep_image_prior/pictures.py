"""Pictures between files and the fit: colours, masks, references, noise, padding."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.data.images import as_float, composite, read_image
from precis.errors import InputError
from precis.papers.job import Work

LEAST = 16  # pixels a side
FEW, UNSURE = 0.05, 0.01


class Picture(NamedTuple):
    """`pixels` [1,C,H,W] in [0, 1], C = 1 or 3; `alpha` [1,1,H,W] or None."""

    pixels: Tensor
    alpha: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[-2], self.pixels.shape[-1]


def load_picture(path: str | Path, work: Work, *, keep_alpha: bool = False) -> Picture:
    """A picture in [0, 1]; what is done to it is noted.  Transparent pixels are laid on white unless alpha is kept."""
    image = read_image(path)
    if min(image.pixels.shape[1:]) < LEAST:
        h, w = image.pixels.shape[1:]
        raise InputError(f"{w}×{h} pixels are too few: at least {LEAST} a side are wanted", file=path)
    alpha = None
    if image.alpha is not None and as_float(image.alpha).min() < 1:
        if keep_alpha:
            alpha = torch.from_numpy(as_float(image.alpha))[None]
        else:
            work.note(f"{Path(path).name}: transparent pixels were laid on white")
            image = composite(image)
    pixels = as_float(image.pixels)
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        work.note(f"{Path(path).name}: values from {low:.4g} to {high:.4g} were brought to 0 … 1")
        pixels = (pixels - low) / ((high - low) or 1)
    return Picture(torch.from_numpy(np.ascontiguousarray(pixels, np.float32))[None], alpha)


def load_mask(job: Any, picture: Picture, work: Work) -> Tensor:
    """[1,1,H,W], 1 where the picture is known: from --mask, or from the alpha."""
    if job.mask is not None:
        found = as_float(composite(read_image(job.mask), "black").pixels)
        if found.shape[1:] != picture.size:
            (h, w), (height, width) = found.shape[1:], picture.size
            raise InputError(f"the mask is {w}×{h} pixels, the picture {width}×{height}", file=job.mask)
        grey, name = torch.from_numpy(found.mean(0))[None, None], Path(job.mask).name
    elif picture.alpha is not None:
        grey, name = picture.alpha, "the alpha"
    else:
        raise InputError("--task inpaint needs --mask FILE (white known), or a picture with transparent pixels")
    unsure = float(((grey > 0.1) & (grey < 0.9)).float().mean())
    if unsure > UNSURE:
        work.note(f"{name}: {unsure:.0%} of its pixels are neither black nor white (a JPEG?); it was cut at one half")
    known = (grey > 0.5).float()
    known = 1 - known if job.invert_mask else known
    share = float(known.mean())
    if share in (0.0, 1.0):
        what = "nothing is unknown" if share else "nothing is known"
        hint = "" if job.mask is None else "; white means known, --invert-mask turns it round"
        raise InputError(f"by this mask {what}{hint}", file=job.mask or job.input)
    if share < FEW:
        work.note(f"only {share:.1%} of the pixels are known; if it should be the others, use --invert-mask")
    return known


def kind_of_hole(known: Tensor) -> str:
    """"pixels", "text" or "large", by how far the unknown pixels are from the nearest known one."""
    from scipy.ndimage import distance_transform_edt

    far = float(distance_transform_edt(known[0, 0].numpy() < 0.5).max())
    return "pixels" if far < 2.5 else "text" if far < 6 else "large"


def load_reference(job: Any, size: tuple[int, int], channels: int, work: Work) -> Tensor | None:
    """--reference, as large as the result."""
    path = job.reference or job.clean
    if path is None:
        return None
    picture = load_picture(path, work)
    if picture.size != size:
        (h, w), (height, width) = picture.size, size
        raise InputError(f"the reference is {w}×{h} pixels, the result {width}×{height}", file=path)
    return picture.pixels.mean(1, keepdim=True) if channels == 1 else picture.pixels.expand(1, 3, -1, -1)


def scores(made: Tensor, truth: Tensor | None, border: int = 0) -> dict[str, float | None]:
    """PSNR and SSIM of a clipped picture, without a border."""
    from precis.nn.image import psnr, ssim

    if truth is None:
        return {}
    cut = (..., slice(border, -border or None), slice(border, -border or None))
    x, y = made.clamp(0, 1)[cut], truth[cut]
    return {"psnr": float(psnr(x, y)), "ssim": float(ssim(x, y)) if min(x.shape[-2:]) >= 11 else None}


def luma(x: Tensor) -> Tensor:
    """[1,3,H,W] to [1,1,H,W]; grey stays."""
    weights = torch.tensor([0.299, 0.587, 0.114]).to(x)
    return x if x.shape[1] == 1 else (x * weights[:, None, None]).sum(1, keepdim=True)


def shown(x: Tensor) -> np.ndarray:
    """[C,H,W] in [0, 1]."""
    return np.asarray(x[0].detach().float().clamp(0, 1).cpu().numpy())
