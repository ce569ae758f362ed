"""Colour operations against kornia's and Pillow's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from precis.train import colour
from precis.train.randaugment import operate


def pictures(n: int = 6, channels: int = 3, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def enhance():
    return pytest.importorskip("kornia.enhance")


FACTOR = torch.tensor([0.2, 0.5, 0.9, 1.0, 1.3, 1.8])


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-5)


def test_brightness_contrast_and_saturation_are_kornias(enhance):
    x = pictures()
    assert close(colour.ColourMatrix(x).brightness(FACTOR).apply(x), enhance.adjust_brightness_accumulative(x, FACTOR))
    assert close(colour.ColourMatrix(x).contrast(FACTOR).apply(x),
                 enhance.adjust_contrast_with_mean_subtraction(x, FACTOR))  # fmt: skip
    assert close(colour.ColourMatrix(x).saturation(FACTOR).apply(x),
                 enhance.adjust_saturation_with_gray_subtraction(x, FACTOR))  # fmt: skip


def test_the_exact_hue_is_kornias(enhance):
    x, turn = pictures(), torch.tensor([-0.5, -0.2, 0.0, 0.1, 0.3, 0.5])
    assert close(colour.hue_hsv(x, turn), enhance.adjust_hue(x, turn * 2 * math.pi))


def test_a_chain_is_its_operations_one_after_another():
    x = pictures() * 0.3 + 0.3  # nothing reaches the bounds
    gentle = torch.linspace(0.9, 1.1, 6)
    chain = colour.ColourMatrix(x).contrast(gentle).brightness(gentle).saturation(gentle).contrast(gentle).apply(x)
    y = x
    for name in ("contrast", "brightness", "saturation", "contrast"):
        y = getattr(colour.ColourMatrix(y), name)(gentle).apply(y)
    assert close(chain, y)


def test_a_turn_in_yiq_keeps_luma_and_comes_round():
    x = pictures() * 0.2 + 0.4
    turned = colour.ColourMatrix(x).hue(torch.full((6,), 0.25)).apply(x)
    assert close(colour.luma(turned), colour.luma(x)) and not close(turned, x)
    for _ in range(3):
        turned = colour.ColourMatrix(turned).hue(torch.full((6,), 0.25)).apply(turned)
    assert close(turned, x)


def test_posterize_solarize_and_blur_are_kornias(enhance):
    filters = pytest.importorskip("kornia.filters")
    x = pictures()
    bits = torch.tensor([1, 2, 3, 4, 5, 8])
    assert close(colour.posterize(x, bits), enhance.posterize(x, bits))
    threshold = torch.linspace(0.1, 0.9, 6)
    assert close(colour.solarize(x, threshold), torch.stack([enhance.solarize(p[None], float(t))[0]
                                                             for p, t in zip(x, threshold)]))  # fmt: skip
    sigma = torch.linspace(0.3, 2, 6)
    assert close(colour.blur(x, sigma, 7), filters.gaussian_blur2d(x, (7, 7), sigma[:, None].expand(6, 2)))
    assert close(colour.sharpness(x, FACTOR), enhance.sharpness(x, FACTOR))


def test_equalize_autocontrast_and_sharpness_are_pillows():
    levels = torch.randint(30, 200, (4, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    levels[1, :, :, :9] = 77  # a histogram with a peak
    x = levels.float() / 255
    for picture, flat, stretched, sharp in zip(
        levels, colour.equalize(x), colour.autocontrast(x), colour.sharpness(x, torch.full((4,), 0.4))
    ):
        pillow = Image.fromarray(picture.permute(1, 2, 0).numpy())
        assert np.array_equal(np.asarray(ImageOps.equalize(pillow)), (flat * 255).round().permute(1, 2, 0).numpy())
        near = np.abs(np.asarray(ImageOps.autocontrast(pillow)).astype(float)
                      - 255 * stretched.permute(1, 2, 0).numpy())  # fmt: skip
        assert near.max() <= 1
        near = np.abs(np.asarray(ImageEnhance.Sharpness(pillow).enhance(0.4)).astype(float)
                      - 255 * sharp.permute(1, 2, 0).numpy())  # fmt: skip
        assert near.max() <= 2


def test_a_constant_picture_comes_through():
    x = torch.full((2, 3, 8, 8), 0.5)
    assert torch.equal(colour.autocontrast(x), x)
    assert close(colour.equalize(x), torch.full_like(x, 127 / 255))
    assert close(colour.hue_hsv(x, torch.tensor([0.2, 0.4])), x)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["autocontrast", "equalize", "solarize", "color", "posterize", "contrast", "brightness",
                        "sharpness"]), st.floats(0, 1), st.integers(0, 100), st.sampled_from([1, 3]))  # fmt: skip
def test_every_operation_stays_in_range_and_treats_each_picture_alone(name, strength, seed, channels):
    x = pictures(4, channels, 9, seed)
    factor = torch.tensor([0.1, 1.0, 1.5, 1.9])
    out = operate(name, x, strength, factor)
    assert out.shape == x.shape and out.min() >= 0 and out.max() <= 1
    assert close(operate(name, x[2:3], strength, factor[2:3]), out[2:3])


@pytest.mark.parametrize("name", ["solarize", "color", "posterize", "contrast", "brightness", "sharpness"])
def test_magnitude_nought_changes_nothing(name):
    x = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8).float() / 255
    assert close(operate(name, x, 0.0, torch.ones(3)), x)
