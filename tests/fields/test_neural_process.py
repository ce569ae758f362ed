import numpy as np
import pytest
import torch

from precis.fields.neural_process import CNP, SetEncoder


def seeded(n: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(n)


@pytest.fixture
def batch():
    g = seeded(3)
    shape = lambda n, d: torch.randn(4, n, d, generator=g)
    return shape(6, 2), shape(6, 1), shape(9, 2), shape(9, 1)


def test_prediction_is_the_formula_in_numpy(batch):
    ctx_x, ctx_y, tgt_x, _ = batch
    net = CNP(2, 1, latent=5, encoder=(7,), decoder=(8, 6), generator=seeded())
    w = {k: v.detach().numpy().astype(np.float64) for k, v in net.state_dict().items()}
    relu = lambda a: np.maximum(a, 0)
    pairs = np.concatenate([ctx_x, ctx_y], -1)
    r_i = relu(pairs @ w["encode.linears.0.weight"].T + w["encode.linears.0.bias"])
    r = (r_i @ w["encode.linears.1.weight"].T + w["encode.linears.1.bias"]).mean(1, keepdims=True)
    h = tgt_x.numpy() @ w["from_x.weight"].T + w["from_x.bias"] + r @ w["from_r.weight"].T
    for i in range(2):
        h = relu(h) @ w[f"linears.{i}.weight"].T + w[f"linears.{i}.bias"]
    expected = net(ctx_x, ctx_y, tgt_x)
    np.testing.assert_allclose(expected.mean.detach(), h[..., :1], atol=1e-6)
    np.testing.assert_allclose(expected.stddev.detach(), 0.1 + 0.9 * np.log1p(np.exp(h[..., 1:])), atol=1e-6)


def test_context_order_does_not_matter_and_target_order_carries_over(batch):
    ctx_x, ctx_y, tgt_x, _ = batch
    net = CNP(2, 1, generator=seeded())
    order, targets = torch.randperm(6, generator=seeded(1)), torch.randperm(9, generator=seeded(2))
    torch.testing.assert_close(net(ctx_x, ctx_y, tgt_x).mean, net(ctx_x[:, order], ctx_y[:, order], tgt_x).mean)
    torch.testing.assert_close(
        net(ctx_x, ctx_y, tgt_x).mean[:, targets], net(ctx_x, ctx_y, tgt_x[:, targets]).mean
    )


def test_targets_are_independent_given_the_context(batch):
    ctx_x, ctx_y, tgt_x, _ = batch
    net = CNP(2, 1, generator=seeded())
    torch.testing.assert_close(net(ctx_x, ctx_y, tgt_x).mean[:, 3:4], net(ctx_x, ctx_y, tgt_x[:, 3:4]).mean)


@pytest.mark.parametrize("activation", ["relu", "sine"])
def test_masked_points_change_nothing_even_if_not_finite(batch, activation):
    ctx_x, ctx_y, _, _ = batch
    encode = SetEncoder(3, 8, (16,), activation, seeded())
    padded = torch.cat([ctx_y, torch.full((4, 2, 1), float("nan"))], 1)
    places = torch.cat([ctx_x, torch.zeros(4, 2, 2)], 1)
    mask = torch.arange(8).expand(4, 8) < 6
    torch.testing.assert_close(encode(places, padded, mask), encode(ctx_x, ctx_y))


def test_empty_context_gives_one_distribution_for_each_location(batch):
    _, _, tgt_x, _ = batch
    net = CNP(2, 1, generator=seeded())
    alone = net(torch.zeros(4, 0, 2), torch.zeros(4, 0, 1), tgt_x)
    masked = net(torch.ones(4, 3, 2), torch.ones(4, 3, 1), tgt_x, torch.zeros(4, 3, dtype=torch.bool))
    torch.testing.assert_close(alone.mean, masked.mean)
    same_place = net(torch.zeros(4, 0, 2), torch.zeros(4, 0, 1), tgt_x[:1].expand(4, 9, 2)).mean
    torch.testing.assert_close(same_place, same_place[:1].expand_as(same_place))


def test_sigma_never_falls_below_its_floor():
    net = CNP(1, 1, min_sigma=0.3, generator=seeded())
    far = net(torch.zeros(1, 1, 1), torch.full((1, 1, 1), -1e4), torch.linspace(-1e4, 1e4, 50).view(1, 50, 1))
    assert (far.stddev >= 0.3).all()
    with pytest.raises(ValueError, match="min_sigma"):
        CNP(1, 1, min_sigma=0.0)


def test_it_learns_constant_functions_from_one_point():
    g, net = seeded(5), CNP(1, 1, 16, (32,), (32,), generator=seeded())
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    first = last = 0.0
    for step in range(150):
        level = torch.randn(32, 1, 1, generator=g)
        x, tgt = torch.rand(32, 1, 1, generator=g), torch.rand(32, 8, 1, generator=g)
        loss = net.loss(x, level, tgt, level.expand(32, 8, 1))
        adam.zero_grad()
        loss.backward()
        adam.step()
        first, last = (loss.item(), loss.item()) if step == 0 else (first, loss.item())
    assert last < -0.8 < first  # the floor σ = 0.1 allows −1.38 nats
