"""Derivatives of a coordinate network with respect to its coordinates, in closed form, fast enough to train on.

Gradient of one output: the chain rule from the output backwards,

    g_n = W_n,   g_i = (g_{i+1} ⊙ f'(u_i)) W_i,   ∇Φ = g_0,

about 6 times the cost of a value with its backward pass.  Several outputs, Laplacian and Hessian: value and derivatives
forward together, stacked so that a layer is one matrix product ("jets"; `precis.nn.derivatives` has the equations).
The derivative of a sine layer is a sine layer with the phase shifted by π/2, so that sine and cosine of each
pre-activation, computed once, serve the values, all derivatives and the backward pass.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from precis.nn.derivatives import ELEMENTWISE, Jet, Streams, begin, finish, propagate_linear

ACTIVATIONS = {name: ELEMENTWISE[name] for name in ("sine", "relu", "tanh", "softplus")}


def net_jet(net: Any, x: Tensor, order: int, laplacian_only: bool, *, weights: Tensor | None, higher: bool) -> Jet:
    """`jet` of a CoordinateMLP or a stack of them; see there."""
    if order not in (0, 1, 2):
        raise ValueError(f"order must be 0, 1 or 2, got {order}")
    if weights is not None and not (order == 2 and laplacian_only):
        raise ValueError("weights are those of a Laplacian: order=2, laplacian_only=True")
    if order == 0:
        return Jet(net(x))
    if order == 1 and net.out_dim == 1:
        return _reverse(net, x)
    if net.encoding is None:
        streams = begin(x, order, laplacian_only)
    else:
        streams = net.encoding.streams(x, order, laplacian_only, weights)
    last = len(net.layers) - 1
    for i, layer in enumerate(net.layers):
        streams = propagate_linear(layer.weight, layer.bias, streams, layer.scale)
        if i < last or not net.outermost_linear:
            streams = activate(net.activation, streams, weights, higher)
    return finish(streams)


def activate(activation: str, streams: Streams, weights: Tensor | None = None, higher: bool = False) -> Streams:
    """f applied to streams: f'(u) ∂u for the first derivatives, f''(u) Σ w_a (∂_a u)² + f'(u) Δu for the Laplacian.

    Sine: the input's memory is used up, unless `higher`.
    """
    data, d, second = streams
    i, j = torch.triu_indices(d, d, device=data.device).tolist() if second == "hessian" else ((), ())
    if activation == "sine" and not higher:
        return streams._replace(data=_SineStreams.apply(data, d, second, weights, i, j))
    u, first = data.select(-3, 0), data.narrow(-3, 1, d)
    a, f1, f2 = ACTIVATIONS[activation](u, 1 if second == "none" else 2)
    assert f1 is not None
    parts = [a.unsqueeze(-3), f1.unsqueeze(-3) * data.narrow(-3, 1, data.shape[-3] - 1)]
    if second != "none" and f2 is not None:
        rest = parts[1].narrow(-3, d, data.shape[-3] - 1 - d)
        parts = [parts[0], parts[1].narrow(-3, 0, d)]
        if second == "laplacian":
            square = first.square() if weights is None else first.square() * _per_axis(weights)
            square = square.sum(-3, keepdim=True)
        else:
            square = first[..., i, :, :] * first[..., j, :, :]
        parts.append(torch.addcmul(rest, f2.unsqueeze(-3), square))
    return streams._replace(data=torch.cat(parts, -3))


def _per_axis(weights: Tensor) -> Tensor:
    """Weights [d] or [*,N,d] as [*,d,N or 1,1], to multiply first derivatives [*,d,N,width]."""
    return weights[:, None, None] if weights.ndim == 1 else weights.mT.unsqueeze(-1)


class _SineStreams(torch.autograd.Function):
    """sin on streams [*, s, N, w].  The cosine takes the place of the value among the inputs (nobody reads that again),
    so that nothing but inputs and outputs is kept.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, d: int, second: str, weights: Tensor | None, i: Any, j: Any) -> Tensor:
        out = torch.empty_like(u)
        torch.sin(u.select(-3, 0), out=out.select(-3, 0))
        c = u.select(-3, 0).cos_()
        rest = u.shape[-3] - 1
        torch.mul(u.narrow(-3, 1, rest), c.unsqueeze(-3), out=out.narrow(-3, 1, rest))
        s, first = out.select(-3, 0), u.narrow(-3, 1, d)
        if second == "laplacian":
            out.select(-3, 1 + d).addcmul_(s, _square(first, weights), value=-1)
        elif second == "hessian":
            for k, (a, b) in enumerate(zip(i, j)):
                pair = first.select(-3, a) * first.select(-3, b)
                out.select(-3, 1 + d + k).addcmul_(s, pair, value=-1)
        ctx.u, ctx.settings = u, (d, second, weights, i, j)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        u, (out,) = ctx.u, ctx.saved_tensors
        d, second, weights, i, j = ctx.settings
        c, s, first = u.select(-3, 0), out.select(-3, 0), u.narrow(-3, 1, d)
        grad = g * c.unsqueeze(-3)
        rest = u.shape[-3] - 1
        turned = torch.mul(g.narrow(-3, 1, rest), u.narrow(-3, 1, rest)).sum(-3).mul_(s)
        gu = grad.select(-3, 0).sub_(turned)
        grad_first = grad.narrow(-3, 1, d)
        if second == "laplacian":
            gl = g.select(-3, 1 + d)
            gu.sub_(_square(first, weights).mul_(gl).mul_(c))
            bent = (gl * s).unsqueeze(-3)
            grad_first.addcmul_(first if weights is None else first * _per_axis(weights), bent, value=-2)
        elif second == "hessian":
            for k, (a, b) in enumerate(zip(i, j)):
                gp = g.select(-3, 1 + d + k)
                ua, ub, bent = first.select(-3, a), first.select(-3, b), gp * s
                gu.sub_((ua * ub).mul_(gp).mul_(c))
                grad_first.select(-3, a).addcmul_(ub, bent, value=-1)
                grad_first.select(-3, b).addcmul_(ua, bent, value=-1)
        return grad, None, None, None, None, None


