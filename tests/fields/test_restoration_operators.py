import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve1d

from precis.fields.restoration_operators import (
    Downsampler,
    centre_crop,
    centre_pad,
    estimate_noise,
    lanczos_kernel,
    padded_size,
)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("phase", [0, 0.5])
@pytest.mark.parametrize("support", [2, 3])
def test_the_taps_are_symmetric_about_the_phase_and_sum_to_one(factor, phase, support):
    taps, first = lanczos_kernel(factor, support, phase)
    torch.testing.assert_close(taps, taps.flip(0), rtol=0, atol=1e-12)
    assert float(taps.sum()) == pytest.approx(1, abs=1e-12)
    assert first + (len(taps) - 1) / 2 == phase * (factor - 1)


def test_the_taps_of_an_even_factor_are_those_of_the_formula():
    taps, first = lanczos_kernel(4)
    x = (np.arange(16) - 7.5) / 4
    expected = np.sin(np.pi * x) * 2 * np.sin(np.pi * x / 2) / (np.pi * x) ** 2
    assert first == -6
    np.testing.assert_allclose(taps, expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("phase", [0, 0.5])
def test_downsampling_is_convolution_and_slicing(factor, phase):
    taps, first = lanczos_kernel(factor, 2, phase)
    x = torch.rand(2, 3, 24, 36, generator=gen(), dtype=torch.float64)
    wide = np.pad(x.numpy(), [(0, 0), (0, 0), (40, 40), (40, 40)], mode="edge")
    for axis in (2, 3):
        # convolve1d puts taps[len//2] on the output's pixel; the first pixel of a block lies at taps[-first]
        wide = convolve1d(wide, taps.numpy()[::-1], axis=axis, origin=len(taps) - 1 + first - len(taps) // 2)
    expected = wide[:, :, 40 : 40 + 24 : factor, 40 : 40 + 36 : factor]
    np.testing.assert_allclose(Downsampler(factor, phase=phase)(x), expected, atol=1e-10)
    np.testing.assert_allclose(Downsampler(factor, phase=phase)(x.float()), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_adjoint_and_constants(factor):
    down = Downsampler(factor)
    x = torch.rand(1, 2, 4 * factor, 5 * factor, generator=gen(), dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 2, 4, 5, generator=gen(1), dtype=torch.float64)
    made = down(x)
    (adjoint,) = torch.autograd.grad(made, x, y)
    other = torch.rand(x.shape, generator=gen(2), dtype=torch.float64)
    assert float((down(other) * y).sum()) == pytest.approx(float((other * adjoint).sum()), rel=1e-10)
    torch.testing.assert_close(down(torch.full_like(x, 0.3)), torch.full_like(y, 0.3), rtol=0, atol=1e-12)


def test_a_mirrored_picture_gives_the_mirrored_small_one():
    x = torch.rand(1, 1, 16, 24, generator=gen(), dtype=torch.float64)
    down = Downsampler(4)
    torch.testing.assert_close(down(x.flip(-1)), down(x).flip(-1))
    torch.testing.assert_close(down(x.flip(-2)), down(x).flip(-2))


def test_a_smooth_wave_keeps_its_place():
    for factor in (3, 4):
        fine, coarse = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (24 * factor, 24))
        wave = lambda t: torch.cos(2 * torch.pi * t)
        made = Downsampler(factor)(wave(fine).expand(1, 1, 24 * factor, -1))
        assert float((made[0, 0, 12] - wave(coarse)).abs().max()) < 0.02


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([4, 8, 16, 32]))
def test_pad_and_crop_are_inverse(h, w, multiple):
    x = torch.rand(1, 2, h, w, generator=gen())
    size = padded_size((h, w), multiple)
    assert all(a % multiple == 0 and b <= a < b + multiple for a, b in zip(size, (h, w)))
    assert torch.equal(centre_crop(centre_pad(x, size), (h, w)), x)


def test_what_is_refused():
    for bad in (
        lambda: Downsampler(0), lambda: Downsampler(2, "cubic"), lambda: Downsampler(2, phase=1),
        lambda: Downsampler(4)(torch.zeros(1, 1, 10, 8)), lambda: centre_crop(torch.zeros(1, 1, 4, 4), (5, 4)),
    ):  # fmt: skip
        with pytest.raises(Exception, match="factor|kernel|phase|crop"):
            bad()


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3])
def test_noise_is_estimated_beside_structure(sigma):
    y, x = torch.meshgrid(torch.linspace(0, 6, 200), torch.linspace(0, 6, 200), indexing="ij")
    smooth = (torch.sin(x + 0.5 * y) + (x > 3).float())[None, None] + 0.3 * x
    noise = sigma * torch.randn(smooth.shape, generator=gen())
    assert estimate_noise(smooth + noise) == pytest.approx(sigma, rel=0.03)
    bilinear = (2 + 3 * x - y + 0.5 * x * y)[None, None].double()
    assert estimate_noise(bilinear) < 1e-6
    with pytest.raises(ValueError, match="3 × 3"):
        estimate_noise(torch.zeros(1, 1, 2, 9))
