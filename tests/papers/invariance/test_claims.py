"""The claims' experiments, small: what is paired is paired, and broken arms are broken where they say."""

from dataclasses import replace

import pytest
import torch
from tests.papers.runs import record

from precis.contrastive.invariance import frame_pairs
from precis.lab.claim import Table
from precis.lab.judge import judge
from precis.papers.contrastive_training import make_encoder
from precis.papers.invariance.arms import (
    made_clips,
    made_scenes,
    object_crops,
    singles,
    train_moco,
    train_supervised,
)
from precis.papers.invariance.claims import (
    Deformation,
    FrameTemporal,
    ObjectCentric,
    Occlusion,
    OtherFactors,
    Region,
    Still,
)
from precis.papers.invariance.claims_factors import SMOKE
from precis.papers.invariance.claims_scenes import _region_pairs

TINY = replace(SMOKE, pictures=64, test=32, encoder="conv:4x2", batch=16, steps=1, bases=2, scenes=20)


@pytest.fixture(scope="module")
def scenes():
    return made_scenes(TINY)


def test_pairs_are_learned_to_be_recognised_and_labels_to_be_told(tmp_path):
    s = replace(SMOKE, pictures=64, test=32, steps=60, lr=1e-2, queue=64, encoder="conv:8x3")
    x = singles(s)
    other = x.images[torch.randperm(64, generator=torch.Generator().manual_seed(9))]
    right = train_moco(s, x.images, x.images, record(tmp_path, "a"))[1]
    wrong = train_moco(s, x.images, other, record(tmp_path, "b"))[1]
    assert right < wrong - 0.15
    assert train_supervised(s, x.images, x.labels, record(tmp_path, "c"))[1] < 1.9


def test_frames_of_a_gap_have_other_partners_and_crossed_ones_are_of_other_clips(tmp_path, monkeypatch):
    seen = {}

    def train(s, first, second, record, *, fitted):
        seen[record.folder.name] = first, second
        raise StopIteration

    monkeypatch.setattr("precis.papers.invariance.claims_clips.train_moco", train)
    frames = torch.arange(8 * 6).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    for arm in ("frames", "same", "crossed"):
        with pytest.raises(StopIteration):
            FrameTemporal().trial(arm, 1, TINY, (frames, []), record(tmp_path, arm, 1))
    first = {arm: a[:, 0, 0, 0] for arm, (a, _) in ((k[:-1], v) for k, v in seen.items())}
    second = {arm: b[:, 0, 0, 0] for arm, (_, b) in ((k[:-1], v) for k, v in seen.items())}
    assert torch.equal(first["frames"], first["same"]) and torch.equal(first["frames"], first["crossed"])
    assert torch.equal(second["same"], first["same"])
    assert (second["frames"] - first["frames"]).abs().eq(TINY.gap).all()
    assert len({int(x) for x in (second["frames"] - first["frames"])}) == 2  # either of the two is the query
    clip = lambda x: x // 6
    assert clip(second["frames"]).equal(clip(first["frames"]))
    assert clip(second["crossed"]).ne(clip(first["crossed"])).all()
    assert sorted(second["crossed"].tolist()) == sorted(second["frames"].tolist())
    assert len(frame_pairs([6] * 8, TINY.gap)) == len(first["frames"])


def test_crops_hold_objects_and_crops_elsewhere_are_as_large(scenes):
    crops, away = (object_crops(TINY, scenes, where) for where in ("objects", "elsewhere"))
    assert crops.shape == away.shape == (20, 3, 16, 16) and not torch.equal(crops, away)
    assert scenes.crops.shape[1:] == (3, 16, 16) and len(scenes.crops) == len(scenes.labels)
    assert set(scenes.labels.tolist()) <= set(range(8)) and scenes.present.sum(1).min() >= 1


