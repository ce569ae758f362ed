"""Bodies that SMPL's joint rotations drive: the user's own SMPL file, or a template with the bones of `data.poses`.

    J(β) = R (v̄ + Σ_k β_k S_k)

The joints of the rest pose: a regressor of the vertices of a mesh whose shape is β's (Loper et al. 2015, §3).  They are
all that the joints of a pose need; what moves vertices with the pose does not move joints.  SMPL, SMPL-H and SMPL-X
share the first 22 joints, and their rest pose: arms out to the sides.  Axes: x to the person's left, y up, z forward.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from precis.data.arrays import _check
from precis.data.files import existing
from precis.data.poses import JOINTS16, rest_pose
from precis.errors import InputError

# joint: parent; hands, face and fingers are left out
TREE = {
    "pelvis": -1, "left_hip": 0, "right_hip": 0, "spine1": 0, "left_knee": 1, "right_knee": 2, "spine": 3,
    "left_ankle": 4, "right_ankle": 5, "spine3": 6, "left_foot": 7, "right_foot": 8, "neck": 9, "left_collar": 9,
    "right_collar": 9, "head": 12, "left_shoulder": 13, "right_shoulder": 14, "left_elbow": 16, "right_elbow": 17,
    "left_wrist": 18, "right_wrist": 19,
}  # fmt: skip
NAMES, PARENTS = tuple(TREE), tuple(TREE.values())
TORSO = 0.5  # metres, pelvis to neck of the template: about a grown person's

_PICKLE = (
    "a pickle can run code as it is opened and is never loaded: SMPL-H and SMPL-X are given out as .npz too, or save "
    "the arrays J_regressor (dense), v_template and shapedirs of this one with numpy.savez"
)
_WANTED = "an SMPL body (.npz with J_regressor, v_template and shapedirs, or with J, the joints at rest)"


@dataclass(frozen=True, eq=False)
class Body:
    """rest: joints [22,3] at rest, metres, in the order of `NAMES`; nose [3]: from the head's joint to the point that
    stands for the head.  exact: whether this is the person that was recorded; note: if not, or not quite, why."""

    rest: np.ndarray
    nose: np.ndarray
    exact: bool
    note: str


def template() -> Body:
    """The skeleton of made poses, arms out, `TORSO` from pelvis to neck: nobody's, but with everybody's joints."""
    made = rest_pose()[0][:, [0, 2, 1]] * np.array([1, 1, -1]) * TORSO
    at = dict(zip(JOINTS16, made))
    for side, out in (("left", 1.0), ("right", -1.0)):
        upper, lower = (np.linalg.norm(at[f"{side}_{b}"] - at[f"{side}_{a}"])
                        for a, b in (("shoulder", "elbow"), ("elbow", "wrist")))  # fmt: skip
        at[f"{side}_elbow"] = at[f"{side}_shoulder"] + np.array([out * upper, 0, 0])
        at[f"{side}_wrist"] = at[f"{side}_elbow"] + np.array([out * lower, 0, 0])
        at[f"{side}_collar"] = at["neck"] + 0.25 * (at[f"{side}_shoulder"] - at["neck"])
        at[f"{side}_foot"] = at[f"{side}_ankle"]
    nose = at["head"]
    at["head"] = at["neck"] + np.array([0, 0.5 * (nose - at["neck"])[1], 0])  # the skull turns about its foot
    at["spine1"], at["spine3"] = 0.5 * (at["pelvis"] + at["spine"]), 0.75 * at["spine"] + 0.25 * at["neck"]
    return Body(np.stack([at[name] for name in NAMES]), nose - at["head"], False,
                "Its joints are those of a template skeleton that the recorded rotations turn, not of the recorded "
                "person: for those an SMPL body is wanted.")  # fmt: skip


def read_body(path: str | Path, betas: np.ndarray) -> Body:
    """The user's SMPL, SMPL-H or SMPL-X body as .npz, shaped by `betas` [B]; never a pickle."""
    path = existing(path, _WANTED)
    with path.open("rb") as file:
        head = file.read(2)
    if path.suffix.lower() in (".pkl", ".pickle") or (head[:1] == b"\x80" and head[1:] in (b"\2", b"\3", b"\4", b"\5")):
        raise InputError(_PICKLE, file=path)
    found = read_some(path, ("J_regressor", "v_template", "shapedirs", "J"), _WANTED)
    if {"J_regressor", "v_template", "shapedirs"} <= set(found):
        return _shaped(found["J_regressor"], found["v_template"], found["shapedirs"], betas, path)
    if "J" not in found:
        raise InputError(f"it holds {', '.join(found) or 'none of the arrays'}; {_WANTED} is wanted", file=path)
    joints = _finite(found["J"], path, "J")
    if joints.ndim != 2 or len(joints) < len(NAMES) or joints.shape[1] != 3:
        raise InputError(f"J is to be [{len(NAMES)} or more, 3]; got {list(joints.shape)}", file=path)
    note = f"The joints of {path.name} were taken as they are, without the recorded shape." if betas.any() else ""
    return Body(joints[: len(NAMES)], np.zeros(3), not note, note)


def _shaped(regressor: np.ndarray, mesh: np.ndarray, shapes: np.ndarray, betas: np.ndarray, path: Path) -> Body:
    regressor, mesh, shapes = (
        _finite(a, path, name) for a, name in ((regressor, "J_regressor"), (mesh, "v_template"), (shapes, "shapedirs"))
    )
    fits = (
        mesh.ndim == 2 and mesh.shape[1] == 3 and shapes.ndim == 3 and shapes.shape[:2] == mesh.shape
        and regressor.ndim == 2 and len(regressor) >= len(NAMES) and regressor.shape[1] == len(mesh)
    )  # fmt: skip
    if not fits:
        raise InputError(
            f"J_regressor [joints ≥ {len(NAMES)}, V], v_template [V,3] and shapedirs [V,3,B] wanted; got "
            f"{', '.join(str(list(a.shape)) for a in (regressor, mesh, shapes))}", file=path,
        )  # fmt: skip
    count = min(len(betas), shapes.shape[2])
    note = "" if not betas[count:].any() else (
        f"{path.name} knows {count} of the {len(betas)} numbers that say the person's shape; the others were left out."
    )  # fmt: skip
    rest = regressor[: len(NAMES)] @ (mesh + shapes[..., :count] @ betas[:count])
    return Body(rest, np.zeros(3), not note, note)


def read_some(path: Path, names: tuple[str, ...], what: str) -> dict[str, np.ndarray]:
    """Those arrays of an .npz file that are in it, the others unread: they may hold what is never loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            held = {info.filename: info.file_size for info in archive.infolist()}
            chosen = [name for name in names if f"{name}.npy" in held]
            for name in chosen:
                with archive.open(f"{name}.npy") as file:
                    _check(file, held[f"{name}.npy"], path, f"array '{name}'")
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in chosen}
    except InputError:
        raise
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError, NotImplementedError, KeyError) as error:
        raise InputError(f"this is no whole .npz file ({error}); {what} is wanted", file=path) from error


def _finite(array: np.ndarray, path: Path, name: str) -> np.ndarray:
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(f"array '{name}' is to hold finite numbers", file=path)
    return array.astype(np.float64)
