"""Networks get smaller and compute the same; what is tied together or not understood stays."""

import pytest
import torch
import torch.nn.functional as F
from tests.helpers import check_component
from torch import nn

from precis.nn.backbones import backbone
from precis.sparsity.compact import compact
from precis.sparsity.masks import magnitude_masks, prunable

G = lambda seed=0: torch.Generator().manual_seed(seed)


def trained_norms(net: nn.Module) -> nn.Module:
    """Batch norms with statistics and affine parts of their own."""
    for i, m in enumerate(net.modules()):
        if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor, low in ((m.weight, 0.5), (m.bias, -1), (m.running_mean, -1), (m.running_var, 0.5)):
                tensor.data.copy_(low + torch.rand(tensor.shape, generator=G(i)))
    return net


def without_rows(net: nn.Module, **rows: list[int]):
    """Masks with these output units of a layer (double underscores for dots) all dead."""
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in prunable(net).items()}
    for name, dead in rows.items():
        masks[f"{name.replace('__', '.')}.weight"][dead] = False
    return masks


def test_a_perceptron_loses_units_with_no_way_in_or_out():
    net = backbone("mlp:12-9", (1, 4, 4), 3, generator=G())
    masks = without_rows(net, layers__0=[0, 5, 7])
    masks["layers.1.weight"][:, 2] = False  # nothing leaves unit 2 of the first layer
    masks["layers.1.weight"][4] = False  # unit 4 of the second is a constant
    masks["head.weight"][:, 6] = False  # nothing leaves its unit 6
    found = compact(net, masks, torch.rand(5, 1, 4, 4, generator=G(1)))
    assert found.reason == "" and found.error <= 1e-6
    assert found.deleted == {"layers.0": 4, "layers.1": 2}
    shapes = [tuple(p.shape) for p in found.module.parameters()]
    assert (8, 16) in shapes and (7, 8) in shapes and (3, 7) in shapes
    assert found.parameters == 8 * 17 + 7 * 9 + 3 * 8 and found.parameters_before == 12 * 17 + 9 * 13 + 30
    again = found.program.module()
    x = torch.rand(7, 1, 4, 4, generator=G(2))
    assert torch.allclose(again(x), found.module(x)) and found.module(x).shape == (7, 3)


def test_what_follows_from_a_deletion_is_deleted_too():
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)]
    net = nn.Sequential(*layers)
    masks = without_rows(net)
    masks["6.weight"][:, 3] = False
    masks["4.weight"][:3, 1] = False  # unit 1 of layer 2 goes to unit 3 of layer 4 alone
    masks["2.weight"][[0, 2, 3, 4], 0] = False  # unit 0 of layer 0 goes to that one alone
    found = compact(net, masks, torch.randn(4, 4, generator=G()))
    assert found.deleted == {"0": 1, "2": 1, "4": 1} and found.error <= 1e-6


def test_a_constant_channel_passes_batch_norm_but_not_zero_padding():
    class Net(nn.Module):
        def __init__(self, padding):
            super().__init__()
            self.a, self.norm = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6)
            self.b, self.head = nn.Conv2d(6, 4, 3, padding=padding, bias=False), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(F.gelu(self.b(F.relu(self.norm(self.a(x))))).mean((2, 3)))

    for padding in (0, 1):
        net = trained_norms(Net(padding))
        net.norm.bias.data.copy_(torch.tensor([3.0, -9, 3, 3, 3, 3]))  # channel 1 is 0 behind the ReLU
        found = compact(net, without_rows(net, a=[1, 2]), torch.randn(3, 2, 8, 8, generator=G(1)))
        assert found.error <= 1e-5 and found.deleted == {"a": 2 if padding == 0 else 1}
        names = dict(found.module.named_parameters())
        assert ("b.bias" in names) == (padding == 0)  # made for what was folded


@pytest.mark.parametrize("spec", ["resnet20:width=4", "small_resnet:width=4,preact", "conv:6x3", "lenet5",
                                  "small_resnet:width=4,norm=none"])  # fmt: skip
def test_pruned_backbones_get_smaller_and_compute_the_same(spec):
    net = trained_norms(backbone(spec, (3, 16, 16), 5, generator=G()))
    masks = magnitude_masks(prunable(net), density=0.03)
    found = compact(net, masks, torch.rand(4, 3, 16, 16, generator=G(1)))
    assert found.error <= 1e-5 and found.reason == "" and found.parameters < 0.8 * found.parameters_before


def test_channels_of_a_residual_sum_go_only_together():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b, self.head = (nn.Linear(3, 6), nn.Linear(6, 4), nn.Linear(4, 6), nn.Linear(6, 2))

        def forward(self, x):
            h = torch.relu(self.stem(x))
            return self.head(h + self.b(torch.relu(self.a(h))))

    net = Net()
    one = without_rows(net, b=[0, 1])  # the stem's units still say something
    assert compact(net, one, torch.randn(4, 3)).deleted == {}
    both = without_rows(net, b=[0, 1], stem=[1, 2])
    assert compact(net, both, torch.randn(4, 3)).deleted == {"stem": 1, "b": 1}
    silent = without_rows(net)
    silent["head.weight"][:, 3] = False  # the sum is not read there, but a still reads the stem's
    assert compact(net, silent, torch.randn(4, 3)).deleted == {}
    silent["a.weight"][:, 3] = False
    assert compact(net, silent, torch.randn(4, 3)).deleted == {"stem": 1, "b": 1}


