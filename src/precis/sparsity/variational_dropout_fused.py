"""The elementwise work of a training step, with its gradient written out, in pieces that stay in a core's cache.

With q = θ² + τ, β = log q − log σ² (or −log α itself), clipped to where −log α may lie, i = 1 inside the clip, else 0,
a = e^β = 1/α, z = k₂ − k₃β, and G_m, G_w, G_D what comes back:
    m = θ [a > e^−threshold],   w = θ²/a,   D = Σ k₁ σ(−z) + ½ log(1 + a),   h = k₁k₃ σ(z)σ(−z) + ½ a/(1 + a)
    to log σ²:   g = i (G_w w − G_D h)
    to θ:        G_m [a > e^−threshold] + 2θ (G_w/a − g/q)
Logarithm, exponential and sigmoid are taken once a step, for mean, variance, divergence and the gradients of all three:
a and h are kept for the backward pass, which needs nothing but sums and products.  A clipped β lies `EDGE` roundings
beyond its bound, so that a alone tells what is inside, and a log α that lies on its bound may come back.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from math import exp
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from precis.sparsity.variational_dropout_kl import K1, K2, K3

TINY = 1e-8
PIECE = 2**17
EDGE = 32
where_above = torch.ops.aten.threshold_backward.grad_input  # (g, x, t, grad_input=out): g where x > t, else 0
where_between = torch.ops.aten.hardtanh_backward.grad_input  # (g, x, s, t, grad_input=out): g where s < x < t, else 0


class Step(Function):
    """(θ, spread, additive, threshold, low, high, copies) -> m, w, D [copies], a, h/k₁k₃; spread is log σ², or log α.

    copies: how many stacked nets the first axis holds, each with its own D; 0: there is no such axis, and D is [1].
    No gradient goes through a and h.
    """

    @staticmethod
    def forward(
        weight: Tensor, spread: Tensor, additive: bool, threshold: float, low: float, high: float, copies: int
    ) -> tuple[Tensor, ...]:
        weight, spread = weight.contiguous(), spread.contiguous()
        made = tuple(torch.empty_like(weight) for _ in range(4))
        divergence = weight.new_zeros(max(1, copies))
        tau, one, minus_k2 = _constants(weight.dtype)
        lowest, highest = _edges(low, high, weight.dtype)
        kept_from = exp(min(-threshold, 80.0))
        for copy, (w, s, m, v, a, h), (p,) in _pieces(copies, 1, weight, spread, *made):
            torch.mul(w, w, out=v)
            if additive:
                torch.add(v, tau, out=a).log_().sub_(s)
            else:
                torch.neg(s, out=a)
            a.clamp_(lowest, highest)
            torch.add(minus_k2, a, alpha=K3, out=p).sigmoid_()
            a.exp_()
            v.div_(a)
            where_above(w, a, kept_from, grad_input=m)
            torch.addcmul(p, p, p, value=-1, out=h)
            divergence[copy].add_(p.sum(), alpha=K1)
            torch.add(a, one, out=p)
            h.addcdiv_(a, p, value=0.5 / (K1 * K3))
            divergence[copy].add_(p.log_().sum(), alpha=0.5)
        mean, variance, inverse, slope = made
        return mean, variance, divergence, inverse, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        weight, _, *ctx.how = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[3:])
        ctx.save_for_backward(weight, *output[3:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_mean: Any, g_variance: Any, g_divergence: Any, *_: Any) -> Any:  # type: ignore[override]
        weight, inverse, slope = ctx.saved_tensors
        additive, threshold, low, high, copies = ctx.how
        weight = weight.contiguous()
        given = [torch.zeros_like(weight) if g is None else g.contiguous() for g in (g_mean, g_variance)]
        factors = [0.0] * max(1, copies) if g_divergence is None else g_divergence.tolist()
        made = torch.empty_like(weight), torch.empty_like(weight)
        tau = _constants(weight.dtype)[0]
        least, most = _edges(low, high, weight.dtype)
        inward = 8 * torch.finfo(weight.dtype).eps
        least, most, kept_from = exp(least + inward), exp(most - inward), exp(min(-threshold, 80.0))
        for copy, (w, a, h, gm, gv, tw, ts), (u, r) in _pieces(copies, 2, weight, inverse, slope, *given, *made):
            torch.div(gv, a, out=u).mul_(w)
            torch.mul(u, w, out=ts).sub_(h, alpha=K1 * K3 * factors[copy])
            where_between(ts, a, least, most, grad_input=ts)
            if additive:
                torch.addcmul(tau, w, w, out=r)
                u.addcmul_(torch.div(w, r, out=r), ts, value=-1)
            where_above(gm, a, kept_from, grad_input=tw)
            tw.add_(u, alpha=2)
        return *made, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, weight: Tensor, spread: Tensor, *how: Any) -> Any:
        pairs = zip((weight, spread), in_dims)
        front = [t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0) for t, d in pairs]
        mean, variance, divergence, *kept = Step.apply(*(t.contiguous() for t in front), *how[:-1], info.batch_size)
        return (mean, variance, divergence[:, None], *kept), (0, 0, 0, 0, 0)


def fused_serves(weight: Tensor) -> bool:
    """Whether `Step` is of use: on a CPU, but not while compiling (which fuses too) or under `torch.func.grad`."""
    plain = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    return plain and not torch.compiler.is_compiling() and not torch._C._functorch.is_gradtrackingtensor(weight)


@cache
def _constants(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """τ, 1 and −k₂: as tensors they cost an operation less than as numbers."""
    return torch.tensor(TINY, dtype=dtype), torch.tensor(1.0, dtype=dtype), torch.tensor(-K2, dtype=dtype)


def _edges(low: float, high: float, dtype: torch.dtype) -> tuple[float, float]:
    """What β = −log α is clipped to, where log α is to lie in low … high."""
    edge = EDGE * torch.finfo(dtype).eps
    return -high - edge, -low + edge


def _pieces(
    copies: int, scratch: int, *tensors: Tensor
) -> Iterator[tuple[int, Sequence[Tensor], Sequence[Tensor]]]:  # fmt: skip
    """(copy, views of the same stretch of every tensor, as many working tensors of that length)."""
    whole = max(1, tensors[0].numel() // max(1, copies))
    size = -(-whole // -(-whole // PIECE))
    room = tuple(tensors[0].new_empty(size) for _ in range(scratch))
    flat = [t.view(-1) for t in tensors]
    for copy in range(max(1, copies)):
        for start in range(copy * whole, (copy + 1) * whole, size):
            n = min(size, (copy + 1) * whole - start)
            piece = flat if n == len(flat[0]) else [t[start : start + n] for t in flat]
            yield copy, piece, room if n == size else [r[:n] for r in room]
