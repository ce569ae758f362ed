"""What a person looks at: completed pictures with their uncertainty."""

import numpy as np
from torch import Tensor

from precis.lab.figures import contact_sheet

SHOWN = 6  # pictures of a figure
VEIL = np.array([0.16, 0.22, 0.36], np.float32)[:, None, None]  # pixels that were not shown


def completion_sheet(images: Tensor, rows: list[Tensor], means: Tensor, sigmas: Tensor) -> bytes:
    """Columns are pictures [B,C,S,S]; rows: what is shown, the completion, its σ, the picture.  rows: shown pixels."""
    size = images.shape[-1]
    tiles = [veiled(image, r) for image, r in zip(images, rows)]
    tiles += [numpy(m.clamp(0, 1)) for m in means]
    peak = float(sigmas.max())
    tiles += [heat(numpy(s)[0] / peak) for s in sigmas]
    tiles += [numpy(image) for image in images]
    names = ["shown", "completed", f"σ, white {peak:.2f}", "picture"]
    return contact_sheet(tiles, columns=len(images), rows=names, size=max(96, size))


def veiled(image: Tensor, rows: Tensor) -> np.ndarray:
    """[3,S,S]: the shown pixels, dark blue elsewhere."""
    pixels = np.broadcast_to(numpy(image), (3, *image.shape[1:]))
    seen = np.zeros(image.shape[1] * image.shape[2], bool)
    seen[np.asarray(rows.cpu())] = True
    return np.where(seen.reshape(1, *image.shape[1:]), pixels, VEIL)


def heat(values: np.ndarray) -> np.ndarray:
    """[H,W] in 0 … 1 to [3,H,W]: black, red, yellow, white."""
    v = np.clip(values, 0, 1)
    return np.stack([np.clip(3 * v, 0, 1), np.clip(3 * v - 1, 0, 1), np.clip(3 * v - 2, 0, 1)])


def numpy(x: Tensor) -> np.ndarray:
    return np.asarray(x.detach().float().cpu().numpy())
