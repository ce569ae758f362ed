import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from precis.errors import InputError
from precis.nn.attacks import NORMS, evaluating, fgsm, parse_eps, pgd, project
from precis.nn.backbones import backbone


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=12, dtype=torch.float32, seed=0):
    return torch.rand(n, 1, 6, 6, generator=generator(seed), dtype=dtype)


def net_of(dtype=torch.float32):
    """A small net with batch norm that has seen data, in evaluation mode, and a loss an example."""
    net = backbone("conv:4x2", (1, 6, 6), 3, generator=generator(1)).to(dtype)
    for _ in range(5):
        net(pictures(32, dtype, 3))
    return net.eval()


def length(delta, norm):
    return torch.linalg.vector_norm(delta.flatten(1), {"linf": torch.inf, "l2": 2, "l1": 1}[norm], dim=1)


# What is known in closed form


def test_of_a_linear_loss_the_attack_is_exact():
    w, x = torch.randn(4, 30, generator=generator(), dtype=torch.float64), torch.full((4, 30), 0.5, dtype=torch.float64)
    loss = lambda v: (v * w).sum(1)
    options = {"eps": 0.1, "random_start": False, "steps": 4}
    torch.testing.assert_close(fgsm(loss, x, eps=0.1), x + 0.1 * w.sign(), atol=1e-15, rtol=0)
    torch.testing.assert_close(pgd(loss, x, **options), x + 0.1 * w.sign(), atol=1e-15, rtol=0)
    unit = w / w.norm(dim=1, keepdim=True)
    torch.testing.assert_close(pgd(loss, x, norm="l2", **options), x + 0.1 * unit, atol=1e-12, rtol=0)
    largest = torch.zeros_like(w).scatter(1, w.abs().argmax(1, keepdim=True), 1) * w.sign()
    torch.testing.assert_close(pgd(loss, x, norm="l1", **options), x + 0.1 * largest, atol=1e-12, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("restarts", [1, 3])
def test_from_anywhere_in_the_ball_it_comes_to_the_same_end_of_a_linear_loss(norm, restarts):
    w, x = torch.randn(5, 8, generator=generator(), dtype=torch.float64), torch.full((5, 8), 0.5, dtype=torch.float64)
    moved = pgd(lambda v: (v * w).sum(1), x, eps=0.2, steps=60, alpha=0.05, norm=norm, restarts=restarts,
                generator=generator())  # fmt: skip
    dual = {"linf": w.abs().sum(1), "l2": w.norm(dim=1), "l1": w.abs().amax(1)}[norm]
    torch.testing.assert_close(((moved - x) * w).sum(1), 0.2 * dual, atol=1e-3, rtol=0)


def test_bounds_hold_and_an_l1_step_is_not_spent_on_what_they_hold():
    x = torch.tensor([[1.0, 0.5, 0.5]])
    w = torch.tensor([[9.0, 2.0, 1.0]])
    moved = pgd(lambda v: (v * w).sum(1), x, eps=0.4, steps=4, norm="l1", random_start=False)
    torch.testing.assert_close(moved, torch.tensor([[1.0, 0.9, 0.5]]))


# Against an independent implementation


def cross_entropy(net, y):
    return lambda v: F.cross_entropy(net(v), y, reduction="none")


def each(logits, y):
    return F.cross_entropy(logits, y, reduction="none")


def test_fgsm_is_captum_s():
    robust = pytest.importorskip("captum.robust")
    net, x, y = net_of(torch.float64), pictures(dtype=torch.float64), torch.arange(12) % 3
    theirs = robust.FGSM(net, each, lower_bound=0.0, upper_bound=1.0).perturb(x, 0.05, y)
    ours = fgsm(cross_entropy(net, y), x, eps=0.05)
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=0)
    whole = fgsm(lambda v: F.cross_entropy(net(v), y), x, eps=0.05)  # of the mean: the same signs
    torch.testing.assert_close(ours, whole, atol=1e-12, rtol=0)


