"""Losses over pairs of views, their row sums, and the two figures that describe an embedding on the sphere.

    s_ij = z_iᵀz_j/τ,   L = 1/(2N) Σ_i ( −s_{i,p(i)} + log Σ_{k≠i} exp s_ik )

over the 2N rows of both views, p(i) the other view of i's picture (NT-Xent; Chen et al., ICML 2020, §2.1, arXiv
2002.05709).  With a queue of older keys instead of the batch it is InfoNCE (He et al., CVPR 2020, eq. 1, arXiv
1911.05722).  Everything is computed in float32 at least, also under autocast, and given back in the inputs' type.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from precis.contrastive.sphere import (
    Number,
    check_chunk,
    check_negatives,
    check_pair,
    check_temperature,
    full_precision,
    unit,
    wide,
)


def nt_xent(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], temperature: Number = 0.5, *, normalize: bool = True,
    chunk: int | None = None, gather: bool = False,
) -> Float[Tensor, ""]:  # fmt: skip
    """NT-Xent of two views (N,D) of N pictures; row i of both belongs to one picture.  In nats.

    normalize: rows to length 1 (a row of zeros stays one).  chunk: so many rows of the similarity matrix at a time,
    2·chunk·N numbers instead of 4N², computed again in the backward pass.  gather: under `torch.distributed`, the
    views of all processes (N each) are candidates, with gradients; each process has the loss of its own anchors, so
    that DDP's mean of gradients is the gradient of the loss of the whole batch.

    ValueError for less than two pictures (there would be no negative) and for τ ≤ 0.
    """
    check_pair(z1, z2, temperature)
    with full_precision(z1):
        a, b = (unit(wide(z), normalize) for z in (z1, z2))
        rows = torch.cat([a, b])
        columns, first = _everyone(rows) if gather else (rows, 0)
        check_negatives(len(columns) // 2)
        own = torch.arange(len(rows), device=rows.device) + first
        others = log_sum_others(rows, columns, own, temperature, chunk)
        positive = (a * b).sum(1) / temperature
        loss = others.mean() - positive.mean()
    return loss.to(z1.dtype)


def info_nce(
    q: Float[Tensor, "n d"], k: Float[Tensor, "n d"], queue: Float[Tensor, "m d"], temperature: Number = 0.2, *,
    normalize: bool = True,
) -> Float[Tensor, ""]:  # fmt: skip
    """−log( exp(q·k/τ) / (exp(q·k/τ) + Σ_{j in queue} exp(q·j/τ)) ), the mean over N queries.  In nats.

    Gradients flow wherever the inputs carry them: MoCo's keys and queue carry none.
    """
    check_temperature(temperature)
    if not len(queue):
        raise ValueError("the queue is empty: there are no negatives")
    with full_precision(q):
        query, key, old = (unit(wide(x), normalize) for x in (q, k, queue))
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ old.to(query.dtype).T], 1) / temperature
        loss = (logits.logsumexp(1) - logits[:, 0]).mean()
    return loss.to(q.dtype)


def alignment(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], alpha: Number = 2) -> Float[Tensor, ""]:
    """Mean of ‖z1_i − z2_i‖^α of rows put on the sphere: 0 if both views coincide, 2 (α = 2) for unrelated ones.

    Wang and Isola, ICML 2020, eq. 8 (arXiv 2005.10242).
    """
    a, b = (unit(wide(z)) for z in (z1, z2))
    return (a - b).norm(dim=1).pow(alpha).mean().to(z1.dtype)


def uniformity(z: Float[Tensor, "n d"], t: Number = 2, *, chunk: int = 2048) -> Float[Tensor, ""]:
    """log of the mean of exp(−t ‖z_i − z_j‖²) over pairs i ≠ j of rows put on the sphere; 0 if all coincide.

    Wang and Isola, ICML 2020, eq. 9.  For t = 2 an even spread over a high-dimensional sphere gives nearly −4.
    """
    if len(z) < 2:
        raise ValueError("uniformity needs at least two rows")
    rows = unit(wide(z))
    own = torch.arange(len(z), device=z.device)
    sums = log_sum_others(rows, rows, own, 1 / (2 * t), chunk if len(z) > chunk else None)
    pairs = torch.tensor(float(len(z) * (len(z) - 1)), dtype=rows.dtype, device=z.device)
    return (sums.logsumexp(0) - 2 * t - pairs.log()).to(z.dtype)


def log_sum_others(
    rows: Float[Tensor, "a d"], columns: Float[Tensor, "c d"], own: Int[Tensor, "a"], temperature: Number,
    chunk: int | None = None,
) -> Float[Tensor, "a"]:  # fmt: skip
    """log Σ_{k ≠ own_i} exp(rows_i·columns_k/τ) of every row; `own_i` is the column that is left out of row i.

    With `chunk` the matrix of similarities is never whole: forward and backward make so many rows of it at a time.
    """
    check_chunk(chunk)
    if chunk is None or chunk >= len(rows):
        return _similarities(rows, columns, own, temperature).logsumexp(1)
    return _Chunked.apply(rows, columns, own, float(temperature), chunk)  # type: ignore[no-any-return]


class _Chunked(torch.autograd.Function):
    """∂/∂s_ik of row i's value is its softmax P_ik: a chunk of rows R gives PC/τ to them and PᵀR/τ to the columns C."""

    @staticmethod
    def forward(ctx, rows: Tensor, columns: Tensor, own: Tensor, temperature: float, chunk: int) -> Tensor:  # type: ignore[no-untyped-def,override]
        parts = zip(rows.split(chunk), own.split(chunk))
        sums = torch.cat([_similarities(r, columns, o, temperature).logsumexp(1) for r, o in parts])
        ctx.save_for_backward(rows, columns, own, sums)
        ctx.temperature, ctx.chunk = temperature, chunk
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def,override]
        rows, columns, own, sums = ctx.saved_tensors
        to_rows, to_columns = torch.empty_like(rows), torch.zeros_like(columns)
        for at in range(0, len(rows), ctx.chunk):
            some = slice(at, at + ctx.chunk)
            share = (_similarities(rows[some], columns, own[some], ctx.temperature) - sums[some, None]).exp_()
            share *= gradient[some, None] / ctx.temperature
            to_rows[some] = share @ columns
            to_columns.addmm_(share.T, rows[some])
        return to_rows, to_columns, None, None, None


def _similarities(rows: Tensor, columns: Tensor, own: Tensor, temperature: Number) -> Tensor:
    s = rows @ columns.T / temperature
    return s.masked_fill(torch.arange(len(columns), device=s.device)[None] == own[:, None], -torch.inf)


def _everyone(rows: Tensor) -> tuple[Tensor, int]:
    """The rows of all processes, in the order of their ranks, and where ours begin."""
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("gather=True needs torch.distributed to be initialised")
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows)), dist.get_rank() * len(rows)
