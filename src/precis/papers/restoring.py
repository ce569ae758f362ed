"""What the jobs that restore pictures agree on: how much noise there is, and what is too large.

The noise is what --sigma says, else an estimate, which may find none.
"""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from precis.errors import InputError
from precis.fields.restoration import estimate_noise
from precis.papers.job import Work

MOST = 50_000_000  # pixels of an enlarged picture
SLOW = 60_000  # unknown pixels from which the biharmonic equation takes minutes
NONE = 0.3 / 255  # rounding to 8 bits alone deviates by 1/√12 of a step


def level_of(picture: Float[Tensor, "1 c h w"], given: float | None, work: Work) -> float:
    """The noise's deviation on the scale 0 … 1: `given`, else estimated; 0 where none is found.  All is noted."""
    if given is not None:
        return given
    sigma = estimate_noise(picture)
    if sigma > NONE:
        work.note(f"the noise was estimated: a deviation of {255 * sigma:.1f} on the scale 0…255 (--sigma)")
        return sigma
    work.note(
        "no noise was found: half of the picture or more is flat or smooth, as in graphics; if you see noise, say how "
        "strong it is with --sigma N (its deviation on the scale 0…255)"
    )
    return 0.0


def nothing_to_do(job: Any, sigma: float, work: Work) -> bool:
    """Whether a fit would be for nothing: no noise, and no --steps or --minutes (or --stop) that ask for it."""
    if sigma > 0:
        return False
    if job.steps is None and job.minutes is None and getattr(job, "stop", None) in (None, "noise"):
        work.note("nothing was fitted, the result is the picture itself; --steps N fits it all the same")
        return True
    work.note("total variation and non-local means need to know the noise and were left out")
    return False


def check_enlarged(size: tuple[int, int], factor: int, path: str | Path) -> None:
    """InputError if a picture of `size` = (H, W) would have too many pixels `factor` times as large."""
    h, w = (n * factor for n in size)
    if h * w > MOST:
        raise InputError(f"{w}×{h} pixels are too many: {MOST // 1_000_000} million at the most", file=path)