def test_pgd_is_captum_s():
    robust = pytest.importorskip("captum.robust")
    net, x, y = net_of(torch.float64), pictures(dtype=torch.float64), torch.arange(12) % 3
    peer = robust.PGD(net, each, lower_bound=0.0, upper_bound=1.0)
    peer.fgsm.zero_thresh = 0.0  # it leaves values of small gradient where they are
    theirs = peer.perturb(x, 0.06, 0.02, 6, y, random_start=False, norm="Linf")
    ours = pgd(cross_entropy(net, y), x, eps=0.06, alpha=0.02, steps=6, random_start=False)
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=0)


def test_l2_steps_are_those_of_a_loop_over_examples():
    """(captum's own ℓ2 takes sign steps, and only projects in ℓ2.)"""
    net, x, y = net_of(torch.float64), pictures(dtype=torch.float64), torch.arange(12) % 3
    ours = pgd(cross_entropy(net, y), x, eps=0.4, alpha=0.15, steps=5, norm="l2", random_start=False)
    for i in range(12):
        start, v = x[i : i + 1], x[i : i + 1].clone()
        for _ in range(5):
            v = v.requires_grad_()
            F.cross_entropy(net(v), y[i : i + 1]).backward()
            v = v.detach() + 0.15 * v.grad / v.grad.norm()
            v = (start + torch.renorm(v - start, 2, 0, 0.4)).clamp(0, 1)
        torch.testing.assert_close(ours[i : i + 1], v, atol=1e-6, rtol=0)


# What every attack keeps


