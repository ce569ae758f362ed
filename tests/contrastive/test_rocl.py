import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component
from torch import nn

from precis.contrastive.ntxent import ProjectionHead, nt_xent
from precis.contrastive.rocl import (
    AttackSpec,
    RoCL,
    Smoothed,
    SupervisedAT,
    instance_attack,
    multi_view_nt_xent,
    robust_accuracy,
    robust_correct,
    robust_linear,
)
from precis.nn.attacks import evaluating
from precis.nn.backbones import backbone


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(v=3, b=4, d=3, seed=0, dtype=torch.float64):
    return torch.randn(v, b, d, generator=generator(seed), dtype=dtype)


def made(g=None, **options):
    encoder = backbone("conv:4x2", (1, 6, 6), generator=g or generator())
    return RoCL(encoder, ProjectionHead(8, dim_out=6, generator=g or generator(1)), 0.1, None, 3, **options)


def pictures(n=16, seed=0):
    return torch.rand(n, 1, 6, 6, generator=generator(seed))


# The loss


def by_loops(views, temperature):
    z = F.normalize(views, dim=2).flatten(0, 1)
    v, b = views.shape[:2]
    total = 0.0
    for i in range(v * b):
        s = [float(z[i] @ z[k]) / temperature for k in range(v * b)]
        rest = math.log(sum(math.exp(s[k]) for k in range(v * b) if k != i))
        total += sum(rest - s[p] for p in range(v * b) if p != i and p % b == i % b)
    return total / (v * b)