def _square(first: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return first.square().sum(-3)
    return (first.square() * _per_axis(weights)).sum(-3)


class SineCosine(torch.autograd.Function):
    """(sin u, cos u), each computed once for values and all derivatives; may be differentiated any number of times."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        s, c = u.sin(), u.cos()
        ctx.save_for_backward(s, c)
        return s, c

    @staticmethod
    def backward(ctx: Any, gs: Tensor, gc: Tensor) -> Tensor:
        s, c = ctx.saved_tensors
        return torch.addcmul(gs * c, gc, s, value=-1)


def _reverse(net: Any, x: Tensor) -> Jet:
    """Value and gradient of a net with one output."""
    layers, last = list(net.layers), len(net.layers) - 1
    start = None if net.encoding is None else net.encoding.streams(x, 1, False)
    h, slopes = x if start is None else start.data.select(-3, 0), []
    for k, layer in enumerate(layers):
        h = layer(h)
        if k < last or not net.outermost_linear:
            h, slope = SineCosine.apply(h) if net.activation == "sine" else ACTIVATIONS[net.activation](h, 1)[:2]
            assert slope is not None
            slopes.append(slope)
    g: Tensor | None = None
    for k in range(last, -1, -1):
        weight = layers[k].weight if net.copies is None else layers[k].weight.mT
        if layers[k].scale != 1:
            weight = weight * layers[k].scale
        g = weight if g is None and len(slopes) <= k else (slopes[k] if g is None else g) @ weight
        if k:
            g = slopes[k - 1] * g
    assert g is not None
    if start is not None:
        g = (start.data.narrow(-3, 1, start.d) * g.unsqueeze(-3)).sum(-1).mT
    return Jet(h, g.unsqueeze(-2).expand(*h.shape, g.shape[-1]))


