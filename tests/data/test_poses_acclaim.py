import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tests.data.test_poses_3d import bvh

from precis.data import kinds_of
from precis.data.poses import JOINTS16, rest_pose
from precis.data.poses_3d import read_bvh
from precis.data.poses_acclaim import read_amc, read_asf_amc, where
from precis.data.poses_asf import read_asf
from precis.errors import InputError

# An arm in the plane, by hand: `upper` 2 long along x, turned by rz, `lower` 1 long by rz; `stub` has no dof.
ASF = """# comment
:version 1.10
:name arm
:units
  mass 1.0
  length 0.5
  angle deg
:documentation
   begin what one likes
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 1 2 3
   orientation 0 0 0
:bonedata
  begin
    id 1
    name lower
    direction 1 0 0
    length 1
    axis 0 0 0 XYZ   # none
    dof rz
    limits (-180.0 180.0)
  end
  begin
    id 2
    name upper
    direction 0.5 0 0
    length 2.0
    axis 0 0 30 XYZ
    dof rx rz
    limits (-180.0 180.0)
           (-inf inf)
  end
  begin
    id 3
    name stub
    direction 0 1 0
    length 4
    axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root upper stub
    upper lower
  end
"""
AMC = """#!OML:ASF
:FULLY-SPECIFIED
:DEGREES
1
root 0 0 0 0 0 0
upper 0 0
lower 0
2
root 10 0 0 0 0 90
upper 0 {0}
lower {1}
"""
MOVED = AMC.format(20, 35)


def arm(tmp_path, asf=ASF, amc=MOVED):
    (tmp_path / "arm.asf").write_text(asf)
    (tmp_path / "arm_1.amc").write_text(amc)
    bones = read_asf(tmp_path / "arm.asf")
    return bones, where(bones, read_amc(tmp_path / "arm_1.amc", bones))


def test_an_arm_in_the_plane_by_hand(tmp_path):
    bones, ends = arm(tmp_path)
    assert bones.names == ("root", "upper", "stub", "lower") and bones.parents == (-1, 0, 0, 1)
    root, upper, stub, lower = ends * 0.5  # the unit divides
    np.testing.assert_allclose(root, [[1, 2, 3], [11, 2, 3]])
    np.testing.assert_allclose(upper[0] - root[0], [2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(lower[0] - upper[0], [1, 0, 0], atol=1e-12)
    at = lambda degrees: np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0])
    np.testing.assert_allclose(upper[1] - root[1], 2 * at(90 + 20), atol=1e-12)
    np.testing.assert_allclose(lower[1] - upper[1], at(90 + 20 + 35), atol=1e-12)
    np.testing.assert_allclose(stub[1] - root[1], 4 * at(180), atol=1e-12)


def test_an_axis_turns_the_angles_and_not_the_rest_pose(tmp_path):
    _, ends = arm(tmp_path, amc=AMC.format(0, 0).replace("upper 0 0\nlower 0\n2", "upper 50 0\nlower 0\n2"))
    across = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6), 0])  # the bone's x axis, 30 degrees from the bone
    wanted = Rotation.from_rotvec(np.radians(50) * across).apply([2, 0, 0])
    np.testing.assert_allclose((ends[1, 0] - ends[0, 0]) * 0.5, wanted, atol=1e-12)


def test_radians_in_either_file(tmp_path):
    _, degrees = arm(tmp_path)
    asf = ASF.replace("angle deg", "angle rad").replace("axis 0 0 30 XYZ", f"axis 0 0 {np.pi / 6} XYZ")
    _, mixed = arm(tmp_path, asf)  # the motion says degrees
    amc = AMC.format(np.radians(20), np.radians(35)).replace(":DEGREES\n", "").replace(" 90\n", f" {np.pi / 2}\n")
    _, radians = arm(tmp_path, asf, amc)
    _, said = arm(tmp_path, ASF, amc.replace(":FULLY", ":RADIANS\n:FULLY"))
    for other in (mixed, radians, said):
        np.testing.assert_allclose(other, degrees, atol=1e-12)


BONES = {  # bone: (parent, from joint, to joint), of `JOINTS16`; its angles are those of the joint at which it begins
    "lhipjoint": ("root", "pelvis", "left_hip"), "lfemur": ("lhipjoint", "left_hip", "left_knee"),
    "ltibia": ("lfemur", "left_knee", "left_ankle"), "upperback": ("root", "pelvis", "spine"),
    "thorax": ("upperback", "spine", "neck"), "lowerneck": ("thorax", "neck", "head"),
    "lclavicle": ("thorax", "neck", "left_shoulder"), "lhumerus": ("lclavicle", "left_shoulder", "left_elbow"),
    "lradius": ("lhumerus", "left_elbow", "left_wrist"),
}  # fmt: skip
LEFT = [name for name, (_, _, end) in BONES.items() if "left_" in end]
for name in LEFT:
    parent, start, end = BONES[name]
    above = "r" + parent[1:] if parent in LEFT else parent
    BONES["r" + name[1:]] = (above, start.replace("left_", "right_"), end.replace("left_", "right_"))


