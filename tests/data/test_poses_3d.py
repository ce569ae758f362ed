import numpy as np
import pytest

from precis.data import kinds_of
from precis.data.poses import JOINTS16, procedural_skeleton, rest_pose
from precis.data.poses_3d import read_3d, read_bvh
from precis.errors import InputError


def bvh(tmp_path, frames, names=None):
    """A skeleton with y up: a chain of Hips, Spine, Neck, Head, and limbs."""
    called = {"pelvis": "Hips", "spine": "Spine", "neck": "Neck", "head": "Head"}
    for side in ("Left", "Right"):
        called |= {f"{side.lower()}_{a}": side + b for a, b in (
            ("shoulder", "Arm"), ("elbow", "ForeArm"), ("wrist", "Hand"), ("hip", "UpLeg"), ("knee", "Leg"),
            ("ankle", "Foot"))}  # fmt: skip
    called |= names or {}
    where = dict(zip(JOINTS16, rest_pose()[0]))
    children = {"pelvis": ["spine", "left_hip", "right_hip"], "spine": ["neck"],
                "neck": ["head", "left_shoulder", "right_shoulder"]}  # fmt: skip
    for side in ("left", "right"):
        children |= {f"{side}_hip": [f"{side}_knee"], f"{side}_knee": [f"{side}_ankle"],
                     f"{side}_shoulder": [f"{side}_elbow"], f"{side}_elbow": [f"{side}_wrist"]}  # fmt: skip
    lines = ["HIERARCHY"]

    def add(joint, parent, word):
        x, y, z = where[joint] - where.get(parent, where[joint])
        channels = "6 Xposition Yposition Zposition " if not parent else "3 "
        lines.extend([f"{word} {called[joint]}", "{", f"OFFSET {x} {z} {-y}",
                      f"CHANNELS {channels}Zrotation Xrotation Yrotation"])  # fmt: skip
        for child in children.get(joint, []):
            add(child, joint, "JOINT")
        if joint not in children:
            lines.extend(["End Site", "{", "OFFSET 0 0 0", "}"])
        lines.append("}")

    add("pelvis", "", "ROOT")
    lines += ["MOTION", f"Frames: {len(frames)}", "Frame Time: 0.04", *(" ".join(map(str, row)) for row in frames)]
    (tmp_path / "m.bvh").write_text("\n".join(lines))
    return tmp_path / "m.bvh"


def test_a_skeleton_at_rest_comes_back_with_z_up(tmp_path):
    zero = [0.0] * 51
    found = read_bvh(bvh(tmp_path, [zero, [5.0, 90.0, -3.0, *zero[3:]]]))
    assert found.names == JOINTS16 and found.points.shape == (2, 16, 3)
    np.testing.assert_allclose(found.points[0], rest_pose()[0], atol=1e-9)
    np.testing.assert_allclose(found.points[1] - found.points[1, 9], rest_pose()[0], atol=1e-9)
    assert "poses" in kinds_of(tmp_path / "m.bvh")


def test_rotations_turn_what_hangs_below(tmp_path):
    row = [0.0] * 51
    row[5] = 90.0  # the root's last channel: about y, which is up
    found = read_bvh(bvh(tmp_path, [[0.0] * 51, row]))
    rest, turned = found.points
    np.testing.assert_allclose(turned, np.stack([-rest[:, 1], rest[:, 0], rest[:, 2]], 1), atol=1e-9)


def test_arrays_are_turned_upright(tmp_path):
    poses = procedural_skeleton(60, seed=0).poses[:, 0]
    lying = poses[..., [0, 2, 1]] * [1, 1, -1]  # y up
    np.savez(tmp_path / "p.npz", a=lying[:40], b=lying[40:])
    found = read_3d(tmp_path / "p.npz")
    assert found.names == JOINTS16
    np.testing.assert_allclose(found.points, poses, atol=1e-6)
    np.save(tmp_path / "q.npy", np.zeros((5, 17, 3)))
    assert read_3d(tmp_path / "q.npy").names is None


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(InputError, match="no joint is called like the left knee"):
        read_bvh(bvh(tmp_path, [[0.0] * 51], {"left_knee": "Bone7"}))
    with pytest.raises(InputError, match="a line of 51 numbers"):
        read_bvh(bvh(tmp_path, [[0.0] * 50]))
    (tmp_path / "x.bvh").write_text("HIERARCHY\nROOT Hips\n{\nOFFSET a b c\n}\nMOTION\n")
    with pytest.raises(InputError, match="not understood: OFFSET a b c"):
        read_bvh(tmp_path / "x.bvh")
    (tmp_path / "y.bvh").write_text("something else")
    with pytest.raises(InputError, match="begins with HIERARCHY"):
        read_bvh(tmp_path / "y.bvh")
    np.savez(tmp_path / "n.npz", a=np.zeros((4, 2)))
    with pytest.raises(InputError, match="no array"):
        read_3d(tmp_path / "n.npz")
    np.save(tmp_path / "nan.npy", np.full((4, 16, 3), np.nan))
    with pytest.raises(InputError, match="not finite"):
        read_3d(tmp_path / "nan.npy")
