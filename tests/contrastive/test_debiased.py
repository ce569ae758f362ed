import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component

from precis.contrastive.debiased import (
    DebiasedSimCLR,
    class_prior,
    debiased_negative,
    debiased_nt_xent,
    debiased_parts,
    oracle_nt_xent,
)
from precis.contrastive.ntxent import ProjectionHead, nt_xent
from precis.nn.backbones import backbone


def draw(v=2, b=5, d=3, seed=0, dtype=torch.float64, spread=1.0):
    """Views [V,B,D] that lie near those of their own picture."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, b, d, generator=g, dtype=torch.float64)
    return (centre + spread * torch.randn(v, b, d, generator=g, dtype=torch.float64)).to(dtype)


def by_loops(views, t, tau, m=None, match_n=False, labels=None):
    """The equation, anchor by anchor and term by term."""
    z = views.double().numpy()
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    v, b, _ = z.shape
    m = v - 1 if m is None else m
    total = 0.0
    for i in range(v):
        for a in range(b):
            e = lambda j, c, own=z[i, a]: math.exp(float(own @ z[j, c]) / t)
            kept = [i, (i + 1) % v] if match_n else range(v)
            random = [e(j, c) for j in kept for c in range(b) if c != a]
            n = len(random)
            if labels is not None:
                random = [e(j, c) for j in kept for c in range(b) if labels[c] != labels[a]]
                g = sum(random) / len(random)
            else:
                own = [e((i + k) % v, a) for k in range(1, m + 1)]
                g = max((sum(random) / n - tau * sum(own) / m) / (1 - tau), math.exp(-1 / t))
            first = e((i + 1) % v, a)
            total -= math.log(first / (first + n * g))
    return total / (v * b)


@pytest.mark.parametrize("t", [0.05, 0.5, 1])
@pytest.mark.parametrize("tau", [0, 0.02, 0.1, 0.6])
@pytest.mark.parametrize(("v", "m", "match_n"), [(2, None, False), (2, 1, True), (4, None, False), (4, 2, True)])
@pytest.mark.parametrize("chunk", [None, 3])
def test_it_is_the_definition(t, tau, v, m, match_n, chunk):
    views = draw(v)
    value = debiased_nt_xent(views, t, tau, positives=m, match_n=match_n, chunk=chunk)
    assert float(value) == pytest.approx(by_loops(views, t, tau, m, match_n), abs=1e-10)


@pytest.mark.parametrize("t", [0.05, 0.5, 1])
@pytest.mark.parametrize("chunk", [None, 4])
def test_the_oracle_is_the_definition(t, chunk):
    labels = torch.tensor([0, 1, 0, 2, 1])
    for v in (2, 3):
        value = oracle_nt_xent(draw(v), labels, t, chunk=chunk)
        assert float(value) == pytest.approx(by_loops(draw(v), t, 0, labels=labels.tolist()), abs=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("chunk", [None, 5])
def test_without_a_prior_it_is_nt_xent_in_value_and_gradients(dtype, tolerance, chunk):
    for views in (draw(2, 7, 6, dtype=dtype), 9 * draw(2, 7, 6, seed=1, dtype=dtype)):
        for normalize in (True, False):
            a, b, c = (views.clone().requires_grad_() for _ in range(3))
            loss = debiased_nt_xent(a, 0.3, 0, chunk=chunk, normalize=normalize)
            expected = nt_xent(b[0], b[1], 0.3, normalize=normalize)
            distinct = oracle_nt_xent(c, torch.arange(7), 0.3, chunk=chunk, normalize=normalize)
            torch.testing.assert_close(loss, expected, atol=tolerance, rtol=tolerance)
            torch.testing.assert_close(distinct, expected, atol=tolerance, rtol=tolerance)
            loss.backward(), expected.backward(), distinct.backward()
            torch.testing.assert_close(a.grad, b.grad, atol=tolerance, rtol=10 * tolerance)
            torch.testing.assert_close(c.grad, b.grad, atol=tolerance, rtol=10 * tolerance)


def test_without_a_prior_it_is_pytorch_metric_learning_s():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    views = draw(2, 7, 6)
    expected = losses.NTXentLoss(temperature=0.3)(views.flatten(0, 1), torch.arange(7).repeat(2))
    torch.testing.assert_close(debiased_nt_xent(views, 0.3, 0), expected, atol=1e-12, rtol=1e-12)


@given(st.integers(1, 20), st.integers(2, 4), st.sampled_from([0.05, 0.5]), st.sampled_from([0, 0.05, 0.5]))
@settings(max_examples=25, deadline=None)
def test_chunks_change_neither_value_nor_gradients(chunk, v, t, tau):
    whole, parts = (draw(v, 4, seed=v).requires_grad_() for _ in range(2))
    a, b = debiased_nt_xent(whole, t, tau), debiased_nt_xent(parts, t, tau, chunk=chunk)
    torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    a.backward(), b.backward()
    torch.testing.assert_close(whole.grad, parts.grad, atol=1e-12, rtol=1e-9)


def test_gradcheck():
    views = draw(3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: debiased_nt_xent(z, 0.4, 0.1), (views,))
    assert torch.autograd.gradcheck(lambda z: debiased_nt_xent(z, 0.4, 0.1, chunk=5, positives=1), (views,))
    assert torch.autograd.gradcheck(lambda z: oracle_nt_xent(z, torch.tensor([0, 1, 0, 2]), 0.4), (views,))
    near = 0.1 * draw(1, 4, 3).expand(2, 4, 3) + 0.01 * draw(2, 4, 3)
    near.requires_grad_()  # some anchors at the floor
    assert 0 < float(debiased_parts(near, 0.5, 0.2).at_floor) < 1
    assert torch.autograd.gradcheck(lambda z: debiased_nt_xent(z, 0.5, 0.2), (near.detach().requires_grad_(),))


def test_at_the_floor_negatives_do_not_matter():
    neg, pos = torch.full((6,), -0.9, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    assert float(debiased_negative(neg, pos, 0.5, 0.1)) == -2.0
    assert float(debiased_negative(neg + 0.05, pos, 0.5, 0.1)) == -2.0
    assert float(debiased_negative(neg, pos, 0.5, 0.1, floor=False)) == -math.inf
    neg.requires_grad_(), pos.requires_grad_()
    slopes = torch.autograd.grad(debiased_negative(neg, pos, 0.5, 0.1), (neg, pos))
    assert all(float(slope.abs().sum()) == 0 for slope in slopes)


def test_a_loss_at_the_floor_is_that_of_the_least_cosine():
    """Views of a picture coincide and other pictures stand across: nothing is left of so few similar negatives."""
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.01]]).double().repeat(2, 1, 1)
    found = debiased_parts(z, 0.5, 0.3)
    assert float(found.at_floor) == 1
    assert float(found.loss) == pytest.approx(math.log1p(2 * math.exp(-2 - 2)), abs=1e-12)
    none = debiased_parts(z, 0.5, 0.3, floor=False)
    assert float(none.loss) == 0
    z.requires_grad_()
    debiased_nt_xent(z, 0.5, 0.3, floor=False).backward()
    assert z.grad.isfinite().all()


def test_g_rises_with_every_negative_and_keeps_above_the_floor():
    g = torch.Generator().manual_seed(0)
    neg, pos = (2 * torch.rand(50, n, generator=g, dtype=torch.float64) - 1 for n in (8, 3))
    base = debiased_negative(neg, pos, 0.5, 0.2)
    assert (base >= -2).all() and (base == -2).any() and (base > -2).any()
    for i in range(8):
        more = neg.clone()
        more[:, i] += 0.1
        assert (debiased_negative(more, pos, 0.5, 0.2) >= base).all()
    order = torch.randperm(8, generator=g)
    torch.testing.assert_close(debiased_negative(neg[:, order], pos, 0.5, 0.2), base)
    less = pos.clone()
    less[:, 0] -= 0.1
    assert (debiased_negative(neg, less, 0.5, 0.2) >= base).all()


def test_several_positives_are_averaged_not_summed():
    """Doubling each positive leaves the estimate as it is."""
    neg, pos = draw(1, 6, 8)[0].tanh(), draw(1, 6, 3, seed=1)[0].tanh()
    torch.testing.assert_close(
        debiased_negative(neg, pos.repeat(1, 2), 0.5, 0.1), debiased_negative(neg, pos, 0.5, 0.1), atol=1e-12, rtol=0
    )


def test_small_temperatures_and_half_precision_do_not_overflow():
    """exp(1/0.05) is 4.9e8: past float16's range, and the plain form of the loss is infinite there."""
    views = draw(3, 6, 4, spread=0.1, dtype=torch.float32)
    exact = float(debiased_nt_xent(views.double(), 0.05, 0.1))
    for dtype in (torch.float16, torch.bfloat16):
        z = views.to(dtype).requires_grad_()
        for chunk in (None, 4):
            loss = debiased_nt_xent(z, 0.05, 0.1, chunk=chunk)
            assert loss.dtype == dtype and float(loss.detach()) == pytest.approx(exact, abs=0.03)
            loss.backward()
            assert z.grad.dtype == dtype and z.grad.isfinite().all()
    narrow = debiased_negative(torch.tensor([0.9, 0.2]).half(), torch.tensor([0.9]).half(), 0.05, 0.1)
    assert narrow.dtype == torch.float16 and float(narrow) == pytest.approx(18 + math.log(0.4 / 0.9), abs=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(debiased_nt_xent(views, 0.05, 0.1)) == float(debiased_nt_xent(views.clone(), 0.05, 0.1))
        assert float(debiased_nt_xent(views, 0.05, 0.1)) == pytest.approx(exact, abs=1e-4)
    wide = float(debiased_nt_xent(views, 0.5, 0.1))
    assert float(debiased_nt_xent(views.bfloat16(), 0.5, 0.1)) == pytest.approx(wide, abs=0.02)


@pytest.mark.parametrize("tau", [0, 0.1, 0.9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_degenerate_embeddings_have_finite_losses_and_gradients(tau, dtype):
    for z in (torch.ones(2, 4, 3), torch.zeros(2, 4, 3), 100 * torch.eye(4)[:, :3].expand(2, 4, 3)):
        for chunk in (None, 3):
            z = z.to(dtype).clone().requires_grad_()
            loss = debiased_nt_xent(z, 0.01, tau, chunk=chunk)
            loss.backward()
            assert loss.isfinite() and loss.dtype == dtype
            assert z.grad.isfinite().all() or dtype == torch.float16  # 1/‖0‖ leaves its range
            z = z.detach()
    same = torch.ones(2, 4, 3, dtype=torch.float64)
    assert float(debiased_nt_xent(same, 0.5, 0.3)) == pytest.approx(math.log(7))  # g is the similarity itself


def test_what_the_loss_does_not_depend_on():
    views = draw(3, 6, 4)
    value = debiased_nt_xent(views, 0.5, 0.1)
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=g))[0]
    for other in (views[:, torch.randperm(6, generator=g)], views @ turn, 3 * views, views.roll(1, 0)):
        torch.testing.assert_close(debiased_nt_xent(other, 0.5, 0.1), value)
    shuffled = torch.stack([views[0], views[1].roll(1, 0), views[2]])
    assert abs(float(debiased_nt_xent(shuffled, 0.5, 0.1) - value)) > 1e-3


def arcs(n, prior, g):
    """n unit vectors of the plane: of the anchor's arc with chance `prior`, else of the other."""
    near = torch.rand(*n, generator=g, dtype=torch.float64) < prior
    turn = torch.rand(*n, generator=g, dtype=torch.float64)
    return torch.where(near, turn - 0.5, 1 + turn).cos()


def test_the_estimate_is_unbiased_where_the_truth_is_known_and_the_uncorrected_one_is_not():
    """Two arcs of the plane, the anchor in the middle of its own: the mean over the other by quadrature."""
    from scipy.integrate import quad

    t, prior, g = 0.5, 0.1, torch.Generator().manual_seed(0)
    truth = quad(lambda a: math.exp(math.cos(a) / t), 1, 2)[0]
    neg, pos = arcs((10_000, 512), prior, g), arcs((10_000, 8), 1.0, g)
    estimate = debiased_negative(neg, pos, t, prior, floor=False).exp()
    assert (estimate > 0).all()
    error = lambda x: abs(float(x.mean()) - truth) / (float(x.std()) / 100)
    assert error(estimate) < 4 < 40 < error(debiased_negative(neg, pos, t, 0).exp())


def test_the_oracle_leaves_same_class_negatives_out():
    views, labels = draw(2, 5).requires_grad_(), torch.tensor([0, 0, 1, 1, 2])
    moved = views.detach().clone()
    moved[:, 4] *= -1  # the only one of its class: a negative of all
    assert abs(float(oracle_nt_xent(moved, labels) - oracle_nt_xent(views, labels))) > 1e-3
    pair = torch.tensor([0, 0, 0, 0, -1])
    alone = torch.autograd.grad(oracle_nt_xent(views, torch.tensor([0, 0, 0, 0, 1])), views)[0]
    torch.testing.assert_close(torch.autograd.grad(oracle_nt_xent(views, pair), views)[0], alone)
    unknown = torch.full((5,), -1)
    torch.testing.assert_close(oracle_nt_xent(views, unknown), nt_xent(views[0], views[1]))


def test_the_prior_is_the_chance_of_two_of_a_class():
    assert class_prior(torch.arange(10).repeat(7)) == pytest.approx(0.1)
    assert class_prior(torch.tensor([0, 0, 0, 1, -1, -1])) == pytest.approx(0.625)
    assert class_prior(torch.tensor([2, 2, 2])) == 1


def test_what_cannot_be_is_told():
    views, labels = draw(), torch.zeros(5, dtype=torch.long)
    for tau in (-0.1, 1, 1.5, math.nan):
        with pytest.raises(ValueError, match="chance from 0 to below 1"):
            debiased_nt_xent(views, 0.5, tau)
    with pytest.raises(ValueError, match="chance"):
        DebiasedSimCLR(torch.nn.Identity(), torch.nn.Identity(), tau_plus=1.0)
    with pytest.raises(ValueError, match="no negatives"):
        debiased_nt_xent(views[:, :1])
    with pytest.raises(ValueError, match="two views"):
        debiased_nt_xent(views[:1])
    with pytest.raises(ValueError, match="temperature"):
        oracle_nt_xent(views, labels, 0)
    with pytest.raises(ValueError, match="temperature"):
        debiased_negative(views[0], views[0], -1, 0.1)
    with pytest.raises(ValueError, match="1 to 1 positives, 2"):
        debiased_nt_xent(views, positives=2)
    with pytest.raises(ValueError, match="chunk"):
        debiased_nt_xent(views, chunk=0)
    with pytest.raises(ValueError, match="of one class"):
        oracle_nt_xent(views, labels)
    with pytest.raises(ValueError, match="no picture has a label"):
        class_prior(labels - 1)
    with pytest.raises(ValueError, match="one random sample"):
        debiased_negative(views[0, :, :0], views[0], 0.5, 0.1)
    with pytest.warns(UserWarning, match="so large a share"):
        DebiasedSimCLR(torch.nn.Identity(), torch.nn.Identity(), tau_plus=0.5)


def build(generator, **options):
    encoder = backbone("conv:4x2", (1, 8, 8), generator=generator)
    return DebiasedSimCLR(encoder, ProjectionHead(encoder.out_dim, dim_out=6, generator=generator), **options)


def test_component(tmp_path):
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    check_component(build, x, tmp_path=tmp_path)


def test_all_views_go_through_together():
    model, twin = (build(torch.Generator().manual_seed(0), temperature=0.4, tau_plus=0.05) for _ in range(2))
    views = torch.rand(3, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    z = twin(views.flatten(0, 1))[1].view(3, 4, 6)
    torch.testing.assert_close(model.loss(*views), debiased_nt_xent(z, 0.4, 0.05))
    torch.testing.assert_close(model.encoder.blocks[0][1].running_mean, twin.encoder.blocks[0][1].running_mean)


def test_the_correction_pushes_negatives_harder():
    """e^{s⁻}/(τ⁻D) against e^{s⁻}/D', with D' > τ⁻D: the gradient of each negative's similarity grows with τ⁺."""
    z = F.normalize(draw(2, 8, 5), dim=2)
    pushes = []
    for tau in (0, 0.1):
        neg, pos = (z[0] @ z[1].T).clone().requires_grad_(), (z[0] * z[1]).sum(1, keepdim=True)
        log_g = debiased_negative(neg, pos, 0.5, tau)
        F.softplus(math.log(14) + log_g - pos[:, 0] / 0.5).sum().backward()
        pushes.append(neg.grad)
    assert (pushes[1] > pushes[0]).all()
