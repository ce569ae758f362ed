"""Debiased contrastive learning: random negatives hold pictures of the anchor's own class, and those are taken out.

    g = max{ (mean_i e^{s⁻_i} − τ⁺ mean_j e^{s⁺_j}) / τ⁻,  e^{−1/t} },   L = −log( e^{s} / (e^{s} + N g) )

s⁻ are the similarities, over t, of an anchor to N random views, s⁺ to M other views of its own picture, s to one of
these; τ⁺ is the chance that a random picture is of the anchor's class and τ⁻ = 1 − τ⁺.  As p = τ⁺p⁺ + τ⁻p⁻, the
difference estimates the mean over true negatives; its floor is the least value that a cosine can give.  τ⁺ = 0 is
NT-Xent.  Chuang, Robinson, Lin, Torralba, Jegelka, NeurIPS 2020, §4 (arXiv 2007.00224).

What it does to gradients: with D = e^s + N g and g above the floor, a negative i is pushed with e^{s⁻_i}/(τ⁻D), more
than in NT-Xent, and (M = 1) the positive's coefficient is −1 + e^s (1 − Nτ⁺/τ⁻)/D: for Nτ⁺ > τ⁻ the pull grows with
the similarity.  At the floor negatives and correction have no gradient, and −1 + e^s/D is left: if that holds for most
anchors (`at_floor`), τ⁺ is too large for this t and N.
"""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from precis.contrastive.ntxent import SimCLR
from precis.contrastive.sphere import (
    Number,
    check_chunk,
    check_negatives,
    check_temperature,
    full_precision,
    unit,
    wide,
)

LARGE = 0.3  # τ⁺ from which on one should ask whether it is meant


class Debiased(NamedTuple):
    """The loss, in nats, and the share of anchors whose estimate is at the floor."""

    loss: Float[Tensor, ""]
    at_floor: Float[Tensor, ""]


