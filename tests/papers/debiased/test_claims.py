"""The claims' experiments, small: what is paired is paired, and broken arms are broken where they say."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.papers.runs import record

from precis.contrastive.debiased import class_prior, debiased_nt_xent, oracle_nt_xent
from precis.contrastive.ntxent import nt_xent
from precis.errors import InputError
from precis.lab.trial import streams
from precis.papers.contrastive_judging import judge_encoder
from precis.papers.debiased.arms import Plan, load_plan, loss_of, make_model, misattributed, of_classes, train
from precis.papers.debiased.claims import BeatsBiased, ClassCount, Estimator, FalseNegatives, MultiPositive
from precis.papers.debiased.claims_estimator import Draws, estimates, features

SMALL = Plan(train=120, test=60, batch=32, steps=2, encoder="conv:4x2")
POOL = load_plan(SMALL, None)


def embedded(views=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(120, generator=g)[:32]
    return torch.randn(1, 32, 8, generator=g) + torch.randn(views, 32, 8, generator=g), chosen


def loss(kind, z, chosen):
    return loss_of(kind, SMALL, POOL, 0.1, torch.Generator().manual_seed(0))(z, chosen).loss


def test_each_arm_has_the_loss_that_it_says():
    z, chosen = embedded()
    torch.testing.assert_close(loss("biased", z, chosen), nt_xent(z[0], z[1], 0.5))
    torch.testing.assert_close(loss("debiased", z, chosen), debiased_nt_xent(z, 0.5, 0.1))
    torch.testing.assert_close(loss("oracle", z, chosen), oracle_nt_xent(z, POOL.labels[chosen], 0.5))
    more, _ = embedded(5)
    torch.testing.assert_close(loss("debiased", more, chosen), debiased_nt_xent(more, 0.5, 0.1, match_n=True))
    one = debiased_nt_xent(more, 0.5, 0.1, match_n=True, positives=1)
    torch.testing.assert_close(loss("one", more, chosen), one)
    assert abs(float(one - loss("debiased", more, chosen))) > 1e-6


def test_the_permuted_oracle_leaves_out_as_many_of_another_kind():
    z, chosen = embedded()
    values = {kind: float(loss(kind, z, chosen)) for kind in ("oracle", "permuted")}
    assert values["oracle"] != values["permuted"]
    labels = POOL.labels[torch.randperm(120, generator=torch.Generator().manual_seed(0))]
    assert values["permuted"] == pytest.approx(float(oracle_nt_xent(z, labels[chosen], 0.5)))
    assert class_prior(labels) == class_prior(POOL.labels)


def test_the_broken_correction_takes_another_picture_s_similarity():
    """By loops; where all pictures look alike it is the method's own."""
    z, _ = embedded()
    u = torch.nn.functional.normalize(z, dim=2).double()
    total = 0.0
    for v in range(2):
        for b in range(32):
            e = lambda w, c, own=u[v, b]: math.exp(float(own @ u[w, c]) / 0.5)
            others = sum(e(w, c) for w in range(2) for c in range(32) if c != b)
            g = max((others / 62 - 0.1 * e(1 - v, b - 1)) / 0.9, math.exp(-2))
            total -= math.log(e(1 - v, b) / (e(1 - v, b) + 62 * g))
    assert float(misattributed(z, 0.5, 0.1).loss) == pytest.approx(total / 64, abs=1e-5)
    same = torch.ones(2, 8, 3)
    torch.testing.assert_close(misattributed(same, 0.5, 0.1).loss, debiased_nt_xent(same, 0.5, 0.1))


def test_arms_of_a_seed_share_weights_pictures_and_the_first_two_views(tmp_path):
    seen: dict[str, torch.Tensor] = {}
    for name, kind, views in (("two", "biased", 2), ("five", "debiased", 5)):
        rec = record(tmp_path, name)
        model = make_model(SMALL, POOL, rec.streams)
        model.register_forward_pre_hook(lambda module, given, name=name: seen.update({name: given[0]}))
        train(replace(SMALL, steps=1), POOL, model, loss_of(kind, SMALL, POOL, 0.1, rec.streams["eval"]), rec, views)
    two, five = seen["two"], seen["five"]
    assert len(two) == 64 and len(five) == 160 and torch.equal(two, five[:64])
    assert not torch.equal(five[64:128], five[:64])


def test_claims_give_the_figures_that_their_hypotheses_read(tmp_path):
    wanted = {"accuracy", "accuracy_all", "knn", "at_floor", "encoded", "learned"}
    for claim, arms in (
        (FalseNegatives(), ("permuted",)), (BeatsBiased(), ("shuffled", "debiased")),
        (MultiPositive(), ("debiased_more", "one_more", "debiased")),
    ):  # fmt: skip
        for arm in arms:
            found = claim.trial(arm, 0, SMALL, POOL, record(tmp_path, arm))
            assert set(found) == wanted and found["encoded"] == 2 * 32 * (5 if arm.endswith("more") else 2)
            if arm == "debiased":
                assert found == claim.trial(arm, 0, SMALL, POOL, record(tmp_path, f"{claim.name}_again"))
    assert FalseNegatives.runs == BeatsBiased.runs == MultiPositive.runs


