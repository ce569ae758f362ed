import copy

import pytest
import torch

from precis.fields.neural_process import CNP
from precis.fields.neural_process_fit import glorot_
from precis.fields.neural_process_stacked import StackedCNP


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(seed: int) -> CNP:
    return CNP(2, 1, 8, (16, 12), (10, 6), generator=seeded(seed))


@pytest.fixture
def batch():
    draw = lambda *shape: torch.randn(3, 4, *shape, generator=seeded(9))
    mask = torch.rand(3, 4, 5, generator=seeded(1)) < 0.6
    mask[0, 0] = False
    return draw(5, 2), draw(5, 1), draw(7, 2), draw(7, 1), mask


@pytest.mark.parametrize("masked", [False, True])
def test_copies_are_the_single_nets_with_the_same_gradients(batch, masked):
    x, y, at, target, mask = batch
    singles = [build(m) for m in range(3)]
    stack = StackedCNP(copy.deepcopy(singles))
    given = mask if masked else None
    found = stack(x, y, at, given)
    losses = stack.losses(x, y, at, target, given)
    losses.sum().backward()
    for m, single in enumerate(singles):
        own = mask[m] if masked else None
        one = single(x[m], y[m], at[m], own)
        torch.testing.assert_close(found.mean[m], one.mean, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found.stddev[m], one.stddev, atol=1e-6, rtol=1e-5)
        loss = single.loss(x[m], y[m], at[m], target[m], own)
        torch.testing.assert_close(losses[m], loss)
        loss.backward()
        torch.testing.assert_close(stack.from_x.weight.grad[m].T, single.from_x.weight.grad, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(
            stack.encoder[0].weight.grad[m].T, single.encode.linears[0].weight.grad, atol=1e-6, rtol=1e-4
        )


def test_an_empty_context_has_the_learned_code(batch):
    x, y, at, _, _ = batch
    singles = [build(m) for m in range(3)]
    for single in singles:
        torch.nn.init.normal_(single.encode.empty, generator=seeded(4))
    found = StackedCNP(singles)(x[:, :, :0], y[:, :, :0], at)
    for m, single in enumerate(singles):
        torch.testing.assert_close(found.mean[m], single(x[m, :, :0], y[m, :, :0], at[m]).mean)


def test_copies_come_back_as_they_went_in():
    singles = [build(m) for m in range(3)]
    for one, back in zip(singles, StackedCNP(singles).to_modules()):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(back.state_dict()[name], value)


def test_a_copy_does_not_depend_on_its_mates(batch):
    x, y, at, target, mask = batch
    trained = []
    for copies in (2, 3):
        stack = StackedCNP([build(m) for m in range(copies)])
        adam = torch.optim.Adam(stack.parameters(), 1e-2)
        for _ in range(20):
            adam.zero_grad()
            stack.losses(*(t[:copies] for t in (x, y, at, target, mask))).sum().backward()
            adam.step()
        trained.append(stack.from_x.weight.detach()[:2])
    torch.testing.assert_close(*trained, atol=1e-5, rtol=0)


def test_unlike_modules_are_refused():
    with pytest.raises(ValueError, match="same sizes"):
        StackedCNP([build(0), CNP(2, 1, 8, (16, 12), (10, 7), generator=seeded())])


def test_glorot_gives_the_notebooks_bounds_and_zero_biases():
    net = CNP(1, 1, 128, (128,) * 3, (128, 128), generator=seeded())
    glorot_(net, seeded(1))
    weights = dict(net.named_parameters())
    assert not weights["from_x.bias"].any() and not weights["encode.linears.1.bias"].any()
    for name, fans in {"encode.linears.1.weight": 256, "from_x.weight": 257, "from_r.weight": 257}.items():
        bound = (6 / fans) ** 0.5
        assert 0.9 * bound < float(weights[name].detach().abs().max()) <= bound, name
