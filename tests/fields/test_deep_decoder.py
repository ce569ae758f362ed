"""Deep Decoder against plain layers, closed forms, and what its structure promises."""

from functools import partial

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy import ndimage
from tests.helpers import check_component
from torch import Tensor, nn

from precis.fields.deep_decoder import (
    UPSAMPLE,
    DeepDecoder,
    layers_for,
    parameter_count,
    width_for_ratio,
)
from precis.fields.deep_decoder_layer import mix, moments, norm_relu_mix, relu_norm_mix


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(net: DeepDecoder) -> nn.Sequential:
    """The decoder as separate torch layers, in the order of its name, with copied weights."""
    made: list[nn.Module] = []
    for i in range(net.layers):
        conv = nn.Conv2d(net.width, net.width, 1, bias=False)
        norm = nn.BatchNorm2d(net.width)
        conv.weight.data = net.weights[i].detach()[..., None, None].clone()
        norm.weight.data, norm.bias.data = net.gains[i].detach().clone(), net.offsets[i].detach().clone()
        up = nn.Upsample(scale_factor=2, mode="bilinear")
        last = i == net.layers - 1
        if net.order == "code":
            made += [conv, *([] if last else [up]), nn.ReLU(), norm]
        elif net.order == "upsample_last":
            made += [*([up] if i else []), conv, nn.ReLU(), norm]
        else:
            made += [conv, norm, nn.ReLU(), *([] if last else [up])]
    conv = nn.Conv2d(net.width, net.out_ch, 1, bias=False)
    conv.weight.data = net.weights[-1].detach()[..., None, None].clone()
    return nn.Sequential(*made, conv, nn.Sigmoid()).to(net.weights[0].dtype)


