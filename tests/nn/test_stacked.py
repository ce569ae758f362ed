import pytest
import torch
from tests.helpers import check_component
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from precis.nn import stacked
from precis.nn.derivatives import jet
from precis.nn.stacked import StackedLinear, StackedMLP, generators

KINDS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def singles(copies=3, layer_norm=False, activation="tanh"):
    nets = []
    for seed in range(copies):
        torch.manual_seed(seed)
        norm = (lambda: [nn.LayerNorm(8)]) if layer_norm else list
        act = KINDS[activation]
        nets.append(nn.Sequential(nn.Linear(3, 8), *norm(), act(), nn.Linear(8, 8), *norm(), act(), nn.Linear(8, 2)))
        for p in nets[-1].parameters():
            p.data += 0.1 * torch.randn_like(p)
    return [net.double() for net in nets]


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", list(KINDS))
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("cached", [0, 2**18], ids=["in turn", "at once"])
def test_equals_vmap_over_stacked_modules(layer_norm, activation, shared, cached, monkeypatch):
    monkeypatch.setattr(stacked, "CACHED", cached)
    nets = singles(layer_norm=layer_norm, activation=activation)
    stack = StackedMLP.from_modules(nets)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(*([] if shared else [3]), 5, 3, generator=g, dtype=torch.float64, requires_grad=True)
    params, _ = stack_module_state(nets)
    call = lambda p, z: functional_call(nets[0], p, (z,))
    expected = vmap(call, in_dims=(0, None if shared else 0))(params, x)
    got = stack(x)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)
    weights = torch.randn(got.shape, generator=g, dtype=torch.float64)
    (expected * weights).sum().backward()
    wanted_x, x.grad = x.grad, None
    (got * weights).sum().backward()
    torch.testing.assert_close(x.grad, wanted_x, atol=1e-6, rtol=1e-6)
    flat = []
    for i, layer in enumerate(stack.layers):
        flat += [layer.weight, layer.bias]
        if layer_norm and i < 2:
            flat += [stack.norms[i].weight, stack.norms[i].bias]
    for p, q in zip(flat, params.values(), strict=True):
        other = q.grad.transpose(1, 2) if q.ndim == 3 else q.grad[:, None]
        torch.testing.assert_close(p.grad, other, atol=1e-6, rtol=1e-6)


def test_default_weights_are_those_of_linear_layers_with_that_seed():
    stack = StackedMLP(2, [3, 40, 2], generators=generators([5, 9]))
    for m, seed in enumerate([5, 9]):
        torch.manual_seed(seed)
        for layer in stack.layers:
            single = nn.Linear(layer.d_in, layer.d_out)
            assert torch.equal(layer.weight[m], single.weight.T) and torch.equal(layer.bias[m, 0], single.bias)


@pytest.mark.parametrize("init", ["torch", "orthogonal", "kaiming", "own"])
def test_a_copy_does_not_depend_on_its_mates(init):
    def own(weight, fan_in, layer, generator):
        assert weight.shape[1] == fan_in
        weight.normal_(std=(layer + 1) / fan_in, generator=generator)

    build = lambda seeds: StackedMLP(
        len(seeds), [3, 64, 2], init=own if init == "own" else init, generators=generators(seeds)
    )
    together, alone = build([0, 1, 2]), build([1])
    for a, b in zip(together.parameters(), alone.parameters()):
        assert torch.equal(a[1:2], b) and not torch.equal(a[:1], b) or bool((b == 0).all())
    same = build([0, 1, 2])
    assert all(torch.equal(a, b) for a, b in zip(together.parameters(), same.parameters()))


