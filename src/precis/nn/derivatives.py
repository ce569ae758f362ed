"""Derivatives of a net with respect to its input, as quantities to look at or to put into a loss.

A net maps rows x [N,d] to rows [N,o], each row by itself.  `jet` carries value, gradient and second derivatives forward
together: through h = W h' they pass linearly, and through a = f(u), elementwise,

    ∂_i a = f'(u) ∂_i u,   ∂_i ∂_j a = f''(u) ∂_i u ∂_j u + f'(u) ∂_i ∂_j u,   Δa = f''(u) ‖∇u‖² + f'(u) Δu.

In units of one forward pass, a loss on the gradient of one output costs about 6 by reverse mode and 3(d+1) by jets;
one on its Laplacian 6 + 9d and 3(d+2).  Hence: the gradient of one output by reverse mode; of several outputs, and all
second derivatives, by jets.

Every function takes the net itself (then it may be called under `torch.no_grad()`) or, but for `jet`, the tensor
y = net(x), where x required a gradient.  Results can be differentiated again, unless gradients are switched off.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Net = Callable[..., Any]
# (u, order) -> f(u), f'(u) if order ≥ 1, f''(u) if order = 2; None stands for zero.
Elementwise = Callable[[Tensor, int], tuple[Tensor, Tensor | None, Tensor | None]]


class Jet(NamedTuple):
    """A net's value [*,N,o], gradient [*,N,o,d], and Laplacian [*,N,o] or Hessian [*,N,o,d,d]; None: not asked for."""

    value: Tensor
    grad: Tensor | None = None
    lap: Tensor | None = None
    hess: Tensor | None = None


def jet(net: Net, x: Float[Tensor, "*copies n d"], order: int, laplacian_only: bool = False) -> Jet:
    """Value and derivatives of `net` at x up to `order` (0, 1 or 2), by the cheapest way that the net allows.

    A net that has a method `jet(x, order, laplacian_only)` is asked for it (see `jet_through`); any other net is
    differentiated by `torch.func.jvp`, and by reverse mode where one of its operations knows no forward mode.  A stack
    of M nets (with an attribute `copies`) takes x [N,d] or [M,N,d] and returns [M,N,…].
    """
    if order not in (0, 1, 2):
        raise ValueError(f"order must be 0, 1 or 2, got {order}")
    if order == 0:
        return Jet(net(x))
    if order == 1 and _outputs(net, x) == 1:
        return _reverse_jet(net, x, 1, False)
    if hasattr(net, "jet"):
        return net.jet(x, order, laplacian_only)
    try:
        return _forward_jet(net, x, order, laplacian_only)
    except (NotImplementedError, RuntimeError):  # an error of the net itself comes again
        return _reverse_jet(net, x, order, laplacian_only)


def gradient(y: Tensor | Net, x: Float[Tensor, "*rest"]) -> Float[Tensor, "*rest"]:
    """∇_x y of the same shape as x, for y with one number a row (or any y: the gradient of its sum)."""
    y, x = _evaluate(y, x)
    return _grad(y, x)


def jacobian(y: Tensor | Net, x: Float[Tensor, "n d"]) -> Float[Tensor, "n o d"]:
    """∂y_k/∂x_i of each row."""
    if not isinstance(y, Tensor):
        grad = jet(y, x, 1).grad
        assert grad is not None
        return grad
    return torch.stack([_grad(column, x, keep=True) for column in _columns(y)], 1)


def laplacian(y: Tensor | Net, x: Float[Tensor, "n d"]) -> Float[Tensor, "n o"]:
    """Δy_k = Σ_i ∂²y_k/∂x_i² of each row."""
    if not isinstance(y, Tensor):
        lap = jet(y, x, 2, True).lap
        assert lap is not None
        return lap
    return torch.stack([_second(column, x).diagonal(dim1=-2, dim2=-1).sum(-1) for column in _columns(y)], 1)


def hessian(y: Tensor | Net, x: Float[Tensor, "n d"]) -> Float[Tensor, "n o d d"]:
    """∂²y_k/∂x_i∂x_j of each row."""
    if not isinstance(y, Tensor):
        hess = jet(y, x, 2).hess
        assert hess is not None
        return hess
    return torch.stack([_second(column, x) for column in _columns(y)], 1)