def acclaim(tmp_path, turns, origin, rng, unit=0.45):
    """The template with rotations {joint: [T] of scipy} to the parent, y up, written as .asf and .amc: every bone has
    axes and an order of its own, and so has the root."""
    rest = dict(zip(JOINTS16, rest_pose()[0][:, [0, 2, 1]] * [1, 1, -1]))
    frames = len(origin)
    lines = [":units", f"length {unit}", "angle deg", ":root", "order TY TX TZ RZ RX RY", "axis XYZ", "position 0 0 0",
             "orientation 0 0 0", ":bonedata"]  # fmt: skip
    root = turns["pelvis"].as_euler("zxy", degrees=True)
    motion = [[f"root {y} {x} {z} {' '.join(map(str, root[t]))}"] for t, (x, y, z) in enumerate(origin * unit)]
    for name, (_, start, end) in BONES.items():
        step = rest[end] - rest[start]
        length = np.linalg.norm(step)
        axes, dof = ("".join(rng.permutation(list("xyz"))) for _ in range(2))
        angles = rng.uniform(-180, 180, 3)
        frame = Rotation.from_euler(axes, [angles["xyz".index(a)] for a in axes], degrees=True)
        lines += ["begin", f"name {name}", f"direction {' '.join(map(str, step / length))}", f"length {length * unit}",
                  f"axis {' '.join(map(str, angles))} {axes.upper()}"]  # fmt: skip
        if start != "pelvis":  # the root's angles are the pelvis's
            lines.append("dof " + " ".join("r" + a for a in dof))
            for t, own in enumerate((frame.inv() * turns[start] * frame).as_euler(dof, degrees=True)):
                motion[t].append(f"{name} {' '.join(map(str, own))}")
        lines.append("end")
    below = {}
    for name, (parent, *_) in BONES.items():
        below.setdefault(parent, []).append(name)
    lines += [":hierarchy", "begin", *(f"{parent} {' '.join(names)}" for parent, names in below.items()), "end"]
    (tmp_path / "07.asf").write_text("\n".join(lines))
    text = [line for t in range(frames) for line in (str(t + 1), *motion[t])]
    (tmp_path / "07_01.amc").write_text("\n".join([":FULLY-SPECIFIED", ":DEGREES", *text]))
    return tmp_path / "07_01.amc"


def motion(frames=6, seed=0):
    rng = np.random.default_rng(seed)
    turns = {name: Rotation.from_rotvec(rng.normal(0, 0.4, (frames, 3))) for name in JOINTS16}
    return turns, rng.normal(0, 2, (frames, 3)), rng


def test_one_motion_as_bvh_and_as_acclaim_gives_the_same_joints(tmp_path):
    turns, origin, rng = motion()
    order = ["pelvis", "spine", "neck", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder",
             "right_elbow", "right_wrist", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee",
             "right_ankle"]  # fmt: skip
    rows = [np.concatenate([origin[t], *(turns[j][t].as_euler("ZXY", degrees=True) for j in order)]) for t in range(6)]
    wanted = read_bvh(bvh(tmp_path, rows))
    found = read_asf_amc(acclaim(tmp_path, turns, origin, rng))
    assert found.names == wanted.names == JOINTS16 and found.points.shape == (6, 16, 3)
    np.testing.assert_allclose(found.points, wanted.points, atol=1e-6)
    assert np.ptp(found.points[:, 6] - found.points[:, 9], axis=0).max() > 0.1  # it moves


def test_the_joints_are_those_of_rotations_composed_one_by_one(tmp_path):
    turns, origin, rng = motion(4, 1)
    path = acclaim(tmp_path, turns, origin, rng)
    bones = read_asf(tmp_path / "07.asf")
    ends = where(bones, read_amc(path, bones))
    rest = dict(zip(JOINTS16, rest_pose()[0][:, [0, 2, 1]] * [1, 1, -1]))
    for name in ("lradius", "rtibia", "lowerneck"):
        for t in range(4):
            chain, bone = [], name
            while bone != "root":
                chain.insert(0, bone)
                bone = BONES[bone][0]
            at, turn = origin[t].copy(), turns["pelvis"][t]
            for bone in chain:
                _, start, end = BONES[bone]
                turn = turn * turns[start][t] if start != "pelvis" else turn
                at = at + turn.apply(rest[end] - rest[start])
            np.testing.assert_allclose(ends[bones.names.index(name), t], at, atol=1e-9)


def test_the_skeleton_is_found_beside_the_motion_and_motions_beside_the_skeleton(tmp_path):
    turns, origin, rng = motion()
    path = acclaim(tmp_path, turns, origin, rng)
    (tmp_path / "07_10.amc").write_text(path.read_text())
    (tmp_path / "0.asf").write_text("another's")
    one = read_asf_amc(path).points
    np.testing.assert_array_equal(read_asf_amc(tmp_path / "07.asf").points, np.concatenate([one, one]))
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "07.asf").rename(tmp_path / "elsewhere" / "body.asf")
    (tmp_path / "1.asf").write_text("another's")
    np.testing.assert_array_equal(read_asf_amc(path, moved).points, one)
    with pytest.raises(InputError, match=r"07_01\.amc: its skeleton is wanted beside it: 07\.asf"):
        read_asf_amc(path)
    with pytest.raises(InputError, match=r"body\.asf: no motion is beside it"):
        read_asf_amc(moved)
    assert kinds_of(moved) == kinds_of(path) == {"poses"}


