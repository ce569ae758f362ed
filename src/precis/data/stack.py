"""Many pictures into one uint8 array [N,C,S,S]: decoded in a few threads, spilled to a file where memory is short."""

import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from precis.data.decode import MAX_PIXELS
from precis.data.images import Image, as_bytes, composite, read_bytes, resize
from precis.errors import InputError

IN_MEMORY = 512 << 20
CHUNK = 64

Kept = list[tuple[int, str]]


def from_pictures(
    stream: Iterable[tuple[int, str, bytes | InputError]], size: int | None, background: "str | tuple[float | int, ...]"
) -> tuple[np.ndarray, Kept, list[tuple[str, str]]]:
    """Images, the (row, name) of each, and (name, reason) of those that cannot be read."""
    kept: Kept = []
    skipped: list[tuple[str, str]] = []
    channels: list[int] = []
    shape: tuple[int, ...] | None = None
    with tempfile.TemporaryFile() as spool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row, name, made in _decoded(stream, size, background):
            if isinstance(made, InputError):
                skipped.append((name, str(made)))
                continue
            if size is None and shape is not None and shape != made.shape[1:]:
                words = f"it is {made.shape[2]}×{made.shape[1]} and others {shape[1]}×{shape[0]} pixels"
                raise InputError(f"{words}; name a --size", file=name)
            shape = made.shape[1:]
            spool.write(made.tobytes())
            kept.append((row, name))
            channels.append(made.shape[0])
        if shape is None:
            return np.empty((0, 1, size or 1, size or 1), np.uint8), kept, skipped
        return _gather(spool, channels, shape), kept, skipped


def from_array(images: np.ndarray, size: int | None, path: Path) -> np.ndarray:
    """uint8, uint16 or float [N,H,W], [N,C,H,W] or [N,H,W,C] → uint8 [N,C,S,S]."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = np.moveaxis(images, 3, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        words = f"pictures of shape {list(images.shape)}; [N,H,W], [N,C,H,W] or [N,H,W,C] with C = 1 or 3 is wanted"
        raise InputError(words, file=path)
    if images.dtype.kind not in "fu" and images.dtype != bool and not (images.dtype.kind == "i" and images.min() >= 0):
        raise InputError(f"pictures of kind {images.dtype}; uint8, or floats from 0 to 1, are wanted", file=path)
    side = images.shape[2:] if size is None else (size, size)
    out = np.empty((len(images), images.shape[1], *side), np.uint8)
    for start in range(0, len(images), 1024):
        part = _as_stored_bytes(images[start : start + 1024], start, path)
        if part.shape[2:] == tuple(side):
            out[start : start + 1024] = part
        else:
            out[start : start + 1024] = [square(p, size or 1) for p in part]
    return out


def square(pixels: np.ndarray, size: int) -> np.ndarray:
    """The central square of [C,H,W], resized to [C,size,size]."""
    height, width = pixels.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize(pixels[:, top : top + side, left : left + side], (size, size))


def _decoded(stream: Iterable[tuple[int, str, bytes | InputError]], size: int | None, background: Any) -> Iterator[Any]:
    def decode(item: tuple[int, str, bytes | InputError]) -> tuple[int, str, np.ndarray | InputError]:
        row, name, body = item
        return row, name, body if isinstance(body, InputError) else _prepare(body, name, size, background)

    rows = iter(stream)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(rows, CHUNK)):
            yield from pool.map(decode, chunk)


def _prepare(body: bytes, name: str, size: int | None, background: Any) -> np.ndarray | InputError:
    try:
        image = read_bytes(body, name, MAX_PIXELS, None if size is None else 2 * size)
    except InputError as error:
        return error
    if image.pixels.dtype != np.uint8:
        low, high = float(image.pixels.min()), float(image.pixels.max())
        if low < 0 or high > 1:
            return InputError(f"its values run from {low:.3g} to {high:.3g}; 0 to 1 is wanted", file=name)
        image = Image(as_bytes(image.pixels), None if image.alpha is None else as_bytes(image.alpha), image.meta)
    pixels = composite(image, background).pixels
    return pixels if size is None else square(pixels, size)


def _gather(spool: IO[bytes], channels: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """The spooled pictures as one array; grey ones repeated where others have colour."""
    count, wanted, plane = len(channels), max(channels), int(np.prod(shape))
    if min(channels) == wanted:
        return _load(spool, (count, wanted, *shape))
    with tempfile.TemporaryFile() as even:
        spool.seek(0)
        for have in channels:
            even.write(spool.read(have * plane) * (wanted // have))
        return _load(even, (count, wanted, *shape))


def _load(spool: IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
    spool.flush()
    if np.prod(shape, dtype=np.int64) > IN_MEMORY:
        return np.memmap(spool, np.uint8, "c", shape=shape)
    spool.seek(0)
    return np.fromfile(spool, np.uint8).reshape(shape)


def _as_stored_bytes(part: np.ndarray, start: int, path: Path) -> np.ndarray:
    if part.dtype == np.uint8:
        return part
    if part.dtype == bool:
        return part.astype(np.uint8) * np.uint8(255)
    if part.dtype == np.uint16:
        return as_bytes(part / np.float32(65535))
    if part.dtype.kind in "iu":
        if part.max() > 255:
            raise InputError(f"whole numbers up to {part.max()}; 0 to 255 is wanted", file=path)
        return part.astype(np.uint8)
    bad = ~((part >= 0) & (part <= 1))
    if bad.any():
        place = np.argwhere(bad)[0]
        words = f"picture {start + place[0]} holds {part[tuple(place)]:g}; floats must lie from 0 to 1"
        raise InputError(words, file=path)
    return as_bytes(part)