@given(st.integers(2, 4), st.integers(2, 5), st.sampled_from([0.1, 0.5, 1]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_it_is_the_definition(v, b, temperature, seed):
    z = rows(v, b, 3, seed)
    assert float(multi_view_nt_xent(z, temperature)) == pytest.approx(by_loops(z, temperature), abs=1e-10)


def test_of_two_views_it_is_nt_xent():
    z = rows(2, 7, 5)
    torch.testing.assert_close(multi_view_nt_xent(z, 0.3), nt_xent(z[0], z[1], 0.3), atol=1e-12, rtol=0)


def test_of_three_views_it_is_twice_the_supervised_loss_of_pictures():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    mine, theirs = (rows(3, 6, 5).requires_grad_() for _ in range(2))
    ours = multi_view_nt_xent(mine, 0.4)
    other = 2 * losses.SupConLoss(temperature=0.4)(theirs.flatten(0, 1), torch.arange(6).repeat(3))
    torch.testing.assert_close(ours, other, atol=1e-12, rtol=0)
    ours.backward(), other.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-12, rtol=0)


def test_gradients_and_detached_keys():
    z = rows(3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: multi_view_nt_xent(x, 0.5), (z,))
    assert torch.autograd.gradcheck(lambda x: multi_view_nt_xent(x, 0.5, normalize=False), (z,))
    values, grads = [], []
    for detach in (False, True):
        value = multi_view_nt_xent(z, 0.5, detach)
        values.append(value.detach())
        grads.append(torch.autograd.grad(value, z)[0])
    torch.testing.assert_close(*values)
    unit = F.normalize(z, dim=2).flatten(0, 1)  # Z sg(Z)ᵀ, the diagonal left out, and the six terms of a picture
    s = (unit @ unit.detach().T / 0.5).fill_diagonal_(-math.inf)
    log_p = s.log_softmax(1)
    same = torch.arange(12) % 4 == torch.arange(12)[:, None] % 4
    written = -log_p[same & ~torch.eye(12, dtype=torch.bool)].sum() / 12
    torch.testing.assert_close(grads[1], torch.autograd.grad(written, z)[0], atol=1e-12, rtol=0)
    assert not torch.allclose(*grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("what", ["equal", "zero", "cold"])
def test_it_stays_finite(dtype, what):
    z = {"equal": torch.ones(3, 4, 5), "zero": torch.zeros(3, 4, 5), "cold": rows(3, 4, 5, dtype=torch.float32)}[what]
    z = z.to(dtype).requires_grad_()
    loss = multi_view_nt_xent(z, 0.01)
    loss.backward()
    assert loss.dtype == dtype and loss.isfinite() and z.grad.isfinite().all()


@given(st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_what_does_not_matter(seed):
    z = rows(3, 5, 4, seed)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator(seed), dtype=torch.float64))[0]
    order = torch.randperm(5, generator=generator(seed))
    value = multi_view_nt_xent(z, 0.5)
    for other in (z[:, order], z @ turn, 3 * z, z[[2, 0, 1]]):
        torch.testing.assert_close(multi_view_nt_xent(other, 0.5), value, atol=1e-10, rtol=0)


def test_what_makes_no_sense_is_told():
    for z, words in ((rows(1, 4), "two views"), (rows(3, 1), "two pictures"), (rows(), "positive")):
        with pytest.raises(ValueError, match="at least two views of two pictures" if words != "positive" else words):
            multi_view_nt_xent(z, 0 if words == "positive" else 0.5)
    with pytest.raises(ValueError, match="instance or noise"):
        made(attack="none")
    with pytest.raises(ValueError, match="no picture"):
        robust_accuracy(nn.Flatten(), pictures(0), torch.zeros(0, dtype=torch.long), attacks=[])


# The attack and the method


def each(model, x, target):
    """NT-Xent of every picture as an anchor in both views."""
    a, b = (F.normalize(t, dim=1) for t in (model(x)[1], target))
    z = torch.cat([a, b])
    log_p = (z @ z.T / 0.5).fill_diagonal_(-math.inf).log_softmax(1)
    n = len(x)
    return -(log_p[torch.arange(n), torch.arange(n) + n] + log_p[torch.arange(n) + n, torch.arange(n)])


def test_the_attack_makes_pictures_harder_to_tell_and_more_so_than_noise():
    model, a = made(), pictures(100)
    model.attack, b = "instance", (a + 0.05 * torch.randn(a.shape, generator=generator(5))).clamp(0, 1)
    for _ in range(5):
        model(pictures(64, 7))
    model.eval()
    with torch.no_grad():
        target = model(b)[1]
        moved = instance_attack(lambda x: model(x)[1], a, target, eps=0.1, steps=10, random_start=False)
        noise = (a + 0.1 * torch.randn(a.shape, generator=generator(6)).sign()).clamp(0, 1)
        before, after, noisy = (each(model, x, target) for x in (a, moved, noise))
    assert (after > before).float().mean() >= 0.99 and after.mean() > noisy.mean()
    assert (moved - a).abs().max() <= 0.1 * (1 + 1e-5) and moved.min() >= 0 and moved.max() <= 1


@pytest.mark.parametrize("training", [True, False])
def test_an_attack_leaves_the_model_as_it_was_and_can_be_repeated(training):
    model, a, b = made().train(training), pictures(seed=1), pictures(seed=2)
    before = copy.deepcopy(model.state_dict())
    first, second, other = (model.attacked(a, b, generator(s)) for s in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other) and not first.requires_grad
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training == training and all(p.grad is None for p in model.parameters())


def test_the_loss_is_that_of_the_three_views_in_one_pass():
    model, a, b = made(reg_weight=0.25).double(), pictures(8, 1).double(), pictures(8, 2).double()
    total, parts = copy.deepcopy(model).loss(a, b, generator(3))
    moved = model.attacked(a, b, generator(3))
    z = model(torch.cat([a, b, moved]))[1].view(3, 8, -1)
    torch.testing.assert_close(parts.contrast, multi_view_nt_xent(z, 0.5))
    torch.testing.assert_close(parts.regulariser, nt_xent(z[2], z[1], 0.5))
    torch.testing.assert_close(total, parts.contrast + 0.25 * parts.regulariser)
    torch.testing.assert_close(parts.clean, nt_xent(z[0], z[1], 0.5))
    assert total.requires_grad and not parts.clean.requires_grad


def test_of_noise_every_value_moves_by_the_radius():
    model, a = made(attack="noise"), pictures(seed=1) * 0.5 + 0.25
    moved = model.attacked(a, a, generator())
    assert ((moved - a).abs() - 0.1).abs().max() < 1e-6 and 0.4 < float((moved > a).float().mean()) < 0.6


def test_components_keep_what_all_components_keep(tmp_path):
    check_component(made, pictures(5), tmp_path=tmp_path)
    at = lambda g: SupervisedAT(backbone("conv:4x2", (1, 6, 6), generator=g), 3, generator=g)
    check_component(at, pictures(5), tmp_path=tmp_path)


def test_training_against_the_attack_makes_a_classifier_robust():
    """Two classes told by a cue that survives the attack in 95 % of the pictures, and by a weaker one in all, which the
    attack can turn round."""
    g = generator(4)
    y = torch.randint(0, 2, (400,), generator=g)
    sign = (2 * y - 1).float().view(-1, 1, 1, 1)
    x = torch.full((400, 1, 6, 6), 0.5)
    x[:, :, :3] += 0.14 * sign * (torch.rand(400, 1, 1, 1, generator=g) < 0.95)
    x[:, :, 3:] += 0.05 * sign
    robust = {}
    for eps in (0.0, 0.1):
        model = _flat(eps)
        solver = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(60):
            solver.zero_grad()
            model.loss(x, y, g).backward()
            solver.step()
        found = robust_accuracy(model, x, y, attacks=[AttackSpec("pgd", 0.1), AttackSpec("l2", 0.3, "l2")])
        assert found["worst"] <= min(found["pgd"], found["l2"]) and max(found.values()) == found["clean"]
        robust[eps] = found["pgd"]
    assert robust[0.1] > robust[0.0] + 0.3


def _flat(eps):
    encoder = nn.Flatten()
    encoder.out_dim = 36
    return SupervisedAT(encoder, 2, eps, None, 3, generator=generator())


# Judging


def classifier(seed=0):
    encoder = backbone("conv:4x2", (1, 6, 6), generator=generator(seed))
    x, y = pictures(200, 3), torch.arange(200) % 3
    x = (x * 0.5 + (y / 4).view(-1, 1, 1, 1)).clamp(0, 1)
    return encoder.eval(), x, y


def test_the_linear_layer_is_the_probe_on_features():
    from precis.train.probe import LinearProbe, embed

    encoder, x, y = classifier()
    layer = robust_linear(encoder, (x, y))
    h = embed(encoder, x)
    torch.testing.assert_close(layer(h), LinearProbe(1e-3).fit(h, y).logits(h).float(), atol=1e-3, rtol=1e-3)


def test_a_layer_fitted_on_attacked_pictures_withstands_more_and_the_encoder_stays():
    encoder, x, y = classifier()
    before = copy.deepcopy(encoder.state_dict())
    right = []
    for adversarial in (False, True):
        layer = robust_linear(encoder, (x, y), adversarial=adversarial, eps=0.08, alpha=None, steps=3, epochs=6,
                              batch=64, generator=generator())  # fmt: skip
        net = nn.Sequential(encoder, layer)
        kept = robust_correct(net, x, y, AttackSpec("", 0.08, steps=10), generator=generator())
        right.append(float(kept.float().mean()))
    assert right[1] > right[0] + 0.03
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())


