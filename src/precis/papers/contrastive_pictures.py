"""Reading the pictures of a contrastive job: their size, labels, exact duplicates, and what is held out."""

import hashlib
import io
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.data import sources
from precis.data.arrays import read_arrays
from precis.data.images import composite, read_image
from precis.data.imageset import ImageSet
from precis.data.stack import square
from precis.errors import InputError
from precis.papers.job import Work
from precis.papers.picture_sets import open_pictures, tell_skipped
from precis.train.colour import luma

SIZES = (32, 64, 96, 128, 224)
LEAST, FEWEST = 32, 16  # pictures that are found, and of those the ones that training sees


class Pictures(NamedTuple):
    """`images` uint8 [N,C,S,S]; `labels` [N], −1: none; `held` [N]: kept out of training; `repeated` [N]: an exact
    duplicate of an earlier picture, which training leaves out; `lone`: classes with one labelled picture (or group);
    `apart` [N], if given: those of one number (frames of a clip) are not listed as each other's neighbours."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    held: np.ndarray
    repeated: np.ndarray
    lone: tuple[str, ...]
    source: ImageSet
    apart: np.ndarray | None = None

    @property
    def labelled(self) -> bool:
        return len(self.classes) > 0

    @property
    def trained(self) -> np.ndarray:
        """Places of the pictures that training sees."""
        return np.flatnonzero(~self.held & ~self.repeated)


def read_pictures(job: Any, work: Work, channels: int | None = None, size: int | None = None) -> Pictures:
    """INPUT at the job's size; `channels` and `size`, if given, are what a finished encoder wants."""
    size = size or job.size or _natural_size(Path(job.input))
    found = open_pictures(job.input, size, job.labels, job.group, job.keep_going, background=job.background,
                          rest="unlabelled")  # fmt: skip
    n = len(found)
    if n < (LEAST if job.task == "train" else 2):
        raise InputError(f"contrastive training needs negatives: {LEAST} pictures or more are wanted, {n} found",
                         file=job.input)  # fmt: skip
    images = torch.from_numpy(np.ascontiguousarray(found.images))
    labels = np.full(n, -1) if found.labels is None else found.labels
    classes = found.classes if (labels >= 0).any() and len(np.unique(labels[labels >= 0])) > 1 else ()
    if found.labels is not None and not classes:
        work.note("all labels are of one class: they are not used")
        labels = np.full(n, -1)
    prints = np.array([hashlib.sha256(x.tobytes()).hexdigest() for x in found.images])
    _, first, copy_of = np.unique(prints, return_index=True, return_inverse=True)
    repeated = np.arange(n) != first[copy_of]
    if repeated.any():
        n_copies = int(repeated.sum())
        are = "picture is an exact duplicate of another" if n_copies == 1 else "pictures are exact duplicates of others"
        work.note(f"{n_copies} {are}: training uses each once, since a "
                  "copy would be a false negative")  # fmt: skip
    units = found.groups if found.groups is not None else copy_of
    held, lone = _hold_out(labels, units, job.val_fraction, job.seed)
    if found.groups is not None:  # a copy of a held-out picture must not be trained on either
        held = np.isin(copy_of, copy_of[held])
    if lone:
        names = [classes[c] for c in lone]
        work.note(f"of {', '.join(names[:10])} there is one labelled picture or group: it votes but is not tested")
    if job.task == "train" and (left := int((~held & ~repeated).sum())) < FEWEST:
        raise InputError(f"training would see {left} different pictures, and {FEWEST} or more are wanted: of {n} found "
                         f"{int(repeated.sum())} are copies of others, and {int(held.sum())} are held out",
                         file=job.input)  # fmt: skip
    known = torch.from_numpy(labels.astype(np.int64))
    single = tuple(classes[c] for c in lone)
    return Pictures(as_channels(images, channels), known, classes, found.names, held, repeated, single, found)


def write_skipped(pictures: Pictures, work: Work) -> None:
    """`skipped.csv`: last of what is checked, since bad input leaves no file behind."""
    tell_skipped(pictures.source, work)


def as_channels(images: Tensor, channels: int | None) -> Tensor:
    """uint8 [N,C,S,S] with 1 or 3 channels as an encoder wants them: grey by luma, or repeated."""
    if channels is None or images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    return torch.cat([luma(part.float()).round().to(torch.uint8) for part in images.split(1024)])


def read_query(path: Path, size: int, channels: int, background: str) -> Tensor:
    """One picture as the encoder sees it, uint8 [1,C,S,S]."""
    image = composite(read_image(path), background)
    pixels = image.pixels
    if pixels.dtype != np.uint8:
        pixels = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    return as_channels(torch.from_numpy(square(pixels, size).copy())[None], channels)


def _hold_out(labels: np.ndarray, units: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, list[int]]:
    """Which pictures are held out: of each class the share of its units (groups, or sets of copies), whole units only;
    and the classes that have a single one."""
    held, lone = np.zeros(len(labels), bool), []
    rng = np.random.default_rng(seed)
    taken: dict[Any, bool] = {}
    for c in np.unique(labels[labels >= 0]):
        mine = rng.permutation(np.unique(units[labels == c]))
        free = [u for u in mine if u not in taken]
        if len(mine) < 2:
            lone.append(int(c))
            taken.update(dict.fromkeys(free, False))
            continue
        wanted = min(len(mine) - 1, max(1, round(share * len(mine)))) - sum(taken.get(u, False) for u in mine)
        taken.update({u: i < wanted for i, u in enumerate(free)})
    for unit in (u for u, out in taken.items() if out):
        held |= units == unit
    return held, lone


def _natural_size(path: Path) -> int | None:
    """The largest of `SIZES` that the median shorter side fills, of up to 64 pictures; None: arrays that stay."""
    sides: list[int] = []
    if path.is_dir():
        stream = sources.from_folder(path)
    else:
        head = path.read_bytes()[:6] if path.is_file() else b""
        if head.startswith(b"\x93NUMPY") or (head.startswith(b"PK") and path.suffix.lower() == ".npz"):
            arrays = read_arrays(path)
            images = next((arrays[k] for k in ("images", "x", "") if k in arrays), np.empty(0))
            shape = sorted(images.shape[1:])[-2:]
            if shape and max(shape) <= 64 and shape[0] == shape[-1]:
                return None
            return _below(min(shape, default=SIZES[1]))
        if not head.startswith(b"PK") and path.suffix.lower() not in (".tar", ".tgz", ".gz", ".bz2", ".xz"):
            return SIZES[0]
        stream = sources.from_zip(path) if head.startswith(b"PK") else sources.from_tar(path)
    for _, body in islice(stream, 64):
        side = None if isinstance(body, InputError) else _shorter_side(body)
        if side is not None:
            sides.append(side)
    return _below(int(np.median(sides))) if sides else SIZES[0]


def _below(side: int) -> int:
    return max([s for s in SIZES if s <= side], default=SIZES[0])


def _shorter_side(body: bytes) -> int | None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(body)) as image:
            return min(image.size)
    except Exception:  # whatever a damaged file raises: the reader says it later
        return None
