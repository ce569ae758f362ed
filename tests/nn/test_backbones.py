import pytest
import torch
from tests.helpers import check_component
from torch import nn

from precis.errors import InputError
from precis.nn.backbones import MLP, ConvNet, LeNet5, ResNet, Standardise, backbone
from precis.nn.cost import count


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "spec, wanted",
    [("resnet32:preact", 464_154), ("resnet110:preact", 1_727_962), ("resnet164", 1_703_258), ("resnet20", 269_722)],
)
def test_counts_of_the_small_nets(spec, wanted):
    assert params(backbone(spec, (3, 32, 32), 10)) == wanted


def test_counts_of_the_large_nets():
    cost = count(backbone("resnet50", (3, 224, 224), 1000), torch.zeros(1, 3, 224, 224))
    assert cost.params == 25_557_032
    assert cost.macs == 4_089_184_256
    assert params(backbone("lenet300", (1, 28, 28), 10)) == 266_610
    assert params(LeNet5(10)) == 431_080


@pytest.mark.parametrize(
    "name, layers, kind",
    [
        ("resnet18", (2, 2, 2, 2), "basic"),
        ("resnet34", (3, 4, 6, 3), "basic"),
        ("resnet50", (3, 4, 6, 3), "bottleneck"),
    ],
)
def test_logits_are_those_of_transformers_with_the_same_weights(name, layers, kind):
    transformers = pytest.importorskip("transformers")
    widths = [64 * 2**i * (4 if kind == "bottleneck" else 1) for i in range(4)]
    config = transformers.ResNetConfig(embedding_size=64, hidden_sizes=widths, depths=list(layers), layer_type=kind,
                                       num_labels=10)  # fmt: skip
    torch.manual_seed(0)
    peer = transformers.ResNetForImageClassification(config).eval()
    for norm in peer.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    mine = backbone(name, (3, 64, 64), 10).eval()
    copy_transformers(peer, mine)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        a, b = peer(x).logits, mine(x)
        lasting = mine.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert params(mine) == params(peer)
    assert (a - b).abs().max() < 1e-4 * a.abs().max()
    assert (lasting - b).abs().max() < 1e-4 * a.abs().max()


def copy_transformers(peer: nn.Module, mine: ResNet) -> None:
    def put(conv: nn.Module, norm: nn.Module, layer: nn.Module) -> None:
        conv.load_state_dict(layer.convolution.state_dict())
        norm.load_state_dict(layer.normalization.state_dict())

    put(mine.stem[0], mine.stem[1], peer.resnet.embedder.embedder)
    for stage, theirs in zip(mine.blocks, peer.resnet.encoder.stages):
        for block, other in zip(stage, theirs.layers):
            for conv, norm, layer in zip(block.convs, block.norms, other.layer):
                put(conv, norm, layer)
            if not isinstance(block.shortcut, nn.Identity):
                put(block.shortcut[0], block.shortcut[1], other.shortcut)
    mine.head.load_state_dict(peer.classifier[1].state_dict())


@pytest.mark.parametrize(
    "spec, shape",
    [("mlp:12-6", (1, 4, 4)), ("conv:4x3", (3, 8, 8)), ("lenet5", (1, 16, 16)), ("small_resnet:width=4", (3, 8, 8)),
     ("small_resnet:width=4,norm=group,channels_per_group=2", (3, 8, 8)),
     ("small_resnet:width=4,norm=fixup", (3, 8, 8)),
     ("small_resnet:width=4,norm=none", (3, 8, 8)), ("resnet20:width=2,preact", (3, 9, 9))],
)  # fmt: skip
def test_every_backbone_is_a_component(spec, shape, tmp_path):
    x = torch.rand(4, *shape)
    check_component(lambda generator: backbone(spec, shape, 5, generator=generator), x, tmp_path=tmp_path)


