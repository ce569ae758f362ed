"""People that move, made by rule: a skeleton of 16 joints, joint angles within a person's reach, actions, performers.

Independent random angles would not do for retrieval: no two poses would ever be alike.  So there are key poses (one
fixed set, angles drawn within `REACH`), actions that go through two to four of them (each joint's rotation by slerp),
performers with bones of their own, and a few degrees of noise: poses of one action at nearly one phase are alike.

Axes: x to the person's left, z up; the person looks along −y.  Lengths are in torsos (pelvis to neck = 1 at rest).
Readers of recorded poses: `precis.data.poses_2d` (keypoints); `precis.data.poses_mocap` (motion capture: BVH, arrays,
Acclaim's .asf and .amc, AMASS).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.spatial.transform import Rotation

from precis.errors import InputError

JOINTS16 = (
    "head", "neck", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "spine", "pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
KEY_POSES, KEY_SEED = 24, 1912
BONES, NOISE = 0.08, 3.0  # of a performer: largest relative change of a bone; of a pose: degrees, standard deviation

# joint: (parent, offset from it at rest); the right side is the left one mirrored.  "head" is the nose.
_TREE = {
    "pelvis": ("", (0, 0, 0)), "spine": ("pelvis", (0, 0, 0.45)), "neck": ("spine", (0, 0, 0.55)),
    "head": ("neck", (0, -0.12, 0.30)), "left_shoulder": ("neck", (0.35, 0, -0.05)),
    "left_elbow": ("left_shoulder", (0, 0, -0.57)), "left_wrist": ("left_elbow", (0, 0, -0.50)),
    "left_hip": ("pelvis", (0.22, 0, 0)), "left_knee": ("left_hip", (0, 0, -0.88)),
    "left_ankle": ("left_knee", (0, 0, -0.84)),
}  # fmt: skip

# joint: degrees about x, y and z, from and to.  Forward is a turn about −x of what hangs, about +x of what stands.
REACH = {
    "pelvis": ((-5, 30), (-10, 10), (-25, 25)), "spine": ((-10, 35), (-15, 15), (-25, 25)),
    "neck": ((-20, 25), (-10, 10), (-45, 45)), "left_shoulder": ((-150, 30), (-100, 0), (-40, 40)),
    "left_elbow": ((-130, 0), (0, 0), (0, 0)), "left_hip": ((-85, 15), (-35, 0), (-15, 15)),
    "left_knee": ((0, 100), (0, 0), (0, 0)),
}  # fmt: skip


class Motion(NamedTuple):
    """Poses [n, frames, 16, 3] float32, joints as in `JOINTS16`, and of each its action, performer and phase.

    phase: at the middle frame, 0 at the first key pose of the action, 1 at the last.
    """

    poses: Float32[np.ndarray, "n frames 16 3"]
    action: Int64[np.ndarray, "n"]
    performer: Int64[np.ndarray, "n"]
    phase: Float32[np.ndarray, "n"]


def procedural_skeleton(
    n: int, actions: int = 24, seed: int = 0, *, frames: int = 1, span: float | int = 0.5, performers: int = 8
) -> Motion:
    """`n` poses, or with `frames` > 1 clips that go through `span` of the way between two key poses.

    The key poses and actions are the same for every seed, performers and poses are not: another seed gives unseen
    people doing the same things.  `actions`: the first so many.  The same seed gives the same poses.
    """
    if n < 1 or actions < 1 or frames < 1 or performers < 1 or span < 0:
        raise InputError(f"one pose, action, frame and performer at the least: {n}, {actions}, {frames}, {performers}")
    rng = np.random.default_rng(seed)
    keys, route, legs = _actions(actions)
    bones = np.exp(np.log1p(BONES) * rng.uniform(-1, 1, (performers, len(JOINTS16))))
    action, performer = rng.integers(actions, size=n), rng.integers(performers, size=n)
    phase = rng.random(n)
    forward = rng.choice([-1.0, 1.0], n)
    steps = np.linspace(-0.5, 0.5, frames) * span if frames > 1 else np.zeros(1)
    at = np.clip(phase[:, None] * legs[action, None] + forward[:, None] * steps, 0, legs[action, None])
    leg = np.minimum(at.astype(np.int64), legs[action, None] - 1)
    first, second = (np.take_along_axis(route[action], leg + i, 1) for i in (0, 1))
    turns = _between(keys, first, second, at - leg)
    noise = np.radians(NOISE) * rng.standard_normal((n, 1, len(_MOVED), 3)).repeat(frames, 1)
    turns = turns * Rotation.from_rotvec(noise.reshape(-1, 3))
    poses = _pose(turns.as_matrix().reshape(n, frames, len(_MOVED), 3, 3), bones[performer])
    return Motion(poses.astype(np.float32), action, performer, phase.astype(np.float32))


def rest_pose(
    turns: Float[np.ndarray, "n 11 3 3"] | None = None, bones: Float[np.ndarray, "n 16"] | None = None
) -> Float[np.ndarray, "n 16 3"]:
    """The template, upright with its arms down; or with the rotations of `_MOVED` joints in it, bones scaled."""
    n = 1 if turns is None else len(turns)
    turns = np.broadcast_to(np.eye(3), (n, len(_MOVED), 3, 3)) if turns is None else turns
    return _pose(turns[:, None], np.ones((n, len(JOINTS16))) if bones is None else bones)[:, 0]


def _mirrored(name: str) -> str:
    return name.replace("left", "right")


_SIGN = {"right": np.array([1.0, -1.0, -1.0]), "left": np.ones(3)}  # of turns about x, y, z
_MOVED = tuple(dict.fromkeys(side for name in REACH for side in (name, _mirrored(name))))


def _actions(count: int) -> tuple[Rotation, np.ndarray, np.ndarray]:
    """Rotations of the key poses [24 · joints], the key poses of each action [count, 4], and its legs [count]."""
    rng = np.random.default_rng(KEY_SEED)
    angles = np.zeros((KEY_POSES, len(_MOVED), 3))
    for j, name in enumerate(_MOVED):
        low, high = np.array(REACH[name.replace("right", "left")], float).T
        angles[:, j] = rng.uniform(low, high, (KEY_POSES, 3)) * _SIGN["right" if "right" in name else "left"]
    keys = Rotation.from_euler("ZXY", np.radians(angles[..., [2, 0, 1]]).reshape(-1, 3))
    route = np.stack([rng.permutation(KEY_POSES)[:4] for _ in range(count)])
    return keys, route, rng.integers(1, 4, count)


def _between(keys: Rotation, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> Rotation:
    """Slerp of every joint: R₀ exp(share · log(R₀ᵀ R₁))."""
    joints = np.arange(len(_MOVED))
    a, b = (keys[(which[..., None] * len(_MOVED) + joints).ravel()] for which in (first, second))
    way = (a.inv() * b).as_rotvec() * np.repeat(share.ravel(), len(_MOVED))[:, None]
    return a * Rotation.from_rotvec(way)


def _pose(turns: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """Forward kinematics: joints [n,frames,16,3] of local rotations [n,frames,moved,3,3] and bone scales [n,16].

    Both sides of a performer have the left side's bones.
    """
    n, frames = turns.shape[:2]
    where: dict[str, np.ndarray] = {}
    frame: dict[str, np.ndarray] = {"": np.broadcast_to(np.eye(3), (n, frames, 3, 3))}
    where[""] = np.zeros((n, frames, 3))
    for left, (parent, offset) in _TREE.items():
        for name in dict.fromkeys((left, _mirrored(left))):
            above = _mirrored(parent) if name != left and _mirrored(parent) in where else parent
            step = np.array(offset, float) * ([-1, 1, 1] if name != left else [1, 1, 1])
            length = bones[:, JOINTS16.index(left), None, None]
            where[name] = where[above] + (frame[above] @ step) * length
            turn = turns[:, :, _MOVED.index(name)] if name in _MOVED else np.eye(3)
            frame[name] = frame[above] @ turn
    return np.stack([where[name] for name in JOINTS16], 2)
