import copy

import pytest
import torch
from torch import nn

from precis.nn.memory import allocated_bytes
from precis.nn.replay import autocast_as, autocast_state, frozen_statistics, random_from, random_state, recomputed

CPU = torch.device("cpu")


@pytest.mark.parametrize("layer", [
    nn.BatchNorm1d(4), nn.BatchNorm1d(4, momentum=None), nn.InstanceNorm1d(4, track_running_stats=True),
    nn.BatchNorm1d(4, track_running_stats=False), nn.BatchNorm1d(4).eval(),
], ids=str)  # fmt: skip
def test_frozen_layers_give_the_same_and_remember_nothing(layer):
    x = torch.randn(3, 4, 5) + 2
    fresh = copy.deepcopy(layer)
    before = {name: b.clone() for name, b in layer.named_buffers()}
    with frozen_statistics(nn.Sequential(layer)):
        out = [layer(x) for _ in range(3)][-1]
    assert torch.equal(out, fresh(x))
    assert all(torch.equal(b, before[name]) for name, b in layer.named_buffers())
    assert layer.momentum == fresh.momentum and layer.state_dict().keys() == fresh.state_dict().keys()
    layer(x)
    assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), fresh.buffers()))  # and counts again afterwards


def test_statistics_are_freed_after_an_error():
    layer = nn.BatchNorm1d(2)
    counted = layer.num_batches_tracked
    with pytest.raises(ZeroDivisionError), frozen_statistics(layer):
        layer(torch.randn(3, 2))
        raise ZeroDivisionError
    assert layer.momentum == 0.1 and layer.num_batches_tracked is counted and int(counted) == 0


def test_numbers_are_drawn_again_and_the_generator_goes_on():
    torch.manual_seed(0)
    states = random_state(CPU)
    first, second = torch.rand(3), torch.rand(3)
    torch.manual_seed(0)
    torch.rand(3)
    with random_from(states, CPU):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.rand(3), second)
    with random_from([], CPU):
        torch.rand(3)


def test_autocast_is_entered_again_and_left_where_it_was_off():
    x = torch.randn(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        on = autocast_state(CPU)
    off = autocast_state(CPU)
    with autocast_as(on):
        assert (x @ x).dtype == torch.bfloat16
        with autocast_as(off):
            assert (x @ x).dtype == torch.float32


def test_a_part_is_computed_again_with_the_same_gradients_and_counts_once():
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 2))
    plain, x = copy.deepcopy(part), torch.randn(8, 3, requires_grad=True)
    found = []
    for run in (lambda: recomputed(part, x), lambda: plain(x)):
        torch.manual_seed(1)
        run().square().sum().backward()
        found.append(x.grad)
        x.grad = None
    assert torch.allclose(*found)
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(part.parameters(), plain.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(part.buffers(), plain.buffers()))
    assert int(part[1].num_batches_tracked) == 1


def test_the_allocator_saw_what_was_held_and_what_was_left():
    def work(n):
        big = torch.zeros(4 * n)
        small = big[:n] + 1
        del big
        return small

    found = allocated_bytes(work, 1000)
    assert found.left == 4000 and 20_000 <= found.peak < 20_100


def test_the_allocator_agrees_with_autograd_about_a_net():
    from precis.nn.cost import saved_bytes

    net, x = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(4)]), torch.randn(50, 64)
    assert allocated_bytes(net, x).left == saved_bytes(net, x) - 4 * x.numel()  # the input was there before
