import pytest
import torch

from precis.nn.coordinates import coordinate_grid


def test_pixel_centres_in_array_order():
    grid = coordinate_grid((2, 4), dtype=torch.float64)
    rows, columns = [-0.5, 0.5], [-0.75, -0.25, 0.25, 0.75]
    assert grid.tolist() == [[r, c] for r in rows for c in columns]


def test_corners_are_aligned_on_request():
    grid = coordinate_grid((3, 1), align_corners=True, span=(0, 2), dtype=torch.float64)
    assert grid.tolist() == [[0, 1], [1, 1], [2, 1]]


def test_reshaping_to_the_array_puts_coordinates_where_the_samples_are():
    grid = coordinate_grid((3, 5, 2)).view(3, 5, 2, 3)
    for axis, n in enumerate((3, 5, 2)):
        along = grid.movedim(axis, 0)[:, 0, 0, axis]
        torch.testing.assert_close(along, (2 * torch.arange(n) + 1) / n - 1)
        assert torch.equal(grid[..., axis], along.view([-1 if a == axis else 1 for a in range(3)]).expand(3, 5, 2))


def test_refining_a_grid_does_not_shift_it():
    coarse, fine = coordinate_grid((6,)), coordinate_grid((12,))
    torch.testing.assert_close(fine.view(6, 2).mean(1), coarse[:, 0])


@pytest.mark.parametrize("bad", [(), (3, 0)])
def test_empty_shapes_are_refused(bad):
    with pytest.raises(ValueError, match="grid"):
        coordinate_grid(bad)


def test_a_span_must_rise():
    with pytest.raises(ValueError, match="span"):
        coordinate_grid((2,), span=(1, 1))
