"""Pr-VIPE: 2-D keypoints to a Gaussian in a space where the same 3-D pose lies at one place, whatever the camera.

    13 points → FC, batch norm, ReLU → blocks of two such layers with a shortcut → mean,  std = ELU(·) + 1

The network is Martinez's for lifting (ICCV 2017); `Lifter3D` is it with its own output, the baseline.  Trained by
`precis.contrastive.prvipe_loss` on pairs of views of one pose.  Sun et al., ECCV 2020 (arXiv 1912.01001); Liu et al.
2021 (arXiv 2010.13321), §3.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from precis.contrastive.prvipe_alignment import dtw_align, match_matrix, pa_mpjpe, pa_mpjpe_pairs, procrustes_2d
from precis.contrastive.prvipe_keypoints import (
    BODY25,
    COCO17,
    H36M17,
    MEDIAPIPE33,
    STD13_2D,
    STD16_3D,
    KeypointProfile,
    normalize_2d,
    normalize_3d,
    project,
)
from precis.contrastive.prvipe_loss import (
    MatchingSigmoid,
    PoseEmbedding,
    hit_at_k,
    matching_distance,
    prior_kl,
    triplet_ratio_loss,
)

__all__ = [
    "BODY25", "COCO17", "H36M17", "KeypointProfile", "Lifter3D", "MEDIAPIPE33", "MatchingSigmoid", "PoseEmbedder",
    "PoseEmbedding", "PoseTrunk", "PrVIPE", "STD13_2D", "STD16_3D", "TemporalPoseEmbedder", "cancelled", "dtw_align",
    "hit_at_k", "match_matrix", "matching_distance", "normalize_2d", "normalize_3d", "pa_mpjpe", "pa_mpjpe_pairs",
    "prior_kl", "procrustes_2d", "project", "triplet_ratio_loss",
]  # fmt: skip


def he_linear(d_in: int, d_out: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear map, He-normal weights and biases (of a bias the fan is its own length)."""
    layer = nn.utils.skip_init(nn.Linear, d_in, d_out)
    with torch.no_grad():
        layer.weight.normal_(0, math.sqrt(2 / d_in), generator=generator)
        layer.bias.normal_(0, math.sqrt(2 / d_out), generator=generator)
    return layer


def _layer(d_in: int, d_out: int, dropout: float | int, generator: torch.Generator | None) -> nn.Sequential:
    return nn.Sequential(he_linear(d_in, d_out, generator), nn.BatchNorm1d(d_out), nn.ReLU(), nn.Dropout(dropout))


def cancelled(name: str) -> bool:
    """Whether a parameter of these nets is a bias that batch norm takes out again.

    Its gradient is rounding noise, which Adam would blow up to full steps that the running means have to follow.
    """
    return name.endswith(".0.bias")


class PoseTrunk(nn.Module):
    """Points [N,d] to features [N,hidden]: a layer, then `blocks` of two layers with a shortcut.

    A layer is linear, batch norm, ReLU, dropout.  Dropout draws from torch's global generator, as `nn.Dropout` does.
    """

    def __init__(
        self, d_in: int, hidden: int = 1024, blocks: int = 2, dropout: float | int = 0.3, *,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = _layer(d_in, hidden, dropout, generator)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_layer(hidden, hidden, dropout, generator) for _ in range(2))) for _ in range(blocks)
        )

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n h"]:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return x


def _flat(k: Tensor, mask: Tensor | None, mask_input: bool) -> Tensor:
    """What the network is given: coordinates [N, 2 · points], 0 where missing, and the mask after them if wanted."""
    flat = k.reshape(-1, k.shape[-2], k.shape[-1])
    if mask is not None:
        flat = flat * mask.reshape(-1, mask.shape[-1])[..., None].to(k.dtype)
    x = flat.flatten(1)
    if not mask_input:
        return x
    there = torch.ones_like(flat[..., 0]) if mask is None else mask.reshape(flat.shape[:-1]).to(k.dtype)
    return torch.cat([x, there], 1)


class _Heads(nn.Module):
    def __init__(self, hidden: int, dim: int, gaussian: bool, generator: torch.Generator | None) -> None:
        super().__init__()
        self.mean = he_linear(hidden, dim, generator)
        self.std = he_linear(hidden, dim, generator) if gaussian else None

    def forward(self, h: Float[Tensor, "n h"], batch: tuple[int, ...]) -> PoseEmbedding:
        mean = self.mean(h).view(*batch, -1)
        return PoseEmbedding(mean, None if self.std is None else (F.elu(self.std(h)) + 1).view(*batch, -1))


