"""Bytes of a learned scene beside what else could hold it: "5 MB against 15 GB", for the scene at hand."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from .claims_size import PLANES

CHANNELS, FLOAT = 4, 4  # density and colour, as float32; and RGBA, as bytes


class Sizes(NamedTuple):
    """Bytes, and the cells a side of the grid."""

    model: int
    grid: int
    planes: int
    cells: tuple[int, ...]


def sizes_of(folder: Path, place: Any, away: float) -> Sizes:
    """What the run saved; a dense grid over the box, with voxels as wide as a pixel of the photographs is at the
    distance `away`; and LLFF's planes, 32 of RGBA for each photograph that was learned from."""
    saved = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    voxel = away / float(place.cameras.K[place.train, :2].mean())
    cells = tuple(max(math.ceil(side / voxel - 1e-6), 1) for side in (place.box[1] - place.box[0]).tolist())
    pixels = int(place.cameras.size[place.train].prod(1).sum())
    return Sizes(saved, math.prod(cells) * CHANNELS * FLOAT, PLANES * CHANNELS * pixels, cells)


def told(sizes: Sizes, photographs: int) -> str:
    """The comparison in a sentence."""
    cells = "×".join(map(str, sizes.cells))
    return (
        f"the model takes {as_words(sizes.model)}; a dense grid of density and colour over the box, its voxels as wide "
        f"as a pixel ({cells}), would take {as_words(sizes.grid)}, and {PLANES} stored planes for each of the "
        f"{photographs} photographs, as LLFF keeps them, {as_words(sizes.planes)}"
    )


def as_words(count: int) -> str:
    """Bytes as people say them."""
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{count / unit:.3g} {name}"
