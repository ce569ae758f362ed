"""The network: size, parity with a plain re-implementation in NumPy, what broadcasting and options mean."""

import numpy as np
import pytest
import torch
from tests.helpers import check_component

from precis.fields.nerf import NerfMLP, tiny_nerf

rng = torch.Generator


def inputs(n=5, dtype=torch.float32):
    g = rng().manual_seed(3)
    d = torch.randn(n, 3, generator=g, dtype=dtype)
    return torch.randn(n, 3, generator=g, dtype=dtype), d / d.norm(dim=-1, keepdim=True)


def test_the_paper_s_size():
    net = NerfMLP(generator=rng().manual_seed(0))
    count = sum(p.numel() for p in net.parameters())
    assert count == 595_844
    assert 2 * 4 * count / 1e6 == pytest.approx(4.77, abs=0.005)


@pytest.mark.parametrize("build", [lambda g: NerfMLP(width=32, colour_width=16, generator=g),
                                   lambda g: tiny_nerf(generator=g), lambda g: tiny_nerf(view_dependent=False,
                                                                                         generator=g)])  # fmt: skip
def test_the_contract_of_components(build, tmp_path):
    check_component(build, *inputs(), tmp_path=tmp_path)


def gamma(x, bands):
    parts = [x]
    for k in range(bands):
        parts += [np.sin(2.0**k * x), np.cos(2.0**k * x)]
    return np.concatenate(parts, -1)


def test_parity_with_the_published_layers_in_numpy():
    net = NerfMLP(generator=rng().manual_seed(0)).double()
    x, d = inputs(dtype=torch.float64)
    w = {name: p.detach().numpy() for name, p in net.named_parameters()}
    dense = lambda h, name: h @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    encoded = gamma(x.numpy(), 10)
    h = encoded
    for i in range(8):
        h = np.maximum(dense(h, f"trunk.{i}"), 0)
        if i == 4:
            h = np.concatenate([encoded, h], -1)
    sigma = np.maximum(dense(h, "sigma")[:, 0], 0)
    c = np.concatenate([dense(h, "bottleneck"), gamma(d.numpy(), 4)], -1)
    c = np.maximum(dense(c, "colour"), 0)
    rgb = 1 / (1 + np.exp(-dense(c, "rgb")))
    found_sigma, found_rgb = net(x, d)
    np.testing.assert_allclose(found_sigma.detach(), sigma, atol=1e-12)
    np.testing.assert_allclose(found_rgb.detach(), rgb, atol=1e-12)


def test_a_direction_for_each_ray_serves_its_samples():
    net = tiny_nerf(generator=rng().manual_seed(0))
    x = torch.randn(4, 6, 3, generator=rng().manual_seed(1))
    _, d = inputs(4)
    sigma, rgb = net(x, d[:, None])
    flat = net(x.reshape(-1, 3), d.repeat_interleave(6, 0))
    torch.testing.assert_close(sigma.reshape(-1), flat[0])
    torch.testing.assert_close(rgb.reshape(-1, 3), flat[1])
    torch.testing.assert_close(net.density(x), sigma)


def test_density_never_depends_on_the_direction_and_colour_only_if_asked():
    x, d = inputs()
    for seen in (True, False):
        net = tiny_nerf(view_dependent=seen, generator=rng().manual_seed(0))
        (s1, c1), (s2, c2) = net(x, d), net(x, -d)
        assert torch.equal(s1, s2) and torch.equal(c1, c2) != seen


def test_noise_and_codes():
    net = NerfMLP(width=16, colour_width=8, code_dim=2, generator=rng().manual_seed(0))
    x, d = inputs()
    one, two = (net(x, d, torch.full((5, 2), value)) for value in (0.0, 1.0))
    assert torch.equal(one[0], two[0]) and not torch.equal(one[1], two[1])
    noisy = net(x, d, torch.zeros(5, 2), noise=torch.full((5,), 2.0))[0]
    raw = net.sigma(net._features(x))[:, 0]
    torch.testing.assert_close(noisy, torch.relu(raw + 2))
    with pytest.raises(ValueError, match="skip"):
        NerfMLP(skip=-1)
