"""Sums, means, maxima and running sums over the segments of a list: ragged rows without padding.

A list src [E,*] is cut into n segments, either by `index` [E] (segment of each row, in any order) or by `ptr` [n+1]
(segment i is rows ptr[i] … ptr[i+1]−1).  Empty segments give 0, the maximum and the log-sum-exp −inf.

    softmax_e = exp(src_e − m_s) / Σ_{e' ∈ s} exp(src_e' − m_s),    logsumexp_s = m_s + log Σ exp(src_e − m_s)

No compiled extension: `index_add`, `scatter_reduce`, and running sums in float64, since a global float32 sum would lose
the small differences inside a segment.
"""

import math

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Segments = Int[Tensor, "e"] | Int[Tensor, "n1"]


def ptr_of(lengths: Int[Tensor, "n"]) -> Int[Tensor, "n1"]:
    """Where segments of these lengths begin: [n+1], from 0 to their sum."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def segment_index(ptr: Int[Tensor, "n1"], rows: int | None = None) -> Int[Tensor, "e"]:
    """The segment of every row; `rows`, if known, saves waiting for a GPU."""
    lengths = ptr[1:] - ptr[:-1]
    return torch.repeat_interleave(torch.arange(len(lengths), device=ptr.device), lengths, output_size=rows)


def segment_sum(src: Shaped[Tensor, "e *f"], index: Segments, n: int | None = None) -> Shaped[Tensor, "n *f"]:
    """Sum of each segment.  With `n` the second argument is an index [E], without it a ptr [n+1]."""
    index, n = _as_index(src, index, n)
    return src.new_zeros(n, *src.shape[1:]).index_add(0, index, src)


def segment_mean(src: Float[Tensor, "e *f"], index: Segments, n: int | None = None) -> Float[Tensor, "n *f"]:
    """Mean of each segment."""
    index, n = _as_index(src, index, n)
    count = torch.bincount(index, minlength=n).clamp(min=1).to(src.dtype)
    return segment_sum(src, index, n) / count.view(-1, *[1] * (src.ndim - 1))


def segment_max(src: Float[Tensor, "e *f"], index: Segments, n: int | None = None) -> Float[Tensor, "n *f"]:
    """Largest value of each segment; of several equal ones the gradient is shared evenly."""
    index, n = _as_index(src, index, n)
    out = src.new_full((n, *src.shape[1:]), -math.inf)
    return out.scatter_reduce(0, _wide(index, src), src, "amax", include_self=True)


def segment_softmax(src: Float[Tensor, "e *f"], index: Segments, n: int | None = None) -> Float[Tensor, "e *f"]:
    """Softmax within each segment, row for row."""
    index, n = _as_index(src, index, n)
    top = _finite(segment_max(src.detach(), index, n))
    e = (src - top[index]).exp()
    return e / segment_sum(e, index, n)[index]


def segment_logsumexp(src: Float[Tensor, "e *f"], index: Segments, n: int | None = None) -> Float[Tensor, "n *f"]:
    """log Σ exp of each segment."""
    index, n = _as_index(src, index, n)
    top = _finite(segment_max(src.detach(), index, n))
    total = segment_sum((src - top[index]).exp(), index, n)
    some = total > 0
    return torch.where(some, torch.where(some, total, 1.0).log() + top, -math.inf)


def segment_cumsum(
    src: Float[Tensor, "e *f"], ptr: Int[Tensor, "n1"], exclusive: bool = False
) -> Float[Tensor, "e *f"]:
    """Running sum that starts anew in each segment; `exclusive`: without the row itself."""
    running = src.double().cumsum(0)
    before = torch.cat([running.new_zeros(1, *src.shape[1:]), running])[ptr[:-1]]
    out = running - before[segment_index(ptr, len(src))]
    return (out - src if exclusive else out).to(src.dtype)


def segment_logcumsumexp(src: Float[Tensor, "e *f"], ptr: Int[Tensor, "n1"]) -> Float[Tensor, "e *f"]:
    """log of the running sum of exp, in each segment.

    Padded to [n, longest], since no common shift is safe for segments of different size.
    """
    lengths = ptr[1:] - ptr[:-1]
    if not len(src):
        return src
    segment = segment_index(ptr, len(src))
    place = torch.arange(len(src), device=src.device) - ptr[segment]
    padded = src.new_full((len(lengths), int(lengths.max()), *src.shape[1:]), -math.inf)
    return padded.index_put((segment, place), src).logcumsumexp(1)[segment, place]


def _as_index(src: Tensor, index: Tensor, n: int | None) -> tuple[Tensor, int]:
    if n is not None:
        return index, n
    return segment_index(index, len(src)), len(index) - 1


def _wide(index: Tensor, src: Tensor) -> Tensor:
    return index.view(-1, *[1] * (src.ndim - 1)).expand_as(src)


def _finite(top: Tensor) -> Tensor:
    return torch.where(top.isfinite(), top, 0.0)
