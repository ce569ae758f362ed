"""Adversarial examples: the change of an input, small in a norm, that raises a loss the most.

    x ← Π( x + α · ascent(∇ₓ loss(x)) ),   Π: onto the ball ‖x − x₀‖ ≤ ε, then into the bounds

ascent is the steepest direction of the norm: the sign (ℓ∞), the gradient over its length (ℓ2), the signs of the largest
hundredth of the entries (ℓ1; Tramèr and Boneh, NeurIPS 2019).  Projected gradient descent: Madry et al., ICLR 2018,
§2.1 (arXiv 1706.06083); a single step of α = ε is the fast gradient sign method, Goodfellow et al., ICLR 2015 (arXiv
1412.6572).  Only the input is differentiated: weights get no gradient.  A net in training mode would move its batch
statistics by being looked at: `evaluating` keeps it from that.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from precis.errors import InputError

Number = int | float
Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
SHARE = 0.01  # of the entries, that an ℓ1 step moves
TINY = 1e-12

Loss = Callable[[Tensor], Tensor]


def pgd(
    loss_fn: Loss, x: Float[Tensor, "b *shape"], *, eps: Number, alpha: Number | None = None, steps: int = 10,
    norm: Norm = "linf", random_start: bool = True, bounds: tuple[Number, Number] | None = (0, 1), restarts: int = 1,
    mask: Shaped[Tensor, "..."] | None = None, generator: torch.Generator | None = None,
) -> Float[Tensor, "b *shape"]:  # fmt: skip
    """x [B,…] moved by at most `eps` in `norm`, an example at a time, so that loss_fn [B] or [] rises.

    loss_fn(x): a loss an example, or one of the whole batch (whose gradient is still taken example by example).
    alpha: length of a step; None: 2.5 eps/steps.  random_start: begin anywhere in the ball, drawn from `generator`.
    bounds: of the values, which x must keep itself; None: none.  restarts: of so many runs the one with the highest
    loss at its end is given back, chosen for each example, or for the batch if the loss is one number.  mask: 1 (or
    True) where x may change, broadcast against it.

    eps = 0 or steps = 0 without a random start gives x itself.  ValueError for negative sizes, an unknown norm, and x
    outside the bounds by more than rounding.
    """
    _check(x, eps, steps, norm, bounds, restarts)
    alpha = 2.5 * eps / max(steps, 1) if alpha is None else alpha
    if alpha < 0:
        raise ValueError(f"alpha is the length of a step, at least 0, got {alpha}")
    x = x.detach()
    if eps == 0:
        return x.clone()
    allowed = None if mask is None else mask.to(x.device, x.dtype)
    best, highest = None, None
    for _ in range(restarts):
        delta = _start(x, eps, norm, generator) if random_start else torch.zeros_like(x)
        delta = _inside(delta, x, eps, norm, bounds, allowed)
        for _ in range(steps):
            g = _gradient(loss_fn, x + delta)
            delta = delta + alpha * _ascent(_movable(g, x + delta, bounds, allowed, norm), norm)
            delta = _inside(delta, x, eps, norm, bounds, allowed)
        moved = (x + delta).detach()
        if restarts == 1:
            return moved
        with torch.no_grad():
            reached = loss_fn(moved).detach()
        if best is None or highest is None:
            best, highest = moved, reached
        else:
            higher = reached > highest
            best = torch.where(higher.view(-1, *[1] * (x.ndim - 1)) if higher.ndim else higher, moved, best)
            highest = torch.maximum(reached, highest)
    assert best is not None
    return best


def fgsm(
    loss_fn: Loss, x: Float[Tensor, "b *shape"], *, eps: Number, bounds: tuple[Number, Number] | None = (0, 1),
    mask: Shaped[Tensor, "..."] | None = None,
) -> Float[Tensor, "b *shape"]:  # fmt: skip
    """x + ε sign(∇ₓ loss), clipped to the bounds: one step of `pgd` from x itself."""
    return pgd(loss_fn, x, eps=eps, alpha=eps, steps=1, random_start=False, bounds=bounds, mask=mask)


def project(delta: Float[Tensor, "b *shape"], eps: Number, norm: Norm = "linf") -> Float[Tensor, "b *shape"]:
    """The nearest point (Euclidean) of the ball ‖δ‖ ≤ eps to each example's δ."""
    if norm not in NORMS or eps < 0:
        raise ValueError(f"a norm of {', '.join(NORMS)} and eps of at least 0 are wanted, got {norm!r} and {eps}")
    if norm == "linf":
        return delta.clamp(-eps, eps)
    flat = delta.flatten(1)
    if norm == "l2":
        length = flat.norm(dim=1, keepdim=True)
        return (flat * (eps / length.clamp(min=TINY)).clamp(max=1)).view_as(delta)
    size = flat.abs()
    ordered = size.sort(dim=1, descending=True).values
    above = (ordered.cumsum(1) - eps) / torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    last = (ordered > above).sum(1, keepdim=True).clamp(min=1) - 1  # Duchi et al., ICML 2008
    threshold = above.gather(1, last).clamp(min=0)
    return (flat.sign() * (size - threshold).clamp(min=0)).view_as(delta)


