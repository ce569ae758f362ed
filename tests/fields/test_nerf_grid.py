"""The occupancy grid: marching against brute force, the visual hull of a ball, keeping up with a field."""

import torch
from tests.fields.test_nerf_cameras import ring

from precis.fields.nerf_cameras import Cameras, Rays, look_at
from precis.fields.nerf_grid import OccupancyGrid, box_span, carve, hull_box, march, visible

BOX = torch.tensor([[-1.0, -0.5, -1.0], [1.0, 1.0, 0.5]])


def some_rays(n=50, seed=0):
    g = torch.Generator().manual_seed(seed)
    o = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1) * 3
    d = torch.nn.functional.normalize(torch.randn(n, 3, generator=g) * 0.4 - o, dim=-1)
    return Rays(o, d)


def random_grid(share, seed=0, n=8):
    grid = OccupancyGrid(BOX, n)
    live = torch.rand(n**3, generator=torch.Generator().manual_seed(seed)) < share
    return grid, live


def test_marching_finds_what_stepping_finds():
    rays, step = some_rays(), 0.037
    grid, live = random_grid(0.1)
    found = march(rays, grid, step, near=0.5, far=4.0, cells=grid.cells(live))
    first, last = box_span(rays, BOX, 0.5, 4.0)
    n, at = grid.resolution, 0
    for r in range(len(rays.o)):
        t, expected = float(first[r]), []
        for k in range(200):
            t = float(first[r]) + k * step
            if t + step / 2 >= float(last[r]):
                break
            x = rays.o[r] + (t + step / 2) * rays.d[r]
            i = ((x - BOX[0]) / (BOX[1] - BOX[0]) * n).long().clamp(0, n - 1)
            if live[(i[0] * n + i[1]) * n + i[2]]:
                expected.append(t)
        got = found.t0[found.ptr[r] : found.ptr[r + 1]]
        assert abs(len(got) - len(expected)) <= 1  # a mid-point on the border of two cells may go either way
        if len(got) == len(expected):
            torch.testing.assert_close(got, torch.tensor(expected), atol=2e-5, rtol=0)
            at += len(got)
        assert (found.ray[found.ptr[r] : found.ptr[r + 1]] == r).all()
    assert at > 100


def test_a_full_grid_is_uniform_sampling():
    rays = some_rays()
    grid = OccupancyGrid(BOX, 8)
    found = march(rays, grid, 0.05)
    first, last = box_span(rays, BOX)
    lengths = (last - first).clamp(min=0)
    counts = found.ptr.diff()
    assert ((counts - lengths / 0.05).abs() <= 1).all() and (counts[lengths == 0] == 0).all()
    steps = found.t0.diff()[found.ray.diff() == 0]
    torch.testing.assert_close(steps, torch.full_like(steps, 0.05), atol=1e-5, rtol=0)
    shifted = march(rays, grid, 0.05, generator=torch.Generator().manual_seed(0))
    hit = counts > 1
    begin = (shifted.t0[shifted.ptr[:-1][hit]] - first[hit]) / 0.05
    assert (begin > -1e-4).all() and (begin < 1.001).all() and begin.std() > 0.1


def test_a_ray_ends_where_the_field_is_opaque():
    rays = some_rays()
    grid = OccupancyGrid(BOX, 8)
    g = torch.Generator().manual_seed(3)
    waves = 6 * torch.randn(3, 4, generator=g)
    density = lambda x: 8 * (x @ waves).sin().clamp(min=0).sum(-1)
    packed = march(rays, grid, 0.03)
    found = visible(density, rays, packed, opaque=3.0)
    t, at = [], 0
    for r in range(len(rays.o)):  # one sample after the other
        passed = 0.0
        for i in range(int(packed.ptr[r]), int(packed.ptr[r + 1])):
            if passed < 3.0 - 1e-5:
                t.append(float(packed.t0[i]))
            middle = (packed.t0[i] + packed.t1[i]) / 2
            passed += float(density((rays.o[r] + middle * rays.d[r])[None])) * 0.03
        assert int(found.ptr[r + 1]) == len(t) and (found.ray[at : len(t)] == r).all()
        at = len(t)
    torch.testing.assert_close(found.t0, torch.tensor(t))
    assert 0.2 < len(t) / len(packed.t0) < 0.8
    everything = visible(lambda x: 0 * x[:, 0], rays, packed)
    assert torch.equal(everything.t0, packed.t0) and torch.equal(everything.ptr, packed.ptr)
    nothing = march(Rays(rays.o + 50, rays.d), grid, 0.1)
    assert len(visible(density, rays, nothing).t0) == 0


