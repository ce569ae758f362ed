"""A training step's elementwise work, with its gradient written out, in pieces that stay in a core's cache.

With q = θ² + τ, β = log q − log σ² (or −log α itself), clipped to where −log α may lie, i = 1 inside the clip, else 0,
a = e^β = 1/α, z = k₂ − k₃β, and G_m, G_w, G_D what comes back:
    m = θ [a > e^−threshold],   w = θ²/a,   D = Σ k₁ σ(−z) + ½ log(1 + a),   h = k₁k₃ σ(z)σ(−z) + ½ a/(1 + a)
    to log σ²:   g = i (G_w w − G_D h)
    to θ:        G_m [a > e^−threshold] + 2θ (G_w/a − g/q)
A clipped β lies `EDGE` roundings beyond its bound, so that a alone tells what is inside, and a log α that lies on its
bound may come back.  Nothing but θ and log σ² is kept for the backward pass: on a CPU, logarithm, exponential and
sigmoid together cost no more than to write two numbers to memory that is not in the cache and to read them back.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from math import exp
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from precis.sparsity.variational_dropout_kl import K1, K2, K3

TINY = 1e-8
PIECE = 2**16
EDGE = 32
where_above = torch.ops.aten.threshold_backward.grad_input  # (g, x, t, grad_input=out): g where x > t, else 0
where_between = torch.ops.aten.hardtanh_backward.grad_input  # (g, x, s, t, grad_input=out): g where s < x < t, else 0


class Form(NamedTuple):
    """What spread is, log σ² (additive) or log α; from which log α on a weight is masked; where log α lies."""

    additive: bool
    threshold: float
    low: float
    high: float


class Step(Function):
    """(θ, spread, form, copies) -> m, w, D [copies].

    copies: how many stacked nets the first axis holds, each with its own D; 0: there is no such axis, and D is [1].
    """

    @staticmethod
    def forward(weight: Tensor, spread: Tensor, form: Form, copies: int) -> tuple[Tensor, Tensor, Tensor]:
        weight, spread = weight.contiguous(), spread.contiguous()
        mean, variance = torch.empty_like(weight), torch.empty_like(weight)
        divergence = weight.new_zeros(max(1, copies))
        for copy, (w, s, m, v), (a,) in _pieces(copies, 1, weight, spread, mean, variance):
            _forward(w, s, a, v, m, form, divergence[copy])
        return mean, variance, divergence

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        weight, spread, *ctx.how = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight, spread)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_mean: Any, g_variance: Any, g_divergence: Any) -> Any:  # type: ignore[override]
        weight, spread = (t.contiguous() for t in ctx.saved_tensors)
        form, copies = ctx.how
        given = [torch.zeros_like(weight) if g is None else g.contiguous() for g in (g_mean, g_variance)]
        factors = [0.0] * max(1, copies) if g_divergence is None else g_divergence.tolist()
        made = torch.empty_like(weight), torch.empty_like(weight)
        for copy, (w, s, gm, gv, tw, ts), (a, h, p) in _pieces(copies, 3, weight, spread, *given, *made):
            _slope(w, s, a, h, p, form)
            _backward(w, a, h, p, gm, gv, tw, ts, form, factors[copy])
        return *made, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, weight: Tensor, spread: Tensor, form: Form, copies: int) -> Any:
        pairs = zip((weight, spread), in_dims)
        front = [t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0) for t, d in pairs]
        mean, variance, divergence = Step.apply(*(t.contiguous() for t in front), form, info.batch_size)
        return (mean, variance, divergence[:, None]), (0, 0, 0)


def fused_serves(weight: Tensor) -> bool:
    """Whether `Step` is of use: on a CPU, but not while compiling (which fuses too) or under `torch.func.grad`."""
    plain = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    return plain and not torch.compiler.is_compiling() and not torch._C._functorch.is_gradtrackingtensor(weight)


def _inverse(w: Tensor, s: Tensor, a: Tensor, p: Tensor, form: Form) -> None:
    """a, and p = σ(−z)."""
    tau, minus_k2 = _constants(w.dtype)
    if form.additive:
        torch.addcmul(tau, w, w, out=a).log_().sub_(s)
    else:
        torch.neg(s, out=a)
    torch.add(minus_k2, a.clamp_(*_ends(form, w.dtype)), alpha=K3, out=p).sigmoid_()
    a.exp_()


def _forward(w: Tensor, s: Tensor, a: Tensor, v: Tensor, m: Tensor, form: Form, divergence: Tensor) -> None:
    """m and v, the weights of the mean and of the variance; adds to the divergence."""
    _inverse(w, s, a, m, form)
    divergence.add_(m.sum(), alpha=K1)
    divergence.add_(torch.add(a, 1, out=m).log_().sum(), alpha=0.5)
    torch.mul(w, w, out=v).div_(a)
    where_above(w, a, _masked_to(form), grad_input=m)


def _slope(w: Tensor, s: Tensor, a: Tensor, h: Tensor, p: Tensor, form: Form) -> None:
    """a, and h over k₁k₃."""
    _inverse(w, s, a, p, form)
    torch.addcmul(p, p, p, value=-1, out=h)
    h.addcdiv_(a, torch.add(a, 1, out=p), value=0.5 / (K1 * K3))


def _backward(
    w: Tensor, a: Tensor, h: Tensor, u: Tensor, gm: Tensor, gv: Tensor, tw: Tensor, ts: Tensor, form: Form,
    factor: float,
) -> None:  # fmt: skip
    """tw and ts, the gradients; h and u are overwritten."""
    torch.div(gv, a, out=u).mul_(w)
    torch.mul(u, w, out=ts).sub_(h, alpha=K1 * K3 * factor)
    least, most = _ends(form, w.dtype)
    inward = EDGE // 4 * torch.finfo(w.dtype).eps
    where_between(ts, a, exp(least + inward), exp(most - inward), grad_input=ts)
    if form.additive:
        torch.addcmul(_constants(w.dtype)[0], w, w, out=h)
        u.addcmul_(torch.div(w, h, out=h), ts, value=-1)
    where_above(gm, a, _masked_to(form), grad_input=tw).add_(u, alpha=2)


@cache
def _constants(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """τ and −k₂: as tensors they can begin a sum, which saves a pass over the weights."""
    return torch.tensor(TINY, dtype=dtype), torch.tensor(-K2, dtype=dtype)


def _ends(form: Form, dtype: torch.dtype) -> tuple[float, float]:
    """What β is clipped to."""
    edge = EDGE * torch.finfo(dtype).eps
    return -form.high - edge, -form.low + edge


def _masked_to(form: Form) -> float:
    """The largest a of a masked weight."""
    return exp(min(-form.threshold, 80.0))


def _pieces(
    copies: int, scratch: int, *tensors: Tensor
) -> Iterator[tuple[int, Sequence[Tensor], Sequence[Tensor]]]:  # fmt: skip
    """(copy, views of the same stretch of every tensor, as many working tensors of that length)."""
    whole = max(1, tensors[0].numel() // max(1, copies))
    size = -(-whole // -(-whole // PIECE))
    room = [tensors[0].new_empty(size) for _ in range(scratch)]
    flat = [t.view(-1) for t in tensors]
    for copy in range(max(1, copies)):
        for start in range(copy * whole, (copy + 1) * whole, size):
            n = min(size, (copy + 1) * whole - start)
            yield copy, [t[start : start + n] for t in flat], room if n == size else [r[:n] for r in room]
