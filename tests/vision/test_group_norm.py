import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component
from torch import nn

from precis.nn.backbones import backbone
from precis.nn.cost import count
from precis.vision.group_norm import GroupNorm, convert_norms, normalize


def by_definition(x: np.ndarray, kind: str, groups: int, eps: float = 1e-5) -> np.ndarray:
    """The four sets S_i of the paper, entry by entry."""
    out = np.empty_like(x)
    per = x.shape[1] // groups
    for n, c, *at in np.ndindex(*x.shape):
        of = [
            x[i, k, a, b] for i, k, a, b in np.ndindex(*x.shape)
            if (kind == "batch" and k == c) or (kind == "layer" and i == n)
            or (kind == "instance" and i == n and k == c)
            or (kind == "group" and i == n and k // per == c // per)
        ]  # fmt: skip
        mean = sum(of) / len(of)
        variance = sum((v - mean) ** 2 for v in of) / len(of)
        out[(n, c, *at)] = (x[(n, c, *at)] - mean) / math.sqrt(variance + eps)
    return out


@pytest.mark.parametrize("kind", ["batch", "layer", "instance", "group"])
def test_it_is_the_definition(kind):
    x = torch.randn(2, 6, 2, 3, dtype=torch.float64) * 3 + 1
    assert np.allclose(normalize(x, kind, groups=3).numpy(), by_definition(x.numpy(), kind, 3), rtol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_forward_and_gradients_are_torchs_layers(dtype, tolerance):
    x = torch.randn(5, 12, 3, 4, dtype=dtype) * 2 - 1
    weight, bias = torch.randn(12, dtype=dtype), torch.randn(12, dtype=dtype)
    peers = {
        "batch": nn.BatchNorm2d(12), "group": nn.GroupNorm(4, 12), "instance": nn.InstanceNorm2d(12, affine=True),
        "layer": nn.LayerNorm([12, 3, 4], elementwise_affine=False),
    }  # fmt: skip
    for kind, peer in peers.items():
        ours = [t.clone().requires_grad_() for t in (x, weight, bias)]
        theirs = [t.clone().requires_grad_() for t in (x, weight, bias)]
        a = normalize(ours[0], kind, groups=4, weight=ours[1], bias=ours[2])
        peer = peer.to(dtype)
        if kind == "layer":
            b = peer(theirs[0]) * theirs[1].view(-1, 1, 1) + theirs[2].view(-1, 1, 1)
            given = theirs
        else:
            with torch.no_grad():
                peer.weight.copy_(weight)
                peer.bias.copy_(bias)
            b, given = peer(theirs[0]), [theirs[0], peer.weight, peer.bias]
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance), kind
        pull = torch.randn_like(a)
        for one, other in zip(torch.autograd.grad(a, ours, pull), torch.autograd.grad(b, given, pull)):
            assert torch.allclose(one, other, rtol=10 * tolerance, atol=10 * tolerance), kind


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_gradients_by_differences(groups):
    layer = GroupNorm(6, groups, order=torch.tensor([3, 0, 5, 1, 2, 4])).double()
    x = torch.randn(3, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradcheck(lambda x: normalize(x, "group", groups=groups), (x,))


def test_one_group_is_layer_norm_and_one_a_channel_instance_norm():
    x = torch.randn(4, 8, 5)
    assert torch.equal(normalize(x, "group", groups=1), normalize(x, "layer"))
    assert torch.equal(normalize(x, "group", groups=8), normalize(x, "instance"))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(), (3,), (2, 3), (2, 1, 2)]), st.sampled_from([1, 2, 4]))
def test_what_is_left_has_mean_zero_and_the_right_square(seed, positions, groups):
    x = torch.randn(3, 8, *positions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    out = normalize(x, "group", groups=groups).reshape(3, groups, -1)
    variance = x.reshape(3, groups, -1).var(-1, correction=0)
    assert torch.allclose(out.mean(-1), torch.zeros_like(variance), atol=1e-10)
    assert torch.allclose(out.square().mean(-1), variance / (variance + 1e-5), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 20), st.floats(-5, 5))
def test_scale_and_offset_of_a_group_do_not_matter(seed, a, b):
    x = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = x.clone()
    moved[:, 2:4] = a * x[:, 2:4] + b
    assert torch.allclose(normalize(moved, "group", groups=3), normalize(x, "group", groups=3), atol=1e-3)


def test_samples_do_not_see_each_other_and_channels_of_a_group_are_alike():
    x = torch.randn(5, 8, 4, 4)
    out = normalize(x, "group", groups=2)
    assert torch.allclose(normalize(x[2:3], "group", groups=2), out[2:3], atol=1e-6)
    inside = torch.tensor([2, 0, 3, 1, 4, 7, 6, 5])
    assert torch.allclose(normalize(x[:, inside], "group", groups=2), out[:, inside], atol=1e-6)


def test_groups_of_other_channels_are_a_permutation_before_and_back():
    x, order = torch.randn(3, 8, 4, 4), torch.randperm(8)
    layer = GroupNorm(8, 2, order=order)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    wanted = torch.empty_like(x)
    wanted[:, order] = normalize(x[:, order], "group", groups=2)
    wanted = wanted * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
    assert torch.allclose(layer(x), wanted, atol=1e-6)
    bare = GroupNorm(8, 2, order=order, affine=False)
    assert torch.allclose(bare(x) * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1), wanted, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"order": torch.tensor([5, 0, 3, 2, 1, 4])}])
