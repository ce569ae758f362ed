"""Motion capture in Acclaim's format, as CMU and HDM05 give it: a skeleton (.asf) and its motions (.amc).

A bone's angles M turn it about its own axes C, and all that hangs from it with it:

    R = R_parent C M C⁻¹,   end = start + R · step

The root also moves: it stands at its rest position plus the frame's translation.
"""

import re
from itertools import accumulate
from pathlib import Path

import numpy as np

from precis.data.files import existing
from precis.data.kinematics import forward
from precis.data.poses import JOINTS16
from precis.data.poses_3d import Recorded, _upright
from precis.data.poses_asf import SHIFTS, TURNS, Skeleton, numbers, read_asf, turned, words_of
from precis.errors import InputError

MAX_BYTES = 1 << 28

# joint: bones that begin there; else bones that end there
_JOINTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "spine": (("thorax",), ("upperback", "lowerback")), "neck": (("lowerneck", "neck"), ("thorax",)),
    "head": (("head",), ("upperneck", "lowerneck", "neck")),
} | {
    f"{side}_{joint}": tuple(tuple(side[0] + bone for bone in bones) for bones in pair) for side in ("left", "right")
    for joint, pair in {
        "shoulder": (("humerus",), ("clavicle",)), "elbow": (("radius",), ("humerus",)),
        "wrist": (("wrist", "hand"), ("radius",)), "hip": (("femur",), ("hipjoint",)), "knee": (("tibia",), ("femur",)),
        "ankle": (("foot",), ("tibia",)),
    }.items()
}  # type: ignore[assignment]  # fmt: skip


def read_asf_amc(path: str | Path, skeleton: str | Path | None = None) -> Recorded:
    """Joints of a motion, in the order of `JOINTS16`, every frame, z up, in the skeleton's unit (of CMU: inches).

    Given an .asf file, all motions beside it that are named after it.  skeleton: the .asf file; None: the one beside
    the motion that it is named after (`02.asf` of `02_01.amc`), or the only one there.
    """
    path = existing(path, "an Acclaim motion (.amc) or skeleton (.asf)")
    if path.suffix.lower() == ".asf":
        found, motions = path, _motions(path)
    else:
        found, motions = Path(skeleton) if skeleton is not None else _skeleton(path), [path]
    bones = read_asf(found)
    joints = [_joint(bones, joint, found) for joint in JOINTS16]
    parts = [where(bones, read_amc(motion, bones))[joints] for motion in motions]
    return Recorded(_upright(np.concatenate(parts, 1).swapaxes(0, 1), JOINTS16), JOINTS16)


def read_amc(path: str | Path, skeleton: Skeleton) -> np.ndarray:
    """Values [T, dof of all bones in turn]: angles in radians, the root's translation in the file's unit of length."""
    path = Path(path)
    degrees, rows, lines = skeleton.degrees, list[np.ndarray](), dict[str, int]()
    ends = list(accumulate(len(bone.dof) for bone in skeleton.bones))
    span = {b.name: slice(end - len(b.dof), end) for b, end in zip(skeleton.bones, ends)}
    wanted = [bone.name for bone in skeleton.bones if bone.dof]
    last = 0
    for number, (name, *words) in words_of(path, "an Acclaim motion (.amc)", MAX_BYTES):
        if name.startswith(":"):
            degrees = {":degrees": True, ":radians": False}.get(name.lower(), degrees)
        elif name.isdigit() and not words:
            _whole(wanted, lines, path, last)
            rows.append(np.zeros(ends[-1]))
            lines, last = {}, number
        elif not rows:
            raise InputError(f"the number of a frame wanted, got '{name[:40]}'", file=path, line=number)
        elif name not in span:
            raise InputError(f"the skeleton has no bone '{name[:40]}'", file=path, line=number)
        elif name in lines:
            raise InputError(f"bone '{name}' is in this frame already, in line {lines[name]}", file=path, line=number)
        else:
            count = span[name].stop - span[name].start
            rows[-1][span[name]] = numbers(words, count, f"bone '{name}'", path, number)
            lines[name] = number
    if not rows:
        raise InputError("there is no frame in it", file=path)
    _whole(wanted, lines, path, last)
    values = np.stack(rows)
    angles = np.array([name in TURNS for bone in skeleton.bones for name in bone.dof])
    values[:, angles] *= np.pi / 180 if degrees else 1
    return values


def where(skeleton: Skeleton, values: np.ndarray) -> np.ndarray:
    """Where bones end [bones, T, 3] (the root: where it is), of the values of `read_amc`; lengths are divided by the
    skeleton's unit."""
    bones, frames, at = skeleton.bones, len(values), 0
    turns = np.broadcast_to(np.eye(3), (len(bones), frames, 3, 3)).copy()
    origin = np.tile(bones[0].step, (frames, 1))
    for j, bone in enumerate(bones):
        own = dict(zip(bone.dof, values[:, at : at + len(bone.dof)].T))
        at += len(bone.dof)
        if axes := [name for name in bone.dof if name in TURNS]:
            motion = turned(np.stack([own[name] for name in axes], 1), "".join(name[1] for name in axes))
            turns[j] = bone.frame @ motion @ bone.frame.T
        for i, name in enumerate(SHIFTS):
            origin[:, i] += own.get(name, 0)
    place, frame = forward(skeleton.parents, _starts(skeleton), turns, origin)
    ends = place + np.einsum("jtab,jb->jta", frame, np.stack([np.zeros(3), *(bone.step for bone in bones[1:])]))
    return ends / skeleton.unit


def _starts(skeleton: Skeleton) -> np.ndarray:
    """The step from the start of a bone's parent to its own: the parent's length, where that is not the root."""
    steps = [skeleton.bones[parent].step if parent > 0 else np.zeros(3) for parent in skeleton.parents]
    return np.stack(steps)


def _whole(wanted: list[str], lines: dict[str, int], path: Path, frame: int) -> None:
    if frame and (missing := [name for name in wanted if name not in lines]):
        raise InputError(f"the frame that begins here has no line for bone '{missing[0]}'", file=path, line=frame)


def _skeleton(path: Path) -> Path:
    beside = [file for file in path.parent.glob("*") if file.suffix.lower() == ".asf"]
    named = [file for file in beside if re.match(re.escape(file.stem) + r"(?![a-zA-Z0-9])", path.stem)]
    if not named and len(beside) != 1:
        name = path.stem.rpartition("_")[0] or path.stem
        raise InputError(f"its skeleton is wanted beside it: {name}.asf", file=path)
    return max(named or beside, key=lambda file: len(file.stem))


def _motions(path: Path) -> list[Path]:
    found = [file for file in path.parent.glob("*") if file.suffix.lower() == ".amc" and _skeleton(file) == path]
    if not found:
        raise InputError(f"no motion is beside it, such as {path.stem}_01.amc", file=path)
    return sorted(found)


def _joint(skeleton: Skeleton, joint: str, path: Path) -> int:
    """The bone that ends at a joint."""
    if joint == "pelvis":
        return 0
    names = [name.lower() for name in skeleton.names]
    begins, ends = _JOINTS[joint]
    for name in begins:
        if name in names:
            return skeleton.parents[names.index(name)]
    for name in ends:
        if name in names:
            return names.index(name)
    raise InputError(f"no bone begins or ends at the {joint.replace('_', ' ')} ({', '.join(begins + ends)})", file=path)
