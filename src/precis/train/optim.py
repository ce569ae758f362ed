"""Optimisers for stacked parameters [M,…]: Adam and gradient descent with one rate a copy, and clipping a copy.

Both are elementwise, so that with one rate they are torch's own; what they add is `lr` as a tensor [M].  They are
ordinary optimisers: `fit` takes them too.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

Rate = float | int | Tensor  # one for all copies, or [M]


@torch.no_grad()
def clip_each_(grads: Sequence[Tensor], norm: float | int) -> Float[Tensor, "m"]:
    """Scale each copy's gradients [M,…], in place, to a total norm of at most `norm`; returns the norms before [M]."""
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
    factor = (norm / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(list(grads), [factor.to(g).view(-1, *[1] * (g.ndim - 1)) for g in grads])
    return norms


class ManyAdam(Optimizer):
    """Adam (AdamW with a `weight_decay`; `decoupled=False`: added to the gradient) with one rate a copy, `lr` [M]."""

    def __init__(
        self, params: Any, lr: Rate = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float | int = 0.0, *, decoupled: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled=decoupled))
        _check_rates(self)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params, grads, rates = _with_gradients(group)
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                self.state[p]["step"] += 1
            (beta1, beta2), t = group["betas"], self.state[params[0]]["step"]
            mean = [self.state[p]["exp_avg"] for p in params]
            square = [self.state[p]["exp_avg_sq"] for p in params]
            if group["weight_decay"] and group["decoupled"]:
                torch._foreach_mul_(params, [1 - rate * group["weight_decay"] for rate in rates])
            elif group["weight_decay"]:
                grads = _add(grads, params, group["weight_decay"])
            torch._foreach_lerp_(mean, grads, 1 - beta1)
            torch._foreach_mul_(square, beta2)
            torch._foreach_addcmul_(square, grads, grads, 1 - beta2)
            root = torch._foreach_sqrt(square)
            torch._foreach_div_(root, math.sqrt(1 - beta2**t))
            torch._foreach_add_(root, group["eps"])
            update = list(torch._foreach_div(mean, root))
            _descend(params, update, [rate / (1 - beta1**t) for rate in rates])


class ManySGD(Optimizer):
    """Stochastic gradient descent as `torch.optim.SGD`, with one rate a copy, `lr` [M]."""

    def __init__(
        self, params: Any, lr: Rate = 1e-3, momentum: float | int = 0.0, weight_decay: float | int = 0.0,
        nesterov: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov))
        _check_rates(self)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params, grads, rates = _with_gradients(group)
            if not params:
                continue
            if group["weight_decay"]:
                grads = _add(grads, params, group["weight_decay"])
            if group["momentum"]:
                for p in params:
                    self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                velocity = [self.state[p]["momentum_buffer"] for p in params]
                torch._foreach_mul_(velocity, group["momentum"])
                torch._foreach_add_(velocity, grads)
                grads = _add(grads, velocity, group["momentum"]) if group["nesterov"] else velocity
            _descend(params, grads, rates)


def _check_rates(solver: Optimizer) -> None:
    for group in solver.param_groups:
        rates = group["lr"]
        if isinstance(rates, Tensor) and rates.ndim:
            for p in group["params"]:
                if rates.shape != p.shape[:1]:
                    raise ValueError(f"rates {tuple(rates.shape)} for a parameter of {p.shape[0]} copies")


def _with_gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], list[Rate]]:
    params = [p for p in group["params"] if p.grad is not None]
    rate = group["lr"]
    each = isinstance(rate, Tensor) and rate.ndim == 1
    rates = [rate.to(p).view(-1, *[1] * (p.ndim - 1)) if each else rate for p in params]
    return params, [p.grad for p in params], rates


def _add(a: list[Tensor], b: list[Tensor], factor: float) -> list[Tensor]:
    return list(torch._foreach_add(a, b, alpha=factor))


def _descend(params: list[Tensor], update: list[Tensor], rates: list[Any]) -> None:
    """params −= rate · update."""
    torch._foreach_sub_(params, list(torch._foreach_mul(update, rates)))
