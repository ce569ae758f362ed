"""Real data that lie inside installed packages: nothing is fetched.  Arrays are NumPy, pictures uint8 [C,H,W].

Digits: scikit-learn's copy of the UCI handwritten digits.  Photographs: the picture files in the scikit-image and
scikit-learn packages, read directly.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from precis.data.images import as_bytes, read_image, resize
from precis.errors import InputError

# name: package, file, whether it is a photograph of a scene (others are scans, charts or microscopy)
_PHOTOS = {
    "astronaut": ("skimage", "data/astronaut.png", True),
    "brick": ("skimage", "data/brick.png", True),
    "camera": ("skimage", "data/camera.png", True),
    "chelsea": ("skimage", "data/chelsea.png", True),
    "china": ("sklearn", "datasets/images/china.jpg", True),
    "coffee": ("skimage", "data/coffee.png", True),
    "coins": ("skimage", "data/coins.png", True),
    "flower": ("sklearn", "datasets/images/flower.jpg", True),
    "grass": ("skimage", "data/grass.png", True),
    "gravel": ("skimage", "data/gravel.png", True),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg", False),
    "immunohistochemistry": ("skimage", "data/ihc.png", False),
    "moon": ("skimage", "data/moon.png", True),
    "motorcycle_left": ("skimage", "data/motorcycle_left.png", True),
    "motorcycle_right": ("skimage", "data/motorcycle_right.png", False),
    "page": ("skimage", "data/page.png", False),
    "retina": ("skimage", "data/retina.jpg", False),
    "rocket": ("skimage", "data/rocket.jpg", True),
    "text": ("skimage", "data/text.png", False),
}
_ALIASES = {"cat": "chelsea", "ihc": "immunohistochemistry", "hubble": "hubble_deep_field"}


class Labelled(NamedTuple):
    """`images` uint8 [N,C,S,S], `labels` int64 [N], `classes`: their names."""

    images: UInt8[np.ndarray, "n c s s"]
    labels: Int64[np.ndarray, "n"]
    classes: tuple[str, ...]


def digits(size: int = 8, split: Literal["train", "test"] | None = None) -> Labelled:
    """The 1,797 handwritten digits [N,1,size,size]: values 0 … 16 at 8 pixels; above, enlarged (bicubic) to 0 … 255.

    `split`: the 1,200 or 597 of `split_digits()`.
    """
    if size < 8:
        raise ValueError(f"the digits are 8 pixels wide: size must be at least 8, got {size}")
    images, labels = _digits()
    if size > 8:
        grey = images.astype(np.float32) / 16
        images = as_bytes(np.stack([resize(d, (size, size)) for d in grey]))
    if split is not None:
        chosen = split_digits()[("train", "test").index(split)]
        images, labels = images[chosen], labels[chosen]
    return Labelled(images.copy(), labels.copy(), tuple("0123456789"))


def split_digits(
    seed: int = 0, n_train: int = 1200
) -> tuple[Int64[np.ndarray, "n_train"], Int64[np.ndarray, "n_test"]]:
    """Indices of training and test digits: the first `n_train` of torch's randperm(1797) under `seed`, and the rest."""
    import torch

    order = torch.randperm(1797, generator=torch.Generator().manual_seed(seed)).numpy()
    return order[:n_train], order[n_train:]


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    table = np.loadtxt(_package("sklearn") / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.uint8)
    return table[:, :64].reshape(-1, 1, 8, 8), table[:, 64].astype(np.int64)


def photos(grey: bool | None = None) -> tuple[str, ...]:
    """Names that `photo` knows; `grey` picks the one-channel (True) or the colour ones (False)."""
    there = tuple(n for n, (package, file, _) in _PHOTOS.items() if (_package(package) / file).is_file())
    return there if grey is None else tuple(n for n in there if (photo(n).shape[0] == 1) == grey)


def photo(name: str) -> UInt8[np.ndarray, "c h w"]:
    """A photograph as uint8 [C,H,W], C = 1 or 3."""
    key = _ALIASES.get(name, name)
    if key not in _PHOTOS:
        raise InputError(f"no photograph is called {name!r}: there are {', '.join(photos())}")
    return _photo(key).copy()


@cache
def _photo(name: str) -> np.ndarray:
    package, file, _ = _PHOTOS[name]
    return read_image(_package(package) / file).pixels


def patches(
    size: int, n: int, *, grey: bool = False, split: Literal["train", "test"] = "train", seed: int = 0
) -> UInt8[np.ndarray, "{n} c {size} {size}"]:
    """`n` random square cuts uint8 [n,C,size,size] from the photographs of scenes, each photograph equally likely.

    Test cuts come from the right third of every picture, training cuts from the rest, so no pixel is in both.  Grey:
    the luma 0.299 R + 0.587 G + 0.114 B of every picture; colour: RGB pictures only.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    sides = [_side(name, grey, split) for name in photos() if _PHOTOS[name][2] and (grey or len(_photo(name)) == 3)]
    sides = [side for side in sides if min(side.shape[1:]) >= size]
    if size < 1 or not sides:
        raise ValueError(f"no photograph holds a {split} patch of {size} pixels")
    rng = np.random.default_rng(seed)
    which, corner = rng.integers(len(sides), size=n), rng.random((n, 2))
    out = np.empty((n, 1 if grey else 3, size, size), np.uint8)
    for i, side in enumerate(sides):
        chosen = np.flatnonzero(which == i)
        windows = np.lib.stride_tricks.sliding_window_view(side, (size, size), axis=(1, 2))
        row, column = (corner[chosen] * windows.shape[1:3]).astype(int).T
        out[chosen] = windows[:, row, column].swapaxes(0, 1)
    return out


@cache
def _side(name: str, grey: bool, split: str) -> np.ndarray:
    pixels = _photo(name)
    if grey and pixels.shape[0] == 3:
        luma = np.tensordot(np.array([0.299, 0.587, 0.114]), pixels, 1)
        pixels = np.rint(luma).astype(np.uint8)[None]
    border = pixels.shape[2] * 2 // 3
    return pixels[:, :, border:] if split == "test" else pixels[:, :, :border]


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None and spec.submodule_search_locations is not None, f"{name} is a dependency"
    return Path(spec.submodule_search_locations[0])
