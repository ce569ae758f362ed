"""The claims' experiments, small: what is paired is paired, and broken arms are broken where they say."""

import math
from dataclasses import replace

import pytest
import torch
from tests.papers.runs import record

from precis.lab.trial import streams
from precis.papers.contrastive_judging import judge_encoder
from precis.papers.contrastive_sets import Setting, load_pool
from precis.papers.contrastive_training import views_of
from precis.papers.ntxent.arms import make_model, train
from precis.papers.ntxent.claims import BeatsRandom, Composition, Head, SmallBatch

SMALL = Setting(train=120, test=60, batch=32, steps=2, encoder="conv:4x2")
POOL = load_pool(SMALL, None)


def test_arms_of_a_seed_share_their_start_and_methods_their_encoder():
    models = [make_model(SMALL, POOL, streams(3), method=m) for m in ("simclr", "moco", "stale")]
    bare = make_model(SMALL, POOL, streams(3), head=False)
    for other in [*models[1:], bare]:
        for (name, a), b in zip(models[0].encoder.named_parameters(), other.encoder.parameters(), strict=True):
            assert torch.equal(a, b), name
    for a, b in zip(models[0].head.parameters(), models[1].head.parameters(), strict=True):
        assert torch.equal(a, b)
    assert float(models[0].encoder.input.std) != 1  # fitted to the pictures


def test_pairs_are_learned_to_be_recognised_and_shuffled_pairs_cannot_be(tmp_path):
    s, last = replace(SMALL, steps=40, lr=1e-2, encoder="conv:8x3"), []
    for shuffled in (False, True):
        model = make_model(s, POOL, streams(0))
        run = train(s, POOL, model, views_of(s.views, s.size), record(tmp_path, str(shuffled)), shuffled=shuffled)
        last.append(sum(run.curves["loss"].values[-5:]) / 5)
    guessing = math.log(63)
    assert last[0] < guessing - 0.3 and last[1] > guessing - 0.02


def test_the_stale_queue_never_takes_a_key(tmp_path):
    for method, moved in (("moco", True), ("stale", False)):
        model = make_model(SMALL, POOL, streams(0), method=method)
        before = model.queue.keys.clone()
        train(SMALL, POOL, model, views_of(SMALL.views, SMALL.size), record(tmp_path, method))
        assert (not torch.equal(before, model.queue.keys)) == moved


def test_h_and_z_are_of_one_run_and_no_head_is_another(tmp_path):
    claim, s = Head(), replace(SMALL, train=120)
    records = {(arm, 0): record(tmp_path, arm) for arm in ("h", "z", "no_head")}
    rows = {arm: m for arm, _, m in claim.batch(("h", "z", "no_head"), (0,), s, POOL, records)}
    alone = {arm: m for arm, _, m in claim.batch(("z",), (0,), s, POOL, {("z", 0): record(tmp_path, "again")})}
    assert set(rows) == {"h", "z", "no_head"} and alone["z"] == rows["z"] and rows["h"] != rows["z"]


def test_learned_is_what_the_first_weights_did_not_tell(tmp_path):
    start = judge_encoder(SMALL, POOL, make_model(SMALL, POOL, streams(0)))["accuracy"]
    ((_, _, head),) = Head().batch(("h",), (0,), SMALL, POOL, {("h", 0): record(tmp_path, "h")})
    both = Composition().trial("both", 0, SMALL, POOL, record(tmp_path, "both"))
    for found in (head, both):
        assert found["learned"] == pytest.approx(found["accuracy"] - start)
    for claim, arm in ((Head, "h"), (Composition, "both")):
        (asked,) = claim.preconditions
        assert (asked.metric, asked.arm) == ("learned", arm) and asked.at_least > 0


def test_claims_give_the_figures_that_their_hypotheses_read(tmp_path):
    for claim, arms in ((BeatsRandom(), ("random", "pixels", "shuffled")), (SmallBatch(), ("moco", "stale"))):
        for arm in arms:
            assert set(claim.trial(arm, 0, SMALL, POOL, record(tmp_path, arm))) == {"accuracy", "accuracy_all", "knn"}
    tuned = SmallBatch().trial("simclr", 10_000, SMALL, POOL, record(tmp_path, "t", 10_000))
    assert set(tuned) == {"validation"}
    s = Setting("objects", 16, train=64, test=24, batch=16, steps=1, encoder="conv:4x2", views="simclr")
    pool = load_pool(s, None)
    assert pool.images.shape == (64, 3, 16, 16) and set(pool.labels.tolist()) <= set(range(8))
    assert 0 <= Composition().trial("colour", 0, s, pool, record(tmp_path, "c"))["accuracy"] <= 100
