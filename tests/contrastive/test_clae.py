import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component
from torch import nn

from precis.contrastive.clae import (
    CLAE,
    DualBatchNorm2d,
    adversarial_bn,
    clae_adversary,
    plain_info_nce,
    to_dual_bn,
    to_single_bn,
    uel_loss,
    with_dual_bn,
)
from precis.contrastive.ntxent import ProjectionHead, SimCLR, nt_xent
from precis.nn.backbones import backbone


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(n=5, d=3, seed=0, dtype=torch.float64):
    g = generator(seed)
    return tuple(torch.randn(n, d, generator=g, dtype=dtype) for _ in range(2))


def pictures(n=12, seed=0, dtype=torch.float32):
    return torch.rand(n, 1, 6, 6, generator=generator(seed), dtype=dtype)


def encoder_of(seed=0):
    net = backbone("conv:4x2", (1, 6, 6), generator=generator(seed))
    for _ in range(3):
        net(pictures(32, 9))
    return net


def made(g=None, dual=True, **options):
    encoder = backbone("conv:4x2", (1, 6, 6), generator=g or generator())
    return CLAE(to_dual_bn(encoder) if dual else encoder, ProjectionHead(8, dim_out=6, generator=g or generator(1)),
                0.05, **options)  # fmt: skip


# The losses


