"""The claims' experiments, small: what is paired is paired, and the broken arm is broken where it says."""

import torch
from tests.papers.runs import record

from precis.contrastive.clae import DualBatchNorm2d
from precis.lab.plan import arms_at
from precis.lab.trial import streams
from precis.papers.clae.arms import PASSES, Plan, hardness, make_model, noisy, train
from precis.papers.clae.claims import Cost, DualBn, EncoderSize, Harder, Knn, Linear
from precis.papers.contrastive_sets import load_pool, pool_of

SMALL = Plan("glyphs", 16, train=72, test=36, batch=32, steps=2, encoder="conv:4x2", small="conv:2x2")
POOL = load_pool(SMALL, None)
ARMS = ("clae", "simclr", "shared", "noise")


def test_arms_of_a_seed_share_their_start_and_differ_in_what_they_say():
    models = {arm: make_model(arm, SMALL, POOL, streams(3)) for arm in ARMS}
    x = POOL.images[:8].float() / 255
    outputs = {arm: model.eval()(x)[1] for arm, model in models.items()}
    for arm in ARMS[1:]:
        torch.testing.assert_close(outputs[arm], outputs["clae"], atol=1e-6, rtol=0)
    dual = {arm: any(isinstance(m, DualBatchNorm2d) for m in model.modules()) for arm, model in models.items()}
    assert dual == {"clae": True, "simclr": False, "shared": False, "noise": True}
    assert [models[arm].weight for arm in ARMS] == [1, 0, 1, 1]


def test_the_broken_arm_has_noise_of_the_adversary_s_size():
    model, x = make_model("noise", SMALL, POOL, streams(0)), torch.full((4, 1, 16, 16), 0.5)
    moved = model.adversary(x, x)
    assert ((moved - x).abs() - SMALL.eps).abs().max() < 1e-6 and 0.4 < float((moved > x).float().mean()) < 0.6
    again = noisy(x, 0.6, torch.Generator().manual_seed(0))
    assert again.min() == 0 and again.max() == 1


def test_the_adversary_is_harder_than_noise_on_pictures_that_were_not_seen(tmp_path):
    s, rec = Plan(**{**vars(SMALL), "encoder": "conv:8x2", "steps": 10}), record(tmp_path)
    model = make_model("clae", s, POOL, rec.streams)
    train(s, POOL, model, rec.streams, rec)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = hardness(s, POOL, model, torch.Generator().manual_seed(0))
    assert found["rise"] > 0 and abs(found["excess"] - (found["rise"] - found["rise_noise"])) < 1e-6
    assert found["excess"] > 0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_claims_give_the_figures_that_their_hypotheses_read(tmp_path):
    read = {h.metric for c in (Linear, Knn, Harder, EncoderSize) for h in c.hypotheses}
    pool = pool_of(POOL, 0, "cpu")
    for arm in ARMS:
        found = Linear().trial(arm, 0, SMALL, pool, record(tmp_path, arm))
        assert {h.metric for h in DualBn.hypotheses} <= set(found)
        assert arm == "shared" or read <= set(found)
    assert found["grows"] == found["accuracy_all"] - found["accuracy_all_small"]
    again = Linear().trial("noise", 0, SMALL, pool, record(tmp_path, "again"))
    assert again == found


def test_simclr_with_the_time_of_clae_is_the_same_training_for_longer_and_runs_at_full_alone(tmp_path):
    kept = {arm: record(tmp_path, arm) for arm in ("simclr", "longer")}
    found = {arm: Linear().trial(arm, 0, SMALL, POOL, kept[arm]) for arm in kept}
    losses = {arm: kept[arm].summary()["curves"]["loss, conv:4x2"]["y"] for arm in kept}
    assert len(losses["longer"]) == round(2 * PASSES) == 4 and losses["longer"][0] == losses["simclr"][0]
    assert set(found["longer"]) == {"accuracy", "accuracy_all", "knn"}
    assert "longer" in arms_at(Linear, "full") and "longer" not in arms_at(Linear, "quick")


def test_the_ratio_of_times_is_a_logarithm_above_none(tmp_path):
    assert 0 < Cost().trial("clae", 0, SMALL, POOL, record(tmp_path))["log_ratio"] < 4
