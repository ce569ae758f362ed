"""Rendering against closed forms; dense against packed; sampling against NumPy and its own density."""

import numpy as np
import pytest
import torch
from scipy import stats

from precis.fields.nerf_cameras import Rays
from precis.fields.nerf_render import composite, render_dense, render_rays, sample_pdf, stratified
from precis.nn.segment import ptr_of

F64 = torch.float64


def test_a_slab_of_constant_density():
    sigma, length, colour = 1.7, 0.9, torch.tensor([0.2, 0.5, 0.8], dtype=F64)
    n = 64
    edge = torch.linspace(2, 2 + length, n + 1, dtype=F64)
    packed = composite(torch.full((n,), sigma, dtype=F64), colour.expand(n, 3), edge[:-1], edge[1:],
                       torch.tensor([0, n]), 1.0)  # fmt: skip
    opacity = 1 - np.exp(-sigma * length)
    torch.testing.assert_close(packed.rgb[0], colour * opacity + (1 - opacity), atol=1e-9, rtol=0)
    torch.testing.assert_close(packed.opacity[0], torch.tensor(opacity, dtype=F64), atol=1e-9, rtol=0)
    # The depth is that of the mid-points: Σ (e^{−σ a_i} − e^{−σ b_i}) (a_i + b_i)/2.
    a, b = edge[:-1] - 2, edge[1:] - 2
    depth = ((torch.exp(-sigma * a) - torch.exp(-sigma * b)) * (2 + (a + b) / 2)).sum()
    torch.testing.assert_close(packed.depth[0], depth, atol=1e-9, rtol=0)
    dense = render_dense(torch.full((n,), sigma, dtype=F64), colour.expand(n, 3), edge[:-1], last=length / n)
    torch.testing.assert_close(dense.rgb, colour * opacity, atol=1e-7, rtol=0)
    assert float(dense.weights.sum()) == pytest.approx(opacity, abs=1e-7)


def random_samples(rays=7, seed=0, dtype=F64):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 9, (rays,), generator=g)
    lengths[2:3] = 0
    ptr = ptr_of(lengths)
    e = int(ptr[-1])
    sigma, rgb = torch.rand(e, generator=g, dtype=dtype) * 4, torch.rand(e, 3, generator=g, dtype=dtype)
    step = 0.1 + torch.rand(e, generator=g, dtype=dtype) * 0.3
    t0 = torch.cat([1 + s.cumsum(0) - s for s in step.split(lengths.tolist())])
    return sigma, rgb, t0, t0 + step, ptr


def test_packed_equals_dense_ray_by_ray():
    sigma, rgb, t0, t1, ptr = random_samples(dtype=torch.float32)
    background = torch.rand(7, 3, generator=torch.Generator().manual_seed(1))
    packed = composite(sigma, rgb, t0, t1, ptr, background)
    for r in range(7):
        part = slice(int(ptr[r]), int(ptr[r + 1]))
        if part.start == part.stop:
            assert torch.equal(packed.rgb[r], background[r]) and packed.opacity[r] == 0
            continue
        dense = render_dense(sigma[part], rgb[part], t0[part], None, background[r], last=t1[part][-1] - t0[part][-1])
        torch.testing.assert_close(packed.rgb[r], dense.rgb, atol=1e-6, rtol=0)
        torch.testing.assert_close(packed.weights[part], dense.weights, atol=1e-6, rtol=0)


def test_weights_and_what_is_left_sum_to_one():
    sigma, rgb, t0, t1, ptr = random_samples()
    packed = composite(sigma, rgb, t0, t1, ptr)
    left = torch.stack([torch.exp(-(sigma * (t1 - t0))[a:b].sum()) for a, b in zip(ptr[:-1], ptr[1:])])
    torch.testing.assert_close(packed.opacity + left, torch.ones(7, dtype=F64), atol=1e-12, rtol=0)


def test_gradients_of_both_renderers():
    sigma, rgb, t0, t1, ptr = random_samples(4)
    sigma.requires_grad_(), rgb.requires_grad_()
    loss = lambda s, c: torch.cat([x.flatten() for x in composite(s, c, t0, t1, ptr, 1.0)[:3]])
    assert torch.autograd.gradcheck(loss, (sigma, rgb))
    dense = lambda s, c: torch.cat([x.flatten() for x in render_dense(s, c, t0, None, 1.0, last=0.3)[:3]])
    assert torch.autograd.gradcheck(dense, (sigma, rgb))


