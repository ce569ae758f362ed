import pytest
import torch
from torch import nn

from precis.nn.cost import count, match_width, saved_bytes


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def test_count_of_linear_layers_is_the_closed_form():
    cost = count(mlp(16), torch.zeros(5, 3))
    assert cost.params == 3 * 16 + 16 + 16 * 16 + 16 + 16 + 1
    assert cost.macs == 5 * (3 * 16 + 16 * 16 + 16)
    assert cost.peak_activation_bytes == 4 * 5 * (16 + 16)


def test_count_of_convolutions_agrees_with_torchs_flop_counter():
    from torch.utils.flop_counter import FlopCounterMode

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=4),
        nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Flatten(), nn.LazyLinear(5),
    )
    x = torch.zeros(2, 3, 16, 16)
    model(x)
    with FlopCounterMode(display=False) as flops:
        model(x)
    cost = count(model, x)
    assert 2 * cost.macs == flops.get_total_flops()
    assert cost.params - cost.params_without_norm == 16


def test_count_leaves_the_model_as_it_was():
    model = mlp(8)
    count(model, torch.zeros(1, 3))
    assert all(p.device.type == "cpu" for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_saved_bytes_of_an_elementwise_chain_and_without_parameters():
    x = torch.zeros(1000, requires_grad=True)
    assert saved_bytes(lambda x: x.sin().exp(), x) == 4000  # exp keeps its output; sin keeps the leaf
    layer = nn.Linear(100, 1)
    assert saved_bytes(layer, torch.zeros(10, 100)) == 4000  # the input only, not the weight


def test_saved_bytes_leaves_out_a_weight_that_is_saved_transposed():
    model = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100))
    assert saved_bytes(model, torch.zeros(10, 100, requires_grad=True)) == 4000  # the second layer's input


def test_saved_bytes_agree_with_what_stays_allocated():
    from torch.profiler import ProfilerActivity, profile

    model = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.Tanh())))
    x = torch.rand(4, 8, 32, 32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        kept = model(x)  # alive, and with it all that its backward needs
    allocated = sum(event.self_cpu_memory_usage for event in found.key_averages())
    assert kept.requires_grad
    assert saved_bytes(model, x) == allocated + x.numel() * 4  # x itself was there before


def test_saved_bytes_counts_a_shared_storage_once():
    def twice(x):
        y = x * 2
        return y.sin() + y.cos()

    assert saved_bytes(twice, torch.zeros(1000, requires_grad=True)) == 4000


def test_match_width_meets_the_budget_by_parameters_and_by_macs():
    target = sum(p.numel() for p in mlp(64).parameters())
    assert match_width(mlp, target) == 64
    macs = count(mlp(64), torch.zeros(7, 3)).macs
    assert match_width(mlp, macs, by="macs", inputs=(torch.zeros(7, 3),)) == 64


def test_match_width_says_when_no_width_is_near():
    with pytest.raises(ValueError, match="not within 2%"):
        match_width(lambda w: nn.Linear(100, w, bias=False), 150)