@given(st.integers(2, 8), st.integers(1, 5), st.sampled_from([0.1, 0.5]), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_plain_loss_is_a_cross_entropy(n, d, temperature, seed):
    z1, z2 = (F.normalize(z, dim=1) for z in pair(n, d, seed))
    wanted = F.cross_entropy(z1 @ z2.T / temperature, torch.arange(n))
    torch.testing.assert_close(plain_info_nce(z1, z2, temperature), wanted, atol=1e-12, rtol=0)


def test_uel_is_the_definition_and_its_keys_have_no_gradient():
    z1, z2 = (z.requires_grad_() for z in pair(4, 3))
    value = uel_loss(z1, z2, 0.3, negative_weight=0.7)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    s = (z @ z.detach().T / 0.3).exp()
    total = 0.0
    for i in range(8):
        p = s[i] / sum(s[i, k] for k in range(8) if k != i)
        mate = (i + 4) % 8
        total = total - p[mate].log() - 0.7 * sum((1 - p[j]).log() for j in range(8) if j not in (i, mate))
    torch.testing.assert_close(value, total / 8, atol=1e-12, rtol=0)
    for a, b in zip(torch.autograd.grad(value, (z1, z2)), torch.autograd.grad(total / 8, (z1, z2))):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("loss", [plain_info_nce, uel_loss])
def test_losses_stay_finite_and_refuse_a_batch_of_one(loss):
    for z in (torch.ones(4, 3), torch.zeros(4, 3), torch.eye(4), torch.randn(4, 3, generator=generator())):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            a = z.detach().clone().to(dtype).requires_grad_()
            value = loss(a, z.to(dtype), 0.01)
            value.backward()
            assert value.dtype == dtype and value.isfinite() and a.grad.isfinite().all()
    with pytest.raises(ValueError, match="no negatives"):
        loss(*pair(1))
    with pytest.raises(ValueError, match="temperature"):
        loss(*pair(), temperature=0)
    if loss is plain_info_nce:
        z1, z2 = (z.requires_grad_() for z in pair(4, 3))
        assert torch.autograd.gradcheck(loss, (z1, z2))


# Two batch norms


def test_with_equal_statistics_both_branches_are_the_encoder():
    single = encoder_of().eval()
    dual = to_dual_bn(copy.deepcopy(single))
    x = pictures()
    assert sum(isinstance(m, DualBatchNorm2d) for m in dual.modules()) == 2 and not dual.training
    torch.testing.assert_close(dual(x), single(x), atol=1e-6, rtol=0)
    with adversarial_bn(dual):
        torch.testing.assert_close(dual(x), single(x), atol=1e-6, rtol=0)
    torch.testing.assert_close(to_single_bn(dual)(x), single(x), atol=0, rtol=0)
    assert set(dual.state_dict()) == set(single.state_dict())


def test_the_clean_branch_does_not_depend_on_what_the_other_does():
    dual, x = to_dual_bn(encoder_of()), pictures()
    before = dual.eval()(x)
    dual.train()
    with adversarial_bn(dual):
        for _ in range(3):
            dual(5 + 3 * pictures(16, 4))
    assert torch.equal(dual.eval()(x), before)
    with adversarial_bn(dual):
        assert not torch.allclose(dual(x), before)
    assert all(m.branch == "clean" for m in dual.modules() if isinstance(m, DualBatchNorm2d))


def test_the_adversarial_branch_is_slower_and_the_flag_comes_back_after_an_exception():
    dual = to_dual_bn(encoder_of())
    norm = next(m for m in dual.modules() if isinstance(m, DualBatchNorm2d))
    assert (norm.clean.momentum, norm.adversarial.momentum) == (0.1, 0.01)
    with pytest.raises(RuntimeError), adversarial_bn(dual):
        assert norm.branch == "adversarial"
        raise RuntimeError
    assert norm.branch == "clean"
    with pytest.raises(ValueError, match="the module that holds it"):
        to_dual_bn(nn.BatchNorm2d(3))


def test_an_encoder_beside_shares_every_layer():
    encoder = encoder_of()
    names, dual = set(encoder.state_dict()), with_dual_bn(encoder)
    assert set(encoder.state_dict()) == names and len(dual.state_dict()) > len(names)
    assert {id(p) for p in encoder.parameters()} < {id(p) for p in dual.parameters()}
    x = pictures()
    dual.train()(x).sum().backward()
    solver = torch.optim.SGD(dual.parameters(), lr=0.1)
    solver.step()
    torch.testing.assert_close(encoder.eval()(x), dual.eval()(x), atol=0, rtol=0)
    residual = backbone("small_resnet:width=4", (1, 8, 8), generator=generator())
    beside = with_dual_bn(residual).eval()
    torch.testing.assert_close(beside(torch.ones(2, 1, 8, 8)), residual.eval()(torch.ones(2, 1, 8, 8)))


# The adversary


def test_the_adversary_is_captum_s():
    robust = pytest.importorskip("captum.robust")
    net, x = encoder_of().eval().double(), pictures(dtype=torch.float64)
    target = net(x).detach()

    def loss(z, anchors):  # one number for the batch, as captum wants it: a row
        return nt_xent(anchors, z, 0.5).reshape(1)

    theirs = robust.FGSM(net, loss, lower_bound=0.0, upper_bound=1.0)
    theirs.zero_thresh = 0.0
    other = pictures(seed=3, dtype=torch.float64)
    peer = theirs.perturb(other, 0.05, target)
    ours = clae_adversary(net, x, other, eps=0.05, source="other")
    torch.testing.assert_close(ours, peer.detach(), atol=1e-6, rtol=0)


def test_of_the_same_view_the_positive_has_no_gradient():
    z = pair(6, 4)[0].requires_grad_()
    anchor = z.detach()
    positive = (F.normalize(anchor, dim=1) * F.normalize(z, dim=1)).sum()
    assert torch.autograd.grad(positive, z)[0].abs().max() < 1e-15
    other = pair(6, 4, 1)[0].requires_grad_()
    apart = (F.normalize(anchor, dim=1) * F.normalize(other, dim=1)).sum()
    assert torch.autograd.grad(apart, other)[0].abs().max() > 0.01


@pytest.mark.parametrize("source", ["same", "other"])
def test_the_adversary_raises_the_loss_more_than_noise(source):
    net, a = encoder_of().eval(), pictures(60)
    b = (a + 0.05 * torch.randn(a.shape, generator=generator(2))).clamp(0, 1)
    start = a if source == "same" else b
    moved = clae_adversary(net, a, b, eps=0.03, source=source)
    noise = (start + 0.03 * torch.randn(a.shape, generator=generator(1)).sign()).clamp(0, 1)
    with torch.no_grad():
        losses = [float(nt_xent(net(a), net(x))) for x in (start, noise, moved)]
    assert losses[2] > losses[0] and losses[2] > losses[1]
    assert (moved - start).abs().max() <= 0.03 * (1 + 1e-5) and moved.min() >= 0 and moved.max() <= 1
    with pytest.raises(ValueError, match="x_j is wanted"):
        clae_adversary(net, a, eps=0.1, source="other")


def test_generation_leaves_statistics_gradients_and_modes():
    model, a, b = made().train(), pictures(seed=1), pictures(seed=2)
    before = copy.deepcopy(model.state_dict())
    model.adversary(a, b)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(m.branch == "clean" for m in model.modules() if isinstance(m, DualBatchNorm2d))


# The method


@pytest.mark.parametrize("dual", [True, False])
def test_without_a_weight_it_is_simclr_to_the_statistics(dual):
    model, a, b = made(dual=dual, weight=0.0), pictures(seed=1), pictures(seed=2)
    plain = SimCLR(backbone("conv:4x2", (1, 6, 6), generator=generator()), copy.deepcopy(model.head))
    total, parts = model.loss(a, b)
    assert torch.equal(total, plain.loss(a, b)) and float(parts.adversarial) == 0
    trained = to_single_bn(model.encoder).state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in plain.encoder.state_dict().items())


