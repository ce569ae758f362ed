import pickle

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from precis.data import kinds_of
from precis.data.poses import JOINTS16, rest_pose
from precis.data.poses_amass import is_amass, read_amass
from precis.data.poses_mocap import read_mocap
from precis.data.poses_smpl import NAMES, PARENTS, TORSO, read_body, template
from precis.errors import InputError

rng = np.random.default_rng(5)
VERTICES, BETAS = 40, 10
BODY = {
    "J_regressor": rng.random((52, VERTICES)), "v_template": rng.normal(size=(VERTICES, 3)),
    "shapedirs": rng.normal(0, 0.1, (VERTICES, 3, BETAS)),
}  # fmt: skip


def recording(path, poses, trans=None, betas=None, **more):
    trans = np.zeros((len(poses), 3)) if trans is None else trans
    betas = np.zeros(16) if betas is None else betas
    np.savez(path, poses=poses, trans=trans, betas=betas, mocap_framerate=np.array(120.0), gender=np.array("neutral"),
             **more)  # fmt: skip
    return path


def moves(frames=5, width=156):
    return rng.normal(0, 0.3, (frames, width)), rng.normal(0, 1, (frames, 3))


@pytest.fixture
def body(tmp_path):
    np.savez(tmp_path / "body.npz", **BODY, bs_type=np.array("lrotmin"))
    return tmp_path / "body.npz"


def sixteen(joints):
    return joints[[NAMES.index(name) for name in JOINTS16]]


def test_the_zero_pose_is_the_template_with_its_arms_out(tmp_path):
    found = read_amass(recording(tmp_path / "a.npz", np.zeros((3, 156)), np.full((3, 3), 7.0)))
    made = dict(zip(JOINTS16, rest_pose()[0][:, [0, 2, 1]] * [1, 1, -1] * TORSO))
    at = dict(zip(JOINTS16, found.points[2] - 7.0))
    for name in JOINTS16:
        if "elbow" not in name and "wrist" not in name:
            np.testing.assert_allclose(at[name], made[name], atol=1e-12)
    for side, out in (("left", 1), ("right", -1)):
        for a, b in (("shoulder", "elbow"), ("elbow", "wrist")):
            arm, bone = at[f"{side}_{b}"] - at[f"{side}_{a}"], made[f"{side}_{b}"] - made[f"{side}_{a}"]
            np.testing.assert_allclose(arm, [out * np.linalg.norm(bone), 0, 0], atol=1e-12)
    assert found.names == JOINTS16 and not found.exact and "template skeleton" in found.note


def test_the_template_with_its_shoulders_turned_down_is_the_made_rest_pose(tmp_path):
    poses = np.zeros((1, 72))
    for side, turn in (("left", -np.pi / 2), ("right", np.pi / 2)):
        poses[0, 3 * NAMES.index(f"{side}_shoulder") + 2] = turn
    poses[0, 0] = np.pi / 2  # y up becomes z up
    found = read_amass(recording(tmp_path / "a.npz", poses))
    np.testing.assert_allclose(found.points[0], rest_pose()[0] * TORSO, atol=1e-12)


def test_betas_shape_the_rest_pose_as_the_equation_says(tmp_path, body):
    betas = rng.normal(size=BETAS)
    found = read_amass(recording(tmp_path / "a.npz", np.zeros((2, 156)), betas=betas), body)
    shaped = BODY["v_template"] + np.einsum("vck,k->vc", BODY["shapedirs"], betas)
    np.testing.assert_allclose(found.points[1], sixteen((BODY["J_regressor"] @ shaped)[:22]), atol=1e-12)
    assert found.exact and not found.note
    more = read_amass(recording(tmp_path / "b.npz", np.zeros((2, 156)), betas=np.append(betas, [0.5] * 6)), body)
    np.testing.assert_allclose(more.points, found.points, atol=1e-12)
    assert not more.exact and "knows 10 of the 16 numbers" in more.note


@pytest.mark.parametrize("width", [72, 156, 165])
def test_the_joints_are_those_of_rotations_composed_one_by_one(tmp_path, body, width):
    poses, trans = moves(width=width)
    found = read_amass(recording(tmp_path / "a.npz", poses, trans), body)
    rest = (BODY["J_regressor"] @ BODY["v_template"])[:22]
    for t in range(len(poses)):
        at, turn = {}, {}
        for j, parent in enumerate(PARENTS):
            own = Rotation.from_rotvec(poses[t, 3 * j : 3 * j + 3])
            turn[j] = own if parent < 0 else turn[parent] * own
            at[j] = rest[0] + trans[t] if parent < 0 else at[parent] + turn[parent].apply(rest[j] - rest[parent])
        np.testing.assert_allclose(found.points[t], sixteen(np.stack(list(at.values()))), atol=1e-9)


@pytest.mark.parametrize("exact", [True, False])
def test_turning_the_root_turns_all_joints_about_the_pelvis(tmp_path, body, exact):
    poses, trans = moves()
    own = body if exact else None
    whole = Rotation.from_rotvec([0.3, -1.2, 0.8])
    turned = poses.copy()
    turned[:, :3] = (whole * Rotation.from_rotvec(poses[:, :3])).as_rotvec()
    a, b = (read_amass(recording(tmp_path / "a.npz", p, trans), own).points for p in (poses, turned))
    pelvis = JOINTS16.index("pelvis")
    np.testing.assert_allclose(a[:, pelvis], b[:, pelvis], atol=1e-12)
    around = np.stack([whole.apply(frame - frame[pelvis]) for frame in a])
    np.testing.assert_allclose(b - b[:, [pelvis]], around, atol=1e-9)
    shifted = read_amass(recording(tmp_path / "a.npz", poses, trans + [1, 2, 3]), own).points
    np.testing.assert_allclose(shifted, a + [1, 2, 3], atol=1e-12)