def test_it_is_a_component(options, tmp_path):
    def build(generator):
        layer = GroupNorm(6, 3, **options)
        nn.init.normal_(layer.weight, generator=generator)
        return layer

    check_component(build, torch.randn(4, 6, 3, 3), tmp_path=tmp_path)
    assert not GroupNorm(6, 3, zero_init=True)(torch.randn(2, 6)).any()


def test_bfloat16_statistics_are_float32():
    x = (torch.randn(2, 32, 16, 16) + 100).bfloat16()
    wanted = normalize(x.float(), "group", groups=4)
    assert (normalize(x, "group", groups=4).float() - wanted).abs().max() < 0.02


def test_channels_last_is_kept():
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    assert GroupNorm(8, 2)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "call, words",
    [(lambda: GroupNorm(48, 32), "32 groups do not divide 48 channels; 24 or 48 would"),
     (lambda: GroupNorm(4, 8), "4 would"), (lambda: GroupNorm(4, 2, order=torch.tensor([0, 1, 2, 2])), "permutation"),
     (lambda: normalize(torch.zeros(2, 12), "group"), "32 groups do not divide 12"),
     (lambda: normalize(torch.zeros(1, 3, 1, 1), "batch"), "over one value does not exist")],
)  # fmt: skip
def test_errors_teach(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def trained_looking(spec: str, shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(0)
    model = backbone(spec, shape, 10)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 2)
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 0, 0.3)
    return model


def test_every_batch_norm_is_replaced_with_its_affine_part():
    model = trained_looking("resnet20:width=12", (3, 16, 16)).train()
    wanted = {name: (m.weight.clone(), m.bias.clone()) for name, m in model.named_modules()
              if isinstance(m, nn.BatchNorm2d)}  # fmt: skip
    same, replaced = convert_norms(model, groups=8)
    assert same is model and {r.name for r in replaced} == set(wanted)
    assert {(r.channels, r.groups) for r in replaced} == {(12, 6), (24, 8), (48, 8)}
    for name, (weight, bias) in wanted.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, GroupNorm) and layer.training
        assert torch.equal(layer.weight, weight) and torch.equal(layer.bias, bias)
    x = torch.rand(3, 3, 16, 16)
    assert torch.equal(model.train()(x), model.eval()(x))  # training and test compute the same
    cost = count(model, x)
    assert cost.params - cost.params_without_norm == sum(2 * len(w) for w, _ in wanted.values())


def test_shared_frozen_and_bare_layers_and_other_dimensions():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            shared = nn.BatchNorm2d(4)
            self.a, self.b = shared, nn.Sequential(shared)
            self.c = nn.BatchNorm3d(4, track_running_stats=False)
            self.d = nn.BatchNorm1d(4, affine=False)
            self.e = nn.SyncBatchNorm(4).double()
            self.a.weight.requires_grad_(False)
            self.eval()
            self.c.train()

    model, replaced = convert_norms(Odd(), groups=2)
    assert [r.name for r in replaced] == ["a", "c", "d", "e"]
    assert model.a is model.b[0]
    assert not model.a.weight.requires_grad and model.a.bias.requires_grad
    assert not model.d.affine and not model.d.training and model.c.training
    assert model.e.weight.dtype == torch.float64
    assert model.c(torch.randn(2, 4, 2, 2, 2)).shape == (2, 4, 2, 2, 2)
    alone, found = convert_norms(nn.BatchNorm1d(4), "layer")
    assert isinstance(alone, GroupNorm) and alone.num_groups == 1 and found[0].name == ""
    assert convert_norms(nn.Sequential(nn.BatchNorm2d(4)), "instance", keep_affine=False)[0][0].num_groups == 4


@pytest.mark.parametrize("spec", ["resnet20:width=8", "small_resnet:width=8,preact"])
def test_calibrated_layers_have_the_moments_of_the_old_ones(spec):
    model = trained_looking(spec, (3, 16, 16)).eval()
    x = torch.rand(64, 3, 16, 16)
    outputs: dict[str, torch.Tensor] = {}

    def watch(model):
        outputs.clear()
        hooks = [m.register_forward_hook(lambda _, __, out, name=name: outputs.__setitem__(name, out))
                 for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d | GroupNorm)]  # fmt: skip
        with torch.no_grad():
            model(x)
        for hook in hooks:
            hook.remove()
        return {name: (out.mean((0, 2, 3)), out.std((0, 2, 3))) for name, out in outputs.items()}

    before = watch(model)
    after = watch(convert_norms(model, groups=4, calibrate=x)[0])
    assert list(before) == list(after) and before
    for name in before:
        for a, b in zip(before[name], after[name]):
            assert (a - b).abs().max() < 1e-4, name
    assert not any(m._forward_hooks for m in model.modules()) and not model.training


def test_layers_without_any_tensor_of_their_own_take_the_models_type_and_device():
    bare = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(1, 4, 1), bare).double()
    x = torch.rand(8, 1, 3, 3, dtype=torch.float64)
    new, _ = convert_norms(model, calibrate=x)
    assert new(x).dtype == torch.float64 and {p.dtype for p in new.parameters()} == {torch.float64}


def test_calibration_copes_with_dead_channels_and_gives_bare_layers_an_affine_part():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4, affine=False)).eval()
    nn.init.zeros_(model[0].weight)
    new, _ = convert_norms(model, groups=4, calibrate=torch.rand(8, 1, 3, 3))
    assert all(p.isfinite().all() for p in new.parameters()) and new[1].affine
