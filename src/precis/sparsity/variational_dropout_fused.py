"""The elementwise work of a training step, with its gradient written out, in pieces that stay in a core's cache.

With q = θ² + τ, β = log q − log σ² (or −log α itself), clipped to where −log α may lie, i = 1 inside the clip, else 0,
z = k₂ − k₃β, and G_m, G_w, G_D what comes back:
    m = θ [β > −threshold],   w = θ²/e^β,   D = Σ k₁ σ(−z) + ½ log(1 + e^β)
    to log σ²:   g = i (G_w θ²/e^β − G_D (k₁k₃ σ(z)σ(−z) + ½ e^β/(1 + e^β)))
    to θ:        G_m [β > −threshold] + 2θ (G_w/e^β − g/q)
log α is computed once for the mean, the variance and the divergence.  Nothing but θ and log σ² is kept for the backward
pass: on a CPU, fetching fresh memory costs ten times the arithmetic.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from precis.sparsity.variational_dropout_kl import K1, K2, K3

TINY = 1e-8
PIECE = 2**16
EDGE = 1e-5  # a log α that lies on its bound may come back


class Step(Function):
    """(θ, spread, additive, threshold, low, high, copies) -> m, w, D [copies]; spread is log σ², or log α itself.

    copies: how many stacked nets the first axis holds, each with its own D; 0: there is no such axis, and D is [1].
    """

    @staticmethod
    def forward(
        weight: Tensor, spread: Tensor, additive: bool, threshold: float, low: float, high: float, copies: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = torch.empty_like(weight), torch.empty_like(weight)
        divergence = weight.new_zeros(max(1, copies))
        for copy, (w, s, m, v), (beta, inverse) in _pieces(copies, 2, weight, spread, mean, variance):
            torch.mul(w, w, out=v)
            _beta(v, s, additive, beta)
            torch.ops.aten.threshold_backward(w, beta, -threshold, grad_input=m)
            torch.exp(beta.clamp_(-high, -low), out=inverse)
            v.div_(inverse)
            divergence[copy] += 0.5 * inverse.add_(1).log_().sum() + K1 * beta.mul_(K3).sub_(K2).sigmoid_().sum()
        return mean, variance, divergence

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        weight, spread, *ctx.how = inputs
        ctx.save_for_backward(weight, spread)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_mean: Tensor, g_variance: Tensor, g_divergence: Tensor) -> Any:  # type: ignore[override]
        weight, spread = ctx.saved_tensors
        additive, threshold, low, high, copies = ctx.how
        to_weight, to_spread = torch.empty_like(weight), torch.empty_like(weight)
        factors = g_divergence.tolist()
        tensors = (weight, spread, g_mean.contiguous(), g_variance.contiguous(), to_weight, to_spread)
        for copy, (w, s, gm, gv, tw, ts), (square, beta, inverse, scratch) in _pieces(copies, 4, *tensors):
            factor = factors[copy]
            torch.mul(w, w, out=square)
            _beta(square, s, additive, beta)
            torch.ops.aten.threshold_backward(gm, beta, -threshold, grad_input=tw)
            torch.clamp(beta, -high, -low, out=inverse)
            torch.mul(inverse, K3, out=ts).sub_(K2).sigmoid_()
            ts.addcmul_(ts, ts, value=-1).mul_(-K1 * K3 * factor)
            inverse.exp_()
            ts.addcdiv_(inverse, torch.add(inverse, 1, out=scratch), value=-0.5 * factor)
            from_variance = torch.div(gv, inverse, out=inverse)
            ts.addcmul_(from_variance, square)
            torch.ops.aten.hardtanh_backward(ts, beta, -high - EDGE, -low + EDGE, grad_input=ts)
            if additive:
                from_variance.addcdiv_(ts, square.add_(TINY), value=-1)
            tw.addcmul_(from_variance, w, value=2)
        return to_weight, to_spread, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, weight: Tensor, spread: Tensor, *how: Any) -> Any:
        pairs = zip((weight, spread), in_dims)
        front = [t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0) for t, d in pairs]
        mean, variance, divergence = Step.apply(*(t.contiguous() for t in front), *how[:-1], info.batch_size)
        return (mean, variance, divergence[:, None]), (0, 0, 0)


def fused_serves(weight: Tensor) -> bool:
    """Whether `Step` is of use: on a CPU, but not while compiling (which fuses too) or under `torch.func.grad`."""
    plain = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    return plain and not torch.compiler.is_compiling() and not torch._C._functorch.is_gradtrackingtensor(weight)


def _beta(square: Tensor, spread: Tensor, additive: bool, out: Tensor) -> None:
    """−log α, not clipped."""
    if additive:
        torch.add(square, TINY, out=out).log_().sub_(spread)
    else:
        torch.neg(spread, out=out)


def _pieces(
    copies: int, scratch: int, *tensors: Tensor
) -> Iterator[tuple[int, tuple[Tensor, ...], tuple[Tensor, ...]]]:  # fmt: skip
    """(copy, views of the same stretch of every tensor, as many working tensors of that length)."""
    size = min(PIECE, max(1, tensors[0].numel() // max(1, copies)))
    room = tensors[0].new_empty(scratch, size).unbind()
    for copy in range(max(1, copies)):
        for piece in zip(*((t[copy] if copies else t).view(-1).split(size) for t in tensors)):
            n = len(piece[0])
            yield copy, piece, room if n == size else tuple(r[:n] for r in room)
