"""The deformable field as a whole: it is a NeRF when nothing moves, renders alike by two ways, and learns a motion."""

import math

import pytest
import torch
from tests.helpers import check_component

from precis.fields.nerf import NerfMLP, tiny_nerf
from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerf_render import render_rays
from precis.fields.nerfies import (
    Codes,
    DeformableNerf,
    SE3Field,
    TranslationField,
    render_many,
    render_resampled,
    render_views,
)
from precis.fields.nerfies_fit import Pixels, all_pixels, annealed, fit_deformable
from precis.fields.nerfies_planes import PlaneTemplate


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(appearance: int = 8, kind=SE3Field, seed: int = 0, frames: int = 3) -> DeformableNerf:
    template = NerfMLP(2, 16, 0, 3, 2, colour_width=16, density="softplus", code_dim=appearance, generator=gen(seed))
    warp = kind(frames, bands=2, depth=2, width=16, generator=gen(seed))
    return DeformableNerf(template, warp, appearance, generator=gen(seed))


def test_with_heads_at_zero_it_is_a_nerf() -> None:
    one = model(appearance=0).double()
    with torch.no_grad():
        one.warp.head.weight.zero_()
    x, d = torch.randn(4, 7, 3, generator=gen(1), dtype=torch.float64), torch.randn(4, 1, 3, generator=gen(2)).double()
    codes = one.codes(torch.tensor([0, 1, 2, 0])).per_ray()
    for got, plain in zip(one(x, d, codes, 1.5), one.template(x, d), strict=True):
        torch.testing.assert_close(got, plain, atol=1e-12, rtol=0)
    static = DeformableNerf(one.template, None, 0, num_codes=3)
    for got, plain in zip(static(x, d, static.codes(torch.tensor(0)), 0.0), one.template(x, d), strict=True):
        assert torch.equal(got, plain)


def test_component(tmp_path) -> None:
    x, d = torch.randn(5, 3, generator=gen(1)), torch.randn(5, 3, generator=gen(2))
    codes = Codes(torch.randn(5, 8, generator=gen(3)), torch.randn(5, 8, generator=gen(4)))
    build = lambda g: DeformableNerf(
        NerfMLP(2, 16, 0, 3, 2, colour_width=16, code_dim=8, generator=g),
        TranslationField(3, bands=2, depth=2, width=16, generator=g), 8, generator=g,
    )  # fmt: skip
    check_component(build, x, d, *codes, call=lambda m, x, d, a, b: m(x, d, Codes(a, b), 1.0), tmp_path=tmp_path)


def test_codes_matter_where_they_should() -> None:
    one = model()
    with torch.no_grad():
        one.warp.head.weight.normal_(0, 0.3, generator=gen(3))
        one.appearance.normal_(0, 1, generator=gen(4))
        one.warp.codes.normal_(0, 1, generator=gen(5))
    x, d = torch.randn(6, 3, generator=gen(1)), torch.randn(6, 3, generator=gen(2))
    a, b = (one.codes(torch.full((6,), i)) for i in (0, 1))
    look = lambda codes: one(x, d, codes, 2.0)
    sigma, rgb = look(a)
    other_look = look(a._replace(appearance=b.appearance))
    assert torch.equal(other_look[0], sigma) and not torch.allclose(other_look[1], rgb)
    assert not torch.allclose(look(a._replace(deformation=b.deformation))[0], sigma)
    half = a.mixed(b, 0.5)
    torch.testing.assert_close(half.deformation, (a.deformation + b.deformation) / 2)


def rays(n: int = 5) -> Rays:
    d = torch.nn.functional.normalize(torch.randn(n, 3, generator=gen(6)), dim=1)
    return Rays(-2 * d + 0.1 * torch.randn(n, 3, generator=gen(7)), d)


@pytest.mark.parametrize("fine", [0, 6])
def test_rendering_is_nerfs(fine: int) -> None:
    static = DeformableNerf(tiny_nerf(generator=gen()), None, 0, num_codes=1)
    codes = static.codes(torch.zeros(5, dtype=torch.long))
    ours = render_views(static, rays(), codes, 0.0, 1.0, 3.0, 8, fine, generator=gen(3))
    coarse, better = render_rays(static.template, rays(), 1.0, 3.0, 8, fine, generator=gen(3))
    torch.testing.assert_close(ours.coarse.rgb, coarse.rgb)
    assert (ours.fine is None) == (better is None)
    if better is not None:
        torch.testing.assert_close(ours.best.rgb, better.rgb)


class Ball(torch.nn.Module):
    """Density 30 inside the unit ball, the colour of the place."""

    def forward(self, x, d):
        return 30.0 * (x.norm(dim=-1) < 1), (x + 1) / 2

    def density(self, x):
        return 30.0 * (x.norm(dim=-1) < 1)


def test_resampled_rendering_goes_to_the_dense_one() -> None:
    ball = DeformableNerf(Ball(), None, 0, num_codes=1)
    codes = ball.codes(torch.zeros(5, dtype=torch.long))
    dense = render_views(ball, rays(), codes, 0.0, 0.5, 3.5, 4000, 0, background=1.0).best
    few = render_resampled(ball, rays(), codes, 0.0, 0.5, 3.5, 100, 100, background=1.0).best
    torch.testing.assert_close(few.rgb, dense.rgb, atol=0.03, rtol=0)
    torch.testing.assert_close(few.depth, dense.depth, atol=0.05, rtol=0)
    rgb, opacity, depth = render_many(
        lambda r, c: render_views(ball, r, c, 0.0, 0.5, 3.5, 4000, 0, background=1.0).best, rays(), codes, chunk=2
    )
    torch.testing.assert_close(rgb, dense.rgb)
    torch.testing.assert_close(opacity, dense.opacity)


