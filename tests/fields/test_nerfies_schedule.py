"""The elastic weight's course: held, a cosine, its end."""

import math

import pytest

from precis.fields.nerfies_schedule import held_then_cosine


def test_the_weight_is_held_and_then_falls_as_in_the_paper():
    fall = held_then_cosine(0.01)
    weight = lambda step: 0.01 * fall(step / 250_000)
    assert weight(0) == weight(25_000) == weight(50_000) == 0.01
    assert weight(100_000) == pytest.approx((0.01 + 1e-8) / 2, rel=1e-9)
    assert weight(75_000) == pytest.approx(1e-8 + (0.01 - 1e-8) * (1 + math.cos(math.pi / 4)) / 2, rel=1e-9)
    assert weight(150_000) == weight(250_000) == pytest.approx(1e-8, rel=1e-6)


def test_a_weight_that_is_small_already_or_none():
    assert held_then_cosine(1e-9)(1.0) == 1.0
    assert held_then_cosine(0.0)(0.0) == 1.0