def test_concatenation_depthwise_and_grouped_convolutions():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
            self.deep, self.point = nn.Conv2d(10, 10, 3, padding=1, groups=10), nn.Conv2d(10, 8, 1)
            self.grouped, self.head = nn.Conv2d(8, 8, 1, groups=2), nn.Linear(8, 3)

        def forward(self, x):
            h = torch.cat([self.a(x), F.max_pool2d(self.b(x), 3, 1, 1)], 1)
            return self.head(self.grouped(F.relu(self.point(F.relu(self.deep(h))))).mean((2, 3)))

    net = Net()
    masks = without_rows(net, point=[1, 2])  # read by a grouped convolution: stays
    masks["point.weight"][:, [0, 4, 9]] = False  # channels 0 of a, 0 and 5 of b
    found = compact(net, masks, torch.rand(2, 3, 6, 6))
    assert found.deleted == {"a": 1, "b": 2, "deep": 3} and found.error <= 1e-6
    assert found.module(torch.rand(1, 3, 6, 6)).shape == (1, 3)


def test_layers_used_twice_and_what_is_not_understood_stay_dense():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.b(torch.relu(self.a(torch.relu(self.a(x)))))

    net = Twice()
    masks = without_rows(net)
    masks["b.weight"][:, 0] = False
    assert "no unit could be deleted" in compact(net, masks, torch.randn(3, 5)).reason

    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.b(self.a(x).sort(1).values)

    found = compact(Sorted(), without_rows(Sorted(), a=[0]), torch.randn(3, 5))
    assert found.deleted == {} and found.program is None


def test_a_transformer_block_loses_units_and_heads():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.TransformerEncoderLayer(12, 3, 16, batch_first=True)
            self.head = nn.Linear(12, 3)

        def forward(self, x):
            return self.head(self.block(x).mean(1))

    net = Net()
    for p in net.parameters():  # biases too: a dead value projection is a constant, not nothing
        p.data.copy_(torch.randn(p.shape, generator=G(p.numel())) / 4)
    masks = without_rows(net, block__linear1=[0, 1, 9])
    x = torch.randn(3, 5, 12, generator=G())
    assert compact(net, masks, x).deleted == {"block.linear1": 3}
    masks["block.self_attn.in_proj_weight"][24 + 4 : 24 + 8] = False  # the values of head 1
    masks["block.self_attn.out_proj.weight"][:, 8:] = False  # nothing reads head 2
    found = compact(net, masks, x)
    assert found.error <= 1e-5 and found.reason == ""
    assert found.deleted == {"block.linear1": 3, **{f"block.self_attn.{p}": 8 for p in ("query", "key", "value")}}
    assert found.module(x[:1]).shape == (1, 3)
    masks["block.self_attn.out_proj.weight"][0, 8] = True
    assert compact(net, masks, x).deleted["block.self_attn.value"] == 4


def test_attention_opened_is_the_same_and_masks_are_refused():
    from precis.sparsity.attention import OpenAttention, open_attention

    for first, bias in ((True, True), (False, False)):
        packed = nn.MultiheadAttention(8, 2, batch_first=first, bias=bias).eval()
        x = torch.randn(4, 5, 8)
        opened = OpenAttention(packed)
        assert torch.allclose(opened(x, x, x)[0], packed(x, x, x, need_weights=False)[0], atol=1e-6)
    check_component(lambda generator: opened, x.transpose(0, 1), call=lambda m, x: m(x, x, x)[0], batch_dim=1,
                    state=False, seeded=False)  # fmt: skip
    with pytest.raises(ValueError, match="without masks"):
        opened(x, x, x, attn_mask=torch.zeros(5, 5))
    other = open_attention(nn.Sequential(nn.MultiheadAttention(8, 2, kdim=4, vdim=4), nn.MultiheadAttention(8, 2)))
    assert [type(m) for m in other] == [nn.MultiheadAttention, OpenAttention]


def test_a_dead_layer_keeps_one_unit_and_a_wrong_result_is_not_delivered(monkeypatch):
    net = backbone("mlp:6-5", (1, 3, 3), 2, generator=G())
    found = compact(net, without_rows(net, layers__1=[0, 1, 2, 3, 4]), torch.rand(3, 1, 3, 3))
    assert found.error <= 1e-6 and found.deleted == {"layers.0": 5, "layers.1": 4}
    import precis.sparsity.compact as home

    monkeypatch.setattr(home, "_difference", lambda *_: 0.1)
    refused = compact(net, without_rows(net, layers__1=[0]), torch.rand(3, 1, 3, 3))
    assert refused.program is None and "differs by 1.0e-01" in refused.reason and refused.deleted == {}

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x):
            return self.a(x) if float(x.sum()) > 0 else -self.a(x)

    net = Branches()
    found = compact(net, without_rows(net), torch.rand(3, 3))
    assert "cannot be exported" in found.reason and torch.equal(found.module(torch.ones(1, 3)), net(torch.ones(1, 3)))