def test_planes_with_a_code(tmp_path) -> None:
    box = [[-1.0, -1, -1], [1, 1, 1]]
    build = lambda g: PlaneTemplate(box, 6, step=0.1, appearance_dim=4, generator=g)
    x = torch.rand(5, 3, generator=gen(1)) * 1.8 - 0.9
    d = torch.nn.functional.normalize(torch.randn(5, 3, generator=gen(2)), dim=1)
    code = torch.randn(5, 4, generator=gen(3))
    check_component(build, x, d, code, tmp_path=tmp_path, dtype=False)
    one = build(gen())
    from precis.fields.nerf_planes import PlaneField

    plain = PlaneField(box, 6, step=0.1, generator=gen())
    for a, b in zip(one(x, d, code), plain(x, d), strict=True):  # the code's map starts at 0
        torch.testing.assert_close(a, b)
    assert one.density(2 * torch.ones(1, 3)) == 0
    with torch.no_grad():
        one.of_code.weight.normal_(generator=gen(4))
    assert torch.equal(one(x, d, code)[0], plain(x, d)[0]) and not torch.allclose(one(x, d, code)[1], plain(x, d)[1])
    wide, h = one.double(), 1e-6
    at = x.double().requires_grad_()
    (grad,) = torch.autograd.grad(wide.density(at).sum(), at)
    for axis, e in enumerate(h * torch.eye(3, dtype=torch.float64)):
        slope = (wide.density(at + e) - wide.density(at - e)) / (2 * h)
        torch.testing.assert_close(grad[:, axis], slope, atol=1e-5, rtol=1e-4)


def scene() -> tuple[Cameras, Pixels]:
    """Three pictures, 6 × 6, of nothing in particular."""
    c2w = torch.eye(4)[:3].repeat(3, 1, 1)
    c2w[:, 2, 3] = 2.0
    cameras = Cameras(c2w, torch.tensor([[6.0, 6, 3, 3]]).repeat(3, 1), (6, 6))
    images = torch.randint(0, 256, (3, 6, 6, 3), generator=gen(), dtype=torch.uint8)
    return cameras, all_pixels(cameras, images)


def test_pixels_are_in_the_order_of_the_pictures() -> None:
    cameras, pixels = scene()
    row = (pixels.view == 2) & (pixels.pix[:, 0] == 4) & (pixels.pix[:, 1] == 1)
    assert row.sum() == 1 and row.nonzero() == 2 * 36 + 1 * 6 + 4


def test_the_terms_of_the_loss_shift_nothing_else() -> None:
    """With and without elastic and background terms, the first step sees the same rays and samples."""
    cameras, pixels = scene()
    points = torch.rand(20, 3, generator=gen(9))
    curves = {}
    for name, options in (("all", {"elastic": 0.1, "static_points": points}), ("none", {"elastic": 0.0})):
        run = fit_deformable(
            model(), cameras, pixels, 1.0, 3.0, rays=16, samples=8, fine_samples=0, steps=3, background_points=8,
            generator=gen(1), noise=gen(2), background=1.0, **options,
        )  # fmt: skip
        curves[name] = run.curves
    assert curves["all"]["mse"].values[0] == curves["none"]["mse"].values[0]
    assert "elastic" in curves["all"] and "background" in curves["all"] and "elastic" not in curves["none"]
    assert all(math.isfinite(v) for v in curves["all"]["loss"].values)
    assert curves["all"]["loss"].values[0] > curves["none"]["loss"].values[0]


def test_schedule_of_the_bands() -> None:
    alpha = annealed(4)
    assert alpha(0.0) == 0 and alpha(0.3) == pytest.approx(2) and alpha(0.6) == alpha(1.0) == 4


def test_a_shift_between_two_frames_is_learned() -> None:
    """A wall of stripes that is 0.2 further right in the second frame: T brings it back, a static field cannot."""
    size, n = 24, 2
    c2w = torch.eye(4)[:3].repeat(n, 1, 1)
    c2w[:, 2, 3] = 1.0
    cameras = Cameras(c2w, torch.tensor([[24.0, 24, 12, 0.5]]).repeat(n, 1), (size, 1))
    x = (torch.arange(size) + 0.5 - 12) / 24
    images = torch.stack([torch.sin(12 * (x - s)) * 0.5 + 0.5 for s in (0.0, 0.2)])
    images = (images * 255).to(torch.uint8)[:, None, :, None].expand(n, 1, size, 3).contiguous()

    def fitted(warp):
        made = DeformableNerf(
            NerfMLP(2, 32, 0, 3, 0, colour_width=16, density="softplus", generator=gen()), warp, 0, num_codes=n
        )
        run = fit_deformable(
            made, cameras, all_pixels(cameras, images), 0.5, 1.5, rays=48, samples=6, fine_samples=0, elastic=0.0,
            lr=1e-2, steps=70, generator=gen(1), noise=gen(2),
        )  # fmt: skip
        return made, sum(run.curves["mse"].values[-10:]) / 10

    moving, error = fitted(SE3Field(n, bands=2, depth=2, width=32, generator=gen()))
    _, still = fitted(None)
    assert error < 0.4 * still
