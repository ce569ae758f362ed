"""Losses of a proposal against closed forms and double sums; a scene without a border is learned with one."""

import math

import pytest
import torch
from tests.data.scene_files import made

from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerf_fit import photographs, render_view
from precis.fields.nerf_open import OPEN_BOX
from precis.fields.nerf_planes import PlaneField
from precis.fields.nerf_proposal import (
    ProposalField,
    ProposalModel,
    edges_about,
    fit_proposals,
    look,
    proposal_renderer,
)
from precis.fields.nerf_proposal_losses import EPS, distortion_loss, interlevel_loss, outer
from precis.fields.nerf_render import interval_weights

F64 = torch.float64


def histogram(n, seed, rays=5):
    g = torch.Generator().manual_seed(seed)
    s = torch.rand(rays, n + 1, generator=g, dtype=F64).sort(-1).values
    s[:, 0], s[:, -1] = 0, 1
    w = torch.rand(rays, n, generator=g, dtype=F64)
    return s, 0.9 * w / w.sum(-1, keepdim=True)


def test_the_bound_is_the_sum_over_all_intervals_that_overlap():
    s, _ = histogram(7, 0)
    s_hat, w_hat = histogram(11, 1)
    s[0, 3] = s_hat[0, 4]  # an edge of both: what only touches does not count
    found = outer(s, s_hat, w_hat)
    for r in range(len(s)):
        for i in range(7):
            a, b = float(s[r, i]), float(s[r, i + 1])
            expected = sum(float(w_hat[r, j]) for j in range(11) if s_hat[r, j] < b and s_hat[r, j + 1] > a)
            assert float(found[r, i]) == pytest.approx(expected, abs=1e-12)


def test_interlevel_loss_is_0_for_a_proposal_that_bounds_the_weights():
    s, w = histogram(12, 2)
    assert float(interlevel_loss(s, w, s, w)) < 1e-20
    coarser = w.view(5, 6, 2).sum(-1)  # the same weight in half as many intervals
    assert float(interlevel_loss(s, w, s[:, ::2], coarser)) == pytest.approx(0, abs=1e-20)
    finer = torch.stack([s[:, :-1], (s[:, 1:] + s[:, :-1]) / 2], -1).flatten(1)
    finer = torch.cat([finer, s[:, -1:]], 1)
    assert float(interlevel_loss(s, w, finer, (w / 2).repeat_interleave(2, 1))) == pytest.approx(0, abs=1e-20)


def test_interlevel_loss_on_two_histograms_of_different_bins():
    s, w = torch.tensor([[0.0, 0.3, 0.6, 1.0]], dtype=F64), torch.tensor([[0.2, 0.5, 0.1]], dtype=F64)
    s_hat = torch.tensor([[0.0, 0.5, 1.0]], dtype=F64)
    w_hat = torch.tensor([[0.05, 0.3]], dtype=F64, requires_grad=True)
    w.requires_grad_()
    # Bounds: 0.05 in [0, 0.3], 0.35 in [0.3, 0.6], 0.3 in [0.6, 1].
    expected = 0.15**2 / (0.2 + EPS) + 0.15**2 / (0.5 + EPS)
    loss = interlevel_loss(s, w, s_hat, w_hat)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert w.grad is None  # the field is left alone
    slope = (-2 * 0.15 / (0.2 + EPS) - 2 * 0.15 / (0.5 + EPS), -2 * 0.15 / (0.5 + EPS))
    assert w_hat.grad[0].tolist() == pytest.approx(slope, rel=1e-9)


