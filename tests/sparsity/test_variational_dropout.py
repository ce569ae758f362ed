import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component
from torch import nn

from precis.nn.backbones import backbone
from precis.sparsity import variational_dropout
from precis.sparsity.variational_dropout import (
    VariationalConv1d,
    VariationalConv2d,
    VariationalLinear,
    bound,
    clip_log_alpha_,
    given_noise,
    kl_ramp,
    model_kl,
    set_generator,
    sparsity,
    threshold_masks,
    to_dense,
    variational_layers,
    variationalize,
)
from precis.sparsity.variational_dropout_kl import kl_divergence

BUILDS = {
    "linear": (lambda g, **o: VariationalLinear(6, 4, generator=g, **o), (5, 6)),
    "conv1d": (lambda g, **o: VariationalConv1d(4, 6, 3, 2, 1, 2, 2, generator=g, **o), (3, 4, 11)),
    "conv2d": (lambda g, **o: VariationalConv2d(4, 6, 3, 2, 1, 2, 2, generator=g, **o), (3, 4, 9, 9)),
}  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spread_out(layer, seed: int = 1):
    """Weights of size 0.3 with log α anywhere in −5 … 5, away from the edges of the clip."""
    with torch.no_grad():
        layer.weight.normal_(0, 0.3, generator=seeded(seed))
        log_alpha = 10 * torch.rand(layer.weight.shape, generator=seeded(seed + 1), dtype=layer.weight.dtype) - 5
        layer.spread.copy_(log_alpha + (layer.weight**2 + 1e-8).log() if layer.additive else log_alpha)
    return layer


@pytest.mark.parametrize("kind", BUILDS)
def test_component(kind, tmp_path):
    build, shape = BUILDS[kind]
    check_component(build, torch.randn(shape), tmp_path=tmp_path)