def debiased_nt_xent(
    views: Float[Tensor, "v b d"], temperature: Number = 0.5, tau_plus: Number = 0.1, *, positives: int | None = None,
    match_n: bool = False, floor: bool = True, normalize: bool = True, chunk: int | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """The debiased loss of V views of B pictures, in nats: the mean over all V·B views as anchors.

    The numerator has the next view of the anchor's picture (of two views the other one), the correction the next
    `positives` = M of them (None: all V − 1), and the random samples are all V(B − 1) views of other pictures.
    match_n: only those of the anchor's own and its partner's view, N = 2(B − 1) whatever V is.  floor: False leaves an
    estimate that is not positive out (N g = 0).  normalize: rows to length 1 (a row of zeros stays one); the floor is
    meant for such.  chunk: so many anchors at a time, made again in the backward pass; the matrix is never whole.

    Computed in float32 at least, also under autocast.  ValueError for τ⁺ outside [0, 1), t ≤ 0, fewer than two views
    or two pictures, and M outside 1 … V − 1.
    """
    return debiased_parts(
        views, temperature, tau_plus, positives=positives, match_n=match_n, floor=floor, normalize=normalize,
        chunk=chunk,
    ).loss  # fmt: skip


def debiased_parts(
    views: Float[Tensor, "v b d"], temperature: Number = 0.5, tau_plus: Number = 0.1, *, positives: int | None = None,
    match_n: bool = False, floor: bool = True, normalize: bool = True, chunk: int | None = None,
) -> Debiased:  # fmt: skip
    """`debiased_nt_xent`, and the figure to watch beside it."""
    v, b, _ = views.shape
    m = v - 1 if positives is None else positives
    _check(views, temperature, chunk)
    _check_prior(tau_plus)
    if not 1 <= m < v:
        raise ValueError(f"of {v} views there are 1 to {v - 1} positives, {m} were asked for")
    with full_precision(views):
        z = torch.stack([unit(rows, normalize) for rows in wide(views)])
        s = _positives(z, temperature, m)
        own = torch.arange(v * b, device=z.device)
        view, picture = own // b, own % b

        def apart(some: slice) -> Tensor:
            left = picture[some, None] == picture
            if match_n and v > 2:
                turn = (view - view[some, None]) % v
                left = left | (turn > 1)
            return left

        n = 2 * (b - 1) if match_n else v * (b - 1)
        negative = _log_sum(z.flatten(0, 1), apart, temperature, chunk) - math.log(n)
        log_g = _corrected(negative, s.logsumexp(0) - math.log(m), temperature, tau_plus, floor)
        loss = _log1pexp(math.log(n) + log_g - s[0]).mean()
        low = (log_g.detach() <= -1 / temperature).to(loss.dtype).mean()
    return Debiased(loss.to(views.dtype), low)


def debiased_negative(
    neg_sim: Float[Tensor, "*a n"], pos_sim: Float[Tensor, "*a m"], temperature: Number, tau_plus: Number,
    floor: bool = True,
) -> Float[Tensor, "*a"]:  # fmt: skip
    """log g of cosines to N random samples and to M positives, whatever they are of (pictures, sentences, states).

    floor: False gives −∞ where the estimate is not positive.  With τ⁺ = 0 it is log mean e^{s⁻}.
    """
    _check_prior(tau_plus)
    check_temperature(temperature)
    if not neg_sim.shape[-1] or not pos_sim.shape[-1]:
        raise ValueError("at least one random sample and one positive are wanted")
    means = [(wide(x) / temperature).logsumexp(-1) - math.log(x.shape[-1]) for x in (neg_sim, pos_sim)]
    return _corrected(means[0], means[1], temperature, tau_plus, floor).to(neg_sim.dtype)


def oracle_nt_xent(
    views: Float[Tensor, "v b d"], labels: Int[Tensor, "b"], temperature: Number = 0.5, *, normalize: bool = True,
    chunk: int | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """NT-Xent without false negatives, which needs labels: only pictures of other classes are negatives.

    Their mean stands for that of all V(B − 1), so that the loss has the scale of NT-Xent; with labels all different,
    and two views, it is NT-Xent.  A label of −1 is of no class: it differs from all others.

    ValueError if all pictures are of one class, and as `debiased_nt_xent`.
    """
    v, b, _ = views.shape
    _check(views, temperature, chunk)
    if bool((labels == labels[0]).all()) and bool(labels[0] >= 0):
        raise ValueError("all pictures of the batch are of one class: there are no true negatives")
    with full_precision(views):
        z = torch.stack([unit(rows, normalize) for rows in wide(views)])
        picture = torch.arange(b, device=z.device).repeat(v)
        kind = labels.repeat(v)

        def apart(some: slice) -> Tensor:
            alike = (kind[some, None] == kind) & (kind >= 0)
            return alike | (picture[some, None] == picture)

        alike = (labels[:, None] == labels) & (labels >= 0)
        alike.fill_diagonal_(True)
        true = v * (~alike).sum(1).repeat(v)
        sums = _log_sum(z.flatten(0, 1), apart, temperature, chunk)
        scale = math.log(v * (b - 1)) - true.to(sums.dtype).log()
        loss = _log1pexp(scale + sums - _positives(z, temperature, 1)[0]).mean()
    return loss.to(views.dtype)


def class_prior(labels: Int[Tensor, "n"]) -> float:
    """Σ_c π_c², the chance that two pictures are of one class; labels of −1 are left out, ValueError if all are."""
    known = labels[labels >= 0]
    if not len(known):
        raise ValueError("no picture has a label")
    share = torch.bincount(known).double() / len(known)
    return float(share.square().sum())


class DebiasedSimCLR(SimCLR):
    """SimCLR with the debiased loss, of two or more views.  Options as in `debiased_nt_xent`."""

    def __init__(
        self, encoder: nn.Module, head: nn.Module, temperature: float | int = 0.5, tau_plus: float | int = 0.1, *,
        positives: int | None = None, match_n: bool = False, floor: bool = True, chunk: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(encoder, head, temperature, chunk=chunk)
        _check_prior(tau_plus)
        if tau_plus > LARGE:
            warnings.warn(f"τ⁺ = {tau_plus:g} says that so large a share of pictures is of one class", stacklevel=2)
        self.tau_plus, self.positives, self.match_n, self.floor = tau_plus, positives, match_n, floor

    def loss(
        self, v1: Float[Tensor, "n c h w"], v2: Float[Tensor, "n c h w"], *more: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, ""]:
        """In nats; all views go through in one pass, and share batch statistics."""
        return self.parts(v1, v2, *more).loss

    def parts(self, *views: Float[Tensor, "n c h w"]) -> Debiased:
        """The loss, and the share of anchors at the floor."""
        z = self(torch.cat(views))[1]
        return debiased_parts(
            z.view(len(views), len(views[0]), -1), self.temperature, self.tau_plus, positives=self.positives,
            match_n=self.match_n, floor=self.floor, chunk=self.chunk,
        )  # fmt: skip


def _corrected(negative: Tensor, positive: Tensor, temperature: Number, tau_plus: Number, floor: bool) -> Tensor:
    """log g from the logarithms of the two means."""
    if tau_plus == 0:
        return negative  # nothing is taken away, so no cosine can bring it below the floor
    part = math.log(tau_plus) + positive - negative  # log of the share that is taken away
    inside = part < 0
    rest = (-torch.expm1(part.where(inside, -torch.ones_like(part)))).log()
    log_g = negative + rest - math.log1p(-tau_plus)
    least = -1 / temperature if floor else -math.inf
    return torch.where(inside & (log_g > least), log_g, torch.full_like(log_g, least))


def _positives(z: Tensor, temperature: Number, m: int) -> Tensor:
    """Similarities [m,V·B] of every view to the next m of its picture, over t."""
    return torch.stack([(z * z.roll(-j, 0)).sum(2).flatten() for j in range(1, m + 1)]) / temperature


def _log_sum(rows: Tensor, apart: Callable[[slice], Tensor], temperature: Number, chunk: int | None) -> Tensor:
    """log Σ exp(rows_i·rows_k/t) over the k that `apart(some rows)` [some,all] does not mark."""
    size = len(rows) if chunk is None else min(chunk, len(rows))
    return _LogSum.apply(rows, apart, float(temperature), size)  # type: ignore[no-any-return]


class _LogSum(torch.autograd.Function):
    """With P the softmax of a row over what is not marked, rows R and all Z: P·Z/t to R and PᵀR/t to Z.

    Of one chunk, exp of the similarities is kept for the backward pass; of several none, and they are made again.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, apart: Callable[[slice], Tensor], temperature: float, size: int) -> Tensor:  # type: ignore[no-untyped-def,override]
        sums, kept = [], None
        for at in range(0, len(rows), size):
            s = _marked(rows, slice(at, at + size), apart, temperature)
            most = s.amax(1, keepdim=True)
            kept = s.sub_(most).exp_()
            total = kept.sum(1, keepdim=True)
            sums.append((most + total.log())[:, 0])
        out = torch.cat(sums)
        if size >= len(rows):
            assert kept is not None
            kept /= total
        ctx.save_for_backward(rows, out, kept if size >= len(rows) else None)
        ctx.apart, ctx.temperature, ctx.size = apart, temperature, size
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def,override]
        rows, sums, kept = ctx.saved_tensors
        found = torch.zeros_like(rows)
        for at in range(0, len(rows), ctx.size):
            some = slice(at, at + ctx.size)
            share = kept
            if share is None:
                share = _marked(rows, some, ctx.apart, ctx.temperature).sub_(sums[some, None]).exp_()
            given = (gradient[some] / ctx.temperature)[:, None]
            found[some] += given * (share @ rows)
            found.addmm_(share.T, given * rows[some])
        return found, None, None, None


def _marked(rows: Tensor, some: slice, apart: Callable[[slice], Tensor], temperature: float) -> Tensor:
    return (rows[some] / temperature @ rows.T).masked_fill_(apart(some), -torch.inf)


def _log1pexp(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))  # softplus is linear from 20 on: 2e-9 off


def _check(views: Tensor, temperature: Number, chunk: int | None) -> None:
    check_temperature(temperature)
    if len(views) < 2:
        raise ValueError(f"at least two views of each picture are wanted, got {len(views)}")
    check_negatives(views.shape[1])
    check_chunk(chunk)


def _check_prior(tau_plus: Number) -> None:
    if not 0 <= tau_plus < 1:
        raise ValueError(f"τ⁺ is a chance from 0 to below 1, got {tau_plus}")