def test_radius_zero_is_the_plain_accuracy_and_more_attack_never_helps():
    encoder, x, y = classifier()
    net = nn.Sequential(encoder, robust_linear(encoder, (x, y))).train()
    specs = [AttackSpec("0", 0.0), AttackSpec("a", 0.03), AttackSpec("b", 0.08), AttackSpec("c", 0.08, restarts=4)]
    found = robust_accuracy(net, x, y, attacks=specs, batch=64, generator=generator())
    assert found["0"] == found["clean"] >= found["a"] >= found["b"] - 0.01 and found["c"] <= found["b"] + 0.01
    assert found["worst"] <= min(found.values())
    assert net.training
    with evaluating(net):
        plain = float((net(x).argmax(1) == y).float().mean())
    assert found["clean"] == plain
    as_bytes = (x * 255).round().to(torch.uint8)
    assert abs(robust_accuracy(net, as_bytes, y, attacks=[])["clean"] - plain) < 0.02


def test_what_is_told_wrong_without_an_attack_is_not_robust():
    encoder, x, y = classifier()
    net = nn.Sequential(encoder, robust_linear(encoder, (x, y)))
    wrong = robust_correct(net, x, (y + 1) % 3, AttackSpec("", 1.0, steps=3))
    assert not (wrong & robust_correct(net, x, y)).any()


def test_smoothing_averages_probabilities_and_lets_gradients_through():
    encoder, x, y = classifier()
    net = nn.Sequential(encoder, robust_linear(encoder, (x, y))).eval()
    same = Smoothed(net, lambda v, g: v, 4)
    torch.testing.assert_close(same(x[:5]), net(x[:5]).log_softmax(1), atol=1e-5, rtol=0)
    noise = lambda v, g: v + 0.1 * torch.randn(v.shape, generator=g)
    smooth = Smoothed(net, noise, 8, generator())
    torch.testing.assert_close(smooth(x[:5]).exp().sum(1), torch.ones(5), atol=1e-5, rtol=0)
    clean, under = (float(robust_correct(smooth, x[:60], y[:60], spec).float().mean())
                    for spec in (None, AttackSpec("", 0.1, steps=5)))  # fmt: skip
    assert under < clean
    with pytest.raises(ValueError, match="no gradient passes"):
        robust_correct(Smoothed(net, lambda v, g: v.detach(), 2), x[:5], smooth(x[:5]).argmax(1), AttackSpec("", 0.1))
    with pytest.raises(ValueError, match="at least one transform"):
        Smoothed(net, noise, 0)
