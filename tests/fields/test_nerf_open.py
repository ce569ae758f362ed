"""Contraction and spacing against their formulas; open marching covers the ray and finds live cells."""

import pytest
import torch

from precis.fields.nerf_cameras import Rays
from precis.fields.nerf_grid import OccupancyGrid
from precis.fields.nerf_open import OPEN_BOX, OpenField, contract, march_open, spaced
from precis.fields.nerf_planes import PlaneField


def test_contraction_keeps_the_unit_ball_and_bounds_the_rest():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=g, dtype=torch.float64) * torch.logspace(-2, 4, 200, dtype=torch.float64)[:, None]
    y = contract(x)
    r = x.norm(dim=-1)
    inside = r <= 1
    assert torch.equal(y[inside], x[inside])
    torch.testing.assert_close(y[~inside].norm(dim=-1), 2 - 1 / r[~inside])
    torch.testing.assert_close(torch.nn.functional.normalize(y, dim=-1), torch.nn.functional.normalize(x, dim=-1))


def test_spacing_is_even_nearby_and_in_disparity_far_away():
    t = spaced(0.1, 1000.0, torch.linspace(0, 1, 101, dtype=torch.float64))
    assert float(t[0]) == pytest.approx(0.1) and float(t[-1]) == pytest.approx(1000, rel=1e-3)
    near, far = t[t < 0.99], t[t > 1.01]
    torch.testing.assert_close(near.diff(), near.diff()[:1].expand(len(near) - 1))
    disparity = (1 / far).diff()
    torch.testing.assert_close(disparity, disparity[:1].expand(len(far) - 1), atol=1e-6, rtol=1e-4)


def test_marching_covers_the_ray_and_skips_dead_cells():
    rays = Rays(torch.tensor([[0.0, 0, 1.0]]), torch.tensor([[0.0, 0, -1.0]]))
    grid = OccupancyGrid(torch.tensor(OPEN_BOX), 16)
    grid.occ.fill_(0.02)
    found = march_open(rays, grid, 64, near=0.05, far=500.0)
    assert len(found.t0) == 64
    torch.testing.assert_close(found.t1[:-1], found.t0[1:])
    half = grid.centres(torch.arange(16**3))[:, 2] < 0
    found = march_open(rays, grid, 64, near=0.05, far=500.0, cells=grid.cells(half))
    assert 0 < len(found.t0) < 64 and found.t0.min() > 0.9


def test_a_field_of_contracted_space():
    inner = PlaneField(OPEN_BOX, 6, step=0.1, density_parts=2, colour_parts=2, width=8,
                       generator=torch.Generator().manual_seed(0))  # fmt: skip
    field = OpenField(inner)
    x, d = torch.tensor([[0.2, 0.1, -0.3], [30.0, 10, 5]]), torch.tensor([[0.0, 0, 1], [0.0, 1, 0]])
    torch.testing.assert_close(field.density(x), inner.density(contract(x)))
    sigma, rgb = field(x, d)
    again, h = field.look(x)
    torch.testing.assert_close(again, sigma)
    torch.testing.assert_close(field.colour(h, d), rgb)
