"""Networks and their derivatives: against torch.func, closed forms, a NumPy net and the paper's statistics."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component

from precis.fields.encoding import FrequencyEncoding, RadialBasis
from precis.fields.siren import CoordinateMLP, Siren, StackedCoordinateMLP, StackedSiren
from precis.fields.siren_fused import FusedMSE
from precis.fields.siren_jet import SineCosine, _SineStreams
from precis.fields.siren_losses import value_loss
from precis.nn.derivatives import jet as generic_jet


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(n: int, d: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, d, generator=gen(seed), dtype=torch.float64) * 2 - 1


def functional(net, x):
    one = lambda z: net(z[None])[0]
    jacobian, hessian = (torch.func.vmap(f(one))(x) for f in (torch.func.jacrev, torch.func.hessian))
    return net(x), jacobian, hessian


@pytest.mark.parametrize("build", [
    lambda: Siren(3, 1, 16, generator=gen()), lambda: Siren(2, 3, 16, generator=gen()),
    lambda: Siren(2, 2, 12, 1, omega=5, first_omega=12, outermost_linear=False, generator=gen()),
    lambda: Siren(2, 1, 12, 1, outermost_linear=False, generator=gen()),
    lambda: CoordinateMLP(2, 1, 16, activation="tanh", generator=gen()),
    lambda: CoordinateMLP(2, 2, 16, activation="softplus", generator=gen()),
    lambda: CoordinateMLP(2, 2, 16, activation="relu", generator=gen()),
    lambda: CoordinateMLP(2, 1, 16, 2, "tanh", FrequencyEncoding(2, 3, scale=math.pi), generator=gen()),
    lambda: CoordinateMLP(2, 2, 16, 2, "sine", FrequencyEncoding(2, 2, include_input=False), generator=gen()),
    lambda: CoordinateMLP(2, 2, 16, 1, "softplus", RadialBasis(2, 9, 2.0, generator=gen()), generator=gen()),
    lambda: CoordinateMLP(2, 1, 16, 1, "softplus", RadialBasis(2, 9, 2.0, generator=gen()), generator=gen()),
])  # fmt: skip
def test_jets_equal_torch_func(build) -> None:
    net = build().double()
    x = rows(7, net.in_dim)
    value, jacobian, hessian = functional(net, x)
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    weights = rows(7, net.in_dim, 2)
    close = lambda a, b: torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    for higher in (False, True):
        first, second = net.jet(x, 1, higher=higher), net.jet(x, 2, higher=higher)
        flat = net.jet(x, 2, True, higher=higher)
        bent = net.jet(x, 2, True, weights=weights, higher=higher)
        for jet in (first, second, flat, bent):
            close(jet.value, value)
            close(jet.grad, jacobian)
        close(second.hess, hessian)
        close(flat.lap, diagonal.sum(-1))
        close(bent.lap, (diagonal * weights[:, None]).sum(-1))
    close(generic_jet(net, x, 2, True).lap, diagonal.sum(-1))
    with torch.no_grad():
        close(net.jet(x, 2, True).lap, diagonal.sum(-1))


@pytest.mark.parametrize("order, laplacian", [(1, False), (2, True), (2, False)])
@pytest.mark.parametrize("weighted", [False, True])
def test_fast_jets_have_the_gradients_of_plain_ones(order: int, laplacian: bool, weighted: bool) -> None:
    net, x = Siren(2, 2, 12, 2, generator=gen()).double(), rows(9, 2).requires_grad_()
    options = {"weights": rows(9, 2, 3)} if weighted and laplacian else {}

    def gradients(higher: bool) -> list[torch.Tensor]:
        out = [t for t in net.jet(x, order, laplacian, higher=higher, **options) if t is not None]
        return list(torch.autograd.grad(sum((t**3).sum() + t.sin().sum() for t in out), [x, *net.parameters()]))

    for fast, plain in zip(gradients(False), gradients(True)):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10 * float(plain.abs().max()))


def test_hand_written_backward_passes() -> None:
    u = rows(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(SineCosine.apply, u)
    assert torch.autograd.gradgradcheck(SineCosine.apply, u)
    w = rows(4, 2, 5)
    both = ((0, 0, 1), (0, 1, 1))
    for count, second, pairs in ((3, "none", ((), ())), (4, "laplacian", ((), ())), (6, "hessian", both)):
        for weights in (None, w) if second == "laplacian" else (None,):
            streams = rows(count, 12, 4).view(count, 4, 3).requires_grad_()
            f = lambda s, k=second, v=weights, p=pairs: _SineStreams.apply(s * 1.0, 2, k, v, *p)
            assert torch.autograd.gradcheck(f, streams)


def test_two_layers_by_hand() -> None:
    net = Siren(2, 1, 8, hidden_layers=0, omega=30, generator=gen()).double()
    x = rows(6, 2)
    w, b = (p.detach().numpy() for p in net.layers[0].parameters())
    v, c = (p.detach().numpy() for p in net.layers[1].parameters())
    u = 30 * (x.numpy() @ w.T + b)  # ω multiplies the bias too
    jet = net.jet(x, 2)
    np.testing.assert_allclose(jet.value.detach(), np.sin(u) @ v.T + c, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(jet.grad.detach()[:, 0], 30 * (np.cos(u) * v) @ w, rtol=1e-10, atol=1e-12)
    hessian = -900 * np.einsum("nk,k,ki,kj->nij", np.sin(u), v[0], w, w)
    np.testing.assert_allclose(jet.hess.detach()[:, 0], hessian, rtol=1e-10, atol=1e-10)


def test_third_derivative_of_one_layer() -> None:
    net = Siren(1, 1, 1, hidden_layers=0, omega=30, generator=gen()).double()
    x = rows(5, 1).requires_grad_()
    third = torch.autograd.grad(net.jet(x, 2, True).lap.sum(), x)[0]
    w, b, v = net.layers[0].weight, net.layers[0].bias, net.layers[1].weight
    expected = -(30**3) * w**3 * torch.cos(30 * (x * w + b)) * v
    torch.testing.assert_close(third, expected, rtol=1e-10, atol=1e-10)
    again = torch.autograd.grad(net.jet(x, 2, True, higher=True).lap.sum(), x, create_graph=True)[0]
    fourth = torch.autograd.grad(again.sum(), x)[0]
    torch.testing.assert_close(fourth, 30 * w * 30**3 * w**3 * torch.sin(30 * (x * w + b)) * v, rtol=1e-9, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), depth=st.integers(0, 3))
def test_derivative_is_a_product_of_sines_with_shifted_phases(seed: int, depth: int) -> None:
    net = Siren(2, 1, 6, depth, generator=gen(seed)).double()
    x = rows(4, 2, seed)
    h, product = x, torch.eye(2, dtype=torch.float64).expand(4, 2, 2)
    for layer in list(net.layers)[:-1]:
        u = layer(h)
        product = torch.sin(u + math.pi / 2)[..., None] * (layer.scale * layer.weight @ product)
        h = torch.sin(u)
    expected = (net.layers[-1].weight @ product)
    torch.testing.assert_close(net.jet(x, 1).grad, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("width, zero_bias", [(1024, True), (256, False)])
def test_statistics_do_not_drift_with_depth(width: int, zero_bias: bool) -> None:
    net = Siren(2, 1, width, 3, generator=gen())
    if zero_bias:
        for layer in net.layers:
            layer.bias.data.zero_()
    h = torch.rand(4096, 2, generator=gen(3)) * 2 - 1
    found, expected = [], []
    variance = None
    bias = 0.0 if zero_bias else 900 / (3 * width)
    with torch.no_grad():
        for i, layer in enumerate(list(net.layers)[:-1]):
            u = layer(h)
            h = u.sin()
            if i == 0:
                assert float(h.std()) == pytest.approx(0.707, abs=0.03)
                continue
            variance = 1 + bias if variance is None else 1 - math.exp(-2 * variance) + bias
            found.append(float(u.std()))
            expected.append(math.sqrt(variance))
    np.testing.assert_allclose(found, expected, rtol=0.05)
    if zero_bias:
        np.testing.assert_allclose(found, [1.0, 0.93, 0.91], atol=0.04)
    else:
        np.testing.assert_allclose(found, 1.47, atol=0.08)


def test_bounds_of_the_weights() -> None:
    net = Siren(3, 2, 64, 1, omega=20, first_omega=50, generator=gen())
    first, hidden, last = net.layers
    for layer, bound in ((first, 1 / 3), (hidden, math.sqrt(6 / 64) / 20), (last, math.sqrt(6 / 64) / 20)):
        assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert 0.8 / 8 < float(hidden.bias.detach().abs().max()) <= 1 / 8  # the framework's default
    assert [layer.scale for layer in net.layers] == [50, 20, 1]
    relu = CoordinateMLP(64, 1, 512, 1, "relu", generator=gen())
    assert float(relu.layers[0].weight.detach().std()) == pytest.approx(math.sqrt(2 / 64), rel=0.03)
    tanh = CoordinateMLP(64, 1, 512, 1, "tanh", generator=gen())
    assert float(tanh.layers[0].weight.detach().std()) == pytest.approx(math.sqrt(2 / (64 + 512)), rel=0.03)


@pytest.mark.parametrize("activation", ["sine", "relu", "tanh", "softplus"])
def test_a_stack_holds_the_single_nets(activation: str) -> None:
    stack = StackedCoordinateMLP(3, 2, 2, 16, 2, activation, generators=[gen(7), gen(8), gen(9)]).double()
    x, own = rows(6, 2), rows(18, 2).view(3, 6, 2)
    for m in range(3):
        single = CoordinateMLP(2, 2, 16, 2, activation, generator=gen(7 + m)).double()
        copy = stack.copy(m)
        assert all(torch.equal(a, b) for a, b in zip(single.parameters(), copy.parameters(), strict=True))
        for order, laplacian in ((0, False), (1, False), (2, True), (2, False)):
            for points in (x, own):
                alone = single.jet(points if points is x else own[m], order, laplacian)
                for a, b in zip(stack.jet(points, order, laplacian), alone):
                    if b is not None:
                        torch.testing.assert_close(a[m], b, rtol=1e-10, atol=1e-10)


def test_a_stack_of_single_outputs_and_of_encodings() -> None:
    stack = StackedSiren(2, 2, 1, 8, 1).double()
    x = rows(5, 2)
    for m in range(2):
        torch.testing.assert_close(stack.jet(x, 1).grad[m], stack.copy(m).jet(x, 1).grad, rtol=1e-10, atol=1e-10)
        assert isinstance(stack.copy(m), Siren)
    basis = StackedCoordinateMLP(2, 2, 1, 8, 1, "relu", RadialBasis(2, 5, 2, generators=[gen(1), gen(2)])).double()
    for m in range(2):
        for order, laplacian in ((1, False), (2, True)):
            ours, alone = basis.jet(x, order, laplacian), basis.copy(m).jet(x, order, laplacian)
            torch.testing.assert_close(ours.value[m], alone.value, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(ours.grad[m], alone.grad, rtol=1e-10, atol=1e-12)
    frequencies = StackedCoordinateMLP(2, 2, 1, 8, 1, "relu", FrequencyEncoding(2, 2)).double()
    torch.testing.assert_close(frequencies.jet(x, 1).grad[1], frequencies.copy(1).jet(x, 1).grad)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_fused_squared_error_equals_autograd(stacked: bool, weighted: bool) -> None:
    net = (StackedSiren(3, 2, 2, 16, 2) if stacked else Siren(2, 2, 16, 2, generator=gen())).double()
    x, y = rows(1000, 2), rows(1000, 2, 2)
    weight = rows(1000, 1, 3).abs() if weighted else None
    mse = FusedMSE(net)
    factor = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) if stacked else 2.0

    def gradients(loss):
        return loss.detach(), torch.autograd.grad((loss * factor).sum(), list(net.parameters()), retain_graph=True)

    for blocks in (1 << 20, 5000):  # in one piece and in many, the last one shorter
        import precis.fields.siren_fused as fused

        before, fused.BLOCK = fused.BLOCK, blocks
        try:
            a, b = gradients(mse(x, y, weight)), gradients(value_loss(net(x), y, weight))
        finally:
            fused.BLOCK = before
        torch.testing.assert_close(a[0], b[0], rtol=1e-12, atol=1e-12)
        for one, two in zip(a[1], b[1], strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10 * float(two.abs().max()))
    with torch.no_grad():
        torch.testing.assert_close(mse(x, y, weight), value_loss(net(x), y, weight))


def test_fused_squared_error_passes_other_nets_on() -> None:
    x, y = rows(20, 2).float(), rows(20, 1).float()
    for net in (
        CoordinateMLP(2, 1, 8, 1, "tanh", generator=gen()), Siren(2, 1, 8, 1, outermost_linear=False, generator=gen()),
        CoordinateMLP(2, 1, 8, 1, "sine", RadialBasis(2, 4, generator=gen()), generator=gen()),
        CoordinateMLP(2, 1, 8, 1, "sine", FrequencyEncoding(2, 2), generator=gen()),
    ):  # fmt: skip
        loss = FusedMSE(net)(x, y)
        torch.testing.assert_close(loss, value_loss(net(x), y))
        loss.backward()
        assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("build, call", [
    (lambda g: Siren(2, 3, 16, 1, generator=g), None),
    (lambda g: CoordinateMLP(2, 3, 16, 1, "relu", RadialBasis(2, 8, generator=g), generator=g), None),
    (lambda g: Siren(2, 3, 16, 1, generator=g), lambda net, x: [t for t in net.jet(x, 2, True) if t is not None]),
    (lambda g: Siren(2, 1, 16, 1, generator=g), lambda net, x: [t for t in net.jet(x, 1) if t is not None]),
])  # fmt: skip
def test_components(build, call, tmp_path: Path) -> None:
    check_component(build, rows(6, 2).float(), call=call, tolerance=1e-3, tmp_path=tmp_path)


def test_inputs_of_any_shape_and_no_side_effects() -> None:
    net = Siren(2, 3, 8, 1, generator=gen())
    assert net(torch.zeros(4, 5, 2)).shape == (4, 5, 3)
    assert net(torch.zeros(2)).shape == (3,)
    x = rows(4, 2).float()
    kept = x.clone()
    net.jet(x, 2, True).lap.sum().backward()
    assert torch.equal(x, kept)


@pytest.mark.parametrize("bad", [
    lambda: CoordinateMLP(2, 1, activation="gelu"), lambda: Siren(0, 1), lambda: Siren(2, 1, 8, -1),
    lambda: Siren(2, 1, 8, generator=gen()).jet(torch.zeros(1, 2), 3),
    lambda: Siren(2, 1, 8, generator=gen()).jet(torch.zeros(1, 2), 1, weights=torch.ones(2)),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(bad) -> None:
    with pytest.raises(ValueError):
        bad()
