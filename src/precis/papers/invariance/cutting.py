"""Where the cuts of a film are, told by its own changes.

A hard cut is one change of the picture's colours far above those around it.  In fast motion the changes around are high
as well, and so they are within a fade.  After a flash the scene is the one before it.
"""

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from precis.contrastive.tracks import BINS, shot_lengths

TIMES = 6.0  # a cut is so many times the changes around it, …
FLOOR = 0.1  # … but at least a tenth of the pixels change their colour, …
SURE = 0.5  # … and what changes half of them needs no comparison
AROUND = 8  # changes before and after that are looked at
FEWEST = 3  # of them, to say what is usual
FLASH = 3  # frames that a flash may last


def pieces(frames: Shaped[Tensor, "t c h w"], cuts: float | None) -> list[int]:
    """Lengths of the uncut pieces of a clip; `cuts`: the share of pixels that change their colour at a cut (1: none is
    a cut), or None: told by the clip's own changes."""
    if cuts is not None:
        return shot_lengths(frames, cuts) if cuts < 1 else [len(frames)]
    counts = histograms(frames)
    change = apart(counts[1:], counts[:-1])
    ends = [t + 1 for t in range(len(change)) if _is_cut(change, counts, t)]
    return [end - start for start, end in zip([0, *ends], [*ends, len(frames)])]


def _is_cut(change: np.ndarray, counts: Tensor, t: int) -> bool:
    least = _least(change, t)
    if change[t] <= least:
        return False
    # A flash: the frame before it comes back within a few frames, or this is the way back from one.
    there = counts[t + 2 : t + 2 + FLASH]
    back = counts[max(0, t - FLASH) : t]
    ways = [apart(there, counts[t : t + 1])] if len(there) else []
    ways += [apart(back, counts[t + 1 : t + 2])] if len(back) else []
    return not any((way <= least).any() for way in ways)


def _least(change: np.ndarray, t: int) -> float:
    """What a change must exceed to be a cut: of the changes around it, without itself."""
    around = np.concatenate([change[max(0, t - AROUND) : t], change[t + 1 : t + 1 + AROUND]])
    if len(around) < FEWEST:
        return SURE
    return float(np.clip(TIMES * np.median(around), FLOOR, SURE))


def histograms(frames: Shaped[Tensor, "t c h w"]) -> Float[Tensor, "t c b"]:
    """Shares of the pixels in each bin of colour; a value between the middles of two bins is shared by them."""
    x = frames.flatten(2).float() / (255 if frames.dtype == torch.uint8 else 1) * (BINS - 1)
    return torch.stack([(1 - (x - i).abs()).clamp(min=0).mean(2) for i in range(BINS)], 2)


def apart(a: Tensor, b: Tensor) -> np.ndarray:
    """The share of the pixels that would have to change their colour, the channels' mean."""
    return np.asarray((a - b).abs().sum(2).mean(1).numpy() / 2)
