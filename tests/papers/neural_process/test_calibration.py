"""Bands against closed forms: Gaussian errors of known size."""

import numpy as np
import pytest

from precis.papers.neural_process.calibration import LEVELS, Calibration


def gaussian(size: float, shown: tuple[int, ...] = (1, 3, 5, 10, 20), functions: int = 40) -> Calibration:
    """Errors `size` times as large as σ says, the same at every count."""
    rng, found = np.random.default_rng(0), Calibration()
    for _ in range(functions):
        for n in shown:
            found.add(n, size * rng.normal(size=(500, 2)))
    return found


def test_right_bands_hold_what_they_promise():
    found = gaussian(1)
    assert np.abs(found.coverage(3) - LEVELS).max() < 1
    assert found.error(3) < 0.01 and found.at(50, 3) == pytest.approx(50, abs=1) and not found.notes("points")
    assert found.sigma_scale() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("size", "at_90"), [(2.0, 58.92), (0.5, 99.90)])  # P(|z| < 1.645 / size)
def test_bands_that_are_too_narrow_or_too_wide_are_told_and_one_factor_mends_them(size, at_90):
    found = gaussian(size)
    assert found.at(90, 10) == pytest.approx(at_90, abs=1)
    (note,) = found.notes("points")
    assert ("too narrow" in note) == (size > 1) and ("too wide" in note) == (size < 1)
    assert f"{found.at(90, 1):.0f} % where 1 point is shown, " in note and "where 20 points are shown" in note
    assert found.sigma_scale() == pytest.approx(size, rel=0.01)
    assert gaussian(size / found.sigma_scale()).error(10) < 0.01


def test_few_some_and_many_are_counts_that_most_functions_have():
    found = gaussian(1, functions=4)
    assert found.few_some_many() == [1, 5, 20]
    found.add(1000, np.ones(3))
    assert found.few_some_many() == [1, 5, 20]
    assert Calibration().few_some_many() == [] and Calibration().notes("points") == []
    assert gaussian(1, (3,)).few_some_many() == [3]


def test_a_function_counts_once_however_many_values_it_has():
    found = Calibration()
    found.add(1, np.zeros(1000))
    found.add(1, np.full(2, 9.0))
    assert found.at(90, 1) == 50 and found.sigma_scale() == pytest.approx((81 / 2) ** 0.5)