@pytest.mark.parametrize(("base", "loss"), [("nt_xent", nt_xent), ("plain", plain_info_nce), ("uel", uel_loss)])
@pytest.mark.parametrize("source", ["same", "other"])
def test_the_loss_is_the_sum_of_both(base, loss, source):
    model, a, b = made(weight=0.5, base=base, source=source).double(), pictures(8, 1).double(), pictures(8, 2).double()
    total, parts = copy.deepcopy(model).loss(a, b)
    moved = model.adversary(a, b)
    z = model(torch.cat([a, b]))[1]
    with adversarial_bn(model):
        attacked = model(moved)[1]
    torch.testing.assert_close(parts.clean, loss(z[:8], z[8:], 0.5))
    torch.testing.assert_close(parts.adversarial, loss(z[:8], attacked, 0.5))
    torch.testing.assert_close(total, parts.clean + 0.5 * parts.adversarial)


def test_attacked_pictures_move_only_their_own_statistics():
    model, a, b = made().train(), pictures(seed=1), pictures(seed=2)
    clean, plain = copy.deepcopy(model), made(weight=0.0).train()
    clean.loss(a, b), plain.loss(a, b)
    for name, value in plain.named_buffers():
        if "adversarial" not in name:
            torch.testing.assert_close(dict(clean.named_buffers())[name], value, atol=1e-7, rtol=0)
    moved = [name for name, v in clean.named_buffers() if "adversarial.running_mean" in name and v.abs().max() > 0]
    assert len(moved) == 2


def test_what_makes_no_sense_is_told():
    with pytest.raises(ValueError, match="base is one of"):
        made(base="moco")


def test_components_keep_what_all_components_keep(tmp_path):
    check_component(made, pictures(5), tmp_path=tmp_path)
    check_component(lambda g: DualBatchNorm2d(3), torch.randn(5, 3, 2, 2, generator=generator()), seeded=False)


def test_training_lowers_both_losses():
    model, g = made().train(), generator(5)
    x = torch.rand(64, 1, 6, 6, generator=g)
    solver, values = torch.optim.Adam(model.parameters(), lr=0.01), []
    for _ in range(25):
        a, b = ((x + 0.05 * torch.randn(x.shape, generator=g)).clamp(0, 1) for _ in range(2))
        solver.zero_grad()
        total, parts = model.loss(a, b)
        total.backward()
        solver.step()
        values.append([float(parts.clean), float(parts.adversarial)])
    assert values[0][0] < math.log(127) + 0.3 and all(end < start - 0.1 for start, end in zip(values[0], values[-1]))
