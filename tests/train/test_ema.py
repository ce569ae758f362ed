import pytest
import torch
from torch import nn

from precis.train.ema import EMA, ema_


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()


def walk(net, ema, steps, amount=1):
    """Random weights and statistics at every step; returns the path of the first weight and of the running mean."""
    g, weights, means = torch.Generator().manual_seed(0), [], []
    for _ in range(steps):
        for p in net.parameters():
            p.data.normal_(generator=g)
        net[1].running_mean.normal_(generator=g)
        net[1].num_batches_tracked += 1
        ema.update(amount)
        weights.append(net[0].weight.detach().clone())
        means.append(net[1].running_mean.clone())
    return torch.stack(weights), torch.stack(means)


def closed_form(start, path, decay):
    n = len(path)
    powers = decay ** torch.arange(n - 1, -1, -1, dtype=torch.float64)
    return decay**n * start + (1 - decay) * (powers.view(-1, *[1] * start.ndim) * path).sum(0)


@pytest.mark.parametrize("buffers", ["copy", "average", "own"])
def test_closed_form(buffers):
    net = model()
    ema = EMA(net, 0.9, buffers=buffers)
    start = net[0].weight.detach().clone()
    weights, means = walk(net, ema, 20)
    torch.testing.assert_close(ema.model[0].weight, closed_form(start, weights, 0.9), rtol=1e-12, atol=1e-12)
    zeros = torch.zeros(3).double()
    mean = {"copy": means[-1], "average": closed_form(zeros, means, 0.9), "own": zeros}
    torch.testing.assert_close(ema.model[1].running_mean, mean[buffers], rtol=1e-12, atol=1e-12)
    assert int(ema.model[1].num_batches_tracked) == (0 if buffers == "own" else 20)
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())


def test_after_a_half_life_the_old_weights_share_is_one_half():
    net = model()
    ema = EMA(net, half_life=1000)
    net[0].weight.data.zero_()
    old = ema.model[0].weight.clone()
    for _ in range(20):
        ema.update(50)
    torch.testing.assert_close(ema.model[0].weight, old / 2)


def test_each_copy_has_its_own_decay():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 4, 5, generator=g), torch.randn(3, 4, 5, generator=g)
    decay = torch.tensor([0.0, 0.5, 1.0])
    expected = decay.view(3, 1, 1) * a + (1 - decay.view(3, 1, 1)) * b
    target = [a.clone()]
    ema_(target, [b], decay)
    torch.testing.assert_close(target[0], expected)
    assert torch.equal(target[0][2], a[2])


def test_state_goes_to_another_average():
    net = model()
    ema = EMA(net, 0.9)
    walk(net, ema, 3)
    other = EMA(model(), 0.9)
    other.load_state_dict(ema.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(ema.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("options", [{}, {"decay": 0.9, "half_life": 3}, {"decay": 1.5}, {"half_life": 0}])
def test_bad_arguments(options):
    with pytest.raises(ValueError):
        EMA(model(), **options)
    with pytest.raises(ValueError, match="tensors"):
        ema_([torch.zeros(1)], [], 0.5)
