import copy

import pytest
import torch
import torch.nn.functional as F
from tests.helpers import check_component

from precis.fields.deep_image_prior import SkipNet, dip_input, feature_inversion


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(generator: torch.Generator | None = None, **options) -> SkipNet:
    return SkipNet(4, 2, **{"down": (6, 8), "up": (6, 8), "skip": (3, 2), "generator": generator or gen(), **options})


def reference(net: SkipNet, z: torch.Tensor, *, pad="reflect", up="bilinear", halve="stride") -> torch.Tensor:
    """The hourglass from the paper's figure, on the weights of ours, written as one recursion over its scales."""
    p = {name: value.double() for name, value in net.state_dict().items()}

    def norm(x, name):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * p[f"{name}.weight"].view(-1, 1, 1) + p[f"{name}.bias"].view(-1, 1, 1)

    def conv(x, name, half=False):
        weight = p[f"{name}.conv.weight"]
        r = weight.shape[-1] // 2
        x = F.pad(x, (r, r, r, r), mode="reflect" if pad == "reflect" else "constant")
        x = F.conv2d(x, weight, p[f"{name}.conv.bias"], stride=2 if half and halve == "stride" else 1)
        if half and halve == "avg":
            x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        if half and halve == "max":
            x = F.max_pool2d(x, 2)
        x = norm(x, f"{name}.norm")
        return torch.where(x > 0, x, 0.2 * x)

    def scale(x, i):
        name = f"scales.{i}"
        past = conv(x, f"{name}.skip") if f"{name}.skip.conv.weight" in p else x[:, :0]
        deep = conv(conv(x, f"{name}.down.0", half=True), f"{name}.down.1")
        if f"scales.{i + 1}.norm.weight" in p:
            deep = scale(deep, i + 1)
        deep = F.interpolate(deep, scale_factor=2, mode=up, **({"align_corners": False} if up == "bilinear" else {}))
        x = conv(norm(torch.cat([past, deep], 1), f"{name}.norm"), f"{name}.up.0")
        return conv(x, f"{name}.up.1") if f"{name}.up.1.conv.weight" in p else x

    return torch.sigmoid(F.conv2d(scale(z.double(), 0), p["last.weight"], p["last.bias"]))


@pytest.mark.parametrize(("options", "settings"), [
    ({}, {}),
    ({"pad": "zero", "upsample": "nearest", "downsample": "avg", "down_filter": (5, 3)},
     {"pad": "zero", "up": "nearest", "halve": "avg"}),
    ({"skip": (0, 2), "downsample": "max", "one_by_one_up": False, "up_filter": 5}, {"halve": "max"}),
])  # fmt: skip
def test_outputs_and_gradients_equal_a_plain_implementation(options, settings):
    net = small(**options).double()
    with torch.no_grad():
        for p in net.parameters():  # scales and shifts of the normalisation as well
            p.add_(0.1 * torch.randn(p.shape, generator=gen(3), dtype=p.dtype))
    z = torch.rand(1, 4, 16, 24, generator=gen(1), dtype=torch.float64, requires_grad=True)
    ours, theirs = net(z), reference(net, z, **settings)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    weight = torch.rand(ours.shape, generator=gen(2), dtype=torch.float64)
    gradients = [torch.autograd.grad((x * weight).sum(), z)[0] for x in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def test_parameters_are_those_of_the_released_networks():
    count = lambda **options: sum(p.numel() for p in SkipNet(generator=gen(), **options).parameters())
    assert count() == 2_217_831
    # by hand: filters, biases, and two numbers a channel for each normalisation
    conv = lambda a, b, k: a * b * k * k + 3 * b
    by_hand = lambda i, w, s, k: (
        sum(conv(i if n == 0 else w, s, 1) for n in range(2) if s) + conv(i, w, k) + 3 * conv(w, w, k)
        + 2 * (2 * (s + w) + conv(s + w, w, 3) + conv(w, w, 1)) + 3 * w + 3
    )  # fmt: skip
    for width, skip, kernel in ((16, 4, 3), (8, 0, 5)):
        options = {"in_ch": 2, "down": (width,) * 2, "up": (width,) * 2, "skip": (skip,) * 2, "down_filter": kernel}
        assert count(**options) == by_hand(2, width, skip, kernel)


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (40, 16)])
def test_the_picture_is_as_large_as_the_input(size):
    net = small()
    assert net(torch.rand(1, 4, *size, generator=gen())).shape == (1, 2, *size)