def test_the_length_of_the_direction_is_in_the_optical_depth():
    sigma, rgb, t0, _, _ = random_samples(1, seed=3)
    long = render_dense(sigma, rgb, t0, torch.tensor(2.0, dtype=F64), last=0.1)
    double = render_dense(2 * sigma, rgb, t0, last=0.1)
    torch.testing.assert_close(long.rgb, double.rgb)


def test_the_inverse_cdf_is_numpy_s():
    g = torch.Generator().manual_seed(0)
    bins = torch.rand(5, 12, generator=g, dtype=F64).sort(-1).values
    weights = torch.rand(5, 11, generator=g, dtype=F64)
    found = sample_pdf(bins, weights, 33, deterministic=True)
    for row, w, edges in zip(found, weights.numpy(), bins.numpy()):
        cdf = np.concatenate([[0], np.cumsum(w + 1e-5) / (w + 1e-5).sum()])
        np.testing.assert_allclose(row, np.interp(np.linspace(0, 1, 33), cdf, edges), atol=1e-6)
    assert (found.diff(dim=-1) >= 0).all() and (found >= bins[:, :1]).all() and (found <= bins[:, -1:]).all()


def test_samples_follow_the_density():
    edges = torch.tensor([0.0, 0.5, 1.0, 2.0, 2.5])
    weights = torch.tensor([1.0, 0.0, 2.0, 5.0])
    x = sample_pdf(edges[None], weights[None], 100_000, generator=torch.Generator().manual_seed(0))[0]
    counts, _ = np.histogram(x, edges)
    pdf = (weights + 1e-5).double().numpy()
    assert stats.chisquare(counts, pdf / pdf.sum() * counts.sum()).pvalue > 1e-3


def test_no_weight_at_all_is_no_nan():
    x = sample_pdf(torch.linspace(0, 1, 9)[None], torch.zeros(1, 8), 50, generator=torch.Generator().manual_seed(0))
    assert x.isfinite().all() and x.min() >= 0 and x.max() <= 1


def test_stratified_samples_lie_one_in_each_bin():
    t = stratified(2.0, 6.0, 8, (100,), generator=torch.Generator().manual_seed(0))
    assert t.shape == (100, 8)
    assert torch.equal(((t - 2) / 0.5).floor(), torch.arange(8.0).expand(100, 8))
    torch.testing.assert_close(stratified(2.0, 6.0, 4), torch.tensor([2.5, 3.5, 4.5, 5.5]))
    near = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(stratified(near, near + 1, 1)[:, 0], near + 0.5)


def ball(x, d):
    """A hard ball of radius 0.5, coloured by position."""
    return torch.where(x.norm(dim=-1) < 0.5, 200.0, 0.0), (x + 1).clamp(0, 2) / 2


def test_the_fine_pass_finds_the_surface():
    rays = Rays(torch.tensor([[0.0, 0, 4], [0.0, 2, 4]]), torch.tensor([[0.0, 0, -2], [0.0, 0, -2]]))
    coarse, fine = render_rays(ball, rays, 1.0, 3.0, 16, 64, background=1.0)
    assert abs(float(fine.depth[0]) - 1.75) < 0.01 < abs(float(coarse.depth[0]) - 1.75)
    torch.testing.assert_close(fine.rgb[1], torch.ones(3))  # a miss is background
    assert fine.weights.shape == (2, 80)
    assert render_rays(ball, rays, 1.0, 3.0, 16, 0)[1] is None


def test_a_rigid_motion_of_everything_changes_nothing():
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=F64)).Q
    shift = torch.tensor([0.3, -1.0, 2.0], dtype=F64)
    o = torch.randn(6, 3, generator=g, dtype=F64) * 0.1 + torch.tensor([0, 0, 3.0], dtype=F64)
    d = torch.tensor([[0.0, 0, -1]], dtype=F64).expand(6, -1) + 0.05 * torch.randn(6, 3, generator=g, dtype=F64)
    field = lambda x, d: (torch.relu(1 - x.square().sum(-1)) * 3, torch.sigmoid(x + d))
    moved = lambda x, d: field((x - shift) @ turn, d @ turn)
    a = render_rays(field, Rays(o, d), 1.0, 5.0, 32, 32)[1]
    b = render_rays(moved, Rays(o @ turn.T + shift, d @ turn.T), 1.0, 5.0, 32, 32)[1]
    torch.testing.assert_close(a.rgb, b.rgb)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(render_rays(field, Rays(o[order], d[order]), 1.0, 5.0, 32, 32)[1].rgb, a.rgb[order])