def test_distortion_against_the_double_sum():
    s, w = histogram(20, 3)
    w.requires_grad_()
    m = (s[:, 1:] + s[:, :-1]) / 2
    between = (w[:, :, None] * w[:, None] * (m[:, :, None] - m[:, None]).abs()).sum((1, 2))
    expected = (between + (w.square() * s.diff(dim=-1)).sum(-1) / 3).mean()
    torch.testing.assert_close(distortion_loss(s, w), expected, atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(lambda w: distortion_loss(s, w), (w,))
    one = torch.zeros(1, 20, dtype=F64)
    one[0, 7] = 1
    assert float(distortion_loss(s[:1], one)) == pytest.approx(float(s[0, 8] - s[0, 7]) / 3, rel=1e-12)


def test_weights_of_intervals_and_edges_about_samples():
    sigma, delta = torch.full((3, 9), 2.0, dtype=F64), torch.full((3, 9), 0.1, dtype=F64)
    w = interval_weights(sigma, delta)
    expected = [math.exp(-0.2 * i) * (1 - math.exp(-0.2)) for i in range(9)]
    assert w[0].tolist() == pytest.approx(expected, rel=1e-12)
    edges = edges_about(torch.tensor([[0.1, 0.2, 0.5]], dtype=F64))
    assert edges[0].tolist() == pytest.approx([0.05, 0.15, 0.35, 0.65])
    assert edges_about(torch.tensor([[0.0, 0.9, 1.0]], dtype=F64))[0].tolist() == pytest.approx([0, 0.45, 0.95, 1])


class Shell:
    """Density on a thin shell at distance 0.8, and 10 beyond 30."""

    def density(self, x):
        r = x.norm(dim=-1)
        return torch.where((r - 0.8).abs() < 0.03, 60.0, 0.0) + torch.where(r > 30, 10.0, 0.0)


def test_the_field_is_looked_at_where_the_proposal_has_weight():
    field = PlaneField(OPEN_BOX, 4, step=0.1, density_parts=1, colour_parts=1, width=4,
                       generator=torch.Generator().manual_seed(0))  # fmt: skip
    rays = Rays(torch.zeros(6, 3), torch.nn.functional.normalize(torch.randn(6, 3), dim=-1))
    found = look(ProposalModel(field, Shell(), (64, 48)), rays, 0.05, 200.0)
    s_of = lambda t: (t / 2 if t < 1 else 1 - 1 / (2 * t)) - 0.025
    span = (1 - 1 / 400) - 0.025
    low, high = s_of(0.75) / span, s_of(0.85) / span
    middle = (found.s[:, 1:] + found.s[:, :-1]) / 2
    assert ((middle > low) & (middle < high)).sum(1).min() > 40
    assert found.s.shape == (6, 49) and found.w.shape == (6, 48) and found.w_hat.shape == (6, 64)
    assert (found.s.diff(dim=-1) >= 0).all() and float(found.w_hat.sum(-1).min()) > 0.9
    again = look(ProposalModel(field, Shell(), (64, 48)), rays, 0.05, 200.0)
    assert torch.equal(found.made.rgb, again.made.rgb)


@pytest.fixture(scope="module")
def world():
    """Eight photographs of the bust before a wall without opacity, with cameras at a distance of 1."""
    views = made(8, 20)
    c2w = torch.from_numpy(views.c2w).clone()
    c2w[:, :, 3] /= c2w[:, :, 3].norm(dim=-1, keepdim=True)
    x = torch.from_numpy(views.images).float()
    wall = torch.tensor([90.0, 140.0, 60.0])
    images = (x[..., :3] * x[..., 3:] / 255 + wall * (1 - x[..., 3:] / 255)).round().to(torch.uint8)
    return photographs(Cameras(c2w, torch.from_numpy(views.K), views.size), images)


def small(seed=0):
    g = torch.Generator().manual_seed(seed)
    field = PlaneField(OPEN_BOX, 16, step=4 * 3**0.5 / 384, density_parts=4, colour_parts=6, width=16, generator=g)
    return ProposalModel(field, ProposalField(levels=3, finest=32, log2_size=12, generator=g), (24, 16))


def test_a_scene_without_a_border_is_learned(world):
    model = small()
    run = fit_proposals(model, world, near=0.05, far=200.0, samples=1024, steps=80, lr=5e-2, net_lr=5e-3,
                        generator=torch.Generator().manual_seed(1))  # fmt: skip
    mse = run.curves["mse"].values
    assert sum(mse[-10:]) < 0.4 * sum(mse[:10]), mse
    assert min(run.curves["interlevel"].values) >= 0 and max(run.curves["interlevel"].values) > 0
    picture = render_view(proposal_renderer(model, near=0.05, far=200.0), world.cameras, 1)
    whole = proposal_renderer(model, near=0.05, far=200.0, chunk=7)(
        Rays(*(x.reshape(-1, 3)[:30] for x in world.cameras.all_rays(1)))
    )
    torch.testing.assert_close(whole.rgb, picture.rgb.reshape(-1, 3)[:30], atol=1e-5, rtol=0)
    assert 0 <= float(picture.opacity.min()) and float(picture.opacity.max()) <= 1 + 1e-5


def test_a_stopped_training_goes_on_to_the_bit(world, tmp_path, monkeypatch):
    from precis.errors import Stopped
    from precis.train import loop

    monkeypatch.setattr(loop, "LOG_SECONDS", -1.0)

    def run(folder, stop=None, resume=False):
        def log(step, total, **scalars):
            if step == stop:
                raise Stopped

        model = small()
        try:
            fit_proposals(model, world, near=0.05, far=200.0, samples=256, steps=12, log=log, folder=folder,
                          generator=torch.Generator().manual_seed(1), resume=resume)  # fmt: skip
        except Stopped:
            return None
        return [*model.field.state_dict().values(), *model.proposal.state_dict().values()]

    whole = run(None)
    assert run(tmp_path, stop=7) is None
    for a, b in zip(whole, run(tmp_path, resume=True), strict=True):
        assert torch.equal(a, b)


def test_gradients_of_the_pixels_leave_the_proposal_alone(world):
    model = small()
    _, rays = world.draw(8, torch.Generator().manual_seed(0))
    found = look(model, rays.unit(), 0.05, 200.0, 1.0, torch.Generator().manual_seed(2))
    found.made.rgb.sum().backward(retain_graph=True)
    assert all(p.grad is None for p in model.proposal.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.field.parameters())
    for p in model.field.parameters():
        p.grad = None
    interlevel_loss(found.s, found.w, found.s_hat, found.w_hat).backward()
    assert all(p.grad is None for p in model.field.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.proposal.parameters())
