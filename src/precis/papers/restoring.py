"""What the jobs that restore pictures agree on: how much noise there is, what is too large, light, and weights.

The noise is what --sigma says, else an estimate, which may find none.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from precis.errors import InputError
from precis.fields.restoration import estimate_noise
from precis.papers.job import Work
from precis.papers.light import from_srgb, to_srgb

MOST = 50_000_000  # pixels of an enlarged picture
SLOW = 60_000  # unknown pixels from which the biharmonic equation takes minutes
LARGE = 64 << 20  # bytes of all networks of a run, up to which they are kept
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


def given_of(job: Any, work: Work) -> Callable[[Tensor], Tensor]:
    """From a picture as it is stored to what is fitted: itself, or with --linear its light."""
    if not job.linear:
        return lambda x: x
    what = "; --sigma, or the noise that is found, is of linear values" if job.task == "denoise" else ""
    work.note(f"--linear: the fit is in linear light{what}.  Pictures are written, and scored, in sRGB")
    return from_srgb


def seen_of(job: Any) -> Callable[[Tensor], Tensor]:
    """From what is fitted to the picture that is written and scored."""
    return to_srgb if job.linear else lambda x: x


def place_of(
    work: Work, net: nn.Module, tile: tuple[int, int], run: tuple[int, int] = (0, 1)
) -> tuple[Path, str] | None:
    """Folder and name for the weights of one fit of many: tile and run, each as (number from 0, how many).

    None where all of them together would be large.  What is done is noted.
    """
    fits = tile[1] * run[1]
    if fits == 1:
        return work.folder, "model"
    size = 4 * sum(p.numel() for p in net.parameters()) * fits
    if size > LARGE:
        work.note(f"no weights were written: the {fits} networks of this result take {size / 2**20:,.0f} MB")
        return None
    if tile[1] == 1:
        work.note(f"the result is the mean of {fits} networks: model_1 to model_{fits}.safetensors")
        return work.folder, f"model_{run[0] + 1}"
    rows = "tile_1 is the upper left one, and they go on to the right, then down"
    work.note(f"{fits} networks stand behind the result; their weights are in models/ ({rows})")
    return work.folder / "models", f"tile_{tile[0] + 1}" + (f"_run_{run[0] + 1}" if run[1] > 1 else "")
