import numpy as np
import pytest
import torch
from torch import nn
from torch.func import hessian as func_hessian
from torch.func import jacrev, vmap

from precis.nn.derivatives import (
    ELEMENTWISE,
    divergence,
    gradient,
    hessian,
    jacobian,
    jet,
    jet_through,
    laplacian,
)


class Chain(nn.Module):
    """Five layers with one of the elementwise functions and a jet of its own."""

    def __init__(self, activation="sine", outputs=2, d=3):
        super().__init__()
        sizes = [d, 16, 16, 16, 16, outputs]
        g = torch.Generator().manual_seed(1)
        self.weights = nn.ParameterList(
            1.5 * torch.randn(b, a, generator=g, dtype=torch.float64) / a**0.5 for a, b in zip(sizes[:-1], sizes[1:])
        )
        self.biases = nn.ParameterList(torch.randn(b, generator=g, dtype=torch.float64) for b in sizes[1:])
        self.f = ELEMENTWISE[activation]

    def forward(self, x):
        for i, (w, b) in enumerate(zip(self.weights, self.biases)):
            x = x @ w.T + b
            x = self.f(x, 0)[0] if i < len(self.weights) - 1 else x
        return x

    def jet(self, x, order, laplacian_only=False):
        layers = [part for pair in zip(self.weights, self.biases) for part in (pair, self.f)][:-1]
        return jet_through(layers, x, order, laplacian_only)


