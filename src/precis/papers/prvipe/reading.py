"""A user's keypoints as the 13 points that the embedder takes: layout, pixels, what is missing, what is skipped."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.contrastive.prvipe_keypoints import STD13_2D, KeypointProfile, normalize_2d
from precis.data.poses_2d import Keypoints, read_2d
from precis.errors import InputError
from precis.papers.job import Work
from precis.papers.work import writing

from .layouts import LAYOUTS, SURE, layout_of

LEAST = 5  # fewer points than that are no pose
TORSO = [STD13_2D.names.index(name) for name in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")]


class People(NamedTuple):
    """Normalised points [N,13,2], which are there [N,13], and of each row its id and, where given, view and pose."""

    k: Tensor
    mask: Tensor
    ids: tuple[str, ...]
    views: np.ndarray | None
    poses: np.ndarray | None
    skipped: tuple[tuple[str, int, str, str], ...]
    rows: int


def read_people(path: Path, job: Any, work: Work) -> People:
    """Read, order, mask and normalise; rows that are no pose are left out (`skipped`: file, row, id, reason)."""
    found = read_2d(path)
    profile, words = layout_of(found, job.layout)
    work.note(f"{path.name}: {words}")
    points, mask = _thirteen(found, profile)
    if job.image_size is not None:
        points = points * np.array(job.image_size, float)
    elif 0 <= np.nanmin(points, initial=2) and np.nanmax(points, initial=-1) <= 1:
        work.note(f"{path.name}: all coordinates lie in 0 … 1. If they are shares of a picture's width and height, "
                  "poses are distorted unless --image-size W H is given.")  # fmt: skip
    whole = mask.sum(1) >= LEAST
    kept = whole & (mask[:, TORSO].sum(1) >= 2)
    if not kept.any():
        raise InputError(f"no row has {LEAST} valid points and two of shoulders and hips", file=path)
    why = {int(i): "fewer than two of shoulders and hips" if whole[i] else f"{int(mask[i].sum())} valid points of 13"
           for i in np.flatnonzero(~kept)}  # fmt: skip
    there = torch.from_numpy(mask[kept])
    k = torch.from_numpy(np.nan_to_num(points[kept])).float()
    if not np.isfinite(k.numpy()).all():
        raise InputError("a coordinate is too large", file=path)
    pick = lambda column: None if column is None else column[kept]
    ids = tuple(name for name, keep in zip(found.ids, kept) if keep)
    skipped = tuple((path.name, i + 1, found.ids[i], reason) for i, reason in why.items())
    return People(normalize_2d(k, there), there, ids, pick(found.views), pick(found.poses), skipped, len(found.ids))


def _thirteen(found: Keypoints, profile: KeypointProfile) -> tuple[np.ndarray, np.ndarray]:
    whole = np.concatenate([found.points, found.score[..., None]], 2)
    try:
        chosen = profile.pick(torch.from_numpy(whole), STD13_2D).numpy()
    except ValueError as error:
        raise InputError(f"{error}; known layouts are {LAYOUTS}", file=found.file) from None
    mask = np.isfinite(chosen[..., :2]).all(-1) & (chosen[..., 2] >= SURE)
    return np.where(mask[..., None], chosen[..., :2], np.nan), mask


def write_skipped(work: Work, *read: People) -> None:
    """`skipped.csv`, if a row of any file was left out."""
    for people in read:
        if people.skipped:
            work.note(f"{len(people.skipped)} of {people.rows} rows of {people.skipped[0][0]} are no whole pose and "
                      "were left out: skipped.csv")  # fmt: skip
    rows = [row for people in read for row in people.skipped]
    if rows:
        with writing(work.folder / "skipped.csv") as beside, beside.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("file", "row", "id", "reason"), *rows])