class PoseEmbedder(nn.Module):
    """Normalised 2-D points [*,points,2] to a `PoseEmbedding` [*,dim]; `gaussian=False`: a point (VIPE).

    mask [*,points]: which points are there; the others are zeroed.  mask_input: the net is told which, by 0 and 1.
    """

    def __init__(
        self, points: int = 13, dim: int = 16, hidden: int = 1024, blocks: int = 2, dropout: float | int = 0.3,
        gaussian: bool = True, mask_input: bool = False, *, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mask_input = mask_input
        self.trunk = PoseTrunk(points * (3 if mask_input else 2), hidden, blocks, dropout, generator=generator)
        self.heads = _Heads(hidden, dim, gaussian, generator)

    def forward(
        self, k: Float[Tensor, "*batch points 2"], mask: Bool[Tensor, "*batch points"] | None = None
    ) -> PoseEmbedding:
        return self.heads(self.trunk(_flat(k, mask, self.mask_input)), tuple(k.shape[:-2]))


class PrVIPE(nn.Module):
    """An embedder with its matching sigmoid, and the loss that trains both on two views of every pose."""

    def __init__(self, embedder: nn.Module, sigmoid: MatchingSigmoid | None = None) -> None:
        super().__init__()
        self.embedder, self.sigmoid = embedder, sigmoid or MatchingSigmoid()

    def forward(self, k: Float[Tensor, "*batch points 2"], mask: Tensor | None = None) -> PoseEmbedding:
        return self.embedder(k, mask)

    def loss(
        self, views: Float[Tensor, "2 n *clip points 2"], negative_mask: Bool[Tensor, "n n"],
        mask: Bool[Tensor, "2 n *clip points"] | None = None, *, pairwise: float | int = 0.005,
        prior: float | int = 0.001, **triplet: Any,
    ) -> dict[str, Tensor]:  # fmt: skip
        """triplet ratio + pairwise · mean D_m(anchor, positive) + prior · KL, both views in one pass.

        views: anchors and positives; `triplet` goes to `triplet_ratio_loss`.  Also in the answer: `triplet`, `active`.
        """
        both = self(views.flatten(0, 1), None if mask is None else mask.flatten(0, 1))
        std = (None, None) if both.std is None else both.std.chunk(2)
        anchor, positive = (PoseEmbedding(m, s) for m, s in zip(both.mean.chunk(2), std))
        found = triplet_ratio_loss(anchor, positive, negative_mask, self.sigmoid, **triplet)
        loss = found.loss + pairwise * found.positive
        if both.std is not None:
            loss = loss + prior * prior_kl(both.mean, both.std)
        return {"loss": loss, "triplet": found.loss, "active": found.active}


class Lifter3D(nn.Module):
    """The same trunk with a 3-D output: normalised 2-D points [*,points,2] to 3-D points [*,joints,3] as the camera
    sees them, the root at the origin.  Trained by squared error; poses are then compared by PA-MPJPE."""

    def __init__(
        self, points: int = 13, joints: int = 16, hidden: int = 1024, blocks: int = 2, dropout: float | int = 0.3, *,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.joints = joints
        self.trunk = PoseTrunk(points * 2, hidden, blocks, dropout, generator=generator)
        self.out = he_linear(hidden, 3 * joints, generator)

    def forward(self, k: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch joints 3"]:
        return self.out(self.trunk(_flat(k, None, False))).view(*k.shape[:-2], self.joints, 3)


class TemporalPoseEmbedder(nn.Module):
    """A clip of normalised 2-D points [*,frames,points,2] to one `PoseEmbedding` [*,dim] (late fusion).

    The trunk is shared by the frames; each frame's features are projected to `frame_dim` numbers, put side by side,
    and one more layer of `hidden` units sees them all.
    """

    def __init__(
        self, frames: int = 7, points: int = 13, dim: int = 32, hidden: int = 1024, blocks: int = 2,
        dropout: float | int = 0.3, frame_dim: int = 64, gaussian: bool = True, mask_input: bool = False, *,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.frames, self.mask_input = frames, mask_input
        self.trunk = PoseTrunk(points * (3 if mask_input else 2), hidden, blocks, dropout, generator=generator)
        self.projection = he_linear(hidden, frame_dim, generator)
        self.fusion = _layer(frames * frame_dim, hidden, dropout, generator)
        self.heads = _Heads(hidden, dim, gaussian, generator)

    def forward(
        self, k: Float[Tensor, "*batch frames points 2"], mask: Bool[Tensor, "*batch frames points"] | None = None
    ) -> PoseEmbedding:
        if k.shape[-3] != self.frames:
            raise ValueError(f"clips of {self.frames} frames are wanted, got {k.shape[-3]}")
        each = self.projection(self.trunk(_flat(k, mask, self.mask_input)))
        together = self.fusion(each.view(-1, self.frames * each.shape[-1]))
        return self.heads(together, tuple(k.shape[:-3]))
