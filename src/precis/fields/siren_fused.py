"""The mean squared error of a sine network and its gradient in one sweep, with the backward pass written by hand.

    δ_n = 2 (Φ − y)/(N o),   ∂L/∂W_i = ω_i h_iᵀ δ_i,   δ_{i−1} = (ω_i δ_i W_iᵀ) ⊙ cos(u_{i−1})

The rows go through in blocks, forward and back, before the next block starts: activations stay in cache, memory does
not grow with the number of rows, the cosine overwrites the pre-activation.  Same numbers as autograd up to rounding.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from precis.fields.siren_losses import value_loss

# Numbers a block of activations may have: 4 MB in float32, so that a layer's work stays in the outer cache.
BLOCK = 1 << 20


class FusedMSE:
    """`FusedMSE(net)(x, y, weight)`: mean of weight · (net(x) − y)² over rows and outputs, for a stack one a copy.

    Differentiable once, in the parameters only; its backward pass costs nothing more.  The object keeps its buffers
    from call to call, so make it once and use it for all steps.  Nets that are not sine all through, or whose encoding
    has parameters, go the ordinary way, as everything does under `torch.no_grad()`.
    """

    def __init__(self, net: Any) -> None:
        self.net = net
        encoding = [] if net.encoding is None else list(net.encoding.parameters())
        self.fused = net.activation == "sine" and net.outermost_linear and not encoding
        self.scales = tuple(layer.scale for layer in net.layers)
        self.parameters = [p for layer in net.layers for p in (layer.weight, layer.bias)]
        self.work: _Work | None = None

    def __call__(
        self, x: Float[Tensor, "*batch d"], y: Float[Tensor, "*target o"], weight: Float[Tensor, "*w 1"] | None = None
    ) -> Float[Tensor, "*copies"]:
        net = self.net
        if not (self.fused and torch.is_grad_enabled() and all(p.requires_grad for p in self.parameters)):
            return value_loss(net(x), y, weight)
        x = (x if net.encoding is None else net.encoding(x)).detach()
        if net.copies is not None and x.ndim == 2:
            x = x.expand(net.copies, *x.shape)
        rows = max(256, BLOCK // (net.width * (net.copies or 1)))
        rows = -(-x.shape[-2] // -(-x.shape[-2] // rows))
        if self.work is None or not self.work.fits(rows, x):
            self.work = _Work(net.copies, rows, [bias.shape[-1] for bias in self.parameters[1::2]], x)
        return _Sweep.apply(x, y, weight, self.scales, self.work, *self.parameters)


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, weight: Tensor | None, scales: tuple[float, ...], work: "_Work",
        *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        weights = [p if x.ndim == 3 else p.T for p in parameters[::2]]
        grads = [torch.zeros_like(p) for p in parameters]
        n, total = x.shape[-2], x.new_zeros(x.shape[:-2])
        for a in range(0, n, work.rows):
            part = slice(a, min(a + work.rows, n))
            total += work.sweep(
                x[..., part, :], y[..., part, :], None if weight is None else weight[..., part, :], weights,
                parameters[1::2], scales, grads, 1 / (n * y.shape[-1]),
            )  # fmt: skip
        ctx.grads = grads
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        if g.ndim:
            g = g[:, None, None]
        return None, None, None, None, None, *(grad * g for grad in ctx.grads)


class _Work:
    """Buffers for one block, used again for the next."""

    def __init__(self, copies: int | None, rows: int, widths: list[int], like: Tensor) -> None:
        lead = () if copies is None else (copies,)
        self.u = [like.new_empty(*lead, rows, w) for w in widths]
        self.h = [like.new_empty(*lead, rows, w) for w in widths[:-1]]
        self.delta = [like.new_empty(*lead, rows, max(widths[:-1])) for _ in range(2)]
        self.rows = rows

    def fits(self, rows: int, x: Tensor) -> bool:
        return self.rows == rows and self.u[0].dtype == x.dtype and self.u[0].device == x.device

    def sweep(
        self, x: Tensor, y: Tensor, weight: Tensor | None, weights: list[Tensor], biases: tuple[Tensor, ...],
        scales: tuple[float, ...], grads: list[Tensor], factor: float,
    ) -> Tensor:  # fmt: skip
        """Adds to `grads` the gradient of factor · Σ weight (Φ − y)², and returns that sum."""
        n = x.shape[-2]
        u, h = [b[..., :n, :] for b in self.u], [x, *(b[..., :n, :] for b in self.h)]
        stack = x.ndim == 3
        multiply, accumulate = (torch.baddbmm, Tensor.baddbmm_) if stack else (torch.addmm, Tensor.addmm_)
        for k, (w, b, s) in enumerate(zip(weights, biases, scales)):
            multiply(b, h[k], w, beta=s, alpha=s, out=u[k])
            if k < len(weights) - 1:
                torch.sin(u[k], out=h[k + 1])
        residual = u[-1].sub_(y)
        delta = residual * (2 * factor) if weight is None else residual * weight * (2 * factor)
        loss = (delta * residual).sum((-2, -1)) / 2
        ones = x.new_ones(*x.shape[:-2], 1, n)
        for k in range(len(weights) - 1, -1, -1):
            s = scales[k]
            if stack:
                accumulate(grads[2 * k], h[k].mT, delta, alpha=s)
                grads[2 * k + 1].baddbmm_(ones, delta, alpha=s)
            else:
                accumulate(grads[2 * k], delta.T, h[k], alpha=s)
                grads[2 * k + 1].add_((ones @ delta)[0], alpha=s)
            if k:
                back = self.delta[k % 2][..., :n, : weights[k].shape[-2]]
                multiply(back, delta, weights[k].mT, beta=0, alpha=s, out=back)
                delta = back.mul_(u[k - 1].cos_())
        return loss