def test_only_what_is_wanted_is_read_and_frames_are_left_out_by_rate(tmp_path):
    poses, trans = moves(50)
    path = recording(tmp_path / "a.npz", poses, trans, labels=np.array([{"a": 1}], object))
    every = read_amass(path).points
    assert len(every) == 50
    np.testing.assert_array_equal(read_amass(path, fps=30).points, every[::4])
    np.testing.assert_array_equal(read_amass(path, fps=500).points, every)
    assert is_amass(path) and kinds_of(path) == {"poses"}
    with pytest.raises(InputError, match="fps is to be above 0"):
        read_amass(path, fps=0)
    np.savez(tmp_path / "b.npz", poses=poses, trans=trans, betas=np.zeros((1, 10)))
    assert len(read_amass(tmp_path / "b.npz").points) == 50
    with pytest.raises(InputError, match=r"b\.npz: it says no 'mocap_framerate'"):
        read_amass(tmp_path / "b.npz", fps=30)


def test_a_body_beside_the_recording_is_taken(tmp_path, body):
    path = recording(tmp_path / "a.npz", *moves())
    template_, exact = read_amass(path), read_amass(path, body)
    body.rename(tmp_path / "smpl.npz")
    np.testing.assert_array_equal(read_amass(path).points, exact.points)
    assert np.abs(template_.points - exact.points).max() > 0.1
    np.savez(tmp_path / "joints.npz", J=BODY["J_regressor"] @ BODY["v_template"])
    ready = read_amass(path, tmp_path / "joints.npz")
    np.testing.assert_allclose(ready.points, exact.points, atol=1e-12)
    assert ready.exact
    shaped = recording(tmp_path / "b.npz", *moves(), betas=np.ones(10))
    assert "without the recorded shape" in read_amass(shaped, tmp_path / "joints.npz").note
    assert not template().exact


def test_a_pickle_is_not_opened_and_the_way_to_an_npz_is_told(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("opened").touch, ())

    for name in ("body.pkl", "body.dat"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(InputError, match="a pickle can run code") as caught:
            read_body(tmp_path / name, np.zeros(10))
        assert "savez" in str(caught.value) and "\n" not in str(caught.value)
    np.savez(tmp_path / "object.npz", **BODY | {"J_regressor": np.array([Trap()], object)})
    with pytest.raises(InputError, match="array 'J_regressor' holds Python objects"):
        read_body(tmp_path / "object.npz", np.zeros(10))
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("change, message", [
    ({"poses": np.zeros((4, 150))}, r"poses are to be \[T, 72, 156 or 165\]; got \[4, 150\]"),
    ({"poses": np.zeros((0, 156)), "trans": np.zeros((0, 3))}, r"got \[0, 156\]"),
    ({"poses": np.full((4, 156), np.nan)}, "'poses' is to hold finite numbers"),
    ({"poses": np.zeros((4, 156), "U1")}, "'poses' is to hold finite numbers"),
    ({"trans": np.zeros((3, 3))}, r"trans is to be \[4, 3\]"),
    ({"betas": np.zeros((4, 10))}, "betas is to be .*one shape for all frames"),
    ({"betas": None}, "no array 'betas' in it"),
])  # fmt: skip
def test_what_is_wrong_in_a_recording_is_told(tmp_path, change, message):
    arrays = {"poses": np.zeros((4, 156)), "trans": np.zeros((4, 3)), "betas": np.zeros(16)} | change
    np.savez(tmp_path / "a.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=rf"a\.npz: .*{message}"):
        read_amass(tmp_path / "a.npz")


@pytest.mark.parametrize("change, message", [
    ({"shapedirs": np.zeros((VERTICES + 1, 3, 10))}, r"wanted; got \[52, 40\], \[40, 3\], \[41, 3, 10\]"),
    ({"J_regressor": np.zeros((20, VERTICES))}, r"got \[20, 40\]"),
    ({"v_template": np.full((VERTICES, 3), np.inf)}, "'v_template' is to hold finite numbers"),
    ({"v_template": None}, "it holds J_regressor, shapedirs; an SMPL body"),
    ({"v_template": None, "J": np.zeros((5, 3))}, r"J is to be \[22 or more, 3\]; got \[5, 3\]"),
])  # fmt: skip
def test_what_is_wrong_in_a_body_is_told(tmp_path, change, message):
    np.savez(tmp_path / "b.npz", **{name: value for name, value in (BODY | change).items() if value is not None})
    with pytest.raises(InputError, match=rf"b\.npz: .*{message}"):
        read_body(tmp_path / "b.npz", np.zeros(10))


def test_files_that_are_no_recording(tmp_path, body):
    (tmp_path / "cut.npz").write_bytes(recording(tmp_path / "a.npz", *moves()).read_bytes()[:-900])
    assert not is_amass(tmp_path / "cut.npz")
    with pytest.raises(InputError, match=r"cut\.npz: this is no whole \.npz file"):
        read_amass(tmp_path / "cut.npz")
    with pytest.raises(InputError, match="no such file"):
        read_amass(tmp_path / "none.npz")
    np.savez(tmp_path / "joints.npz", a=np.zeros((4, 16, 3)))
    assert read_mocap(tmp_path / "joints.npz").points.shape == (4, 16, 3)
    with pytest.raises(InputError, match=r"joints\.npz: an SMPL body is for AMASS's \.npz files"):
        read_mocap(tmp_path / "joints.npz", body)
    assert not read_mocap(tmp_path / "a.npz").exact and read_mocap(tmp_path / "a.npz", body).exact
