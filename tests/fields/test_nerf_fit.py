"""The recipes learn, resume to the bit, draw the right pixels; packed rendering is the dense sum."""

import contextlib
import copy

import pytest
import torch
from tests.data.scene_files import made

from precis.errors import Stopped
from precis.fields import nerf_grid
from precis.fields.nerf import tiny_nerf
from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerf_fast import fast_model, fast_renderer, fit_fast, hitting, render_packed
from precis.fields.nerf_fit import dense_renderer, fit_dense, photographs, render_view
from precis.fields.nerf_grid import march
from precis.fields.nerf_render import composite

rng = torch.Generator


@pytest.fixture(scope="module")
def scene():
    views = made(8, 24)
    cameras = Cameras(torch.from_numpy(views.c2w), torch.from_numpy(views.K), views.size)
    return views, cameras, torch.from_numpy(views.images)


def test_pixels_carry_their_own_rays_and_colours(scene):
    views, cameras, images = scene
    valid = torch.zeros(8, 24, 24, dtype=torch.bool)
    valid[:, 3:7, 5:9] = True
    photos = photographs(cameras, images, valid)
    assert len(photos.rgb) == 8 * 16
    rows, rays = photos.draw(50, rng().manual_seed(0))
    for row, d in zip(rows.tolist(), rays.d):
        v, (column, line) = int(photos.view[row]), photos.pix[row].tolist()
        assert valid[v, line, column] and torch.equal(photos.rgb[row], images[v, line, column, :3])
        torch.testing.assert_close(d, cameras.all_rays(v).d[line, column])
    found = photos.colours(rows, 1.0)
    white = torch.from_numpy(views.rgb())[photos.view[rows].long(), photos.pix[rows, 1].long(),
                                          photos.pix[rows, 0].long()]  # fmt: skip
    torch.testing.assert_close(found, white, atol=1e-6, rtol=0)


def test_the_dense_recipe_learns_and_resumes_to_the_bit(scene, tmp_path):
    _, cameras, images = scene
    photos = photographs(cameras, images)

    def run(steps, folder=None, resume=False, stop_at=None):
        net = tiny_nerf(width=16, generator=rng().manual_seed(0))

        def log(step, total, **scalars):
            if step == stop_at:
                raise Stopped

        options = dict(samples=6, fine_samples=6, rays=32, lr=5e-3, generator=rng().manual_seed(1), steps=steps,
                       folder=folder, resume=resume, log=log)  # fmt: skip
        try:
            found = fit_dense(net, photos, 2.0, 6.0, **options)
        except Stopped:
            return None, None
        return net, found

    whole, found = run(40)
    values = found.curves["loss"].values
    assert sum(values[-8:]) < 0.6 * sum(values[:8])
    import precis.train.loop as loop

    quick, loop.LOG_SECONDS = loop.LOG_SECONDS, -1.0
    try:
        assert run(40, tmp_path, stop_at=17) == (None, None)
    finally:
        loop.LOG_SECONDS = quick
    again, _ = run(40, tmp_path, resume=True)
    for a, b in zip(whole.parameters(), again.parameters()):
        assert torch.equal(a, b)


def test_only_rays_through_the_hull_are_learned_from(scene):
    views, cameras, images = scene
    model = fast_model(cameras, torch.from_numpy(views.aabb), images[..., 3] > 0, generator=rng().manual_seed(0))
    photos = photographs(cameras, images)
    kept = hitting(photos, model.grid, 2.0, 6.0)
    assert 0.1 < len(kept.rgb) / len(photos.rgb) < 0.6
    assert int((kept.alpha > 0).sum()) > 0.98 * int((photos.alpha > 0).sum())
    box, known = model.grid.aabb, torch.from_numpy(views.aabb)
    assert ((box[0] >= known[0] - 0.1) & (box[1] <= known[1] + 0.1)).all()


