import numpy as np
import pytest
import torch

from precis.contrastive.prvipe_alignment import match_matrix
from precis.contrastive.prvipe_keypoints import STD16_3D, normalize_3d
from precis.data.poses import JOINTS16, NOISE, procedural_skeleton, rest_pose
from precis.errors import InputError


def test_joints_are_those_of_the_profile():
    assert JOINTS16 == STD16_3D.names


def test_the_template_stands_upright_and_looks_ahead():
    where = dict(zip(JOINTS16, rest_pose()[0]))
    assert where["pelvis"].tolist() == [0, 0, 0] and np.isclose(where["neck"][2], 1)
    assert where["left_ankle"][2] < where["left_knee"][2] < where["left_hip"][2] + 1e-9
    assert where["head"][1] < 0 and where["left_wrist"][0] > 0 > where["right_wrist"][0]
    for name in JOINTS16:
        if name.startswith("left"):
            assert np.allclose(where[name] * [-1, 1, 1], where[name.replace("left", "right")])


def test_the_same_seed_gives_the_same_poses_and_another_other_people():
    a, b, c = procedural_skeleton(50, seed=3), procedural_skeleton(50, seed=3), procedural_skeleton(50, seed=4)
    assert np.array_equal(a.poses, b.poses) and not np.array_equal(a.poses, c.poses)
    assert a.poses.shape == (50, 1, 16, 3) and a.poses.dtype == np.float32 and set(a.action) <= set(range(24))
    assert procedural_skeleton(9, actions=1, seed=0).action.tolist() == [0] * 9


def test_bones_belong_to_the_performer_not_to_the_pose():
    m = procedural_skeleton(300, seed=1, performers=3)
    at = JOINTS16.index
    thigh = np.linalg.norm(m.poses[:, 0, at("left_hip")] - m.poses[:, 0, at("left_knee")], axis=1)
    right = np.linalg.norm(m.poses[:, 0, at("right_hip")] - m.poses[:, 0, at("right_knee")], axis=1)
    assert np.allclose(thigh, right, atol=1e-5)
    for who in range(3):
        assert thigh[m.performer == who].std() < 1e-5
    assert len({round(float(t), 4) for t in thigh}) == 3 and thigh.min() > 0.88 / 1.09 and thigh.max() < 0.88 * 1.09


def test_elbows_and_knees_bend_one_way():
    poses = procedural_skeleton(500, seed=2).poses[:, 0].astype(float)
    joint = lambda name: poses[:, JOINTS16.index(name)]
    for a, b, c in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")):
        upper, lower = joint(f"left_{b}") - joint(f"left_{a}"), joint(f"left_{c}") - joint(f"left_{b}")
        cosine = (upper * lower).sum(1) / np.linalg.norm(upper, axis=1) / np.linalg.norm(lower, axis=1)
        most = np.degrees(np.arccos(np.clip(cosine, -1, 1))).max()
        assert 60 < most < (130 if b == "elbow" else 100) + 4 * NOISE


def test_a_pose_has_matches_and_not_too_many():
    k = normalize_3d(torch.from_numpy(procedural_skeleton(1000, seed=9).poses[:, 0]))
    others = match_matrix(k).sum(1) - 1
    assert 5 <= float(others.float().median()) <= 20


def test_clips_move_smoothly():
    m = procedural_skeleton(80, seed=0, frames=7)
    step = np.linalg.norm(np.diff(m.poses, axis=1), axis=-1)
    assert m.poses.shape == (80, 7, 16, 3) and step.mean() > 0.005 and step.max() < 0.6
    alone = np.linalg.norm(m.poses[1:, 3] - m.poses[:-1, 3], axis=-1).mean()
    assert alone > 4 * step.mean()


def test_nothing_to_make():
    with pytest.raises(InputError, match="one pose"):
        procedural_skeleton(0)