def test_learned_is_what_the_first_weights_did_not_tell_and_first_weights_alone_do_not_pass(tmp_path):
    start = judge_encoder(SMALL, POOL, make_model(SMALL, POOL, streams(0)))["accuracy"]
    for claim, arm in ((FalseNegatives(), "biased"), (BeatsBiased(), "debiased")):
        found = claim.trial(arm, 0, SMALL, POOL, record(tmp_path, arm))
        assert found["learned"] == pytest.approx(found["accuracy"] - start)
    classes = ClassCount().trial("biased_few", 0, SMALL, {"few": POOL, "many": POOL}, record(tmp_path, "few"))
    assert classes["learned"] == pytest.approx(classes["accuracy"] - start)
    for claim, arms in (
        (FalseNegatives, {"biased"}), (BeatsBiased, {"biased"}), (MultiPositive, {"debiased"}),
        (ClassCount, {"biased_few", "biased_many"}),
    ):  # fmt: skip
        asked = [p for p in claim.preconditions if p.metric == "learned"]
        assert {p.arm for p in asked} == arms and all(p.at_least > 0 for p in asked)


def test_all_claims_that_train_have_one_schedule_where_a_verdict_is_read():
    for claim in (FalseNegatives, BeatsBiased, MultiPositive, ClassCount):
        for name in ("quick", "full"):
            profile = claim.profiles[name]
            assert {s.rise for s in (profile.settings, profile.cuda) if s is not None} == {0.3}


def test_few_and_many_classes_have_as_many_pictures(tmp_path):
    claim, s = ClassCount(), Plan("glyphs", 16, train=124, test=62, batch=32, steps=1, encoder="conv:4x2")
    pools = claim.load(s, None)
    assert [len(pools[k].images) for k in ("few", "many")] == [120, 124]
    quick = claim.profiles["quick"].settings
    assert quick.train % 10 == quick.train % 62 == quick.test % 10 == quick.test % 62 == 0
    for which, classes in (("few", 10), ("many", 62)):
        pool = pools[which]
        assert sorted(pool.labels.unique().tolist()) == list(range(classes))
        assert class_prior(pool.labels) == pytest.approx(1 / classes)
        assert not torch.equal(pool.labels, pool.labels.sort().values)
        assert "accuracy" in claim.trial(f"debiased_{which}", 0, s, pools, record(tmp_path, which))


def test_sets_by_name_are_cut_by_class(monkeypatch):
    import precis.papers.debiased.arms as arms
    from precis.data.standard import Labelled

    rng = np.random.default_rng(0)
    def fake(name, part, download):
        n = {"train": 200, "test": 100, "unlabelled": 50}[part]
        side = 96 if name == "stl10" else 32
        labels = np.full(n, -1) if part == "unlabelled" else np.arange(n) % 20
        return Labelled(rng.integers(0, 256, (n, 3, side, side)).astype(np.uint8), labels, ())

    monkeypatch.setattr(arms, "load", fake)
    pool = of_classes(Plan("cifar100", 32, train=100, test=50), 10)
    assert torch.bincount(pool.labels).tolist() == [10] * 10 and torch.bincount(pool.test_labels).tolist() == [5] * 10
    stl = load_plan(Plan("stl10", 64, train=250, test=60), None)
    assert stl.images.shape == (250, 3, 64, 64) and int((stl.labels < 0).sum()) == 50 and len(stl.test_labels) == 60


def test_pictures_of_one_s_own_are_compared_by_their_classes(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "many.npz", images=images, labels=np.arange(400) % 20)
    s = Plan(train=100, test=50, batch=32, labels=2)
    pools = ClassCount().load(s, tmp_path / "many.npz")
    assert len(pools["few"].images) == len(pools["many"].images) and int(pools["few"].labels.max()) == 9
    np.savez(tmp_path / "few.npz", images=images, labels=np.arange(400) % 12)
    with pytest.raises(InputError, match="20 classes or more are wanted"):
        ClassCount().load(s, tmp_path / "few.npz")


def test_the_estimate_s_truth_is_over_the_pictures_that_are_drawn(tmp_path):
    s = Draws((16, 64, 256), draws=100, anchors=4, pictures=1000)
    known = features(s, streams(0)["data"])
    assert known.same.sum(1).tolist() == [100] * 4 and (known.within > known.across).all()
    e = (2 * known.similarity[0].double()).exp()
    assert float(known.across[0]) == pytest.approx(float(e[~known.same[0]].mean()))
    assert estimates("corrected", 16, s, known, streams(0)["noise"]).shape == (4, 100)
    rows = {arm: Estimator().trial(arm, 0, s, None, record(tmp_path, arm))
            for arm in ("corrected", "uncorrected", "random_positives")}  # fmt: skip
    assert abs(rows["corrected"]["bias"]) < 0.2 < 0.8 < rows["uncorrected"]["bias"]
    assert rows["random_positives"]["bias"] > 0.8 and -0.65 < rows["corrected"]["slope"] < -0.35
    assert rows["uncorrected"]["slope"] > -0.3
