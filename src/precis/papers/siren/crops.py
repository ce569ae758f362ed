"""The grey pictures that SIREN's claims are about: crops of photographs, or of the user's pictures.

A photograph is made grey (luma) and its shorter side reduced to `side` pixels by area average; a trial cuts a square of
`size` pixels out of it at a place that its seed draws, the same for all arms.  Seed s looks at picture s mod k; seeds
that only tune look at a pilot, which is never scored.
"""

import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from precis.data.embedded import photo
from precis.data.images import as_float, composite, read_image
from precis.data.imageset import ImageSet
from precis.data.kinds import kinds_of
from precis.data.sources import from_folder, from_tar, from_zip
from precis.errors import InputError

SCORED = ("camera", "astronaut", "coffee")
PILOT = "chelsea"
TUNING = 10_000  # seeds from here on tune
MOST = 32  # pictures of the user's that are read: more than there are seeds


class Pictures(NamedTuple):
    """Grey float32 [h,w] in [0, 1]."""

    scored: tuple[np.ndarray, ...]
    pilot: np.ndarray

    def of(self, seed: int, shift: int = 0) -> np.ndarray:
        """The picture of a seed, or the one `shift` places after it."""
        return self.pilot if seed >= TUNING else self.scored[(seed + shift) % len(self.scored)]

    def crop(
        self, seed: int, size: int, generator: torch.Generator, shift: int = 0
    ) -> Float[Tensor, "1 {size} {size}"]:  # fmt: skip
        """A square of the seed's picture, its place uniform."""
        picture = self.of(seed, shift)
        row, column = (int(torch.randint(n - size + 1, (), generator=generator)) for n in picture.shape)
        return torch.from_numpy(picture[None, row : row + size, column : column + size].copy())


def load_pictures(source: Path | None, size: int, side: int, names: tuple[str, ...] = SCORED) -> Pictures:
    """Photographs by name, or the picture or pictures at `source`, ready for crops of `size`.

    A user's picture that is smaller than `side` is taken as it is; InputError if it is smaller than the crop.
    """
    pilot = reduce(grey(photo(PILOT)), side)
    if source is None:
        return Pictures(tuple(reduce(grey(photo(name)), side) for name in names), pilot)
    found = []
    for name, pixels in islice(_pictures(source), MOST):
        if min(pixels.shape[1:]) < size:
            raise InputError(
                f"{pixels.shape[2]}×{pixels.shape[1]} pixels are too few: this claim cuts squares of {size} out of a "
                "picture", file=name,
            )  # fmt: skip
        if not (0 <= pixels.min() and pixels.max() <= 1):
            low, high = float(pixels.min()), float(pixels.max())
            raise InputError(f"its values run from {low:.3g} to {high:.3g}; 0 to 1 is wanted", file=name)
        found.append(reduce(grey(pixels), side))
    if not found:
        raise InputError("there is no picture in it", file=source)
    return Pictures(tuple(found), pilot)


def grey(pixels: np.ndarray) -> np.ndarray:
    """Luma 0.299 R + 0.587 G + 0.114 B of [C,H,W], C = 1 or 3, as float32 [H,W] in [0, 1]."""
    x = as_float(pixels)
    return x[0] if len(x) == 1 else np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), x, 1)


def reduce(picture: np.ndarray, side: int) -> np.ndarray:
    """[H,W] with its shorter side reduced to `side` by area average; never enlarged."""
    from PIL import Image

    scale = side / min(picture.shape)
    if scale >= 1:
        return picture
    height, width = (round(n * scale) for n in picture.shape)
    small = Image.fromarray(np.ascontiguousarray(picture, np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small).clip(0, 1)


def interpolant_jet(
    image: Float[Tensor, "1 h w"]
) -> tuple[Float[Tensor, "1 2 h w"], Float[Tensor, "1 h w"]]:  # fmt: skip
    """Gradient and Laplacian, at the pixels and in units of coordinates, of the sum of cosines through all pixels.

        Σ_kl c_kl cos(πk(x + 1)/2) cos(πl(y + 1)/2),   k < H, l < W
    """
    values, bases = image[0].double(), []
    for n in values.shape:
        k, at = torch.arange(n, dtype=torch.float64), (torch.arange(n, dtype=torch.float64) + 0.5) / n
        phase, rate = torch.pi * at[:, None] * k, torch.pi * k / 2
        bases.append((phase.cos(), -phase.sin() * rate, -phase.cos() * rate**2))
    (a, da, dda), (b, db, ddb) = ([m.to(image.device) for m in basis] for basis in bases)
    c = torch.linalg.solve(a, torch.linalg.solve(b, values.mT).mT)
    gradient = torch.stack([da @ c @ b.mT, a @ c @ db.mT])[None]
    return gradient.to(image.dtype), (dda @ c @ b.mT + a @ c @ ddb.mT)[None].to(image.dtype)


def _pictures(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, pixels [C,H,W] in [0, 1]) of a picture, a folder or archive of pictures, or a table of them."""
    kinds = kinds_of(source)
    if "image" in kinds:
        yield str(source), as_float(composite(read_image(source)).pixels)
        return
    if source.is_dir():
        stream = from_folder(source)
    elif zipfile.is_zipfile(source) and source.suffix.lower() == ".zip":
        stream = from_zip(source)
    elif source.suffix.lower() in (".tar", ".tgz", ".gz"):
        stream = from_tar(source)
    else:
        images = ImageSet.open(source, None)
        yield from ((f"{source}, {name}", as_float(pixels)) for name, pixels in zip(images.names, images.images))
        return
    for name, body in stream:
        if isinstance(body, InputError):
            raise body
        yield name, as_float(composite(read_image(body, name=name)).pixels)
