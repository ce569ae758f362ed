import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component
from torch import nn

from precis.nn.cost import count
from precis.nn.norm import BatchNorm, fold_batchnorm
from precis.vision.mobilenet import (
    STAGES,
    InvertedResidual,
    MobileNetV1,
    MobileNetV2,
    SeparableConv2d,
    channels_of,
    make_divisible,
)  # fmt: skip
from precis.vision.mobilenet_blocks import ConvNorm

TINY = {"stages": ((1, 8, 1, 1), (6, 8, 3, 2), (3, 16, 2, 2)), "stem": 8, "last": 24}


def lived_in(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep signals alive, statistics and affine parts as a training may leave them; evaluation mode."""
    g = torch.Generator().manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_in", nonlinearity="relu", generator=g)
        if isinstance(m, BatchNorm):
            m.running_mean.normal_(0, 0.2, generator=g)
            m.running_var.uniform_(0.5, 1.5, generator=g)
            nn.init.uniform_(m.weight, 0.5, 1.5, generator=g)
            nn.init.normal_(m.bias, 0, 0.2, generator=g)
    return net.eval()


@pytest.mark.parametrize("width, params, without_norm, macs", [
    (0.35, 1_677_128, 1_663_048, 59_285_808), (1.0, 3_504_872, 3_470_760, 300_774_272),
    (1.4, 6_108_776, 6_060_840, 582_195_824),  # the others: the claim `size`
])  # fmt: skip
def test_sizes_are_the_published_ones(width, params, without_norm, macs):
    with torch.device("meta"):
        net = MobileNetV2(1000, width)
    cost = count(net, torch.zeros(1, 3, 224, 224))
    assert (cost.params, cost.params_without_norm, cost.macs) == (params, without_norm, macs)


def test_the_first_mobilenet_has_its_published_size():
    x = torch.zeros(1, 3, 224, 224)
    separable, standard = count(MobileNetV1(), x), count(MobileNetV1(separable=False), x)
    assert (separable.params, separable.macs) == (4_231_976, 568_740_352)
    assert round(standard.macs / 1e6) == 4867 and round(standard.params / 1e6, 1) == 29.3


def test_macs_are_weights_times_positions():
    net, total = MobileNetV2(10, 0.5).eval(), 0

    def add(module, _, output):
        nonlocal total
        total += module.weight.numel() // module.weight.shape[0] * output[0].numel()

    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            m.register_forward_hook(add)
    with torch.no_grad():
        net(torch.zeros(1, 3, 70, 45))
    assert total == count(MobileNetV2(10, 0.5), torch.zeros(1, 3, 70, 45)).macs


@given(st.floats(0.5, 4000), st.sampled_from([1, 2, 4, 8, 16]))
def test_channels_are_divisible_and_never_far_below(v, divisor):
    made = make_divisible(v, divisor)
    assert made % divisor == 0 and made >= divisor and made >= 0.9 * v
    assert made <= max(v + 1.5 * divisor, divisor)


def test_channels_at_widths():
    assert make_divisible(32 * 0.35) == 16 and make_divisible(8.5) == 8 and make_divisible(3, 8, 4) == 4
    assert channels_of(1.0) == (32, tuple(c for _, c, _, _ in STAGES), 1280)
    assert channels_of(0.35)[2] == 1280 and channels_of(1.4)[2] == 1792
    assert channels_of(0.35, shrink_last=True)[2] == 448
    assert channels_of(0.35)[:2] == (16, (8, 8, 16, 24, 32, 56, 112))


@pytest.mark.parametrize("size", [(32, 32), (33, 70), (97, 64)])
def test_maps_are_halved_and_rounded_up(size):
    net = MobileNetV2(4, 0.35).eval()
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        maps = net.stages(x)
        assert torch.equal(maps[-1], net.features(x))
        small = MobileNetV2.for_small_images(4, 0.35).eval()
        assert small.features(x).shape[2:] == tuple(-(-s // 8) for s in size)
    assert [tuple(m.shape[2:]) for m in maps] == [tuple(-(-s // 2**k) for s in size) for k in (1, 2, 3, 4, 5)]
    assert [m.shape[1] for m in maps] == [8, 8, 16, 32, 1280]
    assert net(x).shape == (2, 4) and MobileNetV2(None, 0.35)(x).shape == (2, 1280)


@pytest.mark.parametrize("dtype, tolerance, width, tf", [
    (torch.float32, 1e-4, 0.35, True), (torch.float64, 1e-10, 1.4, False), (torch.float64, 1e-10, 0.35, True),
])  # fmt: skip
def test_it_is_transformers_network(dtype, tolerance, width, tf):
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileNetV2Config(
        depth_multiplier=width, num_labels=7, tf_padding=tf, finegrained_output=True, layer_norm_eps=1e-3
    )
    peer = lived_in(transformers.MobileNetV2ForImageClassification(config)).to(dtype)
    ours = MobileNetV2(7, width, padding="tf" if tf else "symmetric", eps=1e-3).to(dtype).eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())
    convs, norms = ([[m for m in net.modules() if isinstance(m, kind)] for net in (ours, peer)]
                    for kind in (nn.Conv2d, BatchNorm))  # fmt: skip
    for kind in (convs, norms):  # by the order of modules
        for mine, theirs in zip(*kind, strict=True):
            mine.load_state_dict(theirs.state_dict())
    ours.head.load_state_dict(peer.classifier.state_dict())
    for size in ((64, 64), (75, 90)):
        x = torch.rand(2, 3, *size, dtype=dtype)
        with torch.no_grad():
            assert torch.allclose(ours(x), peer(x).logits, atol=tolerance, rtol=tolerance), size


def test_tensorflows_padding_is_below_and_to_the_right():
    layer = ConvNorm(1, 1, 3, 2, activation=False, norm="none", padding="tf")
    nn.init.ones_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)
    even, odd = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 5, 5)
    assert layer(even)[0, 0].tolist() == [[9, 6], [6, 4]]
    assert layer(odd)[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
    assert ConvNorm(1, 1, 3, 1, padding="tf").conv.padding == (1, 1)


def test_depthwise_kernels_start_at_the_size_of_their_own_outputs():
    net = MobileNetV2(3, generator=torch.Generator().manual_seed(0))
    for layer in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
        outputs = layer.out_channels // layer.groups * layer.kernel_size[0] ** 2
        if layer.weight.numel() > 500:
            assert float(layer.weight.std()) == pytest.approx((2 / outputs) ** 0.5, rel=0.15)
    x = torch.rand(2, 3, 64, 64)
    alive = lived_in(net)
    assert float((alive(x)[0] - alive(x)[1]).abs().max()) > 1e-3  # what tests compare depends on the picture


def test_a_block_without_projection_is_the_identity_and_a_linear_one_is_not_clipped():
    x = torch.randn(2, 6, 5, 5)
    block = InvertedResidual(6, 6).eval()
    nn.init.zeros_(block.project.conv.weight)
    assert torch.equal(block(x), x)
    assert not InvertedResidual(6, 6, shortcut="none").adds
    assert not InvertedResidual(6, 8).adds and not InvertedResidual(6, 6, stride=2).adds
    outs = [lived_in(InvertedResidual(6, 8, linear=linear))(5 * x) for linear in (True, False)]
    assert outs[0].min() < 0 and outs[1].min() == 0 and outs[1].max() <= 6
    assert isinstance(InvertedResidual(6, 6, expansion=1).expand, nn.Identity)


def test_a_block_is_its_equation():
    block = lived_in(InvertedResidual(4, 4, expansion=3)).double()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)

    def norm(y, m):
        at = lambda t: t.view(-1, 1, 1)
        return (y - at(m.running_mean)) / (at(m.running_var) + m.eps).sqrt() * at(m.weight) + at(m.bias)

    e, d, p = block.expand, block.depthwise, block.project
    y = norm(torch.einsum("oi,bihw->bohw", e.conv.weight[:, :, 0, 0], x), e.norm).clamp(0, 6)
    z = nn.functional.pad(y, (1, 1, 1, 1))
    taps = [(i, j) for i in range(3) for j in range(3)]
    y = sum(d.conv.weight[:, 0, i, j].view(-1, 1, 1) * z[:, :, i : i + 6, j : j + 6] for i, j in taps)
    y = norm(y, d.norm).clamp(0, 6)
    y = norm(torch.einsum("oi,bihw->bohw", p.conv.weight[:, :, 0, 0], y), p.norm)
    assert torch.allclose(block(x), x + y, atol=1e-12)


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 9), st.sampled_from(["symmetric", "tf"]), st.integers(33, 40), st.booleans())
def test_wide_tensors_in_parts_are_the_same(chunks, padding, side, folded):
    net = lived_in(MobileNetV2(3, 1.0, padding=padding, **TINY), chunks)
    x = torch.rand(2, 3, side, side + 3)
    with torch.no_grad():
        whole, maps = net(x), net.stages(x)
        net = fold_batchnorm(net) if folded else net
        net.expansion_chunks = chunks
        assert torch.allclose(net(x), whole, atol=1e-5)
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(net.stages(x), maps, strict=True))


def test_parts_are_for_evaluation_and_batch_norm():
    net = MobileNetV2(3, 1.0, expansion_chunks=4, **TINY).train()
    net(torch.rand(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    grouped = MobileNetV2(3, 1.0, norm="group", expansion_chunks=2, **TINY).eval()
    with pytest.raises(ValueError, match="want batch norm"):
        grouped(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="expansion_chunks must be at least 1"):
        net.expansion_chunks = 0
    with pytest.raises(ValueError, match="must exist whole"):
        MobileNetV2(3, 1.0, shortcut="expansion", expansion_chunks=2, **TINY)


def test_folding_keeps_the_answers_and_leaves_no_norm():
    net = lived_in(MobileNetV2(5, 0.35, padding="tf")).double()
    folded, x = fold_batchnorm(net), torch.rand(2, 3, 64, 65, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(folded(x), net(x), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(m, BatchNorm) for m in folded.modules())


def test_shortcuts_between_expansions_add_what_neighbours_expanded():
    net = lived_in(MobileNetV2(3, 1.0, shortcut="expansion", **TINY))
    assert net.joins == [False, False, False, True, False, False]
    x = torch.rand(2, 3, 40, 40)
    one, two, three = net.blocks[1:4]
    with torch.no_grad():
        y = two(one(net.blocks[0](net.stem(x))))  # the first two join nothing
        wide = three.expand(y) + two.expand(one(net.blocks[0](net.stem(x))))
        wanted = three.project(three.depthwise(wide))
        found = net.stages(x)
    assert torch.allclose(found[1], wanted, atol=1e-6)
    plain = MobileNetV2(3, 1.0, shortcut="none", **TINY).eval()
    plain.load_state_dict(net.state_dict())
    assert not torch.allclose(plain(x), net(x), atol=1e-3)


def test_separable_is_its_two_convolutions_and_cheaper():
    layer, x = lived_in(SeparableConv2d(6, 10)), torch.randn(2, 6, 7, 7)
    assert torch.equal(layer(x), layer.pointwise(layer.depthwise(x)))
    at = torch.zeros(1, 512, 14, 14)
    cheap, full = count(SeparableConv2d(512, 512), at).macs, count(ConvNorm(512, 512, 3), at).macs
    assert (cheap, full) == (52_283_392, 462_422_016) and cheap / full == pytest.approx(1 / 512 + 1 / 9)
    bare = SeparableConv2d(6, 10, stride=2, norm="none", activation="none").double()
    y = torch.randn(1, 6, 8, 8, dtype=torch.float64)
    assert torch.allclose(bare(2 * y) - bare(0 * y), 2 * (bare(y) - bare(0 * y)))  # affine without norm and ReLU6
    assert bare(y).shape == (1, 10, 4, 4)


@pytest.mark.parametrize("build", [
    lambda g: MobileNetV2(5, 1.0, generator=g, **TINY),
    lambda g: MobileNetV2(5, 1.0, norm="group", small=True, shortcut="expansion", generator=g, **TINY),
    lambda g: MobileNetV1(5, layers=((16, 2), (24, 1)), stem=8, generator=g),
])  # fmt: skip
def test_nets_keep_what_every_component_must(build, tmp_path):
    check_component(build, torch.rand(4, 3, 36, 32), tmp_path=tmp_path)


def test_blocks_keep_what_every_component_must(tmp_path):
    def seeded(make):
        def build(generator):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator.initial_seed())
                return make()
        return build

    for make in (lambda: InvertedResidual(6, 6), lambda: SeparableConv2d(6, 8, 5, 2), lambda: ConvNorm(6, 4, 3, 2)):
        check_component(seeded(make), torch.randn(4, 6, 9, 8), tmp_path=tmp_path)


def test_bytes_and_floats_are_the_same_picture_and_channels_last_changes_nothing():
    net = lived_in(MobileNetV2(3, 1.0, **TINY))
    x = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    with torch.no_grad():
        wanted = net(x)
        assert torch.allclose(net(x.float() / 255), wanted, atol=1e-6)
        last = net.to(memory_format=torch.channels_last)
        assert torch.allclose(last(x.contiguous(memory_format=torch.channels_last)), wanted, atol=1e-5)
        half = net.to(torch.bfloat16)(x)
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), wanted, atol=0.2)


@pytest.mark.parametrize("wrong", [
    {"width": 0}, {"width": -1.0}, {"classes": 0}, {"norm": "batches"}, {"stages": ((1, 8, 1, 3),)},
    {"expansion_chunks": 0}, {"round_to": 0},
])  # fmt: skip
def test_what_makes_no_network_is_refused(wrong):
    with pytest.raises(ValueError):
        MobileNetV2(**{"classes": 3} | TINY | wrong)