def parse_eps(text: str | Number) -> float:
    """A radius in values of 0 … 1, from "8/255", "0.03" or "8" (what is above 1 is meant in 255ths)."""
    over, _, under = str(text).partition("/")
    try:
        value = float(over) / float(under) if under else float(over)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    value = value / 255 if value > 1 and not under else value
    if not 0 <= value <= 1:
        raise InputError(f"a radius is written 8/255, 0.03 or 8 (meant in 255ths), got '{text}'")
    return value


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, for which batch statistics stay as they are; every module's mode as before afterwards."""
    was = {part: part.training for module in modules for part in module.modules()}
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, training in was.items():
            part.training = training


def _gradient(loss_fn: Loss, x: Tensor) -> Tensor:
    """∇ₓ of the loss (of the sum, if there is one an example)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        loss = loss_fn(x)
        if loss.ndim > 1 or (loss.ndim == 1 and len(loss) != len(x)):
            raise ValueError(f"the loss is one number, or one for each of {len(x)} examples, got {tuple(loss.shape)}")
        return torch.autograd.grad(loss.sum(), x)[0]


def _movable(g: Tensor, x: Tensor, bounds: tuple[Number, Number] | None, mask: Tensor | None, norm: Norm) -> Tensor:
    """The gradient where x may follow it.  A step of ℓ1 spends itself on few entries: none that a bound holds."""
    if mask is not None:
        g = g * mask
    if norm == "l1" and bounds is not None:
        held = ((x <= bounds[0]) & (g < 0)) | ((x >= bounds[1]) & (g > 0))
        g = g.masked_fill(held, 0)
    return g


def _ascent(g: Tensor, norm: Norm) -> Tensor:
    """The direction of length 1 (in the norm) in which the loss rises fastest; 0 where the gradient is."""
    if norm == "linf":
        return g.sign()
    flat = g.flatten(1)
    if norm == "l2":
        length = flat.norm(dim=1, keepdim=True)
        return (flat / length.where(length > 0, 1)).view_as(g)
    top = max(1, round(SHARE * flat.shape[1]))
    index = flat.abs().topk(top, dim=1).indices
    return torch.zeros_like(flat).scatter(1, index, flat.gather(1, index).sign() / top).view_as(g)


def _inside(
    delta: Tensor, x: Tensor, eps: Number, norm: Norm, bounds: tuple[Number, Number] | None, mask: Tensor | None
) -> Tensor:
    """δ in the ball, x + δ in the bounds.  As x is, clipping only shortens δ, so that both hold afterwards."""
    delta = project(delta if mask is None else delta * mask, eps, norm)
    return delta if bounds is None else (x + delta).clamp(*bounds) - x


def _start(x: Tensor, eps: Number, norm: Norm, generator: torch.Generator | None) -> Tensor:
    """Uniform in the ball of each example."""
    source = x.device if generator is None else generator.device
    rand = lambda *shape: torch.rand(*shape, generator=generator, device=source).to(x)
    if norm == "linf":
        return eps * (2 * rand(*x.shape) - 1)
    d = x[0].numel()
    radius = eps * rand(len(x), 1) ** (1 / d)
    if norm == "l2":
        way = torch.randn(len(x), d, generator=generator, device=source).to(x)
        return (radius * way / way.norm(dim=1, keepdim=True).clamp(min=TINY)).view_as(x)
    parts = -rand(len(x), d).clamp(min=TINY).log()  # exponentials over their sum are uniform on the simplex
    sign = (rand(len(x), d) < 0.5).to(x) * 2 - 1
    return (radius * sign * parts / parts.sum(1, keepdim=True)).view_as(x)


def _check(
    x: Tensor, eps: Number, steps: int, norm: str, bounds: tuple[Number, Number] | None, restarts: int
) -> None:
    if norm not in NORMS:
        raise ValueError(f"no norm is called {norm!r}: {', '.join(NORMS)}")
    if eps < 0 or steps < 0 or restarts < 1:
        raise ValueError(f"eps and steps are at least 0, restarts at least 1: got {eps}, {steps} and {restarts}")
    if bounds is not None and x.numel():
        low, high = (float(v) for v in x.detach().aminmax())
        slack = 1e-5 * max(1.0, abs(bounds[1] - bounds[0]))
        if low < bounds[0] - slack or high > bounds[1] + slack:
            raise ValueError(f"x lies in {low:g} … {high:g}, outside the bounds {bounds[0]} … {bounds[1]}: an attack "
                             "acts on pictures before they are standardised")  # fmt: skip
