"""Supervised contrastive losses: every view of every picture of the anchor's class is a positive.

    ℓ_ip = s_ip − log Σ_{a≠i} exp s_ia,   s_ij = z_iᵀz_j/τ

    L_out = mean_i  −1/|P(i)| Σ_{p∈P(i)} ℓ_ip        L_in = mean_i  −log( 1/|P(i)| Σ_{p∈P(i)} exp ℓ_ip )

Khosla et al., NeurIPS 2020, eqs. 2 and 3 (arXiv 2004.11362).  By Jensen's inequality L_in ≤ L_out.  Both have the
gradient (1/τ) (Σ_p z_p (P_ip − X_ip) + Σ_n z_n P_in) with respect to the anchor, P the softmax over all others; X_ip is
1/|P(i)| for L_out, and for L_in the softmax over the positives alone: L_in pulls most on those that are close already.

L_out needs no mask of pairs: Σ_p s_ip is the product of z_i with the sum of its class.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from precis.contrastive.ntxent_loss import log_sum_others
from precis.contrastive.sphere import (
    Number,
    check_chunk,
    check_negatives,
    check_temperature,
    full_precision,
    unit,
    wide,
)

Form = Literal["out", "in"]


def sup_con(
    features: Float[Tensor, "b v d"] | Float[Tensor, "b d"], labels: Int[Tensor, "b"] | None = None, *,
    mask: Shaped[Tensor, "b b"] | None = None, temperature: Number = 0.1, reduction_form: Form = "out",
    contrast: Literal["all", "one"] = "all", base_temperature: Number | None = None,
    empty: Literal["skip", "zero"] = "skip", unlabelled: int | None = -1, normalize: bool = True,
    chunk: int | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """The loss of V views of B pictures, (B,V,D), or of one each, (B,D).  In nats, in the inputs' type.

    labels: pictures of equal labels are positives of each other; those labelled `unlabelled`, and all without `labels`
    and `mask`, only of their own views, which is NT-Xent.  mask: j is a positive of i where mask[i,j] is not zero, in
    place of labels; the diagonal says the same of a picture's own other views.  A view is never its own positive.
    contrast="one": only first views are anchors.  base_temperature: multiplies by τ/base, as the authors' code does
    with 0.07.  empty: anchors without a positive are left out of the mean, or count in it as 0 (the authors' code); if
    there are no others the loss is 0.  normalize: rows to length 1.  chunk: so many anchors' similarities at a time,
    computed again in the backward pass.

    ValueError for labels together with a mask, less than two pictures, τ ≤ 0, or a chunk below 1.
    """
    check_temperature(temperature)
    check_chunk(chunk)
    with full_precision(features):
        rows = _rows(features, normalize)
        pull = _positives(rows, len(features), labels, mask, unlabelled)
        anchors = torch.arange(len(rows), device=rows.device)
        if contrast == "one":
            anchors = anchors[:: len(rows) // len(features)]
        others = log_sum_others(rows[anchors], rows, anchors, temperature, chunk)
        count = pull.number[anchors]
        if reduction_form == "out":
            near = (rows[anchors] * pull.total[anchors]).sum(1) / (count.clamp(min=1) * temperature)
        else:
            near = _log_sum_positives(rows, anchors, pull, temperature, chunk) - count.clamp(min=1).log()
        has = (count > 0).to(rows.dtype)
        whole = ((others - near) * has).sum()
        loss = whole / (has.sum().clamp(min=1) if empty == "skip" else len(anchors))
        if base_temperature is not None:
            loss = loss * (temperature / base_temperature)
    return loss.to(features.dtype)


@torch.no_grad()
def positive_weights(
    features: Float[Tensor, "b v d"] | Float[Tensor, "b d"], labels: Int[Tensor, "b"], temperature: Number = 0.1,
    form: Form = "out", *, unlabelled: int | None = -1,
) -> Float[Tensor, "n n"]:  # fmt: skip
    """X_ip of the gradient: how an anchor's pull is shared among its positives, for all views, picture by picture.

    A row sums to 1, or is 0 where the anchor has no positive.  1/Σ_p X_ip² is the number of positives that take part.
    """
    with full_precision(features):
        rows = _rows(features, True)
        pull = _positives(rows, len(features), labels, None, unlabelled)
        anchors = torch.arange(len(rows), device=rows.device)
        keep, has = _keep(anchors, pull), (pull.number > 0)[:, None]
        s = torch.zeros_like(rows @ rows.T) if form == "out" else rows @ rows.T / temperature
        weights = torch.where(has, s.masked_fill(~keep & has, -torch.inf).softmax(1), 0)
    return weights.to(features.dtype)


class _Pull(NamedTuple):
    """Of each of N rows the sum of its positives [N,D] and how many they are [N]; and what tells which they are: a
    group of each row [N], or the mask of pictures [B,B] with the picture of each row [N]."""

    total: Tensor
    number: Tensor
    group: Tensor
    mask: Tensor | None


def _rows(features: Tensor, normalize: bool) -> Tensor:
    """Views as rows [B·V,D], those of a picture together."""
    check_negatives(len(features))
    return unit(wide(features if features.ndim == 2 else features.flatten(0, 1)), normalize)


def _positives(rows: Tensor, b: int, labels: Tensor | None, mask: Tensor | None, unlabelled: int | None) -> _Pull:
    if labels is not None and mask is not None:
        raise ValueError("labels and mask both say what a positive is: give one of them")
    image = torch.arange(b, device=rows.device).repeat_interleave(len(rows) // b)
    if mask is not None:
        kept = mask != 0
        sums = rows.new_zeros(b, rows.shape[1]).index_add(0, image, rows)
        own = kept.diagonal()[image].to(rows.dtype)
        total = (kept.to(rows.dtype) @ sums)[image] - own[:, None] * rows
        count = (kept.sum(1) * (len(rows) // b))[image] - own
        return _Pull(total, count, image, kept)
    group = torch.arange(b, device=rows.device) if labels is None else _groups(labels, unlabelled)
    group = group[image]
    sums = rows.new_zeros(2 * b, rows.shape[1]).index_add(0, group, rows)
    sizes = rows.new_zeros(2 * b).index_add(0, group, torch.ones_like(rows[:, 0]))
    return _Pull(sums[group] - rows, sizes[group] - 1, group, None)


def _groups(labels: Tensor, unlabelled: int | None) -> Tensor:
    """A number below 2B for each picture, the same for those of one class; from B on for those without a label."""
    order = labels.argsort()
    ranked = labels[order]
    new = torch.cat([torch.zeros_like(order[:1]), (ranked[1:] != ranked[:-1]).long()])
    group = torch.zeros_like(order).scatter(0, order, new.cumsum(0))
    apart = len(labels) + torch.arange(len(labels), device=labels.device)
    return group if unlabelled is None else torch.where(labels == unlabelled, apart, group)


def _keep(anchors: Tensor, pull: _Pull) -> Tensor:
    """Which rows are positives of each anchor [A,N]."""
    same = pull.group[anchors, None] == pull.group[None] if pull.mask is None else (
        pull.mask[pull.group[anchors]][:, pull.group])  # fmt: skip
    return same & (anchors[:, None] != torch.arange(len(pull.group), device=anchors.device)[None])


def _log_sum_positives(rows: Tensor, anchors: Tensor, pull: _Pull, temperature: Number, chunk: int | None) -> Tensor:
    """log Σ_p exp s_ip of every anchor; of one without a positive some finite number, which nothing depends on."""

    def part(some: Tensor) -> Tensor:
        keep = _keep(some, pull) | (pull.number[some, None] == 0)
        return (rows[some] @ rows.T / temperature).masked_fill(~keep, -torch.inf).logsumexp(1)

    if chunk is None or chunk >= len(anchors):
        return part(anchors)
    pieces = [checkpoint(part, some, use_reentrant=False) for some in anchors.split(chunk)]
    return torch.cat(pieces)  # type: ignore[arg-type]
