"""The claims' experiments, small: what is paired is paired, and broken arms are broken where they say."""

import math
from dataclasses import replace

import pytest
import torch
from tests.papers.runs import record

from precis.contrastive.supcon import sup_con
from precis.papers.contrastive_sets import Pool
from precis.papers.supcon.claims import Corruption, OutVsIn, Stability, Transfer, Views
from precis.papers.supcon.gradients import GradientNoise, effective_positives
from precis.papers.supcon.training import CrossEntropy, Plan, judge, linear_steps, make_model, permuted, train

SMALL = Plan(train=144, test=72, batch=72, steps=3, encoder="conv:4x2", minibatches=4, noise_batch=48)
POOL = OutVsIn().load(SMALL, None)


def test_arms_of_a_seed_share_their_encoder_and_both_forms_their_head(tmp_path):
    models = {arm: make_model(arm, SMALL, POOL, record(tmp_path, arm)) for arm in ("out", "in", "ce", "four")}
    for other in models.values():
        for a, b in zip(models["out"].encoder.parameters(), other.encoder.parameters(), strict=True):
            assert torch.equal(a, b)
    for a, b in zip(models["out"].head.parameters(), models["in"].head.parameters(), strict=True):
        assert torch.equal(a, b)
    assert models["in"].loss_options["reduction_form"] == "in" and models["out"].loss_options["reduction_form"] == "out"
    assert models["ce"](POOL.images[:3].float() / 255).shape == (3, 36)


def test_every_arm_has_as_many_passes_and_cross_entropy_those_of_the_linear_stage_besides(tmp_path):
    seen: dict[str, list[int]] = {}
    for arm, options in (("two", {}), ("four", {"views": 4}), ("ce", {"extra": linear_steps(SMALL, POOL)})):
        model = make_model("ce" if arm == "ce" else "out", SMALL, POOL, record(tmp_path, arm))
        model.encoder.register_forward_hook(
            lambda module, given, out, arm=arm: seen.setdefault(arm, []).append(len(out)) if module.training else None)
        train(SMALL, POOL, model, POOL.labels, record(tmp_path, arm), **options)
    assert seen["two"] == seen["four"] == [144] * 3 and seen["ce"] == [144] * 4 and linear_steps(SMALL, POOL) == 1


def test_cross_entropy_is_of_all_views():
    encoder = torch.nn.Flatten()
    encoder.out_dim = 4
    model = CrossEntropy(encoder, 3, torch.Generator().manual_seed(0))
    views = [torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    y = torch.tensor([0, 1, 2, 0, 1])
    each = [torch.nn.functional.cross_entropy(model(v), y) for v in views]
    torch.testing.assert_close(model.loss(views, y), (each[0] + each[1]) / 2)


def test_permuted_labels_are_as_many_of_each_class_for_other_pictures():
    labels = permuted(POOL.labels, torch.Generator().manual_seed(0))
    assert torch.equal(labels.bincount(), POOL.labels.bincount())
    assert float((labels == POOL.labels).float().mean()) < 0.15


def test_true_labels_can_be_learned_and_permuted_ones_cannot(tmp_path):
    """Pictures of four kinds, a bright quarter each."""
    y = torch.arange(96) % 4
    x = torch.randint(0, 90, (96, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    for i, kind in enumerate(y.tolist()):
        x[i, :, 8 * (kind // 2) : 8 * (kind // 2) + 8, 8 * (kind % 2) : 8 * (kind % 2) + 8] += 150
    pool = Pool(x.to(torch.uint8), y, x.to(torch.uint8), y)
    s, last = replace(SMALL, batch=48, steps=30, encoder="conv:8x2"), {}
    for arm in ("out", "shuffled"):
        labels = y if arm == "out" else permuted(y, torch.Generator().manual_seed(0))
        kept = record(tmp_path, arm, lr=1e-2)
        train(s, pool, make_model("out", s, pool, kept), labels, kept)
        last[arm] = kept.summary()["curves"]["loss"]["y"][-1]
    assert last["out"] < math.log(95) - 0.5 and last["shuffled"] > last["out"] + 0.3


def test_figures_of_a_judgement(tmp_path):
    one = judge(SMALL, POOL, make_model("out", SMALL, POOL, record(tmp_path)))
    assert one["accuracy"] == one["probe"] > 3
    assert one["corrupted"] == pytest.approx((one["blur"] + one["contrast"] + one["pixelate"]) / 3)
    assert one["kept"] == pytest.approx(100 * one["corrupted"] / one["accuracy"])


def test_gradient_noise_is_its_definition_and_leaves_the_model_as_it_was(tmp_path):
    model = make_model("out", SMALL, POOL, record(tmp_path)).train()
    before = {name: b.clone() for name, b in model.state_dict().items()}
    noise = GradientNoise(SMALL, POOL, model, POOL.labels, torch.Generator().manual_seed(3))
    noise()
    assert all(torch.equal(before[name], b) for name, b in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())

    from precis.papers.supcon.gradients import _minibatch

    generator, grads = torch.Generator().manual_seed(3), []
    for _ in range(4):
        z, y = _minibatch(SMALL, POOL, model, POOL.labels, generator)
        grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(
            sup_con(z, y, temperature=0.1, reduction_form="in"), list(model.parameters()))]))
    g = torch.stack(grads)
    expected = (g.var(0).sum() / g.mean(0).square().sum()).log()
    assert noise.found["in"][0] == pytest.approx(float(expected), abs=1e-3)
    assert noise.ratio() == pytest.approx(noise.found["in"][0] - noise.found["out"][0])


def test_effective_positives_are_all_of_one_form_and_fewer_of_the_other(tmp_path):
    model = make_model("out", SMALL, POOL, record(tmp_path)).train()
    out, inside = (effective_positives(SMALL, POOL, model, POOL.labels, form, torch.Generator().manual_seed(0))
                   for form in ("out", "in"))
    assert 1 < inside < out < 8 and out == pytest.approx(2 * 48 / 36, rel=0.6)


def test_claims_give_the_figures_that_their_hypotheses_read(tmp_path):
    found = {arm: OutVsIn().trial(arm, 0, SMALL, POOL, record(tmp_path, arm)) for arm in ("out", "in", "four", "ce")}
    for claim in (OutVsIn(), Corruption(), Views(), Stability()):
        for h in claim.hypotheses:
            for arm in filter(None, (h.a, getattr(h, "b", None))):
                assert isinstance(found[arm][h.metric], float), (h.metric, arm)
    assert {f"noise_{f}_{at}" for f in ("out", "in") for at in ("start", "middle", "end")} <= set(found["out"])
    assert set(OutVsIn().trial("shuffled", 10_000, SMALL, POOL, record(tmp_path, "t", 10_000))) == {"validation"}


def test_transfer_is_to_other_classes_and_tuned_without_its_test(tmp_path):
    s = Plan("letters", train=104, test=40, batch=32, steps=2, encoder="conv:4x2")
    claim = Transfer()
    sets = claim.load(s, None)
    assert len(sets.first.labels.unique()) == 26 and len(sets.other.labels.unique()) == 10
    assert sets.other.images.shape == (100, 1, 16, 16) and len(sets.other.test_images) == 40
    for arm in ("supcon", "simclr", "shuffled"):
        assert {"accuracy", "accuracy_all", "first"} <= set(claim.trial(arm, 0, s, sets, record(tmp_path, arm)))
    blind = sets._replace(other=sets.other._replace(test_images=sets.other.test_images[:0]))
    assert set(claim.trial("simclr", 10_000, s, blind, record(tmp_path, "t", 10_000))) == {"validation"}
