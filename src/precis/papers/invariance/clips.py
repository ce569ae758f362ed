"""Finding and opening clips: sub-folders of numbered frames, animated files, or videos where a reader is installed."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.data.animation import VIDEO, read_frames
from precis.data.images import SUFFIXES, Image, as_bytes, composite
from precis.data.kinds import kinds_of
from precis.data.sources import natural
from precis.data.tables import read_table
from precis.errors import InputError
from precis.papers.job import Work

FEWEST = 2


class Found(NamedTuple):
    """A clip's `name` (its path below INPUT) and where it is."""

    name: str
    path: Path


class Clip(NamedTuple):
    """`frames` uint8 [T,C,H,W], their `names`, and frames a second, if known."""

    name: str
    frames: Tensor
    names: tuple[str, ...]
    fps: float | None


def find_clips(given: str) -> list[Found]:
    """Every folder that holds pictures is a clip, and every animated file or video; in natural order of their names."""
    root = Path(given).expanduser()
    if not root.is_dir():
        if "frames" not in kinds_of(root):
            words = "a folder of clips, or an animated file, is wanted; sets of pictures are for --measure ENCODER"
            raise InputError(words, file=root)
        return [Found(root.stem, root)]
    found = []
    for folder in sorted({root, *(p for p in root.rglob("*") if p.is_dir())}, key=lambda p: natural(p.as_posix())):
        name = folder.relative_to(root).as_posix()
        if any(part.startswith(".") for part in folder.relative_to(root).parts):
            continue
        files = sorted((f for f in folder.iterdir() if f.is_file() and f.name[0] != "."), key=lambda f: natural(f.name))
        still = [f for f in files if f.suffix.lower() in SUFFIXES]
        moving = [f for f in files if f.suffix.lower() in VIDEO]
        if still and "frames" in kinds_of(still[0]):
            moving, still = moving + still, []
        if still:
            found.append(Found(root.name if name == "." else name, folder))
        found += [Found(f.relative_to(root).with_suffix("").as_posix(), f) for f in moving]
    if not found:
        raise InputError("there is no clip in it: a sub-folder of numbered frames each, or animated files, are wanted",
                         file=root)  # fmt: skip
    return found


def open_clip(clip: Found, job: Any, work: Work) -> Clip:
    """The frames of a clip; a note where their numbers jump."""
    made = read_frames(clip.path)
    pixels = made.pixels if made.pixels.dtype == np.uint8 else as_bytes(np.clip(made.pixels, 0, 1))
    if made.alpha is not None:
        alpha = made.alpha if made.alpha.dtype == np.uint8 else as_bytes(made.alpha)
        pixels = np.stack([composite(Image(p, a, {}), job.background).pixels for p, a in zip(pixels, alpha)])
    names = tuple(f"{i:05d}" for i in range(len(pixels)))
    if clip.path.is_dir():
        files = [f for f in clip.path.iterdir() if f.suffix.lower() in SUFFIXES and f.name[0] != "."]
        names = tuple(f.name for f in sorted(files, key=lambda f: natural(f.name)))
        numbers = [int(m[-1]) for name in names if (m := re.findall(r"\d+", Path(name).stem))]
        steps = set(np.diff(numbers).tolist())
        if len(numbers) < len(names) or len(steps) > 1:
            work.note(f"{clip.name}: the frames' numbers jump; they are taken in the order of their names")
    return Clip(clip.name, torch.from_numpy(np.ascontiguousarray(pixels)), names, made.fps)


def gap_of(job: Any, clips: list[Clip], lengths: list[list[int]], work: Work) -> int:
    """--gap in frames: as it is, from seconds, or a third of the median uncut piece, of those that hold a pair."""
    if job.gap is None:
        whole = [length for some in lengths for length in some if length > 1] or [1]
        gap = max(1, int(np.median(whole)) // 3)
        work.note(f"--gap {gap}: a third of the median {'uncut piece' if _is_cut(lengths) else 'clip'}")
        return gap
    if not job.gap.endswith("s"):
        return int(job.gap)
    unknown = [c.name for c in clips if c.fps is None]
    if unknown:
        raise InputError(f"--gap in seconds needs a frame rate, which {unknown[0]} has not: give it in frames")
    return max(1, round(float(job.gap[:-1]) * float(np.median([c.fps for c in clips if c.fps]))))


def _is_cut(lengths: list[list[int]]) -> bool:
    return any(len(some) > 1 for some in lengths)


def too_short(lengths: list[int], gap: int) -> str:
    """Why a clip of such uncut pieces holds no pair."""
    if len(lengths) == 1:
        return f"shorter than {gap + 1} frames"
    return (f"{len(lengths)} uncut pieces of at most {max(lengths)} frames, and {gap + 1} are wanted "
            "(--gap: a smaller one; --cuts: fewer cuts)")  # fmt: skip


def classes_of(clips: list[Clip], job: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """The class of each clip, −1: none; of --labels CSV (file: the clip's name), or of the folders that hold clips."""
    names = [clip.name for clip in clips]
    if job.labels != "auto":
        table = read_table(job.labels)
        column = table.first("file", "clip", "path")
        if column is None or "label" not in table.columns:
            raise InputError("columns file (the clip's name) and label are wanted", file=job.labels)
        given = dict(zip((str(v) for v in table.columns[column]), (str(v).strip() for v in table.columns["label"])))
        if missing := [name for name in given if name not in names]:
            raise InputError(f"{len(missing)} of its clips are not there: {', '.join(missing[:10])}", file=job.labels)
        tops = [given.get(name, "") for name in names]
    else:
        tops = [name.split("/", 1)[0] if "/" in name else "" for name in names]
    found, counts = np.unique([t for t in tops if t], return_counts=True)
    if len(found) < 2 or (counts >= FEWEST).sum() < 2:
        return np.full(len(names), -1), ()
    classes = tuple(sorted((str(f) for f in found), key=natural))
    return np.array([classes.index(t) if t else -1 for t in tops]), classes