@pytest.mark.parametrize("train_clip", [True, False])
@pytest.mark.parametrize("kind", BUILDS)
def test_outputs_have_the_moments_of_sampled_weights(kind, train_clip):
    build, shape = BUILDS[kind]
    layer = spread_out(build(seeded(), train_clip=train_clip).double())
    x, draws = torch.randn(shape, generator=seeded(3), dtype=torch.float64), 20_000
    sigma = (layer.log_alpha / 2).exp() * layer.weight.abs()
    centre = torch.where(layer.mask(), layer.weight, 0.0) if train_clip else layer.weight
    generator = seeded(4)
    with torch.no_grad():
        first, second = 0.0, 0.0
        mean = layer.product(x, centre, layer.bias)
        for _ in range(draws // 500):
            noise = torch.randn(500, *sigma.shape, generator=generator, dtype=torch.float64)
            off = torch.func.vmap(lambda w: layer.product(x, w, layer.bias))(centre + sigma * noise) - mean
            first, second = first + off.sum(0) / draws, second + off.square().sum(0) / draws
        variance = layer.noise_variance(x)
        assert (first.abs() < 4.5 * (variance / draws).sqrt()).all()
        assert ((second - variance).abs() < 4.5 * variance * math.sqrt(2 / draws)).all()
        with given_noise(layer, [torch.zeros_like(mean)]):
            assert torch.allclose(layer(x), mean)
        with given_noise(layer, [torch.ones_like(mean)]):
            assert torch.allclose((layer(x) - mean).square(), variance + 1e-8)


@pytest.mark.parametrize("kind", BUILDS)
def test_without_noise_it_is_torchs_layer(kind):
    build, shape = BUILDS[kind]
    layer = build(seeded(), log_sigma2=-40.0)
    with torch.no_grad():
        layer.weight.normal_(0, 0.5, generator=seeded(1)).add_(layer.weight.sign())
    plain, x = to_dense(layer), torch.randn(shape)
    assert type(plain) in (nn.Linear, nn.Conv1d, nn.Conv2d)
    assert torch.equal(layer.eval()(x), plain(x))
    layer.train().max_log_alpha = -100.0  # below the clip: no variance at all
    with given_noise(layer, [torch.zeros_like(plain(x))]):
        assert torch.allclose(layer(x), plain(x), atol=1e-6)


@pytest.mark.parametrize("parametrization", ["additive", "multiplicative"])
@pytest.mark.parametrize("kind", BUILDS)
def test_gradients(kind, parametrization):
    build, shape = BUILDS[kind]
    layer = spread_out(build(seeded(), parametrization=parametrization).double())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(layer(x).shape, dtype=torch.float64)

    def run(x, weight, spread):
        with given_noise(layer, [noise]):
            out = torch.func.functional_call(layer, {"weight": weight, "spread": spread}, (x,))
        return out, torch.func.functional_call(_Kl(layer), {"layer.weight": weight, "layer.spread": spread}, ())

    inputs = [t.detach().clone().requires_grad_() for t in (x, layer.weight, layer.spread)]
    assert torch.autograd.gradcheck(run, inputs, eps=1e-6, atol=1e-5, fast_mode=kind != "linear")


class _Kl(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self):
        return self.layer.divergence()


def both_ways(monkeypatch, layer, x, noise, loss):
    """Output, loss and gradients: by the step that is written out, and by autograd."""
    found = []
    for serves in (True, False):
        monkeypatch.setattr(variational_dropout, "fused_serves", lambda _, serves=serves: serves)
        layer.zero_grad()
        given = x.clone().requires_grad_()
        with given_noise(layer, [noise]):
            out = layer(given)
        value = loss(out)
        value.backward()
        gradients = [p.grad for p in (layer.weight, layer.spread, given) if p.grad is not None]
        found.append([out.detach(), value.detach(), *gradients])
    return found


@pytest.mark.parametrize("options", [
    {}, {"train_clip": False}, {"parametrization": "multiplicative"}, {"threshold": 9.0},
    {"max_log_alpha": 0.0, "parametrization": "multiplicative"},
])  # fmt: skip
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_written_out_step_is_what_autograd_gives(options, big, dtype, monkeypatch):
    """Over the edges of the clip, tiny weights, zeros, and more than one piece."""
    layer = VariationalLinear(1700 if big else 7, 80, generator=seeded(), **options).to(dtype)
    with torch.no_grad():
        layer.weight[:, 0], layer.weight[:, 1], layer.weight[:, 2] = 0.0, 1e-4, 2.0
        layer.spread.add_(4 * torch.randn(layer.spread.shape, generator=seeded(2)))
        layer.spread[:, 0] = torch.linspace(-30, 0, 80)  # a weight of 0 may be anywhere between the bounds
    clip_log_alpha_(layer)
    x = torch.randn(9, layer.in_features, generator=seeded(3)).to(dtype)
    noise = torch.randn(9, 80, generator=seeded(4)).to(dtype)
    found = both_ways(monkeypatch, layer, x, noise, lambda out: out.square().mean() + 0.3 * model_kl(layer) / 80)
    rtol, atol = (2e-4, 2e-5) if dtype == torch.float32 else (1e-9, 1e-12)
    for ours, autograd in zip(*found):
        assert torch.allclose(ours, autograd, rtol=rtol, atol=atol)
    assert len(found[0]) == 5 and found[0][3].abs().sum() > 0


@pytest.mark.parametrize("conv", [True, False])
def test_a_step_of_which_part_is_used_and_weights_that_lie_otherwise_in_memory(monkeypatch, conv):
    if conv:
        layer = VariationalConv2d(4, 6, 3, generator=seeded()).to(memory_format=torch.channels_last)
        x, noise = torch.rand(2, 4, 5, 5), torch.randn(2, 6, 3, 3)
    else:
        layer = VariationalLinear(5, 6, bias=False, generator=seeded())
        layer.weight = nn.Parameter(layer.weight.detach().T.contiguous().T)
        x, noise = torch.rand(2, 3, 5).transpose(0, 1), torch.randn(6)
    for loss in (lambda out: out.square().sum(), lambda out: layer.divergence()):
        for ours, autograd in zip(*both_ways(monkeypatch, layer, x, noise, loss)):
            assert torch.allclose(ours, autograd, rtol=2e-4, atol=2e-5) and ours.abs().sum() > 0


def test_additive_noise_is_not_in_the_gradient_of_the_weight_and_multiplicative_is():
    x, gradients = torch.randn(4, 6, generator=seeded(5)), {}
    for parametrization in ("additive", "multiplicative"):
        layer = spread_out(VariationalLinear(6, 3, parametrization=parametrization, train_clip=False))
        for scale in (0.0, 3.0):
            layer.zero_grad()
            with given_noise(layer, [scale * torch.ones(4, 3)]):
                layer(x).sum().backward()
            gradients[parametrization, scale] = layer.weight.grad.clone()
    assert torch.allclose(gradients["additive", 0.0], gradients["additive", 3.0], atol=1e-4)
    assert torch.allclose(gradients["additive", 0.0], gradients["multiplicative", 0.0], atol=1e-5)
    assert not torch.allclose(gradients["multiplicative", 0.0], gradients["multiplicative", 3.0], atol=0.1)


def test_a_known_divergence_is_used_once_and_never_when_stale():
    layer = spread_out(VariationalLinear(5, 4))
    truth = lambda: kl_divergence(layer.log_alpha).sum()
    layer(torch.randn(3, 5))
    assert torch.allclose(layer.divergence(), truth()) and layer._known is None
    layer(torch.randn(3, 5))
    assert torch.allclose(layer.divergence("exact"), kl_divergence(layer.log_alpha, "exact").sum())
    layer(torch.randn(3, 5))
    with torch.no_grad():
        layer.spread.add_(1.0)
    assert torch.allclose(layer.divergence(), truth())
    layer(torch.randn(3, 5))
    twin = copy.deepcopy(layer)  # with the graph of a step still held
    assert twin._known is None and torch.allclose(twin.divergence(), truth())


def test_bound_counts_the_divergence_once_a_training_set():
    net = variationalize(backbone("mlp:8", (1, 2, 3), 4, generator=seeded()))
    x, y = torch.rand(5, 1, 2, 3), torch.tensor([0, 1, 2, 3, 0])
    set_generator(net, seeded(1))
    found = bound(net(x), y, net, n_train=50, kl_weight=0.5)
    logits = set_generator(net, seeded(1))(x)
    assert torch.allclose(found.nll, F.cross_entropy(logits, y))
    total = sum(kl_divergence(layer.log_alpha).sum() for _, layer in variational_layers(net))
    assert torch.allclose(found.kl, total, rtol=1e-4)
    assert torch.allclose(found.loss, found.nll + 0.5 * total / 50, rtol=1e-4)
    with pytest.raises(ValueError, match="size of the training set"):
        bound(logits, y, net, n_train=0)
    with pytest.raises(ValueError, match="no variational layer"):
        model_kl(nn.Linear(2, 2))


def test_noise_comes_from_the_generator_of_the_caller():
    net = variationalize(backbone("mlp:8", (1, 2, 3), 4, generator=seeded()), log_sigma2=-2.0)
    x, before = torch.rand(5, 1, 2, 3), torch.get_rng_state()
    first, second, other = (set_generator(net, seeded(s))(x) for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match="2 variational layers need as many"), given_noise(net, [x]):
        pass


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-4, 6))
def test_the_dense_net_evaluates_to_the_same_bits(seed, threshold):
    net = variationalize(backbone("lenet5", (1, 16, 16), 3, generator=seeded(seed)))
    for _, layer in variational_layers(net):
        spread_out(layer, seed)
        layer.threshold = threshold
    x = torch.rand(2, 1, 16, 16, generator=seeded(seed))
    dense = to_dense(net.eval())
    assert torch.equal(dense(x), net(x))
    assert not variational_layers(dense) and set(dense.state_dict()) < set(net.state_dict())
    kept = {name: mask for name, mask in threshold_masks(net).items()}
    for name, mask in kept.items():
        assert torch.equal(dense.get_parameter(name) != 0, mask)
    assert [row.kept for row in sparsity(net)] == [int(mask.sum()) for mask in kept.values()]
    counts = [sum(row.kept for row in sparsity(net, t)) for t in (-6, 0, 6)]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == sum(row.total for row in sparsity(net))


