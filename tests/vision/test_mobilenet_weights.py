"""Weights under the names of others: each layout is built here by itself, and must give the same logits in our net."""

import numpy as np
import pytest
import torch
from tests.vision.test_mobilenet import lived_in
from torch import nn

from precis.vision.mobilenet import STAGES, MobileNetV2, channels_of
from precis.vision.mobilenet_weights import load_slim, load_torchvision, published, width_of


class TorchvisionLayout(nn.Module):
    """MobileNetV2 under the names in which torchvision publishes it, written from those names alone."""

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()
        stem, thin, last = channels_of(width)
        cell = lambda a, b, k=1, s=1, g=1: nn.Sequential(
            nn.Conv2d(a, b, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(b), nn.ReLU6()
        )
        features: list[nn.Module] = [cell(3, stem, 3, 2)]
        channels, self.skips = stem, [False]
        for (t, _, n, s), c in zip(STAGES, thin):
            for i in range(n):
                wide, stride = t * channels, s if i == 0 else 1
                parts: list[nn.Module] = [] if t == 1 else [cell(channels, wide)]
                parts += [cell(wide, wide, 3, stride, wide), nn.Conv2d(wide, c, 1, bias=False), nn.BatchNorm2d(c)]
                block = nn.Module()
                block.conv = nn.Sequential(*parts)
                features.append(block)
                self.skips.append(stride == 1 and channels == c)
                channels = c
        features.append(cell(channels, last))
        self.features = nn.ModuleList(features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, part in enumerate(self.features):
            y = part.conv(x) if hasattr(part, "conv") else part(x)
            x = x + y if i < len(self.skips) and self.skips[i] else y
        return self.classifier(x.mean((2, 3)))


@pytest.mark.parametrize("width", [1.0, 0.35])
def test_torchvisions_names(width):
    peer = lived_in(TorchvisionLayout(11, width))
    state = peer.state_dict()
    assert "features.1.conv.1.weight" in state and "features.2.conv.0.1.running_mean" in state
    assert "features.18.1.num_batches_tracked" in state and len(state) == 314
    found = published({f"module.{name}": value for name, value in state.items()})
    assert found.layout == "torchvision" and found.arguments == {"classes": 11, "width": width}
    net = MobileNetV2(**found.arguments)
    net.load_state_dict(found.state)
    x = torch.rand(2, 3, 64, 80)
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        assert torch.allclose(net.eval()(x), peer((x - mean) / std), atol=1e-5)


def test_transformers_names():
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileNetV2Config(depth_multiplier=0.5, num_labels=9)  # as published: TensorFlow's padding
    peer = lived_in(transformers.MobileNetV2ForImageClassification(config))
    found = published(peer.state_dict())
    assert found.layout == "transformers"
    assert found.arguments == {"classes": 9, "width": 0.5, "padding": "tf", "eps": 1e-3}
    assert config.layer_norm_eps == 1e-3 and config.tf_padding
    net = MobileNetV2(**found.arguments)
    net.load_state_dict(found.state)
    x = torch.rand(2, 3, 64, 81)
    with torch.no_grad():
        assert torch.allclose(net.eval()(x), peer(2 * x - 1).logits, atol=1e-5)
    body = {k.removeprefix("mobilenet_v2."): v for k, v in peer.state_dict().items() if not k.startswith("classifier")}
    bare = published(body)  # the names of a model without a classifier
    assert bare.layout == "transformers" and bare.arguments["classes"] is None
    MobileNetV2(**bare.arguments).load_state_dict(bare.state)


def as_slim(net: MobileNetV2) -> dict[str, np.ndarray]:
    """The variables of slim's checkpoint that hold this net's weights: TensorFlow's names and order of axes."""
    made: dict[str, np.ndarray] = {}

    def put(scope: str, cell: nn.Module, depthwise: bool = False) -> None:
        weight = cell.conv.weight.detach().numpy()
        if depthwise:
            made[f"{scope}/depthwise_weights"] = weight.transpose(2, 3, 0, 1)
        else:
            made[f"{scope}/weights"] = weight.transpose(2, 3, 1, 0)
        norm = cell.norm
        for name, value in (("gamma", norm.weight), ("beta", norm.bias), ("moving_mean", norm.running_mean),
                            ("moving_variance", norm.running_var)):  # fmt: skip
            made[f"{scope}/BatchNorm/{name}"] = value.detach().numpy()

    put("MobilenetV2/Conv", net.stem)
    for i, block in enumerate(net.blocks):
        scope = "MobilenetV2/expanded_conv" + (f"_{i}" if i else "")
        if not isinstance(block.expand, nn.Identity):
            put(f"{scope}/expand", block.expand)
        put(f"{scope}/depthwise", block.depthwise, True)
        put(f"{scope}/project", block.project)
    put("MobilenetV2/Conv_1", net.last)
    made["MobilenetV2/Logits/Conv2d_1c_1x1/weights"] = net.head.weight.detach().numpy().T[None, None]
    made["MobilenetV2/Logits/Conv2d_1c_1x1/biases"] = net.head.bias.detach().numpy()
    return made


def test_slims_names_and_averages():
    wanted = lived_in(MobileNetV2(12, 0.35, padding="tf", eps=1e-3))
    wanted.input.mean.fill_(0.5)
    wanted.input.std.fill_(0.5)
    state = as_slim(wanted)
    assert state["MobilenetV2/expanded_conv_3/depthwise/depthwise_weights"].shape == (3, 3, 48, 1)
    junk = {"global_step": np.array(5), "MobilenetV2/Conv/weights/RMSProp": np.zeros((3, 3, 3, 16), np.float32)}
    raw = {name: value + 1 for name, value in state.items()}  # the last weights, of which the average is meant
    averages = {f"{name}/ExponentialMovingAverage": value for name, value in state.items()}
    x = torch.rand(2, 3, 64, 64)
    for given in (state | junk, raw | averages | junk):
        found = published(given)
        assert found.layout == "slim"
        assert found.arguments == {"classes": 12, "width": 0.35, "padding": "tf", "eps": 1e-3}
        net = MobileNetV2(**found.arguments)
        net.load_state_dict(found.state)
        with torch.no_grad():
            assert torch.allclose(net.eval()(x), wanted(x), atol=1e-6)


def test_our_own_names_and_their_width():
    net = MobileNetV2(4, 0.75)
    found = published(net.state_dict())
    assert found.layout == "ours" and found.arguments == {"classes": 4, "width": 0.75}
    assert width_of(found.state) == 0.75
    for width in (0.35, 1.3, 0.62):
        assert published(MobileNetV2(None, width).state_dict()).arguments == {"classes": None, "width": width}


def test_what_is_no_mobilenet_is_told():
    with pytest.raises(ValueError, match="no weights of a MobileNetV2"):
        published({"layer1.0.conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"features\.3\.other belongs to no MobileNetV2"):
        load_torchvision({"features.0.0.weight": torch.zeros(1), "features.3.other": torch.zeros(1)})
    with pytest.raises(ValueError, match="belongs to no MobileNetV2"):
        load_slim({"mobilenet_v2.layer.0.expand_9x9.convolution.weight": torch.zeros(1)})
    odd = MobileNetV2(4, stages=((1, 8, 1, 1), (6, 8, 2, 2)))
    with pytest.raises(ValueError, match="no width multiplier gives blocks of"):
        published(odd.state_dict())