@pytest.mark.parametrize(("order", "large"), [("code", 0), ("code", 1 << 18), ("paper", 0), ("upsample_last", 0)])
def test_layers_of_torch_give_the_same_values_and_gradients(
    order: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("precis.fields.deep_decoder_layer.LARGE", large)
    net = DeepDecoder(6, 4, order=order, generator=seeded()).double()
    with torch.no_grad():
        for p in (*net.gains, *net.offsets):
            p.add_(0.3 * torch.randn(6, generator=seeded(1), dtype=torch.float64))
    other, z = plain(net), net.input_for((24, 40))
    target = torch.rand(1, 3, 24, 40, generator=seeded(2), dtype=torch.float64)
    for made in (net, other):
        (made(z) - target).square().mean().backward()
    assert torch.allclose(net(z), other(z), atol=1e-12)
    convs = [m for m in other if isinstance(m, nn.Conv2d)]
    norms = [m for m in other if isinstance(m, nn.BatchNorm2d)]
    for w, conv in zip(net.weights, convs, strict=True):
        assert torch.allclose(w.grad, conv.weight.grad[..., 0, 0], rtol=1e-9, atol=1e-14)
    for gain, offset, norm in zip(net.gains, net.offsets, norms, strict=True):
        assert torch.allclose(gain.grad, norm.weight.grad, rtol=1e-9, atol=1e-14)
        assert torch.allclose(offset.grad, norm.bias.grad, rtol=1e-9, atol=1e-14)


def test_float32_agrees_with_float64_at_the_size_of_a_picture() -> None:
    net = DeepDecoder(16, 5, generator=seeded())
    z = net.input_for((128, 128))
    # ten thousand values a channel are summed and five layers follow one another: some hundred roundings of 6e-8
    assert (net.double()(z.double()) - net.float()(z)).abs().max() < 2e-5


@pytest.mark.parametrize("upsample", ["bilinear", "nearest", "convex", "none"])
def test_gradients_of_a_layer(upsample: str) -> None:
    x, gain, offset, weight = (
        torch.randn(*shape, generator=seeded(i), dtype=torch.float64).requires_grad_()
        for i, shape in enumerate([(2, 4, 3, 5), (4,), (4,), (3, 4)])
    )
    up = partial(UPSAMPLE[upsample], layer=1)
    assert torch.autograd.gradcheck(lambda *a: relu_norm_mix(*a, up, True), (x, gain, offset, weight))


@pytest.mark.parametrize("large", [False, True])
def test_a_layer_by_separate_steps(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the pixels are gone through in parts."""
    monkeypatch.setattr("precis.fields.deep_decoder_layer.ROWS", 7)
    x = torch.randn(2, 5, 4, 3, generator=seeded(), dtype=torch.float64)
    gain, offset, weight = (torch.randn(*s, generator=seeded(3), dtype=torch.float64) for s in ((5,), (5,), (2, 5)))
    up = partial(UPSAMPLE["nearest"], layer=0)
    r = up(x).relu()
    standard = (r - r.mean((2, 3), keepdim=True)) / (r.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    expected = torch.einsum("ck,bkhw->bchw", weight, standard * gain[:, None, None] + offset[:, None, None])
    assert torch.allclose(relu_norm_mix(x, gain, offset, weight, up, large), expected, atol=1e-12)


def test_mixing_is_an_einsum() -> None:
    x, weight = torch.randn(2, 5, 3, 4, generator=seeded()), torch.randn(7, 5, generator=seeded(1))
    assert torch.allclose(mix(x, weight), torch.einsum("kl,blhw->bkhw", weight, x), atol=1e-6)


def test_moments_of_values_far_from_zero() -> None:
    r = 1000 + torch.randn(1, 20_000, 3, generator=seeded())
    mean, variance = moments(r)
    assert torch.allclose(mean, r.double().mean(1).float(), rtol=1e-6)
    assert torch.allclose(variance, r.double().var(1, correction=0).float(), rtol=1e-3)


def test_standardising_is_that_of_batch_norm() -> None:
    x, one = torch.randn(1, 4, 6, 6, generator=seeded()), torch.eye(4)
    gain, offset = torch.rand(4, generator=seeded(1)), torch.rand(4, generator=seeded(2))
    norm = nn.BatchNorm2d(4)
    norm.weight.data, norm.bias.data = gain, offset
    made = norm_relu_mix(x, gain, offset, one, lambda x: x)
    assert torch.allclose(made, norm(x).relu(), atol=1e-6)


@pytest.mark.parametrize(("width", "count"), [(32, 6624), (64, 25536), (128, 100224), (320, 619200)])
def test_parameter_counts_of_the_paper(width: int, count: int) -> None:
    assert parameter_count(width) == count
    net = DeepDecoder(width, generator=seeded())
    assert sum(p.numel() for p in net.parameters()) == count


def test_width_for_a_ratio() -> None:
    assert width_for_ratio(0.0325, (512, 512)) == 64 and width_for_ratio(0.1274, (512, 512)) == 128
    assert width_for_ratio(0.031, (64, 64), 4) == 8 and width_for_ratio(0.125, (64, 64), 4) == 18
    for width in (4, 5, 9, 33):
        ratio = parameter_count(width, 5, 1) / (40 * 30)
        assert width_for_ratio(ratio, (40, 30), 5, 1) == width
    with pytest.raises(ValueError, match="the least is 0.0088"):
        width_for_ratio(0.005, (64, 64), 4)
    assert width_for_ratio(0.0088, (64, 64), 4) == 4


def test_layers_drop_with_the_size() -> None:
    assert [layers_for((n, n)) for n in (512, 128, 97, 96, 64, 32, 16, 8, 1)] == [6, 6, 6, 5, 5, 4, 3, 2, 2]


def test_size_of_the_picture() -> None:
    net = DeepDecoder(4, 4, generator=seeded())
    z = net.input_for((50, 64))
    assert z.shape == (1, 4, 7, 8) and net(z).shape == (1, 3, 56, 64)
    flat = DeepDecoder(4, 4, upsample="none", generator=seeded())
    assert flat(flat.input_for((5, 6))).shape == (1, 3, 5, 6)
    with pytest.raises(ValueError, match="5 channels"):
        net(torch.zeros(1, 5, 2, 2))


def test_the_input_is_fixed_by_its_seed() -> None:
    net = DeepDecoder(3, 2, generator=seeded())
    z = net.input_for((64, 64), 7)
    assert torch.equal(z, net.input_for((64, 64), 7)) and not torch.equal(z, net.input_for((64, 64), 8))
    assert z.min() >= 0 and z.max() < 0.1 and float(z.mean()) == pytest.approx(0.05, abs=0.001)
    # Philox-4x64-10, key 0: numbers that files rest on
    expected = np.random.Philox(key=0).random_raw(2) / 2**64 * 0.1
    assert torch.allclose(net.input_for((2, 2))[0, 0, 0, :1].double(), torch.tensor(expected[:1]), atol=1e-8)
    assert float(net.input_for((2, 2))[0, 0, 0, 0]) == pytest.approx(0.00115467, abs=1e-7)


def test_without_upsampling_pixels_do_not_know_their_place() -> None:
    net = DeepDecoder(5, 3, upsample="none", generator=seeded()).double()
    z = net.input_for((6, 7))
    order = torch.randperm(42, generator=seeded(1))
    permuted = z.flatten(2)[..., order].view_as(z)
    assert torch.allclose(net(permuted), net(z).flatten(2)[..., order].view(1, 3, 6, 7), atol=1e-12)
    smooth = DeepDecoder(5, 3, generator=seeded()).double()
    assert not torch.allclose(smooth(permuted).mean((2, 3)), smooth(z).mean((2, 3)), atol=1e-6)


def test_bilinear_is_that_of_scipy() -> None:
    x = torch.randn(1, 2, 5, 7, generator=seeded(), dtype=torch.float64)
    made = UPSAMPLE["bilinear"](x, 0)
    zoomed = [ndimage.zoom(plane, 2, order=1, grid_mode=True, mode="nearest") for plane in x[0].numpy()]
    assert np.allclose(made[0].numpy(), zoomed, atol=1e-5)


@pytest.mark.parametrize("kind", ["bilinear", "nearest", "convex"])
def test_upsampling_is_convex_and_fixed(kind: str) -> None:
    x = torch.rand(1, 1, 6, 6, generator=seeded(), dtype=torch.float64)
    one = torch.ones_like(x)
    assert torch.allclose(UPSAMPLE[kind](one, 2), torch.ones(1, 1, 12, 12, dtype=torch.float64))
    made = UPSAMPLE[kind](x, 2)
    assert made.max() <= x.max() and made.min() >= x.min()
    assert torch.equal(made, UPSAMPLE[kind](x, 2))


@pytest.mark.parametrize("order", ["code", "paper"])
def test_component(order: str) -> None:
    z = DeepDecoder(6, 3, generator=seeded()).input_for((16, 24)).repeat(3, 1, 1, 1)
    z = z + 0.02 * torch.rand(z.shape, generator=seeded(1))
    check_component(lambda g: DeepDecoder(6, 3, order=order, generator=g), z)  # type: ignore[arg-type]


def test_training_mode_changes_nothing() -> None:
    net = DeepDecoder(6, 3, generator=seeded())
    z = net.input_for((16, 16))
    assert torch.equal(net.train()(z), net.eval()(z))


def test_half_precision() -> None:
    net = DeepDecoder(16, 4, generator=seeded())
    z = net.input_for((64, 64))
    whole = net(z)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(z)
    assert (half.float() - whole).abs().max() < 0.05
    half.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert net.bfloat16()(z.bfloat16()).dtype == torch.bfloat16


def test_a_dead_channel_stays_finite() -> None:
    net = DeepDecoder(4, 3, generator=seeded())
    with torch.no_grad():
        net.weights[0].copy_(-net.weights[0].abs())
    out: Tensor = net(net.input_for((16, 16)))
    out.mean().backward()
    assert torch.isfinite(out).all() and all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("options", [{"width": 0}, {"layers": 0}, {"upsample": "cubic"}, {"order": "new"}])
def test_what_makes_no_decoder(options: dict) -> None:
    with pytest.raises((ValueError, TypeCheckError), match="must be|upsample|order"):
        DeepDecoder(**{"width": 4, "layers": 2, **options})
