"""The claims' experiments, small: what is paired is paired, and the broken arm is broken where it says."""

from dataclasses import replace

import pytest
import torch
from tests.papers.runs import record

from precis.contrastive.robustness import AttackSpec, robust_correct, robust_linear
from precis.lab.claim import Table
from precis.papers.contrastive_sets import load_pool, pool_of
from precis.papers.rocl.arms import Plan, classifier, judge, judge_unseen, passes, steps_of, train_encoder
from precis.papers.rocl.claims import DIGITS, Comparable, NeedsAttack, Transfer, Unseen
from precis.papers.rocl.probing import RIDGES, held_out, probed, times_guessing
from precis.papers.rocl.radii import radius
from precis.papers.rocl.transfer import load_pairs

SMALL = Plan(train=120, test=40, batch=32, steps=2, encoder="conv:4x2", attack_steps=1, test_steps=2, linear_epochs=1,
             strong=4)  # fmt: skip
POOL = load_pool(SMALL, None)


def trained(tmp_path, method, s=SMALL, seed=0, **tuned):
    return train_encoder(method, s, pool_of(POOL, seed, "cpu"), record(tmp_path, method, seed, **tuned))


def test_arms_of_a_seed_start_from_one_encoder_and_end_apart(tmp_path):
    nets = {m: trained(tmp_path, m, lr=1e-12).encoder for m in ("rocl", "noise", "simclr", "at")}
    for other in ("noise", "simclr", "at"):
        for (name, a), b in zip(nets["rocl"].named_parameters(), nets[other].parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0, msg=name)
    moved = {m: trained(tmp_path, m, lr=1e-2).encoder for m in ("rocl", "noise", "simclr", "at")}
    first = [next(p for p in net.parameters() if p.ndim == 4) for net in moved.values()]
    assert all(not torch.equal(first[0], p) for p in first[1:])


def test_at_makes_as_many_passes_as_rocl():
    for s in (DIGITS, SMALL):
        whole = {m: passes(m, s) * steps_of(m, s) for m in ("rocl", "at")}
        assert whole["at"] == pytest.approx(whole["rocl"], rel=0.06)
        assert steps_of("noise", s) == steps_of("simclr", s) == steps_of("rocl", s) < steps_of("at", s)


def test_the_broken_arm_moves_by_the_radius_at_random(tmp_path):
    model, x = trained(tmp_path, "noise"), torch.full((4, 1, 8, 8), 0.5)
    assert ((model.attacked(x, x) - x).abs() - SMALL.eps).abs().max() < 1e-6
    assert trained(tmp_path, "rocl").attack == "instance"


def test_figures_are_of_attacks_at_least_as_strong_as_the_training_s(tmp_path):
    assert DIGITS.test_steps > DIGITS.attack_steps
    pool = pool_of(POOL, 0, "cpu")
    net = classifier(SMALL, trained(tmp_path, "simclr").encoder, pool, torch.Generator().manual_seed(0))
    found = judge(SMALL, net, pool, 0)
    assert set(found) == {"clean", "robust"} and found["robust"] <= found["clean"]
    unseen = judge_unseen(SMALL, net, pool, 0)
    names = {"l2_0.28", "l2_0.56", "l1_0.98", "l1_1.49"}
    assert set(unseen) == names | {"unseen"}
    assert unseen["unseen"] == pytest.approx(sum(unseen[n] for n in names) / 4)


def test_claims_give_the_figures_that_their_hypotheses_read(tmp_path):
    claim = Comparable()
    names = {"clean", "robust", "robust_strong", "clean_r", "robust_r", "robust_strong_r", "unseen", "l2_0.28",
             "l2_0.56", "l1_0.98", "l1_1.49"}  # fmt: skip
    for arm in ("rocl", "at", "noise"):
        assert set(claim.trial(arm, 0, SMALL, POOL, record(tmp_path, arm))) == names
    at = claim.trial("at", 0, SMALL, POOL, record(tmp_path, "at"))
    assert at["robust_r"] == at["robust"]
    tuned = claim.trial("at", 10_000, SMALL, POOL, record(tmp_path, "t", 10_000, lr=1e-3))
    assert set(tuned) == {"validation"}
    read = {h.metric for c in (Comparable, Unseen, NeedsAttack) for h in (*c.hypotheses, *c.preconditions)}
    assert read <= names


