import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precis.vision.mobilenet_theory import components_needed, embedded, information_loss, read_out, spiral


def test_the_read_out_is_least_squares():
    x = spiral(60)
    y = embedded(x, 3, 4, torch.Generator().manual_seed(0))
    found = read_out(x, y)
    for one, back in zip(y, found):
        design = np.concatenate([one.numpy(), np.ones((60, 1))], 1)
        wanted = design @ np.linalg.lstsq(design, x.numpy(), rcond=None)[0]
        assert np.allclose(back.numpy(), wanted, atol=1e-10)


def test_a_linear_map_loses_nothing_and_relu_less_in_more_dimensions():
    draw = lambda: torch.Generator().manual_seed(1)
    assert float(information_loss(2, relu=False, generator=draw()).max()) < 1e-12
    assert float(information_loss(1, relu=False, generator=draw()).min()) > 0.2  # one direction is lost
    means = [float(information_loss(dim, generator=draw()).mean()) for dim in (1, 2, 3, 5, 15, 30)]
    assert means == sorted(means, reverse=True) and means[1] > 0.2 and means[-1] < 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(0, 100))
def test_losses_are_shares(dim, seed):
    loss = information_loss(dim, 40, 5, generator=torch.Generator().manual_seed(seed))
    assert loss.shape == (5,) and bool((loss >= -1e-12).all()) and bool((loss <= 1 + 1e-12).all())


def test_a_dead_relu_loses_everything():
    x = spiral(30)
    assert torch.allclose(read_out(x, torch.zeros(1, 30, 2, dtype=torch.float64))[0], x.mean(0).expand(30, 2))


def test_components_of_known_spectra():
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(10, 10, generator=g, dtype=torch.float64)).Q
    centred = torch.randn(500, 10, generator=g, dtype=torch.float64)
    white = torch.linalg.qr(centred - centred.mean(0)).Q  # exactly uncorrelated columns
    for variances, wanted in (([1] * 10, 10), ([90, 6, 4] + [0] * 7, 2), ([96, 4] + [0] * 8, 1), ([50, 45, 5], 2)):
        scale = torch.tensor(variances + [0] * (10 - len(variances)), dtype=torch.float64).sqrt()
        assert components_needed(white * scale @ basis.T + 7) == wanted, variances
    assert components_needed(torch.ones(5, 3)) == 0
    assert components_needed(white @ basis, 0.35) == 4


@pytest.mark.parametrize("wrong", [lambda: information_loss(0), lambda: components_needed(torch.ones(4, 2), 0),
                                   lambda: information_loss(2, 2)])  # fmt: skip
def test_what_cannot_be_measured_is_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
