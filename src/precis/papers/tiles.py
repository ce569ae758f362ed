"""Large pictures in tiles: squares that overlap, are worked on one by one, and fade into one another again.

The memory that a fit takes is that of one tile, whatever the picture's size.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from precis.errors import InputError
from precis.papers.job import Work
from precis.train.checkpoint import load_state, save_state

OVERLAP = 32  # pixels of the result, at the least
SHARE = 0.02  # of a tile that should be known, where the picture has so much


class Window(NamedTuple):
    """A square of the measured picture: rows and columns from … to."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def of(self, x: Tensor, factor: int = 1) -> Tensor:
        a, b, c, d = (n * factor for n in self)
        return x[..., a:c, b:d]


def windows(size: tuple[int, int], tile: int, overlap: int) -> list[Window]:
    """Squares of `tile` that cover the picture and overlap by at least `overlap`, evenly spread; one if it fits."""
    spans = []
    for n in size:
        count = 1 if n <= tile else -(-(n - overlap) // (tile - overlap))
        starts = [round(i * (n - tile) / (count - 1)) for i in range(count)] if count > 1 else [0]
        spans.append([(start, min(start + tile, n)) for start in starts])
    return [Window(top, left, bottom, right) for top, bottom in spans[0] for left, right in spans[1]]


def cut(
    size: tuple[int, int], tile: int | None, default: int, factor: int = 1,
    known: Float[Tensor, "1 1 h w"] | None = None,
) -> list[Window]:  # fmt: skip
    """Tiles of a measured picture of `size` whose result is `factor` times as large; one where `tile` is 0.

    tile: their side in the result, at least 64, as the user said; None: `default`, up to twice as much where a hole is
    so large that else a tile would see (nearly) nothing known.  Raises InputError if a tile still would see nothing.
    """
    side = max(1, (default if tile is None else tile) // factor)
    if tile == 0 or max(size) <= side:
        return [Window(0, 0, *size)]
    of_side = lambda n: windows(size, n, OVERLAP // factor)
    if known is None:
        return of_side(side)
    sides = [side * n // 4 for n in (range(4, 9) if tile is None else (4,))]
    for least in (min(SHARE, float(known.mean()) / 2), 0.0):
        for n in sides:
            shares = [float(window.of(known).mean()) for window in of_side(n)]
            if min(shares) > least:
                return of_side(n)
    needed = next(n for n in range(side, max(size) + 16, 16) if all(w.of(known).any() for w in of_side(n)))
    raise InputError(
        f"a hole is larger than the squares of {sides[-1] * factor} pixels in which this picture would be fitted: with "
        f"--tile {needed * factor} every square sees known pixels, and takes more memory; --tile 0 fits it whole"
    )


def blend(parts: list[Tensor], where: list[Window], size: tuple[int, int], factor: int = 1) -> Tensor:
    """Tiles [1,C,h,w] put together, each fading linearly towards its edges."""
    if len(parts) == 1:
        return parts[0].cpu()
    shape = (1, parts[0].shape[1], size[0] * factor, size[1] * factor)
    total, weights = torch.zeros(shape), torch.zeros(1, 1, *shape[2:])
    for part, window in zip(parts, where):
        ramps = [torch.minimum(torch.arange(1, n + 1), torch.arange(n, 0, -1)) / n for n in part.shape[-2:]]
        weight = torch.outer(*ramps)[None, None]
        window.of(total, factor).add_(part.cpu() * weight)
        window.of(weights, factor).add_(weight)
    return total / weights


def kept(place: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What `make(place)` made, its checkpoints in the folder `place`; a resumed run takes what it has finished."""
    path = place.with_name(place.name + ".safetensors")
    if path.exists():
        return dict(load_state(path))
    made = make(place)
    save_state(path, made)
    shutil.rmtree(place, ignore_errors=True)
    return made


def check_tile(tile: int | None) -> None:
    """InputError for a --tile in which no two can overlap."""
    if tile is not None and 0 < tile < 64:
        raise InputError(f"--tile must be at least 64, or 0 for no tiles, got {tile}")


def tell(work: Work, where: list[Window], factor: int, minutes: float | None, shorter: str) -> None:
    """Note how many tiles there are, and how long it may take: `minutes` on two cores, None where nobody knows.

    shorter: the options that make it shorter.
    """
    long = minutes is not None and minutes > 10
    span = "a minute" if minutes is None or minutes < 1.5 else f"{round(minutes):,} minutes"
    time = "" if minutes is None else f"about {span} on two cores at the most"
    if len(where) > 1:
        side = max(max(window.size) for window in where) * factor
        tiles = f"the picture was fitted in {len(where)} tiles of {side} pixels that fade into one another (--tile)"
        work.note(tiles + (f"; {time}" if time else "") + (f"; {shorter} make it shorter" if long else ""))
    elif long:
        work.note(f"this takes {time}; {shorter} make it shorter")
