"""How alike two pictures are where their pixels count: a capture's own masks take some out."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float

from precis.nn.image import ssim

WINDOW = 11  # pixels a side of SSIM's window
CHUNK = 4096  # windows at a time


def psnr_of(
    a: Float[np.ndarray, "h w 3"], b: Float[np.ndarray, "h w 3"], valid: Bool[np.ndarray, "h w"] | None = None
) -> float | None:
    """PSNR (dB, at most 120) over the valid pixels (None: all); None if there are none."""
    error = (a.astype(np.float64) - b) ** 2
    if valid is not None:
        error = error[valid]
    return float(-10 * np.log10(max(float(error.mean()), 1e-12))) if error.size else None


def ssim_of(
    a: Float[np.ndarray, "h w 3"], b: Float[np.ndarray, "h w 3"], valid: Bool[np.ndarray, "h w"] | None = None
) -> float | None:
    """Mean SSIM over the windows that hold valid pixels alone; None if there are none."""
    if min(a.shape[:2]) < WINDOW:
        return None
    x, y = (torch.from_numpy(np.moveaxis(z, -1, 0).astype(np.float32)) for z in (a, b))
    if valid is None or valid.all():
        return float(ssim(x[None], y[None])[0])
    lost = torch.from_numpy(~valid).float()[None, None]
    row, column = (F.max_pool2d(lost, WINDOW, 1)[0, 0] == 0).nonzero(as_tuple=True)
    if not len(row):
        return None
    found = []
    for r, c in zip(row.split(CHUNK), column.split(CHUNK)):
        parts = (z.unfold(1, WINDOW, 1).unfold(2, WINDOW, 1)[:, r, c].transpose(0, 1) for z in (x, y))
        found.append(ssim(*parts))  # a picture of one window each
    return float(torch.cat(found).mean())
