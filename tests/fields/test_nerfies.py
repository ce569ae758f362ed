"""Rigid motions, deformation fields and their losses: against matrix exponentials, torch.func and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component

from precis.fields.nerfies import SE3Field, TranslationField, cosine_window
from precis.fields.nerfies_losses import (
    background_loss,
    draw_sample,
    elastic_loss,
    general_robust,
    log_singular_values,
)
from precis.fields.nerfies_se3 import hat, screw, screw_tangents, se3_apply, se3_exp, so3_exp, so3_log

ANGLES = [0.0, 1e-8, 1e-5, 1e-4, 1e-3, 0.1, 0.4999, 0.5, 0.5001, 1.0, 2.0, 3.0]


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=gen(seed), dtype=torch.float64)


def axis(n: int, seed: int = 1) -> torch.Tensor:
    return torch.nn.functional.normalize(normal(n, 3, seed=seed), dim=-1)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("angle", ANGLES)
def test_exponentials_are_those_of_the_matrices(angle: float) -> None:
    w, v, x = angle * axis(20), normal(20, 3, seed=2), normal(20, 3, seed=3)
    twist = torch.zeros(20, 4, 4, dtype=torch.float64)
    twist[:, :3, :3], twist[:, :3, 3] = hat(w), v
    motion = se3_exp(w, v)
    close(motion, torch.linalg.matrix_exp(twist))
    close(so3_exp(w), torch.linalg.matrix_exp(hat(w)))
    close(motion[:, :3, :3] @ motion[:, :3, :3].mT, torch.eye(3, dtype=torch.float64).expand(20, 3, 3))
    close(torch.linalg.det(motion), torch.ones(20, dtype=torch.float64))
    close(screw(w, v, x), se3_apply(motion, x))


def test_gradient_at_rest_is_the_basis_of_generators() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    by_w = torch.func.jacrev(lambda w: se3_exp(w, zero))(zero)
    by_v = torch.func.jacrev(lambda v: se3_exp(zero, v))(zero)
    for i, e in enumerate(torch.eye(3, dtype=torch.float64)):
        generator = torch.zeros(4, 4, dtype=torch.float64)
        generator[:3, :3] = hat(e)
        close(by_w[..., i], generator, 1e-15)
        generator = torch.zeros(4, 4, dtype=torch.float64)
        generator[:3, 3] = e
        close(by_v[..., i], generator, 1e-15)


@pytest.mark.parametrize("angle", ANGLES)
def test_gradients_of_the_exponential(angle: float) -> None:
    w, v = (angle * axis(3)).requires_grad_(), normal(3, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(se3_exp, (w, v), atol=1e-7, rtol=1e-6)
    single = (angle * axis(3)).float().requires_grad_()
    (grad,) = torch.autograd.grad(se3_exp(single, v.detach().float()).sum(), single)
    (wide,) = torch.autograd.grad(se3_exp(w, v.detach()).sum(), w)
    torch.testing.assert_close(grad.double(), wide, atol=3e-6, rtol=3e-6)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, math.pi - 1e-6), st.integers(0, 10_000))
def test_logarithm_undoes_the_exponential(angle: float, seed: int) -> None:
    w = angle * axis(4, seed)
    close(so3_log(so3_exp(w)), w, 1e-8)


def test_logarithm_of_half_turns_and_at_rest() -> None:
    w = math.pi * torch.cat([axis(6), torch.eye(3, dtype=torch.float64)])
    r = so3_exp(w)
    close(so3_exp(so3_log(r)), r, 1e-8)
    eye = torch.eye(3, dtype=torch.float64).requires_grad_()
    (grad,) = torch.autograd.grad(so3_log(eye).sum(), eye)
    assert so3_log(eye).abs().max() == 0 and grad.isfinite().all()


@pytest.mark.parametrize("angle", ANGLES)
def test_tangents_of_a_screw(angle: float) -> None:
    args = (angle * axis(5), normal(5, 3, seed=2), normal(5, 3, seed=3))
    along = tuple(normal(4, 5, 3, seed=s) for s in (4, 5, 6))
    value, tangents = screw_tangents(*args, *along)
    close(value, screw(*args))
    for k in range(4):
        close(tangents[k], torch.func.jvp(screw, args, tuple(d[k] for d in along))[1])


FIELDS = [
    lambda **kw: SE3Field(5, generator=gen(), **kw), lambda **kw: SE3Field(5, pivot=True, generator=gen(), **kw),
    lambda **kw: SE3Field(5, pivot=True, translation=True, generator=gen(), **kw),
    lambda **kw: TranslationField(5, generator=gen(), **kw),
]  # fmt: skip


def bent(field):
    """A field far from its start, so that all its parts matter."""
    with torch.no_grad():
        field.head.weight.normal_(0, 0.5, generator=gen(7))
        field.head.bias.normal_(0, 0.3, generator=gen(8))
        field.codes.normal_(0, 1, generator=gen(9))
    return field.double()


@pytest.mark.parametrize("build", FIELDS)
@pytest.mark.parametrize("alpha", [0.0, 1.3, 3.0])
def test_jacobian_is_that_of_torch_func(build, alpha: float) -> None:
    field = bent(build(bands=3, depth=6, width=16))
    x, code = normal(6, 3), field.codes[torch.tensor([0, 1, 2, 3, 4, 0])]
    moved, j = field(x, code, alpha, jacobian=True)
    close(moved, field(x, code, alpha)[0], 1e-12)
    one = lambda z, c: field(z[None], c[None], alpha)[0][0]
    close(j, torch.func.vmap(torch.func.jacrev(one))(x, code), 1e-8)


@pytest.mark.parametrize("build", FIELDS[:1] + FIELDS[-1:])
def test_one_code_a_ray_is_a_code_a_sample(build) -> None:
    field = bent(build(bands=3, depth=6, width=16))
    x, code = normal(4, 7, 3), field.codes[:4]
    moved, j = field(x, code[:, None], 2.0, jacobian=True)
    flat, j_flat = field(x.reshape(-1, 3), code.repeat_interleave(7, 0), 2.0, jacobian=True)
    close(moved.reshape(-1, 3), flat)
    close(j.reshape(-1, 3, 3), j_flat)


def test_field_by_hand() -> None:
    """A plain forward pass with the encoding written out, the skip before layer 4 and (w, v) from the head."""
    field = bent(SE3Field(3, 2, bands=2, depth=6, width=8, generator=gen()))
    x, code, alpha = normal(5, 3), normal(5, 2, seed=4), 1.5
    window = [0.5 * (1 - math.cos(math.pi * min(max(alpha - j, 0), 1))) for j in range(2)]
    features = torch.cat([x, *(window[j] * f(2**j * x) for j in range(2) for f in (torch.sin, torch.cos)), code], -1)
    h = features
    for i, layer in enumerate(field.layers):
        h = layer(torch.cat([h, features], -1) if i == 4 else h).relu()
    w, v = field.head(h).split(3, -1)
    close(field(x, code, alpha)[0], se3_apply(se3_exp(w, v), x))


@pytest.mark.parametrize("kind", [SE3Field, TranslationField])
def test_fields_start_next_to_the_identity(kind) -> None:
    field = kind(4, generator=gen())
    x = torch.rand(50, 3, generator=gen(1)) * 2 - 1
    moved, j = field(x, field.codes[:1], 8.0, jacobian=True)
    assert 0 < (moved - x).abs().max() < 0.02 and (j - torch.eye(3)).abs().max() < 0.3
    assert field.codes.min() >= 0 and field.codes.max() < 0.05
    assert 0 <= field.head.weight.min() and field.head.weight.max() < 1e-4


@pytest.mark.parametrize("kind", [SE3Field, TranslationField])
def test_component(kind, tmp_path) -> None:
    x, code = torch.randn(6, 3, generator=gen(1)), torch.randn(6, 8, generator=gen(2))
    build = lambda g: kind(3, bands=3, width=16, generator=g)
    check_component(build, x, code, call=lambda m, x, c: m(x, c, 2.0, jacobian=True), tmp_path=tmp_path)


def test_window() -> None:
    assert cosine_window(4, 0).tolist() == [0] * 4 and cosine_window(4, 4.5).tolist() == [1] * 4
    assert cosine_window(4, 2.5)[2] == pytest.approx(0.5)
    alpha = torch.linspace(0, 4, 400, dtype=torch.float64).requires_grad_()
    slopes = torch.stack([torch.autograd.grad(cosine_window(4, a).sum(), a)[0] for a in alpha])
    assert slopes.diff().abs().max() < 0.06  # at a kink of the clip the slope would jump by more


def test_robust_loss_is_its_closed_forms_and_limits() -> None:
    r2 = torch.linspace(0, 9, 30, dtype=torch.float64)
    c = 0.7
    x = r2 / c**2
    geman = 2 * x / (x + 4)
    close(general_robust(r2, -2, c), geman)
    close(general_robust(r2, -2 + 1e-9, c), geman, 1e-6)
    limits = {2: x / 2, 0: torch.log(x / 2 + 1), -math.inf: 1 - torch.exp(-x / 2), math.inf: torch.expm1(x / 2)}
    for alpha, value in limits.items():
        close(general_robust(r2, alpha, c), value, 1e-12)
        near = {2: 2 - 1e-9, 0: 1e-9, -math.inf: -1e9, math.inf: 1e9}[alpha]
        close(general_robust(r2, near, c), value, 1e-6)
    with pytest.raises(ValueError, match="positive"):
        general_robust(r2, -2, 0.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 5))
def test_elastic_loss_sees_stretch_only(seed: int, s: float) -> None:
    q, p, j = so3_exp(normal(3, seed=seed)), so3_exp(normal(3, seed=seed + 1)), normal(4, 3, 3, seed=seed)
    assert elastic_loss(q[None]) < 1e-8
    close(log_singular_values(s * q).square().sum(), torch.tensor(3 * math.log(s) ** 2, dtype=torch.float64), 1e-8)
    close(elastic_loss(q @ j), elastic_loss(j), 1e-7)
    close(elastic_loss(j @ q), elastic_loss(j), 1e-7)
    expected = 0.03 * general_robust(torch.linalg.svdvals(p @ j).log().square().sum(-1), -2, 0.03).mean()
    close(elastic_loss(p @ j), expected, 1e-6)


def test_elastic_loss_has_a_gradient_where_singular_values_are_equal() -> None:
    j = torch.eye(3, dtype=torch.float64).expand(2, 3, 3).clone().requires_grad_()
    (grad,) = torch.autograd.grad(elastic_loss(1.01 * j), j)
    # d/dJ of ‖log Σ‖² at s·I is 2 log(s)/s · I, and c·ρ'(r²) = c · 8/c² / (r²/c² + 4)²
    r2 = 3 * math.log(1.01) ** 2
    slope = 0.03 * 8 / 0.03**2 / (r2 / 0.03**2 + 4) ** 2 * 2 * math.log(1.01)
    close(grad, slope / 2 * torch.eye(3, dtype=torch.float64).expand(2, 3, 3), 1e-8)


def test_a_rigid_field_costs_nothing_and_a_scaling_one_does() -> None:
    field = SE3Field(2, bands=2, width=8, generator=gen()).double()
    with torch.no_grad():
        field.head.weight.zero_()
        field.head.bias.copy_(torch.tensor([0.7, -1.1, 0.4, 0.3, 0.2, -0.5]))
    _, j = field(normal(20, 3), field.codes[:1], 2.0, jacobian=True)
    assert elastic_loss(j) < 1e-8 and log_singular_values(j).abs().max() < 1e-9
    assert elastic_loss(1.5 * j) > 0.01


def test_one_drawn_sample_stands_for_the_weighted_sum() -> None:
    w = torch.rand(3, 5, generator=gen(1), dtype=torch.float64) ** 3
    w[2] = 0
    h = normal(3, 5, seed=2)
    g = gen(3)
    draws = torch.zeros(3, 5, dtype=torch.float64)
    for _ in range(4000):
        index, mass = draw_sample(w, g)
        draws[torch.arange(3), index] += mass / 4000
    torch.testing.assert_close((draws * h).sum(1), (w * h).sum(1), atol=0.06, rtol=0)
    assert mass[2] == 0
    weighted = elastic_loss(torch.diag_embed(h.exp()[..., None] * torch.ones(3, dtype=torch.float64)), w)
    by_hand = 0.03 * general_robust(3 * h**2, -2, 0.03)
    close(weighted, (w * by_hand).sum(1).mean())


def test_background_loss() -> None:
    field = SE3Field(2, bands=2, width=8, generator=gen()).double()
    points, code = normal(9, 3), field.codes[torch.zeros(9, dtype=torch.long)]
    with torch.no_grad():
        field.head.weight.zero_()
    assert background_loss(field, points, code, 1.0) == 0
    with torch.no_grad():
        field.head.bias[5] = 0.002  # every point rises by two scales: ρ = 2·4/(4 + 4) = 1
    close(background_loss(field, points, code, 1.0), torch.tensor(1e-3, dtype=torch.float64), 1e-9)
