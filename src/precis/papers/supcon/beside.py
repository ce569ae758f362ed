"""Cross-entropy beside the supervised contrastive loss: another copy of the encoder, trained on the very same views."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.contrastive.supcon import SupConModel
from precis.papers.contrastive_training import head_on


class Beside(nn.Module):
    """Two networks that share nothing but their first weights and what they are shown; one optimiser trains both.

    `supervised` is trained by its own loss, `classify` (the encoder under a linear layer) by cross-entropy.
    """

    def __init__(self, supervised: SupConModel, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.supervised = supervised
        last = head_on(supervised.encoder, generator, dim_out=classes, layers=1)
        self.classify = nn.Sequential(copy.deepcopy(supervised.encoder), last)

    def loss(self, views: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """The contrastive loss, whose gradient cross-entropy's is added to: parameters are of one or the other."""
        contrastive = self.supervised.loss(views, labels)
        logits = self.classify(torch.cat(list(views))).float()
        y = labels.repeat(len(views))
        known = y >= 0
        each = F.cross_entropy(logits, y.clamp(min=0), reduction="none")
        mean = (each * known).sum() / known.sum().clamp(min=1)
        return {"loss": contrastive + (mean - mean.detach()), "cross_entropy": mean.detach()}