def test_a_ray_that_grazes_a_surface_sees_what_is_behind_it():
    """Half of each cell in a column is solid: what crosses the other half is not cut off with it."""
    grid = OccupancyGrid(torch.tensor([[-1.0] * 3, [1.0] * 3]), 8)
    floor = lambda x: x[:, 2] < -0.75
    field = lambda x: 5000.0 * ((x[:, 0] > 0) & (x[:, 0] < 0.12) & (x[:, 2] > -0.5) | floor(x)).float()
    g = torch.Generator().manual_seed(0)
    for done in range(0, 16 * 80, 16):
        grid.update(field, 0.01, g, done)
    rays = Rays(torch.tensor([[0.2, 0.1, 3.0], [0.06, 0.1, 3.0]]), torch.tensor([[0.0, 0, -1]] * 2))
    found = visible(field, rays, march(rays, grid, 0.01))
    reached = [float(3 - found.t1[found.ptr[r] : found.ptr[r + 1]].max()) for r in range(2)]
    assert reached[0] < -0.75 and reached[1] > 0.9


def dome(n=12, size=48):
    a = torch.arange(n) * 2.4
    z = torch.linspace(-0.9, 0.9, n)
    place = 4 * torch.stack([(1 - z * z).sqrt() * a.cos(), (1 - z * z).sqrt() * a.sin(), z], 1)
    c2w = look_at(place, torch.zeros(3), torch.tensor([0.0, 0, 1]))
    K = torch.tensor([[60.0, 60.0, size / 2, size / 2]]).expand(n, -1)
    return Cameras(c2w, K, (size, size))


def test_the_hull_holds_the_ball_and_little_more():
    cameras, radius = dome(), 0.6
    masks = []
    for v in range(len(cameras)):
        rays = cameras.all_rays(v, unit=True)
        along = -(rays.o * rays.d).sum(-1, keepdim=True)
        masks.append((rays.o + along * rays.d).norm(dim=-1) < radius)
    box = torch.tensor([[-1.5] * 3, [1.5] * 3])
    hull = carve(cameras, torch.stack(masks), box, 32)
    grid = OccupancyGrid(box, 32, hull)
    x = grid.centres(torch.arange(32**3))
    inside = x.norm(dim=-1) < radius
    assert hull[inside].all()
    assert hull.sum() < 2.5 * inside.sum()
    tight = hull_box(grid)
    assert (tight[1] < 0.95).all() and (tight[1] > radius).all()
    assert not carve(cameras, torch.zeros(len(cameras), 48, 48, dtype=torch.bool), box, 8).any()


def test_a_cell_that_no_camera_sees_stays():
    cameras = ring(1)  # looks at the middle from 3 to the right
    behind = torch.tensor([[5.0, -0.5, 1.0], [6.0, 0.5, 2.0]])
    assert carve(cameras, torch.zeros(1, 30, 40, dtype=torch.bool), behind, 4).all()


def test_the_grid_follows_the_field_and_the_hull_is_final():
    grid = OccupancyGrid(torch.tensor([[-1.0] * 3, [1.0] * 3]), 16)
    grid.hull.copy_(grid.centres(torch.arange(16**3))[:, 0] < 0.5)
    ball = lambda x: 100.0 * (x.norm(dim=-1) < 0.6)
    g = torch.Generator().manual_seed(0)
    for done in range(0, 256, 16):
        grid.update(ball, 0.01, g, done)
        assert torch.equal(grid.live, grid.hull)  # none dies young
    grid.update(ball, 0.01, g, 256)
    x = grid.centres(torch.arange(16**3))
    r, half = x.norm(dim=-1), 3**0.5 / 16
    assert not grid.live[r > 0.6 + half].any()  # what was empty whenever it was looked at dies at once
    for done in range(272, 256 + 16 * 150, 16):
        grid.update(ball, 0.01, g, done)
    assert grid.live[(r < 0.6 - half) & grid.hull].all()  # every cell that is full
    assert not grid.live[r > 0.6 + half].any() and not grid.live[x[:, 0] > 0.5].any()
    assert (march(some_rays(), grid, 0.05).ptr.diff() > 0).any()
    fog = OccupancyGrid(grid.aabb, 8)
    for done in range(0, 400, 16):  # what a field starts with is not taken for nothing
        fog.update(lambda x: 1.0 + 0.1 * torch.randn(len(x), generator=g), 0.01, g, done)
    assert fog.live.all()
