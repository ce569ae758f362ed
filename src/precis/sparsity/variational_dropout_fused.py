"""The elementwise work of a training step, with its gradient written out, in pieces that stay in a core's cache.

With r = log σ² − log q, q = θ² + τ, log α = clip(r), i = 1 inside the clip, else 0, and G_m, G_w, G_D what comes back:
    m = θ [r < threshold],   w = αθ²,   D = Σ k₁ σ(−z) + ½ log(1 + 1/α),   z = k₂ + k₃ log α
    to log σ²:   g = i (G_w αθ² − G_D (k₁k₃ σ(z)σ(−z) + ½/(1 + α)))
    to θ:        G_m [r < threshold] + 2θ (G_w α − g/q)
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
PIECE = 2**14
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
        for copy, (w, s, m, v) in _pieces(copies, weight, spread, mean, variance):
            torch.mul(w, w, out=v)
            raw = torch.sub(s, (v + TINY).log_()) if additive else s
            torch.lt(raw, threshold, out=m)
            m.mul_(w)
            log_alpha = raw.clamp(low, high)
            alpha = log_alpha.exp()
            v.mul_(alpha)
            divergence[copy] += 0.5 * alpha.reciprocal_().add_(1).log_().sum()
            divergence[copy] += K1 * log_alpha.add_(K2 / K3).mul_(-K3).sigmoid_().sum()
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
        for copy, (w, s, gm, gv, tw, ts) in _pieces(copies, *tensors):
            square = w * w
            q = square + TINY
            raw = torch.sub(s, q.log()) if additive else s
            alpha = raw.clamp(low, high)
            torch.add(alpha, K2 / K3, out=ts)
            ts.mul_(K3).sigmoid_()
            ts.addcmul_(ts, ts, value=-1).mul_(-K1 * K3 * factors[copy])
            alpha.exp_()
            ts.add_((alpha + 1).reciprocal_(), alpha=-0.5 * factors[copy])
            alpha.mul_(gv)
            ts.addcmul_(alpha, square)
            torch.ops.aten.hardtanh_backward(ts, raw, low - EDGE, high + EDGE, grad_input=ts)
            torch.lt(raw, threshold, out=tw)
            tw.mul_(gm)
            if additive:
                alpha.sub_(torch.div(ts, q, out=q))
            tw.addcmul_(alpha, w, value=2)
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


def _pieces(copies: int, *tensors: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """(copy, views of the same stretch of every tensor)."""
    for copy in range(max(1, copies)):
        for piece in zip(*((t[copy] if copies else t).view(-1).split(PIECE) for t in tensors)):
            yield copy, piece
