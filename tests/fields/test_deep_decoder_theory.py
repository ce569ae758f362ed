import math

import numpy as np
import pytest
import torch

from precis.fields.deep_decoder_theory import OneLayerDecoder, bilinear, noise_bound


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(k: int = 3, side: int = 8, **options: object) -> tuple[OneLayerDecoder, torch.Tensor]:
    b1 = torch.rand(side * side, k, generator=seeded(1), dtype=torch.float64)
    eta = torch.randn(4 * side * side, generator=seeded(2), dtype=torch.float64)
    return OneLayerDecoder(bilinear(side), b1, starts=4, generator=seeded(3), **options), eta


def matrix(side: int) -> torch.Tensor:
    return bilinear(side)(torch.eye(side * side, dtype=torch.float64))


def test_best_mixing_is_least_squares() -> None:
    net, eta = made()
    features = net.features().detach().numpy()
    for share, f in zip(net.fraction(eta).detach(), features, strict=True):
        c2 = np.linalg.lstsq(f, eta.numpy(), rcond=None)[0]
        expected = 1 - ((eta.numpy() - f @ c2) ** 2).sum() / (eta.numpy() ** 2).sum()
        assert float(share) == pytest.approx(expected, abs=1e-7)


def test_features_by_definition() -> None:
    net, _ = made()
    u = matrix(8)
    for c1, f in zip(net.c1.detach(), net.features().detach(), strict=True):
        assert torch.allclose(f, (u @ net.b1 @ c1).clamp(min=0), atol=1e-12)


def test_u_is_the_upsampling() -> None:
    x = torch.randn(5, 5, generator=seeded(), dtype=torch.float64)
    expected = torch.nn.functional.interpolate(x[None, None], scale_factor=2, mode="bilinear")
    assert torch.allclose(bilinear(5)(x.reshape(-1, 1)), expected.reshape(-1, 1), atol=1e-12)


def test_fit_only_improves_on_gradient_descent_over_both() -> None:
    net, eta = made()
    at_best = net.fit_noise(eta, steps=150)
    b, u = net.b1, matrix(8)
    c1 = torch.randn(3, 3, generator=seeded(4), dtype=torch.float64).requires_grad_()
    c2 = torch.zeros(3, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([c1, c2], lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        loss = ((u @ b @ c1).relu() @ c2 - eta).square().sum() / eta.square().sum()
        loss.backward()
        optimizer.step()
    assert 0 < 1 - float(loss.detach()) <= at_best + 0.01
    assert at_best < 0.2


def test_scale_of_the_noise_does_not_matter() -> None:
    shares = [made()[0].fit_noise(scale * made()[1], steps=20) for scale in (1.0, 1e3)]
    assert shares[0] == pytest.approx(shares[1], rel=1e-6)


def test_what_it_could_make_is_fitted() -> None:
    net, _ = made()
    target = net.features()[0].detach() @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert net.fit_noise(target, steps=1) == pytest.approx(1, abs=1e-5)


def test_a_free_input_fits_more() -> None:
    (fixed, eta), (free, _) = made(), made(train_input=True)
    assert free.fit_noise(eta, steps=60) > 3 * fixed.fit_noise(eta, steps=60)


def test_bound() -> None:
    assert noise_bound(4, 1024, 4096) == pytest.approx(20 * 16 * math.log(1024) / 4096)
    with pytest.raises(ValueError, match="1/32"):
        noise_bound(5, 1024, 4096)