def test_a_trained_net_is_converted_without_loss():
    net = backbone("lenet5", (1, 28, 28), 10, generator=seeded())
    with torch.no_grad():
        net.hidden.weight[0, :5] = 0.0
        net.hidden.weight[1, :5] = 1e-6
    x = torch.rand(4, 1, 28, 28)
    before, weights = net(x), net.conv1.weight
    net.eval()
    assert variationalize(net) is net
    assert (net(x) - before).abs().max() <= 1e-6 and net.conv1.weight is weights
    assert all(bool((layer.log_alpha <= -2.999).all()) for _, layer in variational_layers(net))
    assert all(row.kept == row.total for row in sparsity(net))
    assert [name for name, _ in variational_layers(net)] == ["conv1", "conv2", "hidden", "head"]
    assert not net.conv1.training


def test_which_layers_are_converted():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out, self.free = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False), nn.Linear(4, 4)
            self.out.weight = self.embed.weight
            self.again = self.free
            self.encoder = nn.TransformerEncoderLayer(4, 2, 8)
            self.plain = nn.Conv1d(4, 4, 1)

    tied = variationalize(Tied())
    assert [name for name, _ in variational_layers(tied)] == ["free", "plain"] and tied.again is tied.free
    some = variationalize(backbone("mlp:8-8", (1, 4, 4), 3), include=("layers.*",), exclude=("*.1",))
    assert [name for name, _ in variational_layers(some)] == ["layers.0"]
    alone = variationalize(nn.Linear(3, 2), log_sigma2=math.inf, max_log_alpha=-2.0, parametrization="multiplicative")
    assert torch.allclose(alone.log_alpha, torch.tensor(-2.0)) and type(to_dense(alone)) is nn.Linear
    with pytest.raises(Exception, match="multiplicative"):
        VariationalLinear(2, 2, parametrization="both")


