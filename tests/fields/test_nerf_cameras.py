"""Cameras: projecting a point of a ray gives back its pixel, for every lens; known poses; paths; NDC."""

import math

import numpy as np
import pytest
import torch

from precis.fields.nerf_cameras import Cameras, Rays, focus, look_at, ndc_rays, orbit, spiral, unbend

LENSES = {
    "none": (None, "perspective"),
    "radial": ([0.1, -0.05, 0, 0, 0, 0, 0, 0, 0], "perspective"),
    "opencv": ([0.12, -0.06, 0.01, 0, 0.002, -0.003, 0, 0, 0], "perspective"),
    "full": ([0.2, 0.05, 0.01, 0, 0.001, 0.002, 0.1, 0.02, 0.005], "perspective"),
    "fisheye": ([0.05, -0.02, 0.004, -0.001, 0, 0, 0, 0, 0], "fisheye"),
}


def ring(n=5, lens="none", size=(40, 30), dtype=torch.float32):
    a = torch.arange(n) * 2 * math.pi / n
    place = torch.stack([3 * a.cos(), 3 * a.sin(), torch.ones(n)], 1).to(dtype)
    c2w = look_at(place, torch.zeros(3, dtype=dtype), torch.tensor([0.0, 0, 1], dtype=dtype))
    K = torch.tensor([[30.0, 31.0, 21.0, 14.0]], dtype=dtype).expand(n, -1)
    coefficients, model = LENSES[lens]
    bent = None if coefficients is None else torch.tensor([coefficients], dtype=dtype).expand(n, -1)
    return Cameras(c2w, K, size, distortion=bent, model=model)


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("whole", [True, False])
def test_a_point_of_a_ray_falls_on_its_pixel(lens, whole):
    cameras, g = ring(lens=lens), torch.Generator().manual_seed(0)
    view = torch.randint(5, (200,), generator=g)
    pix = torch.rand(200, 2, generator=g) * torch.tensor([39.0, 29.0])
    pix = pix.round().long() if whole else pix
    rays = cameras.rays(view, pix)
    t = 1 + 3 * torch.rand(200, 1, generator=g)
    found, depth = cameras.project(view, rays.o + t * rays.d)
    torch.testing.assert_close(found, pix.float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(depth, t[:, 0], atol=1e-5, rtol=1e-5)


def test_the_middle_of_the_picture_looks_along_the_axis():
    K = torch.tensor([[20.0, 20.0, 4.0, 3.0]])
    cameras = Cameras(torch.eye(4)[None, :3], K, (8, 6))
    ray = cameras.rays(torch.tensor([0]), torch.tensor([[3.5, 2.5]]))
    torch.testing.assert_close(ray.d, torch.tensor([[0.0, 0, -1]]))
    first = cameras.rays(torch.tensor([0]), torch.tensor([[0, 0]]))  # up and left
    torch.testing.assert_close(first.d, torch.tensor([[-3.5 / 20, 2.5 / 20, -1]]))
    released = Cameras(torch.eye(4)[None, :3], K, (8, 6), pixel_center=0)
    torch.testing.assert_close(released.rays(torch.tensor([0]), torch.tensor([[4, 3]])).d, torch.tensor([[0.0, 0, -1]]))


def test_undistortion_against_scipy():
    from scipy.optimize import fsolve

    k1, k2, p1, p2 = 0.12, -0.06, 0.002, -0.003

    def lens(p):
        x, y = p
        r = x * x + y * y
        f = 1 + k1 * r + k2 * r * r
        return x * f + 2 * p1 * x * y + p2 * (r + 2 * x * x), y * f + 2 * p2 * x * y + p1 * (r + 2 * y * y)

    goal = np.array([0.3, -0.22])
    exact = fsolve(lambda p: np.array(lens(p)) - goal, goal, xtol=1e-13)
    c = torch.tensor([[k1, k2, 0, 0, p1, p2, 0, 0, 0]], dtype=torch.float64)
    found = unbend(torch.tensor(goal)[None], c, "perspective")[0]
    np.testing.assert_allclose(found, exact, atol=1e-10)


def test_moving_the_world_moves_the_rays():
    cameras, g = ring(dtype=torch.float64), torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    turn = turn * torch.sign(torch.linalg.det(turn))
    shift = torch.tensor([0.3, -1, 2], dtype=torch.float64)
    view, pix = torch.tensor([0, 3]), torch.tensor([[1, 2], [30, 9]])
    a, b = cameras.rays(view, pix), cameras.moved(turn, shift, 0.5).rays(view, pix)
    torch.testing.assert_close(b.o, 0.5 * (a.o @ turn.T + shift))
    torch.testing.assert_close(b.d, a.d @ turn.T)


def test_ndc_is_the_formula_of_the_appendix():
    o = torch.tensor([[0.2, -0.1, 0.3]], dtype=torch.float64)
    d = torch.tensor([[0.1, 0.2, -1.0]], dtype=torch.float64)
    f, size, n = 500.0, (640, 480), 1.0
    ndc = ndc_rays(Rays(o, d), (f, f), size, n)
    begin = o + ((-n - o[..., 2:]) / d[..., 2:]) * d

    def project(p):
        x, y, z = p.unbind(-1)
        return torch.stack([-f / (size[0] / 2) * x / z, -f / (size[1] / 2) * y / z, 1 + 2 * n / z], -1)

    for t in (0.0, 0.7, 5.0, 1e6):
        share = 1 - begin[:, 2] / (begin[:, 2] + t * d[:, 2])
        torch.testing.assert_close(ndc.o + share[:, None] * ndc.d, project(begin + t * d), atol=1e-9, rtol=1e-9)


def test_the_focus_and_the_paths_around_it():
    cameras = ring(8)
    torch.testing.assert_close(focus(cameras), torch.zeros(3), atol=1e-5, rtol=0)
    path = orbit(cameras, 12)
    torch.testing.assert_close(path.c2w[:, :, 3].norm(dim=1), torch.full((12,), math.sqrt(10)), atol=1e-4, rtol=0)
    centre = path.project(torch.arange(12), torch.zeros(12, 3))[0]
    torch.testing.assert_close(centre, torch.tensor([[20.5, 13.5]]).expand(12, -1), atol=1e-3, rtol=0)
    assert len(spiral(cameras[:3], 10, 2.0)) == 10
    turned = path.c2w[:, :, :3]
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(12))


def test_pictures_of_different_sizes_and_lenses_keep_their_own_directions():
    cameras = ring(2, "opencv")
    other = Cameras(cameras.c2w, torch.tensor([[30.0, 31, 21, 14], [60, 62, 42, 28]]),
                    torch.tensor([[40, 30], [80, 60]]), distortion=cameras.distortion)  # fmt: skip
    a = other.rays(torch.tensor([0]), torch.tensor([[7, 9]])).d
    alone = cameras[[0]].rays(torch.tensor([0]), torch.tensor([[7, 9]])).d
    torch.testing.assert_close(a, alone)
    far = other.rays(torch.tensor([1]), torch.tensor([[79, 59]]))
    found, _ = other.project(torch.tensor([1]), far.o + 2 * far.d)
    torch.testing.assert_close(found, torch.tensor([[79.0, 59]]), atol=1e-3, rtol=0)
    assert not other.uniform and cameras.uniform