def test_features_logits_and_stages_fit_together():
    x = torch.rand(3, 3, 16, 16)
    for net in (ConvNet(width=4, depth=3, classes=7), ResNet((1, 2), (4, 8), block="bottleneck", classes=7)):
        net.eval()
        h = net.features(x)
        assert h.shape == (3, net.out_dim)
        assert torch.equal(net(x), net.head(h))
        assert torch.equal(net.stages(x)[-1].mean((2, 3)), h)
    assert [tuple(m.shape) for m in ConvNet(width=4).stages(x)] == [(3, 4, 16, 16), (3, 8, 8, 8), (3, 16, 4, 4)]
    assert MLP((768, 5, 4)).stages(x)[0].shape == (3, 5)
    bare = ConvNet(width=4)
    assert torch.equal(bare.eval()(x), bare.features(x))


def test_strides_make_the_maps():
    net = ResNet((1, 1, 1), (32, 64, 64), strides=(2, 2, 2), in_channels=1)
    assert [m.shape[-1] for m in net.stages(torch.rand(2, 1, 8, 8))] == [4, 2, 1]


def test_branches_that_start_at_zero_leave_only_the_shortcuts():
    x = torch.rand(2, 4, 8, 8)
    for options in ({"zero_init": True}, {"norm": "fixup"}, {"zero_init": True, "preact": True}):
        block = ResNet((2,), (4,), in_channels=4, **options).eval().blocks[0][1]
        assert torch.equal(block(x), x)


def test_fixup_scales_by_the_number_of_branches():
    generator = torch.Generator().manual_seed(0)
    net = ResNet((4, 4), (64, 64), norm="fixup", generator=generator)
    weight = net.blocks[0][1].convs[0].weight
    he = (2 / (64 * 9)) ** 0.5
    assert float(weight.detach().std()) == pytest.approx(he * 8**-0.5, rel=0.02)


def test_without_norm_branches_are_divided_by_the_root_of_their_number():
    net = ResNet((2, 2), (8, 8), norm="none")
    assert {block.scale for stage in net.blocks for block in stage} == {0.5}
    assert net.stem[0].bias is not None and net.blocks[0][0].convs[0].bias is not None


def test_a_padded_shortcut_adds_zero_channels_on_both_sides():
    block = ResNet((1, 1), (4, 8), shortcut="pad", zero_init=True, in_channels=4).eval().blocks[1][0]
    x = torch.rand(1, 4, 6, 6)
    out = block(x)
    assert torch.equal(out[:, 2:6], nn.functional.avg_pool2d(x, 2))
    assert not out[:, :2].any() and not out[:, 6:].any()


def test_bytes_are_taken_as_255ths_and_standardised():
    images = torch.randint(0, 256, (200, 3, 5, 5), dtype=torch.uint8)
    layer = Standardise(3)
    assert torch.equal(layer(images), images / 255)
    out = layer.fit(images)(images)
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)
    assert torch.allclose(layer(images / 255), out, atol=1e-6)
    with pytest.raises(ValueError, match="1 channels were given, 3 are wanted"):
        layer(images[:, :1])
    flat = Standardise(1).fit(torch.full((4, 1, 2, 2), 0.25))
    assert float(flat.std) == 1


def test_the_same_seed_draws_the_same_net_whatever_its_norm():
    nets = [backbone(f"small_resnet:width=4,norm={kind}", (3, 8, 8), 5, generator=torch.Generator().manual_seed(3))
            for kind in ("batch", "group", "layer", "instance")]  # fmt: skip
    for net in nets[1:]:
        for (name, a), b in zip(nets[0].named_parameters(), net.parameters()):
            assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "spec, words",
    [("resnet19", "no network is called 'resnet19'"), ("mlp:", "whole numbers"), ("mlp:0", "whole numbers"),
     ("conv:24", "width x depth"), ("small_resnet:depth=3", "'depth=3' is no option"), ("lenet5", "at least 16"),
     ("small_resnet:width=x", "is no option"), ("small_resnet:preact=maybe", "is no option")],
)  # fmt: skip
def test_what_does_not_exist_is_told(spec, words):
    with pytest.raises(InputError, match=words):
        backbone(spec, (3, 8, 8), 10)


def test_fixup_has_no_preactivated_form():
    with pytest.raises(ValueError, match="preact=False"):
        ResNet((1,), (4,), norm="fixup", preact=True)
