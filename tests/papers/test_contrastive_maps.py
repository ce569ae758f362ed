"""Names on a map that must not cover each other."""

import numpy as np
import pytest

from precis.papers.contrastive_maps import PANEL, pushed_apart

SIZES = [(60.0, 13.0), (40.0, 13.0), (90.0, 13.0), (60.0, 13.0), (20.0, 13.0)]


def covered(at: np.ndarray, sizes: list[tuple[float, float]]) -> int:
    size = np.array(sizes)
    pairs = [(i, j) for i in range(len(at)) for j in range(i)]
    return sum(((size[i] + size[j]) / 2 - np.abs(at[i] - at[j]) > 0.5).all() for i, j in pairs)


@pytest.mark.parametrize("seed", range(5))
def test_boxes_that_lie_on_each_other_are_moved_and_others_are_not(seed):
    rng = np.random.default_rng(seed)
    near = np.array(PANEL) / 2 + rng.normal(0, 8, (5, 2))
    assert covered(near, SIZES) >= 3
    moved = pushed_apart(near, SIZES)
    assert covered(moved, SIZES) == 0 and np.abs(moved - near).max() < 80
    far = np.array([[60.0, 40], [200, 40], [350, 40], [60, 200], [200, 200]])
    assert np.array_equal(pushed_apart(far, SIZES), far)


def test_boxes_come_back_into_the_panel_and_equal_places_part():
    size = np.array(SIZES)
    moved = pushed_apart(np.tile([[2.0, 329.0]], (5, 1)), SIZES)
    assert (moved >= size / 2 - 1e-9).all() and (moved <= np.array(PANEL) - size / 2 + 1e-9).all()
    assert covered(moved, SIZES) == 0
