"""Recorded 3-D poses: BVH motion capture, and arrays [N, points, 3] in .npz or .npy (Human3.6M's 17 points, or 16).

What is stored as pickled objects is not opened: save plain arrays.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from precis.data.arrays import read_arrays
from precis.data.files import contents
from precis.data.poses import JOINTS16
from precis.errors import InputError

WANTED = "3-D poses (.bvh, or .npz and .npy of [N, 16 or 17, 3])"
# joint: the names that motion capture gives it, in lower case, without a prefix such as mixamorig:
_BVH = {
    "pelvis": ("hips", "hip", "pelvis"), "spine": ("spine1", "chest", "spine", "abdomen"), "neck": ("neck", "neck1"),
    "head": ("head",),
} | {
    f"{side}_{joint}": tuple(f"{side}{name}" for name in names) for side in ("left", "right")
    for joint, names in {
        "shoulder": ("arm", "upperarm", "shldr", "shoulder"), "elbow": ("forearm", "elbow", "lowerarm"),
        "wrist": ("hand", "wrist"), "hip": ("upleg", "thigh", "hip"), "knee": ("leg", "shin", "knee"),
        "ankle": ("foot", "ankle"),
    }.items()
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Recorded:
    """`points` [T,J,3] with z up, in the file's units; `names` of the J points, None where the file says none."""

    points: np.ndarray
    names: tuple[str, ...] | None


def read_3d(path: str | Path) -> Recorded:
    """Read a BVH file (its 16 joints are found by their usual names) or arrays."""
    path = Path(path)
    return read_bvh(path) if path.suffix.lower() == ".bvh" else _arrays(path)


def read_bvh(path: str | Path) -> Recorded:
    """Joints of a BVH file, in the order of `JOINTS16`, every frame."""
    path = Path(path)
    text = contents(path, "a BVH file").decode("utf-8", "replace")
    head, found, motion = text.partition("MOTION")
    if not head.lstrip().startswith("HIERARCHY") or not found:
        raise InputError("a BVH file begins with HIERARCHY and has a MOTION part", file=path)
    names, parents, offsets, channels = _hierarchy(head, path)
    count = sum(len(c) for c in channels)
    lines = [line for line in motion.splitlines() if re.match(r"\s*[-+.\d]", line)]
    try:
        values = np.array([line.split() for line in lines], float)
    except ValueError:
        raise InputError(f"every frame is to be a line of {count} numbers", file=path) from None
    if values.ndim != 2 or values.shape[1] != count:
        raise InputError(f"every frame is to be a line of {count} numbers", file=path)
    where = _forward(parents, offsets, channels, values)
    points = np.stack([where[_joint(names, joint, path)] for joint in JOINTS16], 1)
    return Recorded(_upright(points, JOINTS16), JOINTS16)


def _hierarchy(head: str, path: Path) -> tuple[list[str], list[int], list[np.ndarray], list[list[str]]]:
    names: list[str] = []
    parents: list[int] = []
    offsets: list[np.ndarray] = []
    channels: list[list[str]] = []
    stack: list[int] = [-1]
    for number, line in enumerate(head.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            if words[0] in ("ROOT", "JOINT", "End"):
                names.append(words[1] if words[0] != "End" else "")
                parents.append(stack[-1])
                offsets.append(np.zeros(3))
                channels.append([])
            elif words[0] == "{":
                stack.append(len(names) - 1)
            elif words[0] == "}":
                stack.pop()
            elif words[0] == "OFFSET":
                offsets[-1] = np.array(words[1:4], float)
            elif words[0] == "CHANNELS":
                channels[-1] = words[2 : 2 + int(words[1])]
        except (ValueError, IndexError):
            raise InputError(f"this line of the hierarchy is not understood: {line.strip()[:60]}", file=path,
                             line=number) from None  # fmt: skip
    return names, parents, offsets, channels


def _forward(
    parents: list[int], offsets: list[np.ndarray], channels: list[list[str]], values: np.ndarray
) -> np.ndarray:
    """Positions [joints, T, 3]: rotations are applied in the order of their channels."""
    frames, at = len(values), 0
    turn = np.empty((len(parents), frames, 3, 3))
    place = np.empty((len(parents), frames, 3))
    for j, (parent, offset, names) in enumerate(zip(parents, offsets, channels)):
        own = dict(zip(names, values[:, at : at + len(names)].T))
        at += len(names)
        axes = [name[0].upper() for name in names if name.lower().endswith("rotation")]
        local = np.broadcast_to(np.eye(3), (frames, 3, 3))
        if axes:
            angles = np.stack([own[name] for name in names if name.lower().endswith("rotation")], 1)
            local = Rotation.from_euler("".join(axes), angles, degrees=True).as_matrix()
        step = np.stack([own.get(f"{axis}position", np.full(frames, offset[i])) for i, axis in enumerate("XYZ")], 1)
        above = turn[parent] if parent >= 0 else np.broadcast_to(np.eye(3), (frames, 3, 3))
        place[j] = (place[parent] if parent >= 0 else 0) + np.einsum("tij,tj->ti", above, step)
        turn[j] = above @ local
    return place


def _joint(names: list[str], joint: str, path: Path) -> int:
    plain = [re.sub(r"[^a-z0-9]", "", name.lower().rpartition(":")[2]) for name in names]
    for wanted in _BVH[joint]:
        short = wanted.replace("left", "l", 1).replace("right", "r", 1)
        for candidate in (wanted, short):
            if candidate in plain:
                return plain.index(candidate)
    raise InputError(f"no joint is called like the {joint.replace('_', ' ')} ({', '.join(_BVH[joint])})", file=path)


def _arrays(path: Path) -> Recorded:
    arrays = read_arrays(path, WANTED)
    parts = [a for key, a in sorted(arrays.items()) if a.ndim == 3 and a.shape[2] == 3 and a.dtype.kind == "f"]
    if not parts or len({a.shape[1] for a in parts}) != 1:
        raise InputError(f"no array [N, points, 3] in it; {WANTED} are wanted", file=path)
    points = np.concatenate(parts).astype(np.float64)
    if not np.isfinite(points).all():
        raise InputError("a coordinate is not finite", file=path)
    names = tuple(str(n) for n in arrays["names"]) if "names" in arrays else None
    if names is None and points.shape[1] == 16:
        names = JOINTS16
    return Recorded(points if names is None else _upright(points, names), names)


def _upright(points: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Turned so that z is up: whichever axis the neck lies along from the pelvis, on average."""
    if not {"neck", "pelvis"} <= set(names):
        return points
    lift = (points[:, names.index("neck")] - points[:, names.index("pelvis")]).mean(0)
    axis = int(np.abs(lift).argmax())
    turned = {0: points[..., [2, 1, 0]] * [-1, 1, 1], 1: points[..., [0, 2, 1]] * [1, -1, 1], 2: points}[axis]
    return turned if lift[axis] > 0 else turned * [1, -1, -1]
