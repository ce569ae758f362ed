import math
from pathlib import Path

import pytest
import torch
from tests.helpers import check_component

from precis.fields.neural_process import SetEncoder
from precis.fields.siren import Siren
from precis.fields.siren_fit import to_values
from precis.fields.siren_prior import (
    HyperNetwork,
    SirenPrior,
    encode_images,
    fit_prior,
    random_context,
)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encoder(latent: int, width: int, layers: int, g: torch.Generator | None = None) -> SetEncoder:
    return SetEncoder(3, latent, (width,) * layers, "sine", g, last_activation=True)


def build(g: torch.Generator, latent: int = 12) -> SirenPrior:
    target = Siren(2, 1, 8, 1, generator=g)
    return SirenPrior(encoder(latent, 16, 2, g), HyperNetwork(latent, target, 16, generator=g))


def context(b: int = 4, n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(b, n, 2, generator=gen(1)) * 2 - 1, torch.rand(b, n, 1, generator=gen(2))


def test_generated_weights_are_those_of_a_siren() -> None:
    """Weights copied into single nets give what the stacked evaluation gives."""
    prior = build(gen()).double()
    target = Siren(2, 1, 8, 1).double()
    z, x = torch.randn(3, 12, generator=gen(), dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    theta = prior.hyper(z)
    together = prior.decode(z, x)
    for m in range(3):
        for i, layer in enumerate(target.layers):
            layer.weight.data.copy_(theta[2 * i][m].T)
            layer.bias.data.copy_(theta[2 * i + 1][m, 0])
        torch.testing.assert_close(together[m], target(x), rtol=1e-10, atol=1e-12)


def test_each_weight_tensor_has_a_perceptron_of_its_own() -> None:
    hyper = build(gen()).double().hyper
    z = torch.randn(2, 12, generator=gen(), dtype=torch.float64)
    theta = hyper(z)
    for i, head in enumerate(hyper.heads):
        h = z
        for layer in hyper.trunk:
            h = torch.relu(h @ layer.weight[i] + layer.bias[i])
        torch.testing.assert_close(head(h).flatten(), theta[i].flatten(), rtol=1e-10, atol=1e-12)


def test_initial_weights_are_small_and_alike() -> None:
    prior = SirenPrior(encoder(256, 256, 3, gen()), HyperNetwork(256, Siren(2, 1, 64), generator=gen(5)))
    theta = prior.hyper(torch.randn(2, 256, generator=gen()))
    assert theta[2].shape == (2, 64, 64) and theta[3].shape == (2, 1, 64)
    heads = prior.hyper.heads
    for head, bound in ((heads[0], 1 / 2), (heads[2], 1 / 64), (heads[3], 1 / 256)):
        assert 0.9 * bound < float(head.bias.detach().abs().max()) <= bound
        assert float(head.weight.detach().std()) == pytest.approx(math.sqrt(2 / 256) / 100, rel=0.05)
    linears = prior.encoder.linears
    bound = math.sqrt(6 / 3) / 30
    assert 0.8 * bound < float(linears[0].weight.detach().abs().max()) <= bound
    assert len(linears) == 4


def test_order_and_masked_pairs_change_nothing() -> None:
    encode = build(gen()).encoder
    x, y = context()
    z = encode(x, y)
    order = torch.randperm(7, generator=gen(3))
    torch.testing.assert_close(encode(x[:, order], y[:, order]), z)
    mask = torch.arange(7).expand(4, 7) < 5
    torch.testing.assert_close(encode(x, y, mask), encode(x[:, :5], y[:, :5]))
    assert not encode(x, y, torch.zeros(4, 7, dtype=torch.bool)).any()
    assert not encode(x[:, :0], y[:, :0]).any()
    linear = SetEncoder(3, 12, (16, 16), "relu", gen())
    assert (linear(x, y) < 0).any()
    with pytest.raises(ValueError, match="activation"):
        SetEncoder(3, activation="tanh")


def test_component(tmp_path: Path) -> None:
    x, y = context()
    points = torch.rand(4, 6, 2)
    check_component(build, x, y, points, tolerance=1e-4, tmp_path=tmp_path)


def test_loss_terms() -> None:
    prior = build(gen()).double()
    x, y = (t.double() for t in context())
    points, target = x[:, :3], y[:, :3]
    out = prior.loss(x, y, points, target)
    z = prior.encoder(x, y)
    theta = torch.cat([t.flatten() for t in prior.hyper(z)])
    mse = ((prior(x, y, points) - target) ** 2).mean()
    torch.testing.assert_close(out["loss"], mse + 0.1 * (z**2).mean() + 100 * (theta**2).mean())
    torch.testing.assert_close(out["mse"], mse.detach())


def test_contexts_are_subsets() -> None:
    rows, mask = random_context(50, 30, 3, 9, gen())
    assert rows.shape == mask.shape == (50, 9)
    assert all(len(set(row)) == 9 for row in rows.tolist())
    first = random_context(2000, 784, 500, 500, gen())[0][:, :12].float().mean()
    assert abs(float(first) - 391.5) < 6  # 4 standard errors: a short context is spread as a long one is
    counts = {int(random_context(1, 30, 3, 9, gen(s))[1].sum()) for s in range(60)}
    assert counts == set(range(3, 10))
    with pytest.raises(ValueError):
        random_context(1, 5, 3, 9, gen())


def pictures(n: int) -> torch.Tensor:
    """Ramps of random direction: one code of two numbers says all."""
    angle = 2 * math.pi * torch.rand(n, generator=gen(4))
    grid = torch.linspace(-1, 1, 6)
    ramp = angle.cos()[:, None, None] * grid[:, None] + angle.sin()[:, None, None] * grid
    return (0.5 + 0.25 * ramp)[:, None]


def small_prior() -> SirenPrior:
    hyper = HyperNetwork(16, Siren(2, 1, 16, 1), 32, generator=gen())
    return SirenPrior(encoder(16, 32, 2, gen()), hyper)


def test_a_prior_learns_to_complete_and_to_draw() -> None:
    images = pictures(64)
    prior = small_prior()
    with pytest.raises(ValueError, match="fit_codes"):
        prior.sample(1, gen())
    run = fit_prior(prior, images, generator=gen(1), batch=32, context=(6, 18), steps=300, lr=1e-3, weight_weight=0.1)
    mse = run.curves["mse"].values
    baseline = float((2 * images - 2 * images.mean(0)).square().mean())
    assert mse[-1] < 0.2 * baseline < mse[0]
    assert encode_images(prior, images, 10).shape == (64, 16)
    draw = prior.sample(100, gen(2))
    x, _ = to_values(images[0])
    drawn = draw(x)
    assert drawn.shape == (100, 36, 1) and not drawn.requires_grad
    torch.testing.assert_close(draw(x[:3]), drawn[:, :3])  # functions first, points afterwards
    torch.testing.assert_close(prior.sample(100, gen(2))(x), drawn)
    data = torch.stack([to_values(image)[1] for image in images])
    assert float((drawn.std(0) - data.std(0)).abs().mean()) < 0.15
    again = SirenPrior(encoder(16, 32, 2), HyperNetwork(16, Siren(2, 1, 16, 1), 32))
    again.load_state_dict(prior.state_dict())
    torch.testing.assert_close(again.sample(100, gen(2))(x), drawn)


def test_permuted_contexts_teach_nothing_of_places() -> None:
    images = pictures(64)
    results = {}
    for permuted in (False, True):
        prior = small_prior()
        run = fit_prior(
            prior, images, generator=gen(1), batch=32, context=(6, 18), steps=200, lr=1e-3, weight_weight=0.1,
            permute_context=permuted,
        )
        results[permuted] = sum(run.curves["mse"].values[-20:])
    assert results[False] < 0.5 * results[True]


def test_a_hypernetwork_writes_sirens_only() -> None:
    from precis.fields.siren import CoordinateMLP

    with pytest.raises(ValueError, match="Siren"):
        HyperNetwork(4, CoordinateMLP(2, 1, 8, activation="relu"))
