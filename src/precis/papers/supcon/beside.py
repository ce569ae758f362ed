"""Cross-entropy beside the supervised contrastive loss: another copy of the encoder, trained on the very same views."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.papers.contrastive_pictures import Pictures
from precis.papers.contrastive_run import Recipe, train_recipe
from precis.papers.contrastive_training import head_on
from precis.papers.job import Work
from precis.train.loop import Budget


class CrossEntropy(nn.Module):
    """A copy of the encoder as it is now, under a linear layer for the classes that is trained along with it."""

    def __init__(self, encoder: nn.Module, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.classifier = head_on(encoder, generator, dim_out=classes, layers=1)
        self.encoder = copy.deepcopy(encoder)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.encoder(x))
        return logits

    def loss(self, views: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Mean over all views of pictures that have a label; the others (−1) only take part in batch statistics."""
        logits, y = self(torch.cat(list(views))).float(), labels.repeat(len(views))
        known = y >= 0
        each = F.cross_entropy(logits, y.clamp(min=0), reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)


def linear_steps(pictures: int, views: int, batch: int) -> int:
    """Steps that present as many pictures as the linear stage of the other arm: each once."""
    return math.ceil(pictures / (views * batch))


def train_beside(
    job: Any, work: Work, pictures: Pictures, model: CrossEntropy, recipe: Recipe, batch: int, steps: int
) -> None:
    """Train for so many steps on the batches and views of the other arm, whose steps they begin with; `recipe`: its."""
    labels = pictures.labels[torch.from_numpy(pictures.trained)].to(work.device)
    own = recipe._replace(model=model, loss=lambda views, chosen: model.loss(views, labels[chosen]))
    train_recipe(job, work, pictures, own, model.encoder, batch, budget=Budget(steps=steps), arm="ce")