def test_known_initialisations():
    layer = StackedLinear(2, 64, 32, init="orthogonal")
    torch.testing.assert_close(layer.weight.transpose(1, 2) @ layer.weight, torch.eye(32).expand(2, -1, -1))
    assert not layer.bias.any()
    std = StackedLinear(1, 100, 4000, init="kaiming").weight.detach().std()
    assert abs(float(std) - (2 / 100) ** 0.5) < 1e-3
    given = StackedLinear(1, 4, 3, init="kaiming", bias_init=lambda b, fan_in, layer, g: b.fill_(fan_in))
    assert bool((given.bias == 4).all())


@pytest.mark.parametrize("cached", [0, 2**18], ids=["in turn", "at once"])
def test_scale_multiplies_weights_and_bias(cached, monkeypatch):
    monkeypatch.setattr(stacked, "CACHED", cached)
    scaled = StackedMLP(2, [3, 8, 8, 1], "sine", scale=30.0)
    assert [layer.scale for layer in scaled.layers] == [30, 30, 1]
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    h = x.expand(2, 5, 3)
    for layer in scaled.layers[:-1]:
        h = torch.sin(30 * (h @ layer.weight + layer.bias))
    torch.testing.assert_close(scaled(x), h @ scaled.layers[-1].weight + scaled.layers[-1].bias, atol=1e-5, rtol=1e-5)
    for m, single in enumerate(scaled.to_modules()):
        torch.testing.assert_close(single(x), scaled(x)[m], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_jets_of_a_stack_are_the_jets_of_its_copies(order, outputs, shared):
    stack = StackedMLP(3, [2, 8, 8, outputs], "sine", scale=(3.0, 2.0, 0.5)).double()
    x = torch.randn(*([] if shared else [3]), 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = jet(stack, x, order)
    for m, single in enumerate(stack.to_modules()):
        for a, b in zip(together, jet(single, x if shared else x[m], order)):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a[m], b, atol=1e-9, rtol=1e-9)


def test_there_and_back():
    nets = singles(layer_norm=True)
    back = StackedMLP.from_modules(nets).to_modules()
    for a, b in zip(nets, back):
        assert repr(a) == repr(b)
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    leaky = [nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.3), nn.Linear(3, 1))]
    x = torch.randn(4, 2)
    torch.testing.assert_close(StackedMLP.from_modules(leaky)(x)[0], leaky[0](x))


def test_training_together_is_training_apart():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 20, 3, generator=g).double(), torch.randn(3, 20, 2, generator=g).double()
    nets = singles()
    stack = StackedMLP.from_modules(nets)
    optimizer = torch.optim.Adam(stack.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        (stack(x) - y).square().mean((1, 2)).sum().backward()
        optimizer.step()
    for m, net in enumerate(nets):
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            (net(x[m]) - y[m]).square().mean().backward()
            optimizer.step()
        torch.testing.assert_close(stack(x)[m], net(x[m]), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: StackedMLP(2, [3]), "sizes"),
        (lambda: StackedMLP(2, [3, 1], "rellu"), "activation must be one of"),
        (lambda: StackedMLP(2, [3, 1], init="normal"), "init must be"),
        (lambda: StackedMLP(2, [3, 4, 1], scale=[1.0]), "scale"),
        (lambda: StackedMLP(2, [3, 1], generators=generators([0])), "generators"),
        (lambda: StackedMLP.from_modules([nn.Sequential(nn.Conv2d(1, 1, 1))]), "not a chain"),
        (lambda: StackedMLP.from_modules([nn.Sequential(nn.Linear(2, 2), nn.ReLU())]), "not a chain"),
        (lambda: StackedMLP.from_modules([nn.Linear(2, 2), nn.Linear(2, 3)]), "other layer sizes"),
        (lambda: StackedMLP(2, [3, 4, 1], "gelu").jet(torch.zeros(2, 3), 2), "jet"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("layer_norm", [False, True])
def test_component(layer_norm, tmp_path):
    build = lambda g: StackedMLP(1, [3, 8, 2], layer_norm=layer_norm, generators=[g])
    x = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
    check_component(build, x, batch_dim=1, tmp_path=tmp_path)