def test_padding_modes_and_names_of_padding():
    x = torch.randn(2, 3, 7, 7)
    for options in ({"padding": "same"}, {"padding": 2, "padding_mode": "reflect"}):
        plain = nn.Conv2d(3, 4, 3, **options)
        layer = variationalize(copy.deepcopy(plain))
        assert torch.allclose(layer.eval()(x), plain(x), atol=1e-6)
        assert (layer.noise_variance(x) > 0).all()


@pytest.mark.parametrize("parametrization", ["additive", "multiplicative"])
def test_the_bound_on_alpha_is_kept_and_can_be_left_again(parametrization):
    layer = VariationalLinear(4, 3, parametrization=parametrization, max_log_alpha=0.0, log_sigma2=2.0)
    clip_log_alpha_(layer)
    assert torch.allclose(layer.log_alpha, torch.tensor(0.0), atol=1e-5) and layer.mask().all()
    layer(torch.randn(5, 4)).square().sum().backward()
    assert (layer.spread.grad != 0).all()  # the gradient reaches a log α that lies on its bound


def test_ramp():
    assert [kl_ramp(e) for e in (0, 5, 12.5, 20, 90)] == [0, 0, 0.5, 1, 1]
    assert kl_ramp(0.2, 0.05, 0.35) == pytest.approx(0.5)


def test_a_masked_weight_still_hears_of_its_variance():
    layer = VariationalLinear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.01]]))
        layer.spread.copy_(torch.tensor([[-4.0, -4.0]]))
    assert layer.mask().tolist() == [[True, False]]
    layer(torch.ones(8, 2)).square().mean().backward()
    assert layer.spread.grad[0, 1] != 0 and layer.weight.grad[0, 0] != 0
