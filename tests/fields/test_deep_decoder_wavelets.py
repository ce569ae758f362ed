import numpy as np
import pytest
import torch
from scipy import fft

from precis.fields.deep_decoder_wavelets import (
    _LOW,
    cosine_transform,
    from_opponent,
    inverse_wavelet,
    keep_largest,
    most_levels,
    orthonormal_wavelet,
    to_opponent,
    wavelet,
)

FAMILIES = ("haar", "db4", "cdf97")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("levels", [1, 3])
def test_perfect_reconstruction(family, levels):
    x = random(3, 32, 48)
    assert torch.allclose(inverse_wavelet(wavelet(x, family, levels), family, levels), x, atol=1e-10)


@pytest.mark.parametrize("family", ["haar", "db4"])
def test_parseval(family):
    x = random(2, 32, 32)
    assert float(wavelet(x, family, 3).square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-10)


def test_nearly_orthonormal():
    """CDF 9/7 keeps the energy of noise within some percent, and has gain √2 a side on what is flat."""
    x = random(1, 64, 64)
    assert float(wavelet(x, "cdf97", 3).square().sum()) == pytest.approx(float(x.square().sum()), rel=0.05)
    flat = wavelet(torch.ones(1, 16, 16, dtype=torch.float64), "cdf97", 1)
    assert torch.allclose(flat[:, :8, :8], torch.full((1, 8, 8), 2.0, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize(("family", "moments"), [("haar", 1), ("db4", 4), ("cdf97", 4)])
def test_vanishing_moments(family, moments):
    x = torch.linspace(-1, 1, 64, dtype=torch.float64)
    for power in range(moments):
        high = wavelet((x**power).expand(1, 2, 64), family, 1)[0, 0, 32:]
        assert high[4:-5].abs().max() < 1e-9
    high = wavelet((x**moments).expand(1, 2, 64), family, 1)[0, 0, 32:]
    assert high[4:-5].abs().max() > 1e-8


def test_filters_are_orthonormal():
    for taps in _LOW.values():
        h = np.array(taps)
        assert h.sum() == pytest.approx(2**0.5, abs=1e-10)
        for shift in range(0, len(h), 2):
            assert h[shift:] @ h[: len(h) - shift] == pytest.approx(float(shift == 0), abs=1e-10)


def test_haar_is_averages_and_differences():
    x = random(1, 4, 6)
    a, b, c, d = x[:, ::2, ::2], x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]
    found = wavelet(x, "haar", 1)
    assert torch.allclose(found[:, :2, :3], (a + b + c + d) / 2)
    assert torch.allclose(found[:, :2, 3:].abs(), ((a - b + c - d) / 2).abs())
    assert torch.allclose(found[:, 2:, :3].abs(), ((a + b - c - d) / 2).abs())
    assert torch.allclose(found[:, 2:, 3:].abs(), ((a - b - c + d) / 2).abs())


def test_daubechies_shift_is_periodic():
    x = random(1, 16, 16)
    moved = x.roll((2, 4), (-2, -1))
    assert torch.allclose(wavelet(moved, "db4", 1)[:, :8, :8], wavelet(x, "db4", 1)[:, :8, :8].roll((1, 2), (-2, -1)))


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 21, 35), (1, 16, 40)])
@pytest.mark.parametrize("joint", [False, True])
def test_keeping_all_is_the_picture(shape, joint):
    x = random(*shape)
    for family in FAMILIES:
        assert torch.allclose(orthonormal_wavelet(x, family, joint=joint), x, atol=1e-9)
        assert torch.allclose(orthonormal_wavelet(x, family, 10**6, joint=joint), x, atol=1e-9)
    for block in (8, 16, None):
        assert torch.allclose(cosine_transform(x, block=block, joint=joint), x, atol=1e-9)
        assert torch.allclose(cosine_transform(x, 10**6, block=block, joint=joint), x, atol=1e-9)


def test_error_is_the_energy_that_was_dropped():
    x = random(3, 32, 32)
    c = wavelet(x, "haar", 5)
    kept = 30
    for channel, made in zip(c, orthonormal_wavelet(x, "haar", kept) - x, strict=True):
        rest = channel.flatten()[1:].abs().sort(descending=True).values
        assert float(made.square().sum()) == pytest.approx(float(rest[kept // 3 :].square().sum()))
    c = to_opponent(c)
    rest = torch.cat([channel.flatten()[1:] for channel in c]).abs().sort(descending=True).values
    made = orthonormal_wavelet(x, "haar", kept, joint=True) - x
    assert float(made.square().sum()) == pytest.approx(float(rest[kept:].square().sum()))


def test_number_kept():
    c = random(3, 8, 8)
    for keep in (0, 1, 7, 60):
        assert int((keep_largest(c, keep) != 0).sum()) == keep + 3
        assert int((keep_largest(c, keep, joint=True) != 0).sum()) == keep + 3


def test_cosines_are_those_of_scipy():
    x = random(2, 16, 24)
    made = cosine_transform(x, 40, block=None)
    c = fft.dctn(x.numpy(), axes=(1, 2), norm="ortho")
    for channel in c:
        flat = channel.ravel()
        flat[1 + np.argsort(np.abs(flat[1:]))[:-20]] = 0
    assert np.allclose(made.numpy(), fft.idctn(c, axes=(1, 2), norm="ortho"), atol=1e-10)
    block = cosine_transform(x, 10**6, block=8) - x
    assert block.abs().max() < 1e-10


def test_opponent_colours_are_orthonormal():
    x = random(3, 4, 4)
    assert torch.allclose(from_opponent(to_opponent(x)), x) and torch.equal(to_opponent(x[:1]), x[:1])
    assert float(to_opponent(x).square().sum()) == pytest.approx(float(x.square().sum()))


def test_levels():
    assert most_levels((64, 80)) == 6 and most_levels((64, 80), "cdf97") == 4 and most_levels((3, 3), "db4") == 0
    with pytest.raises(ValueError, match="not divisible"):
        wavelet(random(1, 12, 12), "haar", 3)