@pytest.mark.parametrize("old, new, line, message", [
    ("length 0.5", "length zero", 6, "length: a number wanted, got 'zero'"),
    ("length 0.5", "length -1", 6, "unit of length is to be above 0"),
    ("angle deg", "angle grad", 7, "deg or rad wanted, got 'grad'"),
    ("order TX TY TZ RX RY RZ", "order TX TY TZ RX RY", 11, "each once, got 'TX TY TZ RX RY'"),
    ("position 1 2 3", "position 1 2", 13, "position: 3 numbers wanted, got '1 2'"),
    ("direction 1 0 0", "direction 1 0 nan", 19, "direction: 3 numbers wanted"),
    ("direction 1 0 0", "direction 0 0 0", 20, "bone 'lower' needs a direction"),
    ("axis 0 0 30 XYZ", "axis 0 0 30 XXZ", 30, "the order of three angles wanted, such as XYZ, got 'XXZ'"),
    ("dof rz\n", "dof rz rz\n", 22, "got 'rz rz'"),
    ("dof rz\n", "dof tx rz\n", 22, "rx, ry and rz are read"),
    ("           (-inf inf)\n", "", 32, "bone 'upper' has 2 dof and 2 limits"),
    ("name stub", "name upper", 35, "bone 'upper' is there already"),
    ("    name stub\n", "", 35, "has no line 'name'"),
    ("  begin\n    id 2", "  id 2", 25, "'begin' wanted, got 'id 2'"),
    ("    length 4\n    axis 0 0 0 XYZ\n  end", "    length 4", 35, "this block has no 'end'"),
    ("root upper stub", "root upper hand", 44, "'hand': no bone has that name"),
    ("root upper stub", "root upper", 35, "bone 'stub' does not hang from the root"),
    ("upper lower", "upper lower stub", 45, "bone 'stub' hangs from 'root' already"),
    ("root upper stub\n    upper lower", "root stub\n    upper lower\n    lower upper", 16, "'lower' does not hang"),
    ("upper lower", "upper root", 45, "the root is nobody's child"),
])  # fmt: skip
def test_what_is_wrong_in_a_skeleton_is_told_with_its_line(tmp_path, old, new, line, message):
    assert old in ASF
    (tmp_path / "arm.asf").write_text(ASF.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_asf(tmp_path / "arm.asf")
    assert message in str(caught.value) and caught.value.line == line and "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'arm.asf'}:{line}: ")


@pytest.mark.parametrize("old, new, line, message", [
    ("lower 0\n2", "2", 4, "the frame that begins here has no line for bone 'lower'"),
    ("lower 35", "", 8, "the frame that begins here has no line for bone 'lower'"),
    ("upper 0 20", "upper 0 20 1", 10, "bone 'upper': 2 numbers wanted, got '0 20 1'"),
    ("lower 0\n2", "lower x\n2", 7, "bone 'lower': a number wanted, got 'x'"),
    ("lower 0\n2", "wing 0\n2", 7, "the skeleton has no bone 'wing'"),
    ("lower 0\n2", "stub 1\n2", 7, "bone 'stub': no numbers wanted, got '1'"),
    ("lower 0\n2", "upper 0 0\n2", 7, "bone 'upper' is in this frame already, in line 6"),
    ("1\nroot", "root", 4, "the number of a frame wanted, got 'root'"),
])  # fmt: skip
def test_what_is_wrong_in_a_motion_is_told_with_its_line(tmp_path, old, new, line, message):
    assert old in MOVED
    with pytest.raises(InputError) as caught:
        arm(tmp_path, amc=MOVED.replace(old, new, 1))
    assert message in str(caught.value) and caught.value.line == line
    assert str(caught.value).startswith(f"{tmp_path / 'arm_1.amc'}:{line}: ")


def test_what_is_wrong_with_a_file_is_told(tmp_path):
    with pytest.raises(InputError, match="there is no frame in it"):
        arm(tmp_path, amc=":DEGREES\n# nothing\n")
    with pytest.raises(InputError, match=r"arm\.asf: an Acclaim skeleton \(\.asf\) has a section :hierarchy"):
        arm(tmp_path, ASF.partition(":hierarchy")[0])
    with pytest.raises(InputError, match="section :root has no line 'order"):
        arm(tmp_path, ASF.replace("   order TX TY TZ RX RY RZ\n", ""))
    with pytest.raises(InputError, match=r"arm\.asf: no bone begins or ends at the head"):
        arm(tmp_path)
        read_asf_amc(tmp_path / "arm_1.amc")
    with pytest.raises(InputError, match=r"none\.amc: .*wanted"):
        read_asf_amc(tmp_path / "none.amc", tmp_path / "arm.asf")