class Plain(nn.Module):
    """The same net without a jet."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


class Masked(Plain):
    """One of whose operations has no forward mode."""

    class Same(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g

    def forward(self, x):
        return self.net(self.Same.apply(x))


def points(n=7, d=3):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def reference(net, x):
    single = lambda row: net(row[None])[0]
    return vmap(jacrev(single))(x), vmap(func_hessian(single))(x)


@pytest.mark.parametrize("activation", list(ELEMENTWISE))
@pytest.mark.parametrize("wrap", [lambda net: net, Plain, Masked], ids=["own", "forward", "reverse"])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("no_grad", [False, True])
def test_jet_equals_torch_func(activation, wrap, outputs, no_grad):
    chain, x = Chain(activation, outputs), points()
    net = wrap(chain)
    grad, hess = reference(chain, x)
    with torch.set_grad_enabled(not no_grad):
        first, lap, full = jet(net, x, 1), jet(net, x, 2, True), jet(net, x, 2)
        assert torch.equal(jet(net, x, 0).value, net(x))
    close = lambda a, b: torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    for j in (first, lap, full):
        close(j.value, chain(x))
        close(j.grad, grad)
        assert j.grad.requires_grad != no_grad
    close(lap.lap, hess.diagonal(dim1=-2, dim2=-1).sum(-1))
    close(full.hess, hess)
    assert first.lap is None and first.hess is None and lap.hess is None and full.lap is None


@pytest.mark.parametrize("wrap", [lambda net: net, Plain, Masked], ids=["own", "forward", "reverse"])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("order", [1, 2])
def test_a_loss_on_derivatives_reaches_the_weights(wrap, outputs, order):
    net = Chain(outputs=outputs)
    x = points()

    def loss(module):
        j = jet(module, x, order, laplacian_only=True)
        return (j.grad.square().mean() if order == 1 else j.lap.square().mean()) + j.value.mean()

    got = torch.autograd.grad(loss(wrap(net)), list(net.parameters()))
    z = x.clone().requires_grad_()
    y = net(z)
    g = torch.stack([torch.autograd.grad(y[:, k].sum(), z, create_graph=True)[0] for k in range(outputs)], 1)
    if order == 1:
        expected = g.square().mean() + y.mean()
    else:
        second = [[torch.autograd.grad(g[:, k, i].sum(), z, create_graph=True)[0][:, i] for i in range(3)]
                  for k in range(outputs)]  # fmt: skip
        expected = torch.stack([sum(row) for row in second], 1).square().mean() + y.mean()
    for a, b in zip(got, torch.autograd.grad(expected, list(net.parameters()))):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_jet_of_a_two_layer_net_written_out_in_numpy():
    g = np.random.default_rng(0)
    w, b, v = g.normal(size=(16, 2)), g.normal(size=16), g.normal(size=16)
    x = g.normal(size=(5, 2))
    layers = [(torch.tensor(w), torch.tensor(b)), ELEMENTWISE["sine"], (torch.tensor(v[None]), None)]
    u = x @ w.T + b
    j = jet_through(layers, torch.tensor(x), 2)
    np.testing.assert_allclose(j.value[:, 0], np.sin(u) @ v, rtol=1e-10)
    np.testing.assert_allclose(j.grad[:, 0], np.cos(u) * v @ w, rtol=1e-10)
    np.testing.assert_allclose(j.hess[:, 0], np.einsum("nk,ki,kj->nij", -np.sin(u) * v, w, w), rtol=1e-10)


def test_third_derivative_of_a_sine_by_differentiating_a_jet():
    omega, w = 30.0, 0.7
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None].requires_grad_()
    layers = [(torch.full((1, 1), omega * w, dtype=torch.float64), None), ELEMENTWISE["sine"]]
    third = gradient(jet_through(layers, x, 2, True).lap, x)
    torch.testing.assert_close(third, -((omega * w) ** 3) * torch.cos(omega * w * x), rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("given", ["net", "tensor"])
def test_derivatives_by_name(given):
    net, x = Plain(Chain()), points().requires_grad_()
    y = net if given == "net" else net(x)
    grad, hess = reference(net, x)
    close = lambda a, b: torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    close(gradient(y, x), grad.sum(1))
    close(jacobian(y, x), grad)
    close(hessian(y, x), hess)
    close(laplacian(y, x), hess.diagonal(dim1=-2, dim2=-1).sum(-1))


def test_names_work_where_gradients_are_off():
    net, x = Chain(outputs=3), points()
    with torch.no_grad():
        results = gradient(net, x), jacobian(net, x), laplacian(net, x), hessian(net, x), divergence(net, x)
    assert not any(r.requires_grad for r in results)
    torch.testing.assert_close(results[0], results[1].sum(1))


@pytest.mark.parametrize(
    "f, second",
    [
        (lambda x: x.square().sum(1, keepdim=True), 2 * torch.eye(3)),
        (lambda x: 3 * x[:, :1], torch.zeros(3, 3)),
        (lambda x: torch.zeros_like(x[:, :1]), torch.zeros(3, 3)),
    ],
    ids=["square", "linear", "constant"],
)
def test_polynomials_of_low_degree(f, second):
    x = points().requires_grad_()
    expected = second.double().expand(7, 1, 3, 3)
    assert torch.equal(jet(f, x, 2).hess, expected)
    assert torch.equal(hessian(f(x), x), expected)


def test_exact_divergence_of_pictures():
    f = lambda z: z.flip(1) * z.square().sum((1, 2), keepdim=True)
    x = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    trace = vmap(jacrev(lambda z: f(z[None])[0]))(x).reshape(4, 6, 6).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(divergence(f, x), trace, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("dist", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_and_repeatable(dist):
    net, x = Chain(outputs=3), points(3)
    draw = lambda n, seed: divergence(net, x, "hutchinson", n, dist, torch.Generator().manual_seed(seed))
    exact = divergence(net, x)
    singles = torch.stack([draw(1, s) for s in range(2000)]).detach()
    error = (singles.mean(0) - exact).abs() / (singles.std(0) / 2000**0.5)
    assert (error < 4.5).all()
    assert torch.equal(draw(3, 0), draw(3, 0))
    with pytest.raises(ValueError, match="generator"):
        divergence(net, x, "hutchinson")


def test_rademacher_probes_are_exact_for_a_diagonal_jacobian():
    x = points()
    g = torch.Generator().manual_seed(0)
    torch.testing.assert_close(divergence(lambda z: z**3, x, "hutchinson", generator=g), (3 * x**2).sum(1))


def test_errors_in_the_net_are_not_hidden():
    def broken(x):
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        jet(broken, points(), 2)
    with pytest.raises(ValueError, match="order"):
        jet(Chain(), points(), 3)
