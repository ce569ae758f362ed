"""Pictures made worse in ways that training did not show: noise, blur, less contrast, coarse pixels.

After the benchmark of Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261); the strengths are the caller's.
"""

import numpy as np
from jaxtyping import UInt8
from scipy.ndimage import gaussian_filter

from precis.errors import InputError

KINDS = ("noise", "blur", "contrast", "pixelate")
Number = int | float


def corrupted(
    images: UInt8[np.ndarray, "n c h w"], kind: str, strength: Number, seed: int = 0
) -> UInt8[np.ndarray, "n c h w"]:
    """The pictures under one corruption.

    strength: of `noise` the standard deviation, of a range of 1; of `blur` the Gaussian's, in pixels; of `contrast` the
    share of it that is lost, down to the picture's mean (of all channels); of `pixelate` how many pixels of a side
    become one (a number between whole ones: the side is divided by it, rounded).  0 (`pixelate`: 1) changes nothing.
    """
    if strength < 0 or (kind == "contrast" and strength > 1) or (kind == "pixelate" and strength < 1):
        raise InputError(f"{kind} has no strength {strength:g}")
    x = images.astype(np.float32)
    if kind == "noise":
        x += 255 * strength * np.random.default_rng(seed).standard_normal(x.shape, dtype=np.float32)
    elif kind == "blur":
        x = gaussian_filter(x, (0, 0, strength, strength), mode="nearest")
    elif kind == "contrast":
        middle = x.mean((1, 2, 3), keepdims=True)
        x = middle + (1 - strength) * (x - middle)
    elif kind == "pixelate":
        x = _coarse(_coarse(x, strength, 2), strength, 3)
    else:
        raise InputError(f"no corruption is called {kind!r}: {', '.join(KINDS)}")
    return np.asarray(np.clip(np.rint(x), 0, 255).astype(np.uint8))


def _coarse(x: np.ndarray, strength: Number, axis: int) -> np.ndarray:
    """Means over stretches of about `strength` pixels along an axis, in the place of each of their pixels."""
    side = x.shape[axis]
    cells = max(1, round(side / strength))
    cell = np.arange(side) * cells // side
    starts = np.searchsorted(cell, np.arange(cells))
    means = np.add.reduceat(x, starts, axis) / np.bincount(cell).reshape(-1, *[1] * (3 - axis))
    return np.asarray(np.take(means, cell, axis))
