import numpy as np
import pytest
import torch
from tests.helpers import check_component
from torch.distributions import Normal, kl_divergence

from precis.fields.neural_process import CNP
from precis.fields.neural_process_fit import fit_functions, fit_pixels, masked_loss
from precis.fields.neural_process_variants import CategoricalCNP, LatentCNP


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def latent(g: torch.Generator) -> LatentCNP:
    return LatentCNP(2, 1, 8, (16,), (16,), generator=g, z_dim=4)


def categorical(g: torch.Generator) -> CategoricalCNP:
    return CategoricalCNP(2, 3, 8, (16,), (16,), generator=g)


def test_components(tmp_path):
    given = draw(4, 5, 2), draw(4, 5, 1), draw(4, 6, 2)
    check_component(lambda g: CNP(2, 1, 8, (16,), (16,), generator=g), *given, call=lambda n, *a: n(*a).mean,
                    tmp_path=tmp_path)  # fmt: skip
    check_component(latent, *given, call=lambda n, *a: n.eval()(*a).mean, tmp_path=tmp_path)
    labels = torch.randint(3, (4, 5), generator=seeded())
    check_component(categorical, draw(4, 5, 2), labels, draw(4, 6, 2), call=lambda n, *a: n(*a).logits)


def test_categorical_head_is_the_formula_in_numpy():
    net = categorical(seeded())
    x, labels, at = draw(2, 5, 2), torch.randint(3, (2, 5), generator=seeded()), draw(2, 4, 2, seed=5)
    w = {k: v.detach().numpy().astype(np.float64) for k, v in net.state_dict().items()}
    relu = lambda a: np.maximum(a, 0)
    h = relu(np.concatenate([x, np.eye(3)[labels]], -1) @ w["trunk.encode.linears.0.weight"].T
             + w["trunk.encode.linears.0.bias"])  # fmt: skip
    r = (h @ w["trunk.encode.linears.1.weight"].T + w["trunk.encode.linears.1.bias"]).mean(1, keepdims=True)
    h = relu(at.numpy() @ w["trunk.from_x.weight"].T + w["trunk.from_x.bias"] + r @ w["trunk.from_r.weight"].T)
    logits = h @ w["trunk.linears.0.weight"].T + w["trunk.linears.0.bias"]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(net(x, labels, at).logits.detach(), expected, atol=1e-6)


def test_categorical_cnp_learns_a_split_from_labelled_points():
    g, net = seeded(), CategoricalCNP(1, 2, 16, (32,), (32,), generator=seeded())
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(200):
        at = torch.rand(16, 1, 1, generator=g) - 0.5
        x = 2 * torch.rand(16, 12, 1, generator=g) - 1
        labels = (x > at)[..., 0].long()
        loss = net.loss(x[:, :8], labels[:, :8], x, labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() < 0.4  # chance is 0.69
    with pytest.raises(ValueError, match="at least 2"):
        CategoricalCNP(1, 1)


def test_latent_bound_is_reconstruction_and_divergence():
    net = latent(seeded())
    x, y, at, target = draw(4, 3, 2), draw(4, 3, 1), draw(4, 6, 2, seed=1), draw(4, 6, 1, seed=2)
    found = net.loss(x, y, at, target, generator=seeded(7))
    q, p = net.posterior(at, target), net.posterior(x, y)
    z = q.mean + q.stddev * torch.randn(4, 4, generator=seeded(7))
    closed = torch.log(p.stddev / q.stddev) + (q.variance + (q.mean - p.mean) ** 2) / (2 * p.variance) - 0.5
    torch.testing.assert_close(closed, kl_divergence(q, p))
    predicted = net(x, y, at, z=z)
    logs = Normal(predicted.mean, predicted.stddev).log_prob(target)
    torch.testing.assert_close(found, closed.sum(-1).mean() / 6 - logs.sum(-1).mean())
    everything = torch.ones(4, 6, dtype=torch.bool)
    torch.testing.assert_close(
        masked_loss(net, x, y, torch.ones(4, 3, dtype=torch.bool), at, target, everything, seeded(7)), found
    )


def test_draws_of_the_latent_are_one_function_each():
    net = latent(seeded())
    x, y, at = draw(1, 3, 2), draw(1, 3, 1), draw(1, 6, 2)
    found = net.draw(x, y, at, 5, seeded(1))
    assert found.shape == (5, 1, 6, 1)
    apart = net.draw(x, y, at[:, :2], 5, seeded(1))  # the same z read at fewer places
    torch.testing.assert_close(apart, found[:, :, :2])
    assert float(found.std(0).min().detach()) > 0


def test_functions_of_any_length_train_and_padding_is_never_seen():
    x, y = draw(10, 8, 1), draw(10, 8, 1, seed=4)
    mask = torch.arange(8).expand(10, 8) < torch.randint(2, 9, (10, 1), generator=seeded())
    losses = []
    for junk in (0.0, 1e6):
        net = CNP(1, 1, 8, (16,), (16,), generator=seeded())
        run = fit_functions(net, x.masked_fill(~mask[..., None], junk), y.masked_fill(~mask[..., None], junk), mask,
                            generator=seeded(5), batch=4, context=5, steps=30, lr=1e-2)  # fmt: skip
        losses.append(run.curves["loss"].values)
    assert losses[0] == losses[1]
    assert np.mean(losses[0][-5:]) < losses[0][0]


def test_pixels_train_in_every_order():
    pictures = torch.rand(12, 1, 1, generator=seeded()).expand(12, 16, 1).contiguous()
    grid = draw(16, 2)
    net = CNP(2, 1, 8, (16,), (16,), generator=seeded())
    options = dict(batch=6, context=10, targets=9, steps=150, lr=1e-2)
    losses = fit_pixels(net, pictures, grid, (4, 4), generator=seeded(1), **options).curves["loss"].values
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.3
