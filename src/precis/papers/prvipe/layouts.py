"""Which layout a file's points have: by their names, as the user says, by the format, or as the poses themselves tell.

Seventeen points without names are COCO's or Human3.6M's.  Two signs tell them apart.  Limbs join up: drawn in the wrong
order, "limbs" run across the body and are longer.  And in Human3.6M's order the first point, the pelvis, lies midway
between the second and the fifth, the hips.
"""

import math
from typing import NamedTuple

import numpy as np

from precis.contrastive.prvipe_keypoints import PROFILES, STD13_2D, KeypointProfile
from precis.data.poses_2d import Keypoints
from precis.errors import InputError

SURE = 0.1  # a score below is a missing point
LAYOUTS = ", ".join(name for name in PROFILES if name != "std16")  # which is 3-D
BY_COUNT = {13: "std13", 17: "coco17", 25: "body25", 33: "mediapipe33"}
# Limbs in COCO's order over those in Human3.6M's, the median of the rows: of made people by any camera single rows lie
# from 0.6 to 1.2 where the points are COCO's, and from 1.3 to 2.2 where they are Human3.6M's.
COCO, HUMAN = 0.95, 1.25
MIDWAY = 0.03  # of the body's extent: how far a pelvis may lie from the middle of the hips
LEAST = 6  # limbs with both ends, for a row to say anything


class Layout(NamedTuple):
    """The points' order, and a sentence that says which it is and why."""

    profile: KeypointProfile
    words: str


def layout_of(found: Keypoints, asked: str) -> Layout:
    """The layout of a file's points; `asked` is --layout."""
    count = found.points.shape[1]
    if asked != "auto":
        if found.names is not None:
            raise InputError("--layout is for points without names, and here the file names them", file=found.file)
        if len(PROFILES[asked].names) != count:
            raise InputError(f"--layout {asked} has {len(PROFILES[asked].names)} points, and here are {count}",
                             file=found.file)  # fmt: skip
        return Layout(PROFILES[asked], f"points read as {asked}, as --layout says")
    if found.names is not None:
        return Layout(KeypointProfile(found.names), "points read by their names in the file")
    if count == 17:
        return _seventeen(found)
    known = found.layout or BY_COUNT.get(count)
    if known is None:
        raise InputError(f"{count} points without names: no known layout ({LAYOUTS}); name the columns "
                         "like left_hip_x", file=found.file)  # fmt: skip
    return Layout(PROFILES[known], f"points read as {known}, of which there are {count}")


def _seventeen(found: Keypoints) -> Layout:
    points = np.where((found.score >= SURE)[..., None], found.points, np.nan)
    ratio = limbs(points, "coco17") / limbs(points, "h36m17")
    middle = float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else 1.0
    if middle > HUMAN and pelvis_off(points) <= MIDWAY:
        words = ("points read as h36m17 (no names given): limbs join up in Human3.6M's order, and the first point lies "
                 "midway between the hips; --layout coco17 is for COCO's order")  # fmt: skip
        return Layout(PROFILES["h36m17"], words)
    if middle < COCO:
        return Layout(PROFILES["coco17"], "points read as coco17 (no names given): limbs join up in COCO's order")
    if found.layout == "coco17":
        words = "points read as coco17, the format's own order; --layout h36m17 is for Human3.6M's"
    else:
        words = "points read as coco17, COCO's 17 points (no names given); --layout h36m17 is for Human3.6M's order"
    return Layout(PROFILES["coco17"], words)


def limbs(points: np.ndarray, layout: str) -> np.ndarray:
    """Mean length [N] of the limbs that points [N,17,2] have in a layout; NaN for rows with fewer than `LEAST`."""
    names = PROFILES[layout].names
    pairs = [(names.index(a), names.index(b)) for a, b in STD13_2D.segments]
    length = np.linalg.norm(points[:, [a for a, _ in pairs]] - points[:, [b for _, b in pairs]], axis=2)
    there = np.isfinite(length)
    count = there.sum(1)
    total = np.where(there, length, 0).sum(1)
    return np.where((count >= LEAST) & (total > 0), total / np.maximum(count, 1), np.nan)


def pelvis_off(points: np.ndarray) -> float:
    """How far point 0 lies from the middle of points 1 and 4 [N,17,2], in the body's extent, by the median; inf where
    no row has the three."""
    off = np.linalg.norm(points[:, 0] - (points[:, 1] + points[:, 4]) / 2, axis=1)
    points = points[np.isfinite(off)]
    if not len(points):
        return math.inf
    high, low = np.nanmax(points, 1), np.nanmin(points, 1)
    return float(np.median(off[np.isfinite(off)] / np.maximum(np.linalg.norm(high - low, axis=1), 1e-12)))