def test_the_fast_recipe_learns_a_scene(scene):
    views, cameras, images = scene
    model = fast_model(cameras, torch.from_numpy(views.aabb), images[..., 3] > 0, cells=32, resolution=24,
                       generator=rng().manual_seed(0))  # fmt: skip
    seen = []
    fit_fast(model, photographs(cameras, images), near=2.0, far=6.0, samples=2048, generator=rng().manual_seed(1),
             steps=60, measure=lambda step: seen.append(step) or {}, every=30)  # fmt: skip
    assert seen == [30, 60]
    render = fast_renderer(model, near=2.0, far=6.0)
    picture = render_view(render, cameras, 2)
    truth = torch.from_numpy(views.rgb())[2]
    flat = (truth - truth.mean((0, 1))).square().mean()
    assert (picture.rgb - truth).square().mean() < 0.35 * flat
    away = Rays(torch.tensor([[0.0, 0, 9]]), torch.tensor([[0.0, 0, 1]]))
    assert torch.equal(render(away).rgb, torch.ones(1, 3))  # a ray that meets nothing is background, exactly


def test_a_longer_run_goes_on_getting_better(scene, monkeypatch):
    """Far beyond the steps after which cells may die."""
    monkeypatch.setattr(nerf_grid, "WARM", 32)
    views, cameras, images = scene
    model = fast_model(cameras, torch.from_numpy(views.aabb), images[..., 3] > 0, cells=16, resolution=16,
                       generator=rng().manual_seed(0))  # fmt: skip
    found = fit_fast(model, photographs(cameras, images), near=2.0, far=6.0, samples=512, lr=6e-2,
                     generator=rng().manual_seed(1), steps=160)  # fmt: skip
    mse = torch.tensor(found.curves["mse"].values).view(8, 20).mean(1)
    assert mse[-1] < 0.6 * mse[3] and mse[-1] < 0.1 * mse[0], mse
    assert not model.grid.young


def test_a_user_who_resumes_a_fast_run_gets_the_same(scene, tmp_path):
    views, cameras, images = scene
    photos = photographs(cameras, images)

    def run(steps, folder, resume=False, budget=20):
        model = fast_model(cameras, torch.from_numpy(views.aabb), images[..., 3] > 0, cells=16, resolution=8,
                           generator=rng().manual_seed(0))  # fmt: skip

        def log(step, total, **scalars):
            if step >= steps:
                raise Stopped

        with contextlib.suppress(Stopped):
            fit_fast(model, photos, samples=512, generator=rng().manual_seed(1),
                     steps=budget, folder=folder, resume=resume, log=log)  # fmt: skip
        return model

    import precis.train.loop as loop

    quick, loop.LOG_SECONDS = loop.LOG_SECONDS, -1.0
    try:
        whole = run(99, None)
        run(13, tmp_path)  # stopped after the planes have grown
        again = run(99, tmp_path, resume=True)
    finally:
        loop.LOG_SECONDS = quick
    for name, value in whole.field.state_dict().items():
        assert torch.equal(value, again.field.state_dict()[name]), name


def test_packed_rendering_is_the_sum_over_samples(scene):
    views, cameras, images = scene
    box = torch.from_numpy(views.aabb)
    model = fast_model(cameras, box, None, cells=8, resolution=8, generator=rng().manual_seed(0))
    rays = cameras.rays(torch.zeros(30, dtype=torch.long), torch.arange(60).view(30, 2) % 24, unit=True)
    packed = march(rays, model.grid, 0.05)
    made_here = render_packed(model.field, rays, packed, 0.5, least=-1.0)
    x = rays.o[packed.ray] + ((packed.t0 + packed.t1) / 2)[:, None] * rays.d[packed.ray]
    sigma, rgb = model.field(x, rays.d[packed.ray])
    expected = composite(sigma, rgb, packed.t0, packed.t1, packed.ptr, 0.5)
    torch.testing.assert_close(made_here.rgb, expected.rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(made_here.depth, expected.depth, atol=1e-4, rtol=0)
    less = render_packed(model.field, rays, packed, 0.5, least=1e-3)
    assert (less.rgb - made_here.rgb).abs().max() < 0.05


def test_rendering_in_parts_is_rendering_at_once(scene):
    _, cameras, _ = scene
    net = tiny_nerf(width=16, generator=rng().manual_seed(0))
    whole = render_view(dense_renderer(net, 2.0, 6.0, 8, 8), cameras, 1)
    parts = render_view(dense_renderer(net, 2.0, 6.0, 8, 8, chunk=1000), cameras, 1)
    torch.testing.assert_close(whole.rgb, parts.rgb)
    assert whole.rgb.shape == (24, 24, 3) and whole.depth.shape == (24, 24)
    assert copy.deepcopy(net)(torch.zeros(1, 3), torch.ones(1, 3))[0].shape == (1,)
