"""The binary layouts of the standard image sets: IDX, CIFAR, STL-10; and taking named files out of an archive."""

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np

from precis.errors import InputError, RunFailed

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """An array in LeCun's IDX layout (plain or gzipped): two zeros, the type, the number of axes, sizes, values."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        data = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the gzip file is damaged or cut short ({error})", file=path) from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or len(data) < 4 + 4 * data[3]:
        raise InputError("this is no IDX file", file=path)
    kind, shape = np.dtype(_IDX_TYPES[data[2]]), tuple(np.frombuffer(data, ">u4", data[3], 4).tolist())
    wanted, have = int(np.prod(shape, dtype=object)) * kind.itemsize, len(data) - 4 - 4 * data[3]
    if wanted != have:
        raise InputError(f"the file states {wanted:,} bytes of values and holds {have:,}", file=path)
    return np.frombuffer(data, kind, offset=4 + 4 * data[3]).reshape(shape)


def read_idx_pair(images: Path, labels: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N,1,H,W] and int64 [N]."""
    pixels, numbers = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise InputError(f"pictures are bytes [N,H,W], this is {pixels.dtype} {list(pixels.shape)}", file=images)
    if numbers.shape != pixels.shape[:1]:
        raise InputError(f"{list(numbers.shape)} labels for {len(pixels)} pictures", file=labels)
    return pixels[:, None].copy(), _labels(numbers, classes, labels)


def read_cifar(paths: list[Path], label_bytes: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Records of `label_bytes` (the last is the class) and 3 × 32 × 32 bytes, channel by channel."""
    images, labels = [], []
    for path in paths:
        raw, size = np.fromfile(path, np.uint8), label_bytes + 3072
        if raw.size == 0 or raw.size % size:
            raise InputError(f"{raw.size:,} bytes are no whole number of records of {size}", file=path)
        records = raw.reshape(-1, size)
        labels.append(_labels(records[:, label_bytes - 1], classes, path))
        images.append(records[:, label_bytes:].reshape(-1, 3, 32, 32))
    return np.concatenate(images), np.concatenate(labels)


def read_stl(images: Path, labels: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of 3 × 96 × 96 bytes stored column by column; labels 1 … 10, given as 0 … 9 (−1 without a file).

    More than 1 GiB of them is mapped from disk (rows and columns exchanged by a view).
    """
    size = images.stat().st_size
    if size == 0 or size % 27648:
        raise InputError(f"{size:,} bytes are no whole number of 96×96 pictures", file=images)
    raw = np.memmap(images, np.uint8, "c") if size > 1 << 30 else np.fromfile(images, np.uint8)
    pixels = raw.reshape(-1, 3, 96, 96).swapaxes(2, 3)
    if labels is None:
        return pixels, np.full(len(pixels), -1, np.int64)
    numbers = np.fromfile(labels, np.uint8)
    if len(numbers) != len(pixels):
        raise InputError(f"{len(numbers)} labels for {len(pixels)} pictures", file=labels)
    return np.ascontiguousarray(pixels), _labels(numbers.astype(np.int64) - 1, 10, labels)


def read_names(path: Path, count: int) -> tuple[str, ...]:
    """One class name a line."""
    found = tuple(line.strip() for line in path.read_text("utf-8", "replace").splitlines() if line.strip())
    if len(found) != count:
        raise InputError(f"{len(found)} class names where {count} are wanted", file=path)
    return found


def unpack(archive: Path, members: tuple[str, ...], folder: Path) -> None:
    """Take these files out of a tar archive into `folder`, without their leading folders; nothing else is written."""
    try:
        with tarfile.open(archive) as tar:
            missing = set(members)
            for member in tar:
                name = member.name.removeprefix("./")
                if name in missing and member.isfile():
                    source = tar.extractfile(member)
                    assert source is not None
                    with (folder / Path(name).name).open("wb") as out:
                        shutil.copyfileobj(source, out)
                    missing.discard(name)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise RunFailed(f"{archive.name} cannot be unpacked: {error}") from error
    if missing:
        raise RunFailed(f"{archive.name} does not hold {', '.join(sorted(missing))}")


def _labels(numbers: np.ndarray, classes: int, path: Path) -> np.ndarray:
    wrong = np.flatnonzero((numbers < 0) | (numbers >= classes))
    if wrong.size:
        raise InputError(f"label {numbers[wrong[0]]} is none of {classes} classes", file=path, row=int(wrong[0]) + 1)
    return numbers.astype(np.int64)
