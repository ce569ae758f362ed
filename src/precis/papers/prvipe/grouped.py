"""Pr-VIPE whose negatives come from a part of the batch: many poses a step, each told from as few as in a small one."""

from typing import Any

import torch
from torch import Tensor, nn

from precis.contrastive.prvipe import PrVIPE


class Grouped(PrVIPE):
    """The batch is cut into groups of that many poses, in its order, and a negative is of the anchor's own group."""

    def __init__(self, embedder: nn.Module, group: int) -> None:
        super().__init__(embedder)
        self.group = group

    def loss(self, views: Tensor, negative_mask: Tensor, mask: Tensor | None = None, **terms: Any) -> dict[str, Tensor]:
        """As of `PrVIPE`; views [2,n,*,points,2], negative_mask [n,n]."""
        group = torch.arange(negative_mask.shape[-1], device=negative_mask.device) // self.group
        return super().loss(views, negative_mask & (group[:, None] == group), mask, **terms)
