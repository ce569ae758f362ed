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
    """The (1 − rate) quantile of each unit (the higher neighbour): strictly above it lie at most `rate` of the rows."""
    if not 0 < rate < 1:
        raise ValueError(f"the rate must lie between 0 and 1, got {rate}")
    return f.sort(0).values[_place(len(f), float(rate))]


def invariance_score(
    f: Float[Tensor, "n d"], target: Int[Tensor, "n"], base: Int[Tensor, "n"], *, k: Sequence[int] = (10, 25),
    select: Literal["split", "same"] = "split", two_sided: bool = False, generator: torch.Generator | None = None,
) -> InvarianceScore:  # fmt: skip
    """The firing score of features f; row j shows target[j] and is a transform of base[j] (unique within its target).

    select: "split" ranks the units on a random half of each target's bases and scores them on the other half, swaps
    and averages; "same", as in the paper, ranks and scores on all: a maximum over noise, which grows with D.
    two_sided: a unit may also fire by being low.  Nothing changes under an increasing map of a unit's values.

    ValueError for less than two targets, less than two bases of a target ("split"), and more units than there are.
    """
    f = torch.cat([f, -f], 1) if two_sided else f
    largest = max(k)
    if min(k) < 1 or largest > f.shape[1]:
        raise ValueError(f"k must lie between 1 and the {f.shape[1]} units, got {tuple(k)}")
    labels, which = target.unique(return_inverse=True)
    if len(labels) < 2:
        raise ValueError("a score needs pictures of at least two targets")
    ordered = f.sort(0).values
    parts, units, short = [], [], []
    for y in range(len(labels)):
        rows = which == y
        share = float(rows.double().mean())
        threshold = ordered[_place(len(f), share)]
        short.append(((f > threshold).double().mean(0) < 0.9 * share).double().mean())
        bases, of = base[rows].unique(return_inverse=True)
        local = segment_mean((f[rows] > threshold).double(), of, len(bases))
        units.append(local.mean(0).topk(largest).indices)
        parts.append(torch.stack([_best(local, n, select, generator) for n in k]))
    per_target = 100 * torch.stack(parts)
    each = per_target.to(f.dtype)
    return InvarianceScore(each.mean(0), each, labels, torch.stack(units), float(torch.stack(short).mean()))


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
    return math.ceil((1 - rate) * (n - 1))


def _best(local: Tensor, k: int, select: str, generator: torch.Generator | None) -> Tensor:
    """Mean local rate of the k best units, of rates [B,D] of the bases of a target."""
    if select == "same":
        return local.mean(0).topk(k).values.mean()
    if select != "split":
        raise ValueError(f"select is split or same, got {select!r}")
    if len(local) < 2:
        raise ValueError("select='split' needs at least two base pictures of every target")
    order = torch.randperm(len(local), generator=generator).to(local.device)
    halves = [local[part].mean(0) for part in order.tensor_split(2)]
    return torch.stack([b[a.topk(k).indices].mean() for a, b in (halves, halves[::-1])]).mean()