@given(st.sampled_from(NORMS), st.floats(0.01, 2), st.integers(0, 3), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_it_stays_in_the_ball_and_the_bounds(norm, eps, steps, start, seed):
    x = pictures(4, seed=seed)
    x[0], x[1] = 0, 1
    weight = torch.randn(x.shape[1:], generator=generator(seed))
    loss = lambda v: (v * weight).sin().flatten(1).sum(1)
    moved = pgd(loss, x, eps=eps, alpha=eps, steps=steps, norm=norm, random_start=start, generator=generator(seed))
    assert (length(moved - x, norm) <= eps * (1 + 1e-5) + 1e-6).all()
    assert moved.min() >= 0 and moved.max() <= 1 and moved.isfinite().all()


@given(st.integers(1, 12), st.floats(0.05, 5), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_projection_is_the_nearest_point(d, eps, seed):
    delta = 2 * torch.randn(3, d, generator=generator(seed), dtype=torch.float64)
    for norm in NORMS:
        near = project(delta, eps, norm)
        assert (length(near, norm) <= eps * (1 + 1e-9)).all()
        torch.testing.assert_close(project(near, eps, norm), near, atol=1e-9, rtol=0)
        inside = project(torch.randn(200, d, generator=generator(seed + 1), dtype=torch.float64), eps, norm)
        for row, point in zip(delta, near):  # of a convex set: no angle below 90° to any other of its points
            assert ((inside - point) @ (row - point) <= 1e-9).all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_loss_rises(norm):
    net, x = net_of(), pictures(200)
    y = net(x).argmax(1)
    loss = cross_entropy(net, y)
    eps = {"linf": 0.05, "l2": 0.3, "l1": 1.0}[norm]
    moved = pgd(loss, x, eps=eps, steps=10, norm=norm, random_start=False)
    assert (loss(moved) >= loss(x)).float().mean() >= 0.99
    noise = x + project(torch.randn(x.shape, generator=generator()), eps, norm)
    assert loss(moved).mean() > loss(noise.clamp(0, 1)).mean() + 0.01


@pytest.mark.parametrize("training", [True, False])
def test_the_net_is_left_as_it_was(training):
    net, x, y = net_of().train(training), pictures(), torch.arange(12) % 3
    net.blocks[0].eval()  # modes that are mixed stay mixed
    modes = [m.training for m in net.modules()]
    before, computed = copy.deepcopy(net.state_dict()), []
    for p in net.parameters():
        p.register_hook(lambda g: computed.append(g))
    with evaluating(net):
        assert not any(m.training for m in net.modules())
        pgd(cross_entropy(net, y), x, eps=0.1, steps=3, generator=generator())
    assert [m.training for m in net.modules()] == modes and not computed
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    F.cross_entropy(net(x), y).backward()
    assert computed  # the hooks do see weight gradients


def test_modes_come_back_after_an_exception():
    net = nn.Sequential(nn.Linear(1, 1), nn.Dropout()).train()
    with pytest.raises(RuntimeError, match="stop"), evaluating(net):
        raise RuntimeError("stop")
    assert net.training and net[1].training


def test_nothing_moves_for_radius_zero_and_the_input_is_not_touched():
    net, x = net_of(), pictures()
    y, before = torch.arange(12) % 3, pictures()
    assert torch.equal(pgd(cross_entropy(net, y), x, eps=0), x)
    assert torch.equal(pgd(cross_entropy(net, y), x, eps=0.1, steps=0, random_start=False), x)
    with torch.no_grad():  # callers often are
        moved = pgd(cross_entropy(net, y), x, eps=0.1, steps=2)
    assert not moved.requires_grad and not torch.equal(moved, x) and torch.equal(x, before)


def test_a_mask_confines_the_change():
    net, x, y = net_of(), pictures(), torch.arange(12) % 3
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[2:4, 1:5] = True
    for norm in NORMS:
        moved = pgd(cross_entropy(net, y), x, eps=0.3, norm=norm, mask=mask, generator=generator())
        changed = (moved != x).any(0)[0]
        assert changed.any() and not changed[~mask].any()


def test_restarts_only_help_and_a_seed_repeats():
    net, x, y = net_of(), pictures(40), torch.arange(40) % 3
    loss = cross_entropy(net, y)
    many = [loss(pgd(loss, x, eps=0.1, steps=1, restarts=n, generator=generator())) for n in (1, 6)]
    assert (many[1] >= many[0]).all() and (many[1] > many[0]).any()
    a, b, c = (pgd(loss, x, eps=0.1, generator=generator(s)) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    state = torch.get_rng_state()
    pgd(loss, x, eps=0.1, generator=generator())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_fill_the_ball(norm):
    x = torch.full((4000, 3), 0.5, dtype=torch.float64)
    delta = pgd(lambda v: v.sum(1), x, eps=0.2, steps=0, norm=norm, generator=generator()) - x
    r = length(delta, norm) / 0.2
    assert r.max() <= 1 + 1e-9
    assert float((r < 0.5).double().mean()) == pytest.approx(1 / 8, abs=0.02)  # of the volume
    assert (delta.mean(0).abs() < 0.01).all()


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.03", 0.03), ("8", 8 / 255), (4, 4 / 255),
                                             ("0", 0.0), ("1", 1.0), (0.5, 0.5)])  # fmt: skip
def test_radii_are_read(text, value):
    assert parse_eps(text) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize("text", ["", "big", "1/0", "-0.1", "300", "9/8", "nan", "8/255/2"])
def test_what_is_no_radius_is_told(text):
    with pytest.raises(InputError, match="a radius is written 8/255"):
        parse_eps(text)


@pytest.mark.parametrize(("options", "words"), [
    ({"eps": -1}, "at least 0"), ({"restarts": 0}, "restarts at least 1"), ({"alpha": -0.1}, "length of a step"),
    ({"bounds": (0.5, 1)}, "outside the bounds"),
])  # fmt: skip
def test_what_makes_no_sense_is_told(options, words):
    with pytest.raises(ValueError, match=words):
        pgd(lambda v: v.flatten(1).sum(1), pictures(), **{"eps": 0.1} | options)


def test_a_loss_of_another_shape_is_told():
    with pytest.raises(ValueError, match="one for each of 12 examples"):
        pgd(lambda v: v.flatten(1), pictures(), eps=0.1)
