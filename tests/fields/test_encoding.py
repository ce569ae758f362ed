import math

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from tests.helpers import check_component

from precis.fields.encoding import (
    AnnealedFrequencyEncoding,
    FrequencyEncoding,
    RadialBasis,
    SphericalHarmonics,
    nyquist_bands,
)  # fmt: skip


def test_frequencies_in_the_order_of_the_nerf_code() -> None:
    x = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    expected = torch.cat([x, x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos(), (4 * x).sin(), (4 * x).cos()], -1)
    encoding = FrequencyEncoding(2, 3)
    torch.testing.assert_close(encoding(x), expected)
    assert encoding.out_dim == 14
    with_pi = FrequencyEncoding(2, 1, include_input=False, scale=math.pi)
    torch.testing.assert_close(with_pi(x), torch.cat([(math.pi * x).sin(), (math.pi * x).cos()], -1))


def test_bands_open_one_after_the_other() -> None:
    encoding, plain = AnnealedFrequencyEncoding(3, 4), FrequencyEncoding(3, 4)
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoding(x, 4.0), plain(x))
    shut = encoding(x, 0.0)
    torch.testing.assert_close(shut[:, :3], x)
    assert not shut[:, 3:].any()
    half = encoding(x, torch.tensor(1.5)) / plain(x)
    bands = half[:, 3:].view(5, 4, 6)
    torch.testing.assert_close(bands[:, 0], torch.ones(5, 6))
    torch.testing.assert_close(bands[:, 1], torch.full((5, 6), 0.5))
    assert not bands[:, 2:].any()


@pytest.mark.parametrize("degree", [1, 4, 6])
def test_spherical_harmonics_equal_scipy(degree: int) -> None:
    d = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    poles = torch.eye(3, dtype=torch.float64)
    d = torch.cat([d / d.norm(dim=1, keepdim=True), poles, -poles])
    theta, phi = torch.arccos(d[:, 2]).numpy(), torch.atan2(d[:, 1], d[:, 0]).numpy()
    columns = []
    for l in range(degree):
        for m in range(-l, l + 1):
            y = sph_harm_y(l, abs(m), theta, phi)
            columns.append(y.real if m == 0 else math.sqrt(2) * (y.real if m > 0 else y.imag))
    np.testing.assert_allclose(SphericalHarmonics(degree)(d), np.stack(columns, 1), atol=1e-12)


def test_radial_basis() -> None:
    basis = RadialBasis(2, 5, 3.0, generator=torch.Generator().manual_seed(0)).double()
    x = torch.rand(4, 2, dtype=torch.float64)
    square = torch.cdist(x, basis.centres.detach()).square()
    torch.testing.assert_close(basis(x), torch.exp(-(3 * square).square()))
    check_component(lambda g: RadialBasis(2, 5, generator=g), torch.rand(4, 2))


def test_components_without_weights() -> None:
    check_component(lambda g: FrequencyEncoding(2, 3), torch.rand(4, 2), seeded=False)
    check_component(lambda g: SphericalHarmonics(), torch.nn.functional.normalize(torch.randn(4, 3)), seeded=False)


def test_nyquist_rule() -> None:
    assert [nyquist_bands(n) for n in (8, 48, 256, 512)] == [1, 3, 6, 7]


@pytest.mark.parametrize("bad", [lambda: FrequencyEncoding(0, 2), lambda: SphericalHarmonics(0)])
def test_empty_encodings_are_refused(bad) -> None:
    with pytest.raises(ValueError):
        bad()
