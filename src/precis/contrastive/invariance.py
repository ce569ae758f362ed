"""Which changes of a picture a representation ignores: a firing score, and pairs of frames that teach more of it.

Unit i fires on x if f_i(x) > t_i.  For a target y (an object, or a class) that a share P(y) of all pictures shows:

    t_i(y) = the (1 − P(y)) quantile of f_i over all pictures, so that a unit that fires exactly on y fires P(y) often
    L_i(y) = mean over base pictures z of y of the mean over x in T(z) of [f_i(x) > t_i(y)]
    score  = 100 · mean over targets of the mean L_i(y) of the K best units

T(z) are transformed pictures of z: one change, nothing else.  The paper reports the ratio of L to the global rate as a
percentage of its maximum; the global rate being P(y) and the maximum 1/P(y), that is 100·L.  This reading is ours, no
code was published.  Purushwalkam and Gupta, NeurIPS 2020, §3 (arXiv 2007.13916), after Goodfellow et al., NIPS 2009.

Frame pairs (§5): the positive of a frame is the frame `gap` later, instead of the frame itself: `frame_pairs`,
`FrameTemporalMoCo`; and of a region the tracked region: `region_pairs`, `auto_tracks`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor, nn

from precis.contrastive.moco import MoCo
from precis.contrastive.tracks import RegionPairs, Track, auto_tracks, crop_boxes, region_pairs, shot_lengths
from precis.nn.segment import segment_mean

__all__ = [
    "FrameTemporalMoCo", "InvarianceScore", "RegionPairs", "Track", "auto_tracks", "crop_boxes", "firing_thresholds",
    "frame_pairs", "invariance_score", "region_pairs", "shot_lengths",
]  # fmt: skip

Number = int | float


class InvarianceScore(NamedTuple):
    """In percent: `mean` [k], the scores of the best k units; `per_target` [T,k]; `targets` [T], their labels.

    units [T,max k]: the best units of each target on all its pictures, the best first (from D on: −f of unit i − D).
    short: the share of units that, for ties (mostly at 0), fire on less than nine tenths of P(y), mean over targets.
    """

    mean: Float[Tensor, "k"]
    per_target: Float[Tensor, "t k"]
    targets: Int64[Tensor, "t"]
    units: Int64[Tensor, "t m"]
    short: float


def firing_thresholds(f: Float[Tensor, "n d"], rate: Number) -> Float[Tensor, "d"]:
    """The (1 − rate) quantile of each unit, the lower neighbour: of N different ones rate·N lie strictly above."""
    if not 0 < rate < 1:
        raise ValueError(f"the rate must lie between 0 and 1, got {rate}")
    return f.sort(0).values[_place(len(f), float(rate))]


def invariance_score(
    f: Float[Tensor, "n d"], target: Int[Tensor, "n"], base: Int[Tensor, "n"], *, k: Sequence[int] = (10, 25),
    select: Literal["split", "same"] = "split", two_sided: bool = False, generator: torch.Generator | None = None,
) -> InvarianceScore:  # fmt: skip
    """The firing score of features f; row j shows target[j] and is a transform of base[j] (unique within its target).

    select: "split" ranks the units on a random half of each target's bases and scores them on the other, each half with
    thresholds of its own, swaps and averages: of noise it makes P(y).  "same", as in the paper, ranks and scores on
    all: a maximum over noise, which grows with D.  Of units that rank equal at the end each counts its share.
    two_sided: a unit may also fire by being low.  Nothing changes under an increasing map of a unit's values.

    ValueError for less than two targets, less than two bases of a target ("split"), and more units than there are.
    """
    f = torch.cat([f, -f], 1) if two_sided else f
    if min(k) < 1 or max(k) > f.shape[1]:
        raise ValueError(f"k must lie between 1 and the {f.shape[1]} units, got {tuple(k)}")
    labels, which = target.unique(return_inverse=True)
    if len(labels) < 2:
        raise ValueError("a score needs pictures of at least two targets")
    rates, short = _local_rates(f, which, base, len(labels))
    pairs = [(rates, rates)]
    if select == "split":
        first = _first_half(which, base, len(labels), generator)
        a, b = (_local_rates(f[rows], which[rows], base[rows], len(labels))[0] for rows in (first, ~first))
        pairs = [(a, b), (b, a)]
    chosen = [[[_chosen(rank[y], rate[y], n) for n in k] for y in range(len(labels))] for rank, rate in pairs]
    per_target = 100 * torch.tensor(chosen, dtype=torch.float64, device=f.device).mean(0).to(f.dtype)
    return InvarianceScore(per_target.mean(0), per_target, labels, rates.topk(max(k), 1).indices, short)


def frame_pairs(
    clip_lengths: Sequence[int], gap: int, generator: torch.Generator | None = None, jitter: int = 0
) -> Int64[Tensor, "p 2"]:
    """Pairs (i, i + gap ± up to `jitter`) of frames of one clip; frames are counted on from clip to clip.

    Every frame whose partner lies in its clip begins a pair; a jitter that would leave the clip is cut off at its end.
    gap=0: each frame with itself.  Clips of `gap` frames or less give none.
    """
    if gap < 0 or not 0 <= jitter <= gap:
        raise ValueError(f"0 ≤ jitter ≤ gap is wanted, got a gap of {gap} and a jitter of {jitter}")
    found, start = [], 0
    for length in clip_lengths:
        first = torch.arange(max(0, length - gap))
        moved = first + gap
        if jitter:
            moved = moved + torch.randint(-jitter, jitter + 1, moved.shape, generator=generator)
        found.append(torch.stack([first, moved.clamp(max=length - 1)], 1) + start)
        start += length
    return torch.cat(found) if found else torch.zeros(0, 2, dtype=torch.long)


class FrameTemporalMoCo(MoCo):
    """MoCo whose query is a view of one frame and whose key a view of another: `loss(frames_a, frames_b)`.

    views(frames, generator) → [N,C,H,W] in [0,1]: the augmentation, drawn for both frames from `generator`, which also
    draws the queue.  With the same frames twice this is MoCo.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, views: Callable[[Tensor, torch.Generator | None], Tensor],
        queue_size: int = 4096, momentum: Number = 0.99, temperature: Number = 0.2, symmetric: bool = True,
        split_bn: int = 0, *, dim: int | None = None, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__(encoder, head, queue_size, momentum, temperature, symmetric, split_bn, dim=dim,
                         generator=generator)  # fmt: skip
        self.views = views

    def loss(self, frames_a: Shaped[Tensor, "n c h w"], frames_b: Shaped[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """InfoNCE, in nats; frames uint8, or in [0,1]."""
        both = self.views(torch.cat([frames_a, frames_b]), self.generator)
        return super().loss(both[: len(frames_a)], both[len(frames_a) :])


def _place(n: int, rate: float) -> int:
    return math.floor((1 - rate) * (n - 1))


def _local_rates(f: Tensor, which: Tensor, base: Tensor, targets: int) -> tuple[Tensor, float]:
    """L [T,D], and the share of units that fire on less than nine tenths of P(y)."""
    ordered, rates, short = f.sort(0).values, [], 0.0
    for y in range(targets):
        rows = which == y
        share = float(rows.double().mean())
        threshold = ordered[_place(len(f), share)]
        bases, of = base[rows].unique(return_inverse=True)
        rates.append(segment_mean((f[rows] > threshold).double(), of, len(bases)).mean(0))
        short += float(((f > threshold).double().mean(0) < 0.9 * share).double().mean()) / targets
    return torch.stack(rates), short


def _first_half(which: Tensor, base: Tensor, targets: int, generator: torch.Generator | None) -> Tensor:
    """True for the rows of a random half of each target's bases (the larger, if they are odd)."""
    first = torch.zeros_like(which, dtype=torch.bool)
    for y in range(targets):
        bases = base[which == y].unique()
        if len(bases) < 2:
            raise ValueError("select='split' needs at least two base pictures of every target")
        order = torch.randperm(len(bases), generator=generator).to(bases.device)
        first |= (which == y) & torch.isin(base, bases[order[: (len(bases) + 1) // 2]])
    return first


def _chosen(rank: Tensor, rate: Tensor, k: int) -> float:
    """Mean rate of the k units of highest rank."""
    rank = rank.round(decimals=12)
    last = rank.topk(k).values[-1]
    above, tied = rank > last, rank == last
    return float((rate[above].sum() + (k - above.sum()) * rate[tied].mean()) / k)
