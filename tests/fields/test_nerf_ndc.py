"""The cube of a forward-facing scene: rays, directions and distances there and back; a wall at a known depth."""

import pytest
import torch

from precis.fields.nerf_cameras import Cameras, Rays, look_at
from precis.fields.nerf_fit import dense_renderer
from precis.fields.nerf_ndc import Frustum, NdcCameras, NdcField, frustum, ndc_renderer, restored

F64 = torch.float64


def nine(dtype=torch.float32, towards=(0.0, 0.0, 0.0)):
    """3×3 cameras side by side, 4 from the middle of things, not along an axis of the world."""
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=F64)).Q
    turn = turn * torch.linalg.det(turn)
    place = torch.tensor([[0.3 * x, 0.3 * y, 4.0] for x in (-1, 0, 1) for y in (-1, 0, 1)], dtype=F64) @ turn.T
    up = turn[:, 1]
    c2w = look_at(place, turn @ torch.tensor(towards, dtype=F64), up)
    return Cameras(c2w.to(dtype), torch.tensor([[20.0, 22, 8, 6]], dtype=dtype).repeat(9, 1), (16, 12))


def world_rays(cameras, n=40):
    g = torch.Generator().manual_seed(1)
    view = torch.randint(len(cameras), (n,), generator=g)
    pix = torch.rand(n, 2, generator=g, dtype=F64) * torch.tensor([15, 11])
    return cameras.rays(view, pix)


def in_both():
    """A cube, and rays in the world and in it."""
    cameras = nine(F64)
    view = frustum(cameras, 1.5)
    rays = world_rays(cameras)
    return view, rays, view.rays(rays)


def test_points_of_a_ray_and_of_its_image_in_the_cube_are_the_same():
    view, rays, inside = in_both()
    t = torch.linspace(0, 0.95, 40, dtype=F64)
    x = rays.o + (view.distances(rays, t) / rays.d.norm(dim=-1))[:, None] * rays.d
    local = (x - view.pose[:, 3]) @ view.pose[:, :3]
    ax, ay = -2 * 20 / 16, -2 * 22 / 12
    cube = torch.stack([ax * local[:, 0] / local[:, 2], ay * local[:, 1] / local[:, 2], 1 + 3.0 / local[:, 2]], -1)
    torch.testing.assert_close(inside.o + t[:, None] * inside.d, cube, atol=1e-10, rtol=0)
    torch.testing.assert_close(local[t == 0][:, 2], torch.tensor([-1.5], dtype=F64))  # begins on the near plane
    assert (inside.o[:, 2] + 1).abs().max() < 1e-12


def test_points_come_back_and_a_sphere_s_normals_with_them():
    view, rays, inside = in_both()
    t = torch.linspace(0, 0.95, 40, dtype=F64)
    x = rays.o + (view.distances(rays, t) / rays.d.norm(dim=-1))[:, None] * rays.d
    cube = inside.o + t[:, None] * inside.d
    torch.testing.assert_close(view.points(cube), x, atol=1e-9, rtol=0)
    centre = x.mean(0)
    radius = lambda at: (view.points(at) - centre).norm(dim=-1)
    slope = torch.func.grad(lambda at: radius(at).sum())(cube)
    torch.testing.assert_close(view.normals(cube, slope), torch.nn.functional.normalize(x - centre, dim=-1))


def test_directions_in_the_cube_are_those_of_the_world():
    view, rays, inside = in_both()
    expected = torch.nn.functional.normalize(rays.d, dim=-1)
    for t in (0.0, 0.4, 1.0):
        found = view.ways(inside.o + t * inside.d, torch.nn.functional.normalize(inside.d, dim=-1))
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_the_network_sees_the_world_s_direction_once_a_ray():
    cameras = nine(F64)
    view, seen = frustum(cameras, 1.5), []
    field = NdcField(lambda x, d, **more: seen.append((d, more)) or (x[..., 0], x), view)
    rays = world_rays(cameras)
    inside = view.rays(rays)
    x = inside.o[:, None] + torch.linspace(0.1, 0.9, 5, dtype=F64)[:, None] * inside.d[:, None]
    field(x, torch.nn.functional.normalize(inside.d, dim=-1)[:, None], noise=3)
    assert seen[0][0].shape == (40, 1, 3) and seen[0][1] == {"noise": 3}
    torch.testing.assert_close(seen[0][0][:, 0], torch.nn.functional.normalize(rays.d, dim=-1), atol=1e-9, rtol=0)


class Wall(torch.nn.Module):
    """Opaque beyond the depth 5 of the mean camera, black up to there."""

    def forward(self, x, d):
        return torch.where(x[..., 2] > 1 + 2 * 1.5 / -5.0, 1e4, 0.0), torch.full_like(x, 0.25)


def test_a_wall_is_seen_at_its_depth_and_nothing_behind_the_camera():
    cameras = nine()
    view = frustum(cameras, 1.5)
    render = ndc_renderer(dense_renderer(NdcField(Wall(), view), 0.0, 1.0, 400, 0, background=None), view, 100.0)
    rays = cameras.rays(torch.full((3,), 4), torch.tensor([[8, 6], [0, 0], [15, 3]]))
    made = render(Rays(torch.cat([rays.o, rays.o]), torch.cat([rays.d, -rays.d])))
    depth = (made.depth / made.opacity)[:3] * -(torch.nn.functional.normalize(rays.d, dim=-1) @ view.pose[:, 2])
    torch.testing.assert_close(depth, torch.full((3,), 5.0), atol=0.05, rtol=0)
    assert torch.equal(made.opacity[3:], torch.zeros(3)) and torch.equal(made.rgb[3:], torch.zeros(3, 3))
    torch.testing.assert_close(made.rgb[:3], torch.full((3, 3), 0.25), atol=1e-4, rtol=0)
    again = restored(view.plain())
    assert isinstance(again, Frustum) and torch.allclose(again.pose, view.pose) and again[1:] == view[1:]


def test_photographs_are_learned_from_in_the_cube():
    cameras = nine()
    view = frustum(cameras, 1.5)
    pix = torch.tensor([[3, 4], [9, 1]])
    found = NdcCameras(cameras, view).rays(torch.tensor([0, 5]), pix)
    expected = view.rays(cameras.rays(torch.tensor([0, 5]), pix))
    assert torch.equal(found.o, expected.o) and torch.equal(found.d, expected.d)


def test_cameras_around_a_thing_have_no_such_cube():
    angle = torch.arange(6) * torch.pi / 3
    place = torch.stack([4 * angle.cos(), 4 * angle.sin(), torch.ones(6)], -1)
    around = Cameras(look_at(place, torch.zeros(3), torch.tensor([0.0, 0, 1])), nine().K[:6], (16, 12))
    with pytest.raises(ValueError, match="do not all look one way"):
        frustum(around, 1.0)