def divergence(
    f: Tensor | Net,
    x: Float[Tensor, "n *rest"],
    method: Literal["exact", "hutchinson"] = "exact",
    n: int = 1,
    dist: Literal["rademacher", "gaussian"] = "rademacher",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n"]:
    """Σ_i ∂f_i/∂x_i of each row, for f of the same shape as x.

    "exact" takes one backward pass a dimension; "hutchinson" estimates it without bias from `n` random probes,
    E vᵀJv with E vvᵀ = I (Hutchinson, 1990), and needs a `generator`.
    """
    y, x = _evaluate(f, x)
    if y.shape != x.shape:
        raise ValueError(f"a divergence needs as many outputs as inputs, got {tuple(y.shape)} from {tuple(x.shape)}")
    if method == "exact":
        parts = [_grad(column, x, keep=True).flatten(1)[:, i] for i, column in enumerate(_columns(y, 1))]
        return torch.stack(parts).sum(0)
    if generator is None:
        raise ValueError("the Hutchinson estimate needs a generator")
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for _ in range(n):
        v = torch.empty(x.shape, dtype=x.dtype, device=generator.device).normal_(generator=generator)
        v = (v if dist == "gaussian" else torch.where(v < 0, -1.0, 1.0)).to(x)
        total = total + (_grad(y, x, v, keep=True) * v).flatten(1).sum(1)
    return total / n


# Jets through layers, for nets that bring their own `jet`.


class Streams(NamedTuple):
    """Value and derivatives of a layer, one above the other so that a linear layer is one matrix product.

    `data [*copies, s, N, width]`: the value, d first derivatives, then nothing ("none"), the Laplacian ("laplacian") or
    the second derivatives ∂_i∂_j, i ≤ j, row by row ("hessian").
    """

    data: Tensor
    d: int
    second: Literal["none", "laplacian", "hessian"]


def jet_through(
    layers: Sequence[tuple[Tensor, Tensor | None] | Elementwise], x: Tensor, order: int, laplacian_only: bool = False
) -> Jet:
    """The jet of a chain of layers, each (weight, bias) or an elementwise function such as `ELEMENTWISE["sine"]`."""
    streams = begin(x, order, laplacian_only)
    for layer in layers:
        if isinstance(layer, tuple):
            streams = propagate_linear(layer[0], layer[1], streams)
        else:
            streams = propagate_activation(layer, streams)
    return finish(streams)


def begin(x: Float[Tensor, "*copies n d"], order: int, laplacian_only: bool = False) -> Streams:
    """The streams of the input itself: ∂_i x = e_i, second derivatives 0."""
    n, d = x.shape[-2:]
    second: Literal["none", "laplacian", "hessian"]
    second = "none" if order < 2 else "laplacian" if laplacian_only else "hessian"
    d_kept = d if order else 0
    count = d_kept + {"none": 0, "laplacian": 1, "hessian": d * (d + 1) // 2}[second]
    tangents = x.new_zeros(count, n, d)
    for i in range(d_kept):
        tangents[i, :, i] = 1
    return Streams(torch.cat([x.unsqueeze(-3), tangents.expand(*x.shape[:-2], -1, -1, -1)], -3), d_kept, second)


def propagate_linear(weight: Tensor, bias: Tensor | None, streams: Streams, scale: float | int = 1) -> Streams:
    """scale · (W h + b) for weight [o,w] and bias [o], as in `nn.Linear`, or a stack's [M,w,o] and [M,1,o]."""
    data = streams.data
    weight = weight if scale == 1 else scale * weight
    if weight.ndim == 2:
        out = torch.nn.functional.linear(data, weight)
    else:
        rows = data.flatten(-3, -2)
        out = (rows @ weight).unflatten(-2, data.shape[-3:-1])
    if bias is not None:
        out.select(-3, 0).add_(bias, alpha=scale)
    return streams._replace(data=out)


def propagate_activation(f: Elementwise, streams: Streams) -> Streams:
    """f applied elementwise, with its derivatives, by the rules at the head of this module."""
    data, d, second = streams
    u, first, rest = data.split([1, d, data.shape[-3] - 1 - d], -3)  # one split: its backward pass is one copy
    a, f1, f2 = f(u, 0 if d == 0 else 1 if second == "none" else 2)
    if d == 0:
        return streams._replace(data=a)
    assert f1 is not None
    parts = [a, f1 * first]
    if second != "none":
        parts.append(f1 * rest)
    if second != "none" and f2 is not None:
        if second == "laplacian":
            product = first.square().sum(-3, keepdim=True)
        else:
            i, j = torch.triu_indices(d, d, device=data.device)
            product = first.index_select(-3, i) * first.index_select(-3, j)
        parts[2] = torch.addcmul(parts[2], f2, product)
    return streams._replace(data=torch.cat(parts, -3))


def finish(streams: Streams) -> Jet:
    """The streams of the last layer as a `Jet`."""
    data, d, second = streams
    value = data.select(-3, 0)
    if d == 0:
        return Jet(value)
    grad = data.narrow(-3, 1, d).movedim(-3, -1)
    if second == "none":
        return Jet(value, grad)
    if second == "laplacian":
        return Jet(value, grad, lap=data.select(-3, 1 + d))
    place = torch.zeros(d, d, dtype=torch.long, device=data.device)
    i, j = torch.triu_indices(d, d, device=data.device)
    place[i, j] = place[j, i] = torch.arange(len(i), device=data.device)
    upper = data.narrow(-3, 1 + d, len(i)).movedim(-3, -1)
    return Jet(value, grad, hess=upper.index_select(-1, place.flatten()).unflatten(-1, (d, d)))


def _sine(u: Tensor, order: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    s = u.sin()
    return s, u.cos() if order else None, -s if order == 2 else None


def _relu(u: Tensor, order: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    return u.relu(), (u > 0).to(u) if order else None, None


def _tanh(u: Tensor, order: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    t = u.tanh()
    slope = 1 - t * t
    return t, slope, -2 * t * slope if order == 2 else None


def _sigmoid(u: Tensor, order: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    s = u.sigmoid()
    slope = s * (1 - s)
    return s, slope, slope * (1 - 2 * s) if order == 2 else None


def _softplus(u: Tensor, order: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    s = u.sigmoid()
    return torch.nn.functional.softplus(u), s, s * (1 - s) if order == 2 else None


def _silu(u: Tensor, order: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    s = u.sigmoid()
    slope = s * (1 - s)
    return u * s, s + u * slope, slope * (2 + u * (1 - 2 * s)) if order == 2 else None


ELEMENTWISE: dict[str, Elementwise] = {
    "sine": _sine, "relu": _relu, "tanh": _tanh, "sigmoid": _sigmoid, "softplus": _softplus, "silu": _silu,
}  # fmt: skip


# Jets of nets that bring none.


def _outputs(net: Net, x: Tensor) -> int:
    with torch.no_grad():
        return net(x[..., :1, :]).shape[-1]


def _forward_jet(net: Net, x: Tensor, order: int, laplacian_only: bool) -> Jet:
    d = x.shape[-1]
    basis = torch.eye(d, dtype=x.dtype, device=x.device)

    def push(f: Net, i: int, z: Tensor) -> tuple[Tensor, Tensor]:
        value, tangent = torch.func.jvp(f, (z,), (basis[i].expand_as(z),))[:2]
        return value, tangent

    def along(i: int) -> Net:
        return lambda z: push(net, i, z)[1]

    if order == 1:
        pairs = [push(net, i, x) for i in range(d)]
        return Jet(pairs[0][0], torch.stack([tangent for _, tangent in pairs], -1))

    def columns(i: int) -> range:
        return range(i, i + 1) if laplacian_only else range(i, d)

    twice = [[push(along(i), j, x) for j in columns(i)] for i in range(d)]  # [i][j − i]: ∂_i net, ∂_i ∂_j net
    value, grad = net(x), torch.stack([row[0][0] for row in twice], -1)
    if laplacian_only:
        return Jet(value, grad, lap=torch.stack([row[0][1] for row in twice]).sum(0))
    rows = [torch.stack([twice[min(i, j)][abs(i - j)][1] for j in range(d)], -1) for i in range(d)]
    return Jet(value, grad, hess=torch.stack(rows, -2))


def _reverse_jet(net: Net, x: Tensor, order: int, laplacian_only: bool) -> Jet:
    copies = getattr(net, "copies", None)
    if copies is not None and x.ndim == 2:  # else the gradients of the copies would be added up
        x = x.expand(copies, *x.shape)
    y, x = _evaluate(net, x)
    outputs = _columns(y)
    if order == 1:
        return Jet(_seen(y), torch.stack([_grad(column, x, keep=len(outputs) > 1) for column in outputs], -2))
    grads, seconds = [], []
    for column in outputs:
        with torch.enable_grad():
            g = _grad(column, x)
        grads.append(_seen(g))
        seconds.append(torch.stack([_grad(slope, x, keep=True) for slope in _columns(g)], -2))
    grad, hess = torch.stack(grads, -2), torch.stack(seconds, -3)
    if laplacian_only:
        return Jet(_seen(y), grad, lap=hess.diagonal(dim1=-2, dim2=-1).sum(-1))
    return Jet(_seen(y), grad, hess=hess)


def _evaluate(y: Tensor | Net, x: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(y, Tensor):
        return y, x
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        return y(x), x


@torch.enable_grad()
def _columns(y: Tensor, start: int = -1) -> tuple[Tensor, ...]:
    return y.flatten(start).unbind(-1)


def _seen(y: Tensor) -> Tensor:
    """y as the caller should get it: without its graph where gradients are switched off."""
    return y if torch.is_grad_enabled() else y.detach()


def _grad(y: Tensor, x: Tensor, v: Tensor | None = None, *, keep: bool = False) -> Tensor:
    """Gradient of Σ y (or Σ v y); zero where y does not depend on x.  `keep`: the graph is needed again."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    again = torch.is_grad_enabled()
    v = torch.ones_like(y) if v is None else v
    return torch.autograd.grad(
        y, x, v, create_graph=again, retain_graph=keep or again, allow_unused=True, materialize_grads=True
    )[0]


def _second(y: Tensor, x: Tensor) -> Tensor:
    """Second derivatives [N,d,d] of y [N]."""
    with torch.enable_grad():
        g = _grad(y, x)
    return torch.stack([_grad(slope, x, keep=True) for slope in _columns(g)], 1)
