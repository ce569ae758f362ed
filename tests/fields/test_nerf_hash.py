"""The hash grid: indices against Python, one-to-one levels against SciPy, gradients, the contract of the field."""

import numpy as np
import torch
from scipy.interpolate import RegularGridInterpolator
from tests.helpers import check_component

from precis.fields.nerf_hash import HashField, HashGrid, clamped_exp

rng = torch.Generator
BOX = [[-1.0, -0.5, -1.0], [1.0, 1.0, 0.5]]


def points(n=40, seed=0, dtype=torch.float32):
    return torch.rand(n, 3, generator=rng().manual_seed(seed), dtype=dtype)


def test_hashed_rows_are_those_of_unsigned_arithmetic():
    grid = HashGrid(3, 2, 10, 16, 300, generator=rng().manual_seed(0))
    x = points()
    index, weight = grid.corners(x, 2)
    n = grid.resolutions[2]
    assert (n + 1) ** 3 > grid.size
    for row, i in zip(x, index):
        low = [min(int(np.floor(np.float32(v) * np.float32(n))), n - 1) for v in row.numpy()]
        for corner in range(8):
            a, b, c = (low[k] + (corner >> (2 - k) & 1) for k in range(3))
            expected = (a ^ (b * 2654435761 % 2**32) ^ (c * 805459861 % 2**32)) % grid.size
            assert int(i[corner]) == expected
    torch.testing.assert_close(weight.sum(1), torch.ones(40))


def test_levels_stored_one_to_one_interpolate_linearly():
    grid = HashGrid(2, 2, 14, 4, 9, generator=rng().manual_seed(0)).double()
    x = points(dtype=torch.float64)
    out = grid(x).detach().numpy()
    for level, n in enumerate(grid.resolutions):
        values = grid.tables[level].detach().view(n + 1, n + 1, n + 1, 2).numpy()
        exact = RegularGridInterpolator([np.linspace(0, 1, n + 1)] * 3, values)(x.numpy())
        np.testing.assert_allclose(out[:, 2 * level : 2 * level + 2], exact, atol=1e-12)


def test_resolutions_grow_by_a_constant_factor():
    grid = HashGrid(16, 2, 8, 16, 512, generator=rng())
    assert grid.resolutions[0] == 16 and grid.resolutions[-1] in (511, 512)
    ratios = np.diff(np.log(grid.resolutions))
    assert abs(ratios - np.log(32) / 15).max() < 0.05
    assert HashGrid(16, 2, 19, 16, 2048, generator=rng()).rows[0] == 17**3


def test_gradients():
    grid = HashGrid(2, 1, 5, 2, 6, generator=rng().manual_seed(0)).double()
    x = points(5, dtype=torch.float64)
    table = grid.tables[1].detach().clone().requires_grad_()
    from precis.fields.nerf_lookup import lookup

    assert torch.autograd.gradcheck(lambda t: lookup(t, *grid.corners(x, 1)), table)
    u = torch.tensor([-1.0, 3.0, 20.0], dtype=torch.float64, requires_grad=True)
    clamped_exp(u).sum().backward()
    torch.testing.assert_close(u.grad, torch.tensor([-1.0, 3.0, 15.0], dtype=torch.float64).exp())


def test_the_contract_of_components(tmp_path):
    build = lambda g: HashField(BOX, levels=3, log2_size=8, finest=32, width=8, generator=g)
    d = torch.nn.functional.normalize(points(6, 1) - 0.5, dim=-1)
    check_component(build, points(6) - 0.5, d, tmp_path=tmp_path)
    field = build(rng().manual_seed(0))
    assert field(torch.tensor([[3.0, 0, 0]]), torch.tensor([[0.0, 0, 1]]))[0] == 0
    again = HashField(**field.config())
    again.load_state_dict(field.state_dict())
    torch.testing.assert_close(again.density(points()), field.density(points()))