def test_sides_that_do_not_fit():
    for size in ((10, 16), (16, 4), (18, 18)):
        with pytest.raises(ValueError, match="multiples of 4 and at least 8"):
            small()(torch.zeros(1, 4, *size))


def test_evaluation_mode_changes_nothing():
    net, z = small(), torch.rand(1, 4, 16, 16, generator=gen())
    training = net.train()(z)
    assert torch.equal(net.eval()(z), training)
    assert not list(net.buffers())  # no running averages that could be out of date
    shifted = net(z + 3)  # statistics are the picture's own: constants are taken out at once, up to the first layer
    assert float((shifted - training).abs().max()) < 1e-3


def test_the_same_gradients_when_scales_are_recomputed():
    z = torch.rand(1, 4, 16, 16, generator=gen(1))
    plain, spare = small(), small(recompute=2)
    for net in (plain, spare):
        net(z).square().sum().backward()
    for a, b in zip(plain.parameters(), spare.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    saved = {}
    for name, net in (("plain", small()), ("spare", small(recompute=2))):
        bytes_ = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, b=bytes_: b.append(x.nbytes) or x, lambda x: x):
            net(z)
        saved[name] = sum(bytes_)
    assert saved["spare"] < 0.5 * saved["plain"]


def test_without_activations_it_is_linear_but_for_the_normalisation():
    net = small(activation="none", sigmoid=False)
    z, w = (torch.rand(1, 4, 16, 16, generator=gen(s)) for s in (1, 2))
    for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.forward = lambda x: x
    both = net(0.3 * z + 0.7 * w)
    torch.testing.assert_close(both, 0.3 * net(z) + 0.7 * net(w), rtol=1e-4, atol=1e-5)
    bent = small(sigmoid=False)
    assert float((bent(0.3 * z + 0.7 * w) - 0.3 * bent(z) - 0.7 * bent(w)).detach().abs().max()) > 1e-3


def test_component(tmp_path):
    z = torch.rand(1, 4, 16, 16, generator=gen())
    check_component(lambda g: small(g), z, batch_dim=None, tmp_path=tmp_path)


def test_weights_are_drawn_in_their_range_by_the_generator_alone():
    net, again = small(gen(4)), small(gen(5))
    again.reset_parameters(gen(4))
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    weight = SkipNet(generator=gen()).scales[0].down[1].conv.weight
    bound = (128 * 9) ** -0.5
    assert 0.99 * bound < float(weight.detach().abs().max()) <= bound
    assert float(weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.01)


def test_what_is_no_network():
    for options in ({"down": (4,)}, {"down_filter": 4}, {"down_filter": (3, 3, 3)}, {"down": (), "up": (), "skip": ()}):
        with pytest.raises(ValueError):
            small(**options)


def test_inputs():
    z = dip_input("noise", 32, (20, 30), generator=gen())
    assert z.shape == (1, 32, 20, 30) and 0 <= float(z.min()) and 0.099 < float(z.max()) < 0.1
    assert torch.equal(z, dip_input("noise", 32, (20, 30), generator=gen()))
    grid = dip_input("meshgrid", 2, (3, 5))
    torch.testing.assert_close(grid[0, 0], torch.linspace(0, 1, 5).expand(3, 5))
    torch.testing.assert_close(grid[0, 1], torch.linspace(0, 1, 3)[:, None].expand(3, 5))
    with pytest.raises(ValueError, match="2 channels"):
        dip_input("meshgrid", 3, (4, 4))


def test_a_copy_is_a_net_of_its_own():
    net = small()
    other = copy.deepcopy(net)
    other.reset_parameters(gen(9))
    assert not torch.equal(net.last.weight, other.last.weight)


def test_features_are_inverted():
    """Of a linear map that forgets half of the picture, the fit finds a picture with the same features."""
    truth = torch.rand(1, 2, 16, 16, generator=gen(1))
    model = lambda x: F.avg_pool2d(x, 2) * torch.tensor([3.0, 0.5])[:, None, None]
    z = dip_input("noise", 4, (16, 16), generator=gen(2))
    fit = feature_inversion(small(), z, model(truth), model, steps=150, lr=0.01)
    losses = fit.curve["loss"].values
    assert fit.best.shape == truth.shape and fit.at == 150
    relative = float((model(fit.last) - model(truth)).square().sum() / model(truth).square().sum())
    assert relative < 0.05 and losses[0] > 3 * losses[-1]
    assert losses[-1] == pytest.approx(relative, rel=1e-4)  # relative, whatever the scale of the features
    with pytest.raises(ValueError, match="all 0"):
        feature_inversion(small(), z, torch.zeros(1, 2, 8, 8), model, steps=1)
