"""The colour pictures that the claims are about: crops of photographs, or of the user's pictures.

A photograph's shorter side is reduced to `side` pixels by area average; a trial cuts a square of `size` pixels out of
it at a place that its seed draws.  Seed s looks at picture s mod k; seeds that only tune or time look at a pilot.
"""

from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from precis.data.embedded import photo
from precis.data.images import as_float, composite, read_image
from precis.data.imageset import ImageSet
from precis.data.kinds import kinds_of
from precis.data.sources import from_folder
from precis.errors import InputError

SCORED = ("astronaut", "coffee", "chelsea")
MORE = (*SCORED, "rocket", "motorcycle_left")
PILOT = "flower"
TUNING = 10_000  # seeds from here on look at the pilot
MOST = 32  # pictures of the user's that are read


class Pictures(NamedTuple):
    """Float32 [3,h,w] in [0, 1]."""

    scored: tuple[np.ndarray, ...]
    pilot: np.ndarray

    def of(self, seed: int) -> np.ndarray:
        return self.pilot if seed >= TUNING else self.scored[seed % len(self.scored)]

    def crop(self, seed: int, size: int, generator: torch.Generator) -> Float[Tensor, "1 3 {size} {size}"]:
        """A square of the seed's picture, its place uniform."""
        picture = self.of(seed)
        row, column = (int(torch.randint(n - size + 1, (), generator=generator)) for n in picture.shape[1:])
        return torch.from_numpy(picture[None, :, row : row + size, column : column + size].copy())


def load_pictures(source: Path | None, size: int, side: int, names: tuple[str, ...] = SCORED) -> Pictures:
    """Photographs by name, or the picture or pictures at `source`, ready for crops of `size`."""
    pilot = reduce(as_float(photo(PILOT)), side)
    if source is None:
        return Pictures(tuple(reduce(as_float(photo(name)), side) for name in names), pilot)
    found = []
    for name, pixels in islice(_pictures(source), MOST):
        x = as_float(pixels)
        if min(x.shape[1:]) < size:
            raise InputError(f"{x.shape[2]}×{x.shape[1]} pixels are too few: squares of {size} are cut", file=name)
        if not (x.min() >= 0 and x.max() <= 1):
            raise InputError("its values leave 0 to 1", file=name)
        found.append(reduce(np.repeat(x, 3, 0) if len(x) == 1 else x, side))
    if not found:
        raise InputError("there is no picture in it", file=source)
    return Pictures(tuple(found), pilot)


def reduce(picture: np.ndarray, side: int) -> np.ndarray:
    """[C,H,W] with its shorter side reduced to `side` by area average; never enlarged."""
    from PIL import Image

    scale = side / min(picture.shape[1:])
    if scale >= 1:
        return picture
    size = (round(picture.shape[2] * scale), round(picture.shape[1] * scale))
    planes = [Image.fromarray(np.ascontiguousarray(p, np.float32)).resize(size, Image.Resampling.BOX) for p in picture]
    return np.stack([np.asarray(p) for p in planes]).clip(0, 1)


def _pictures(source: Path) -> Any:
    """(name, pixels [C,H,W]) of a picture, a folder of pictures, or a set of them."""
    if "image" in kinds_of(source):
        yield str(source), composite(read_image(source)).pixels
    elif source.is_dir():
        for name, body in from_folder(source):
            if isinstance(body, InputError):
                raise body
            yield name, composite(read_image(body, name=name)).pixels
    else:
        images = ImageSet.open(source, None)
        yield from zip(images.names, images.images)