def test_regions_are_one_a_frame_and_swapped_ones_of_another_object():
    made = made_clips(TINY, TINY.objects)
    boxes = torch.from_numpy(made.boxes)
    pairs, squares, swapped = _region_pairs(TINY, boxes)
    assert len(pairs.unique(dim=0)) == len(pairs) and (pairs[:, 1] - pairs[:, 0]).eq(TINY.gap).all()
    middle = (squares[:, 1, :2] + squares[:, 1, 2:]) / 2
    other = (swapped[:, :2] + swapped[:, 2:]) / 2
    assert (middle - other).norm(dim=1).min() > 1 and len(pairs) <= len(frame_pairs([6] * 8, TINY.gap))


@pytest.mark.parametrize(("claim", "arms"), [
    (Occlusion, ("no_crop", "permuted")), (Deformation, ("crossed",)), (ObjectCentric, ("elsewhere",)),
    (Region, ("swapped", "frames")), (Still, ("frames", "same")),
])  # fmt: skip
def test_claims_give_the_figures_that_their_hypotheses_read(claim, arms, tmp_path):
    s = replace(TINY, moving=claim is not Still)
    data = claim().load(s, None)
    wanted = {h.metric for h in claim.hypotheses} | {p.metric for p in claim.preconditions}
    rows = [claim().trial(arm, 0, s, data, record(tmp_path, arm)) for arm in arms]
    assert all(wanted <= set(row) and all(v == v for v in row.values()) for row in rows)
    if claim is Still:
        assert rows[0] == rows[1]  # the same pictures
    else:
        assert rows[0] != claim().trial("random", 0, s, data, record(tmp_path, "random"))


@pytest.mark.parametrize(("claim", "arm"), [
    (Occlusion, "contrastive"), (OtherFactors, "contrastive"), (ObjectCentric, "objects"), (Region, "regions"),
])  # fmt: skip
def test_first_weights_alone_have_learned_nothing_and_do_not_pass(claim, arm, tmp_path, monkeypatch):
    start = {}

    def no_training(s, first, second, rec, *, views="both", fitted=None):
        encoder = make_encoder(s, first, rec.streams["init"])
        start["state"] = rec.streams["init"].get_state()
        return encoder, 0.0

    data = claim().load(TINY, None)
    trained = claim().trial(arm, 0, TINY, data, record(tmp_path, "trained"))
    module = "claims_factors" if claim in (Occlusion, OtherFactors) else "claims_scenes"
    monkeypatch.setattr(f"precis.papers.invariance.{module}.train_moco", no_training)
    untrained = claim().trial(arm, 0, TINY, data, record(tmp_path, "untrained"))
    assert untrained["learned"] == 0
    assert trained["learned"] == pytest.approx(trained["accuracy"] - untrained["accuracy"])
    asked = [p for p in claim.preconditions if p.metric == "learned"]
    assert [p.arm for p in asked] == [arm] and asked[0].at_least > 0


def test_tracked_regions_that_do_no_better_than_swapped_ones_are_not_supported():
    row = lambda accuracy: {"accuracy": accuracy, "accuracy_few": 15.0, "scene_precision": 36.0, "learned": 5.0}
    table = lambda swapped: Table(
        {"regions": {s: row(40 + s) for s in range(3)}, "frames": {s: row(37 + s) for s in range(3)},
         "random": {s: row(36) for s in range(3)}, "swapped": {s: row(v) for s, v in enumerate(swapped)}}, (0, 1, 2),
    )  # fmt: skip
    assert judge(Region, table((38.0, 36.0, 42.0)), "quick").verdict == "inconclusive"
    assert judge(Region, table((42.0, 43.1, 43.9)), "quick").verdict == "contradicted"
    assert judge(Region, table((30.0, 31.1, 31.9)), "quick").verdict == "supported"


def test_arms_of_a_seed_share_their_start(tmp_path):
    x, s = singles(TINY), replace(TINY, lr=1e-12)
    a = train_moco(s, x.images, x.images, record(tmp_path, "a"))[0]
    b = train_supervised(s, x.images, x.labels, record(tmp_path, "b"))[0]
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=0)
