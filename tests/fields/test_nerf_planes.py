"""Planes and lines against an explicit tensor; table lookups against SciPy, their gradients against `gradcheck`."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from tests.helpers import check_component

from precis.fields.nerf_lookup import corners, lookup, scatter, ticks
from precis.fields.nerf_planes import SPLITS, PlaneField, grid_shape

BOX = torch.tensor([[-1.0, -0.5, -1.0], [1.0, 1.0, 0.5]])
rng = torch.Generator


def inputs(n=6):
    d = torch.randn(n, 3, generator=rng().manual_seed(3))
    x = torch.rand(n, 3, generator=rng().manual_seed(4)) * 1.4 - 0.5
    return x, d / d.norm(dim=-1, keepdim=True)


def build(g, **more):
    return PlaneField(BOX, 6, step=0.1, density_parts=3, colour_parts=4, width=8, generator=g, **more)


def test_the_contract_of_components(tmp_path):
    check_component(build, *inputs(), tmp_path=tmp_path)


@pytest.mark.parametrize("size", [(5,), (4, 7), (3, 5, 4), (1, 4)])
def test_lookup_is_linear_interpolation(size):
    g = rng().manual_seed(0)
    table = torch.randn(int(np.prod(size)), 3, generator=g, dtype=torch.float64, requires_grad=True)
    x = torch.rand(20, len(size), generator=g, dtype=torch.float64)
    x[0], x[1] = 0.0, 1.0
    axes = tuple(range(len(size)))
    out = lookup(table, *corners(*ticks(x, size), axes, size))
    if min(size) > 1:
        grid = RegularGridInterpolator([np.linspace(0, 1, n) for n in size], table.detach().view(*size, 3).numpy())
        np.testing.assert_allclose(out.detach(), grid(x.numpy()), atol=1e-12)
    assert torch.autograd.gradcheck(lambda t: lookup(t, *corners(*ticks(x, size), axes, size)), table)


def test_positions_get_a_gradient_too():
    table = torch.randn(12, 2, generator=rng().manual_seed(0), dtype=torch.float64)
    x = torch.rand(9, 2, generator=rng().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: lookup(table, *corners(*ticks(x, (3, 4)), (0, 1), (3, 4))), x)


def test_scatter_is_the_transpose():
    g = rng().manual_seed(0)
    index = torch.randint(7, (30, 4), generator=g, dtype=torch.int32)
    weight, grad = torch.rand(30, 4, generator=g), torch.randn(30, 5, generator=g)
    expected = torch.zeros(7, 5)
    for n in range(30):
        for k in range(4):
            expected[index[n, k]] += weight[n, k] * grad[n]
    torch.testing.assert_close(scatter(grad, index, weight, 7), expected)


def test_planes_equal_the_tensor_they_stand_for():
    field = build(rng().manual_seed(0)).double()
    n = field.resolution.tolist()
    dense = torch.zeros(*n, dtype=torch.float64)
    letters = "xyz"
    for (a, b, c), plane, line in zip(SPLITS, field.density_planes, field.density_lines):
        spec = f"{letters[a]}{letters[b]}k,{letters[c]}k->xyz"
        dense += torch.einsum(spec, plane.view(n[a], n[b], -1), line).detach()
    at = torch.cartesian_prod(*(torch.linspace(0, 1, k, dtype=torch.float64) for k in n))
    x = BOX[0] + at * (BOX[1] - BOX[0])
    sigma, _ = field.look(x)
    b = np.log(1 / (1 - 1e-2) - 1)
    expected = torch.nn.functional.softplus(dense.reshape(-1) + b) / 0.1
    torch.testing.assert_close(sigma, expected)


def test_it_begins_one_hundredth_opaque_a_step():
    field = PlaneField(BOX, 8, step=0.02, generator=rng().manual_seed(0))
    sigma = field.density(torch.rand(500, 3, generator=rng().manual_seed(1)) - 0.5)
    assert float((1 - torch.exp(-sigma * 0.02)).mean()) == pytest.approx(0.01, rel=0.1)


def test_upsampling_keeps_the_function_on_the_old_grid():
    field = build(rng().manual_seed(0))
    n = field.resolution.tolist()
    finer = [2 * k - 1 for k in n]
    at = torch.cartesian_prod(*(torch.linspace(0, 1, k) for k in n))
    x = BOX[0] + at * (BOX[1] - BOX[0])
    before, first = field.density(x), field.density_planes[0]
    field.upsample(finer)
    torch.testing.assert_close(field.density(x), before, atol=1e-4, rtol=1e-4)
    assert field.density_planes[0] is first and first.shape[0] == finer[0] * finer[1]
    other = build(rng().manual_seed(1))
    other.load_state_dict(field.state_dict())  # a state of another resolution
    torch.testing.assert_close(other.density(x), field.density(x))


def test_outside_of_the_box_there_is_nothing():
    field = build(rng().manual_seed(0))
    sigma, rgb = field(torch.tensor([[2.0, 0, 0], [0.0, 0, 0]]), torch.tensor([[0.0, 0, 1], [0.0, 0, 1]]))
    assert sigma[0] == 0 < sigma[1] and rgb.isfinite().all()


def test_variation_is_the_mean_square_of_differences():
    field = build(rng().manual_seed(0))
    total = 0.0
    for planes in (field.density_planes, field.colour_planes):
        for (a, b, _), plane in zip(SPLITS, planes):
            grid = plane.detach().view(int(field.resolution[a]), int(field.resolution[b]), -1).numpy()
            total += (np.diff(grid, axis=0) ** 2).mean() + (np.diff(grid, axis=1) ** 2).mean()
    assert float(field.variation()) == pytest.approx(float(total), rel=1e-5)


def test_cells_are_about_cubes():
    assert grid_shape(torch.tensor([[0.0, 0, 0], [2.0, 1, 0.5]]), 64) == (128, 64, 32)
