"""The claims' experiments, small: what is paired is paired, and broken arms are broken where they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.test_poses_acclaim import acclaim, motion

from precis.contrastive.prvipe import PoseEmbedder, PrVIPE, match_matrix
from precis.contrastive.prvipe_keypoints import STD13_2D, STD16_3D
from precis.errors import InputError
from precis.lab.recorder import TrialRecord
from precis.lab.trial import streams
from precis.papers.prvipe.claims import Dropout, Retrieval, Temporal
from precis.papers.prvipe.claims_clips import Clips
from precis.papers.prvipe.grouped import Grouped
from precis.papers.prvipe.training import (
    ARMS,
    NEW,
    SEEN,
    Arm,
    Setting,
    across,
    feed,
    judge,
    load_pool,
    train,
    views,
)  # fmt: skip
from precis.papers.prvipe.training import test_views as seen_by

SMALL = Setting(poses=80, test=30, hidden=16, batch=16, steps=3)
POOL = load_pool(SMALL, None)
MATCH = match_matrix(POOL.train)


def record(tmp_path: Path, arm: str = "arm", seed: int = 0) -> TrialRecord:
    return TrialRecord(tmp_path / "record" / f"{arm}{seed}", seed)


def batch(arm: Arm, seeds=(3,), match=MATCH):
    return feed(POOL.train, match, SMALL, arm, seeds)(0, [streams(seed)["data"] for seed in seeds])


def test_arms_share_cameras_and_order_whatever_else_they_draw():
    base = batch(ARMS["prvipe"])
    for name in ("point", "random_negatives", "shuffled_negatives"):
        assert torch.equal(batch(ARMS[name])["k"], base["k"]), name
    lifted = batch(ARMS["lifter"])
    assert torch.equal(lifted["k"], base["k"].flatten(1, 2)) and lifted["seen"].shape == (1, 32, 16, 3)
    assert torch.equal(batch(ARMS["prvipe"], match=None)["negative"], base["negative"])
    wrong = batch(ARMS["mispaired"])
    assert torch.equal(wrong["k"][:, 0], base["k"][:, 0]) and not torch.equal(wrong["k"][:, 1], base["k"][:, 1])
    assert not base["negative"][0].diagonal().any()


def test_missing_points_are_missing_in_half_of_the_samples():
    for name, rest in (("independent", 0.85), ("structured", None)):
        row = feed(POOL.train, MATCH, replace(SMALL, batch=80), ARMS[name], (0,))(0, [streams(0)["data"]])
        whole = row["mask"].all(-1).float().mean()
        assert 0.4 < float(whole) < 0.75 and row["k"][~row["mask"]].abs().max() == 0
        if rest:
            assert abs(float(row["mask"].float().mean()) - rest) < 0.04


def test_cameras_are_the_four_or_half_of_them_made():
    poses = POOL.train.repeat(20, 1, 1)
    _, seen = views(poses, False, 0.0, torch.Generator().manual_seed(0))
    assert torch.allclose(seen[..., 2], poses[..., 2], atol=1e-6)  # no camera rises or rolls
    _, made = views(poses, True, 0.0, torch.Generator().manual_seed(0))
    same = (made - seen).abs().amax((1, 2)) < 1e-6
    assert 0.45 < float(same.float().mean()) < 0.55


def test_a_clip_has_one_camera():
    clips = POOL.train[:, None].expand(-1, 7, -1, -1)
    k, seen = views(clips, True, 0.0, torch.Generator().manual_seed(0))
    assert k.shape == (80, 7, 13, 2) and torch.allclose(seen[:, 0], seen[:, 6]) and torch.allclose(k[:, 0], k[:, 6])


@pytest.mark.parametrize(("name", "alone"), [("prvipe", (2,)), ("lifter", (2,)), ("structured", (2, 3))])
def test_a_seed_does_not_depend_on_those_beside_it(name, alone, tmp_path):
    arm = ARMS[name]
    many = train(POOL.train, MATCH, SMALL, arm, (1, 2, 3), record(tmp_path))
    fewer = train(POOL.train, MATCH, SMALL, arm, alone, record(tmp_path, "b"))
    k = seen_by(POOL.test, MATCH, NEW[:1], 0.0, streams(0)["eval"]).k[0]
    outputs = [net(k) if arm.lifter else net(k).mean for net in (many.module(1), fewer.module(0))]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(many.module(0).parameters(), many.module(1).parameters()))


def test_views_of_a_pose_are_learned_to_lie_together(tmp_path):
    s = replace(SMALL, steps=60, lr=1e-2, hidden=32)
    many = train(POOL.train, MATCH, s, ARMS["prvipe"], (0,), record(tmp_path))
    broken = train(POOL.train, MATCH, s, ARMS["mispaired"], (0,), record(tmp_path, "b"))
    same = torch.eye(80, dtype=torch.bool)
    hit = lambda m: judge(m.module(0), seen_by(POOL.train, same, SEEN, 0.01, streams(0)["eval"]))["hit10"]
    assert hit(many) > 60 and hit(broken) < 35


def test_hits_are_means_over_ordered_pairs_of_cameras():
    match = torch.eye(3, dtype=torch.bool)
    good, bad = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.0], [0.0], [1.0]])
    assert across([good, good], match, torch.cdist)["hit1"] == 100
    found = across([good, good, bad], match, torch.cdist)
    assert found["hit1"] == pytest.approx(100 * 2 / 6) and found["hit10"] == pytest.approx(100)


def test_claims_give_the_figures_that_their_hypotheses_read(tmp_path):
    arms = ("prvipe", "procrustes_2d", "lifter", "independent")
    rows = {arm: m for arm, _, m in Retrieval().batch(
        arms, (0,), SMALL, POOL, {(arm, 0): record(tmp_path, arm) for arm in arms})}  # fmt: skip
    assert set(rows["procrustes_2d"]) == set(rows["lifter"]) == {"hit1", "hit10", "hit20"}
    assert {"hit1_seen", "new_less_seen", "hit1_random", "hit1_limbs", "limbs_less_random"} <= set(rows["independent"])
    assert rows["prvipe"]["new_less_seen"] == pytest.approx(rows["prvipe"]["hit1"] - rows["prvipe"]["hit1_seen"])
    s = Clips(poses=40, test=20, hidden=16, batch=8, steps=1)
    clip_arms = ("temporal", "stacked", "still")
    clips = load_pool(s, None, 7)
    assert clips.train.shape == (40, 7, 16, 3)
    made = list(Temporal().batch(clip_arms, (0,), s, clips, {(a, 0): record(tmp_path, a) for a in clip_arms}))
    assert [arm for arm, _, _ in made] == list(clip_arms) and all(0 <= m["hit1"] <= m["hit20"] for _, _, m in made)


def test_a_pose_is_told_from_its_group_alone_and_from_as_many_as_a_clip():
    g = torch.Generator().manual_seed(0)
    grouped = Grouped(PoseEmbedder(hidden=16, dropout=0.0, generator=g), 4).eval()
    views, noise = torch.randn(2, 12, 13, 2, generator=g), torch.randn(2, 12, 3, 16, generator=g)
    other = ~torch.eye(12, dtype=torch.bool)
    found = grouped.loss(views, other, noise=noise, samples=3)
    blocks = torch.block_diag(*[torch.ones(4, 4)] * 3).bool()
    torch.testing.assert_close(found, PrVIPE.loss(grouped, views, other & blocks, noise=noise, samples=3))
    assert not torch.equal(found["loss"], PrVIPE.loss(grouped, views, other, noise=noise, samples=3)["loss"])
    parts = [PrVIPE.loss(grouped, views[:, i : i + 4], other[:4, :4], noise=noise[:, i : i + 4], samples=3)
             for i in (0, 4, 8)]  # fmt: skip
    summed = sum(float(p["triplet"].detach()) * float(p["active"]) for p in parts)
    assert float(found["triplet"].detach()) * float(found["active"]) == pytest.approx(summed, rel=1e-5)


def test_both_arms_of_clips_have_as_many_frames_a_step_and_as_many_negatives(tmp_path, monkeypatch):
    seen = {}

    def spied(poses, match, s, arm, seeds, record, build=None):
        net = build(torch.Generator().manual_seed(0))
        own = min(s.batch, len(poses))
        seen[poses.ndim] = (own * (poses.shape[1] if poses.ndim == 4 else 1), getattr(net, "group", own))
        raise StopIteration

    monkeypatch.setattr("precis.papers.prvipe.claims_clips.train", spied)
    s = Clips(poses=80, test=20, hidden=16, batch=8, steps=1)
    clips = load_pool(s, None, 7)
    for arm in ("temporal", "stacked"):
        with pytest.raises(RuntimeError):
            next(Temporal().batch((arm,), (0,), s, clips, {(arm, 0): record(tmp_path, arm)}))
    assert seen[4] == seen[3] == (56, 8)


def test_dropout_counts_missing_points_of_both_kinds(tmp_path):
    rows = {arm: m for arm, _, m in Dropout().batch(
        ("independent",), (0,), SMALL, POOL, {("independent", 0): record(tmp_path, "d")})}  # fmt: skip
    found = rows["independent"]
    assert found["hit1_missing"] == pytest.approx((found["hit1_random"] + found["hit1_limbs"]) / 2)
    assert {h.metric for h in Dropout.hypotheses} <= set(found)
    both, limbs, more = (h for h in Dropout.hypotheses if h.counts)
    assert (both.metric, limbs.metric, more.metric) == ("hit1_missing", "hit1_limbs", "limbs_less_random")


def test_motion_capture_of_one_s_own(tmp_path):
    names = [n for n in STD16_3D.names if n not in STD13_2D.names]
    assert names == ["neck", "spine", "pelvis"]
    poses = np.random.default_rng(0).normal(size=(200, 17, 3))
    np.save(tmp_path / "h36m.npy", poses)
    pool = load_pool(replace(SMALL, poses=1000, test=1000), tmp_path / "h36m.npy")
    assert len(pool.train) == 160 and len(pool.test) == 40
    np.save(tmp_path / "few.npy", poses[:30])
    with pytest.raises(InputError, match="50 poses or more"):
        load_pool(SMALL, tmp_path / "few.npy")
    np.save(tmp_path / "odd.npy", poses[:, :15])
    with pytest.raises(InputError, match="15 points without names"):
        load_pool(SMALL, tmp_path / "odd.npy")


def test_motion_capture_of_amass_and_cmu(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"poses": rng.normal(0, 0.3, (140, 156)), "trans": np.zeros((140, 3)), "betas": np.zeros(16)}
    np.savez(tmp_path / "walk.npz", **arrays)
    with pytest.warns(UserWarning, match=r"walk\.npz: Its joints are those of a template skeleton"):
        pool = load_pool(SMALL, tmp_path / "walk.npz")
    torso = (pool.train[:, 1] - pool.train[:, 8]).norm(dim=-1) + (pool.train[:, 8] - pool.train[:, 9]).norm(dim=-1)
    assert pool.train.shape == (80, 16, 3) and pool.test.shape == (22, 16, 3)
    assert torch.allclose(torso, torch.ones(80), atol=1e-5)
    turns, origin, drawn = motion(60)
    acclaim(tmp_path, turns, origin, drawn)
    assert load_pool(SMALL, tmp_path / "07.asf").train.shape == (48, 16, 3)