def test_comparable_is_judged_by_the_strongest_attack_and_fails_where_only_the_weaker_one_is_withstood():
    (counting,) = (h for h in Comparable.hypotheses if h.counts)
    assert counting.metric == "robust_strong_r"
    rows = {arm: {seed: {"robust_r": 70.0 + seed, "robust_strong_r": strong + seed} for seed in range(3)}
            for arm, strong in (("rocl", 55.0), ("at", 68.0))}  # fmt: skip
    table = Table(rows, (0, 1, 2))
    weak = next(h for h in Comparable.hypotheses if h.metric == "robust_r")
    assert weak.outcome(table).holds and counting.outcome(table).holds is False
    for profile in Comparable.profiles.values():
        assert profile.settings.strong <= profile.settings.test
    full = Comparable.profiles["full"]
    assert full.settings.strong == full.cuda.strong == 500


def test_transfer_trains_on_one_set_and_judges_another(tmp_path):
    s = Plan(train=80, test=30, batch=32, steps=1, encoder="conv:4x2", attack_steps=1, test_steps=1)
    (digits, printed), (letters, again) = pairs = load_pairs(s)
    assert digits.images.shape[2:] == printed.images.shape[2:] == (8, 8) and letters.images.shape[2:] == (16, 16)
    assert letters.labels.max() == 25 and again.labels.max() == printed.labels.max() == 9
    found = Transfer().trial("rocl", 0, s, pairs, record(tmp_path))
    names = {"clean_first", "robust_first", "own_first", "clean_second", "robust_second", "own_second"}
    assert set(found) == names | {"own_times_guessing"}
    assert found["own_times_guessing"] == pytest.approx(min(found["own_first"] / 10, found["own_second"] * 26 / 100))
    alone = Transfer().trial("rocl", 0, s, (pairs[0], (letters, letters)), record(tmp_path, "alone"))
    assert alone["robust_first"] == found["robust_first"]
    tuned = Transfer().trial("at", 10_000, s, pairs, record(tmp_path, "tuned", 10_000, lr=1e-3))
    assert set(tuned) == {"validation"} and 0 <= tuned["validation"] <= 100
    assert {h.metric for h in (*Transfer.hypotheses, *Transfer.preconditions)} <= set(found)


def test_of_at_its_own_layer_is_judged_on_its_own_set_so_that_an_untrained_one_is_seen(tmp_path):
    s = Plan(train=200, test=60, encoder="conv:8x2", batch=40, steps=1, attack_steps=1, test_steps=1, eps=0.01)
    pairs = load_pairs(s)
    short = Transfer().trial("at", 0, s, (pairs[0], pairs[0]), record(tmp_path, "short", lr=1e-12))
    long = Transfer().trial("at", 0, replace(s, steps=60), (pairs[0], pairs[0]), record(tmp_path, "long", lr=1e-2))
    assert short["own_times_guessing"] < 2 <= long["own_times_guessing"]


def test_the_ridge_is_the_best_of_a_held_out_fifth_and_the_layer_is_fitted_on_all(tmp_path):
    pool, encoder = pool_of(POOL, 0, "cpu"), trained(tmp_path, "simclr").encoder
    part = held_out(pool)
    assert len(part.images) == 96 and len(part.test_images) == 24 and torch.equal(part.test_images, pool.images[96:])
    layers = {r: robust_linear(encoder, (part.images, part.labels), classes=10, ridge=r) for r in RIDGES}
    scores = {}
    for r, layer in layers.items():
        found = judge(SMALL, torch.nn.Sequential(encoder, layer), part, 0)
        scores[r] = (found["robust"], found["clean"])
    best = max(scores, key=scores.__getitem__)
    expected = robust_linear(encoder, (pool.images, pool.labels), classes=10, ridge=best)
    torch.testing.assert_close(probed(SMALL, encoder, pool, 0)[1].weight, expected.weight)
    assert times_guessing(20.0, pool) == 2


def test_radii_take_half_of_the_answers():
    w = torch.zeros(2, 64)
    w[1] = 1
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    with torch.no_grad():
        net[1].weight.copy_(w)
        net[1].bias.copy_(torch.tensor([32.0, 0.0]))
    x = 0.5 + torch.linspace(0.001, 0.1, 100).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)  # falls at an ℓ2 radius of 8 × that
    pool = POOL._replace(test_images=x.contiguous(), test_labels=torch.ones(100, dtype=torch.long))
    assert radius([(net, pool)], "l2", 20, 3.0) == pytest.approx(0.4, abs=0.03)
    right = robust_correct(net, x.contiguous(), pool.test_labels, AttackSpec("", 0.4, "l2", 20))
    assert 40 <= int(right.sum()) <= 60
