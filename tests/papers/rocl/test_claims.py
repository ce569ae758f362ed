"""The claims' experiments, small: what is paired is paired, and the broken arm is broken where it says."""

import pytest
import torch
from tests.papers.runs import record

from precis.contrastive.robustness import AttackSpec, robust_correct
from precis.papers.contrastive_sets import load_pool, pool_of
from precis.papers.rocl.arms import Plan, classifier, judge, judge_unseen, passes, steps_of, train_encoder
from precis.papers.rocl.claims import DIGITS, Comparable, NeedsAttack, Transfer, Unseen
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
    read = {h.metric for c in (Comparable, Unseen, NeedsAttack) for h in c.hypotheses}
    assert read <= names


def test_transfer_trains_on_one_set_and_judges_another(tmp_path):
    s = Plan(train=80, test=30, batch=32, steps=1, encoder="conv:4x2", attack_steps=1, test_steps=1)
    (digits, printed), (letters, again) = pairs = load_pairs(s)
    assert digits.images.shape[2:] == printed.images.shape[2:] == (8, 8) and letters.images.shape[2:] == (16, 16)
    assert letters.labels.max() == 25 and again.labels.max() == printed.labels.max() == 9
    found = Transfer().trial("rocl", 0, s, pairs, record(tmp_path))
    assert set(found) == {"clean_first", "robust_first", "clean_second", "robust_second"}
    alone = Transfer().trial("rocl", 0, s, (pairs[0], (letters, letters)), record(tmp_path, "alone"))
    assert alone["robust_first"] == found["robust_first"]


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
