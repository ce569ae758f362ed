"""Supervised contrastive learning: pull together all views of a class, then fit a linear classifier on frozen features.

    stage 1:  h = f(v),   z = g(h)/‖g(h)‖,   L = L_out(z, labels)
    stage 2:  softmax(W h + b), f fixed, g dropped

Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan, NeurIPS 2020 (arXiv 2004.11362), §3.  The losses:
`precis.contrastive.supcon_loss`; batches with enough of each class: `precis.contrastive.balanced`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from precis.contrastive.balanced import BalancedBatches
from precis.contrastive.supcon_loss import positive_weights, sup_con
from precis.train.probe import LinearProbe

__all__ = ["BalancedBatches", "LinearHead", "SupConModel", "positive_weights", "sup_con"]


class SupConModel(nn.Module):
    """An encoder [B,C,H,W] → h [B,·], a head h → z [B,D], and the loss of V views with their labels.

    loss_options: of `sup_con` (reduction_form, chunk, …).
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, temperature: float | int = 0.1, **loss_options: Any
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.temperature, self.loss_options = encoder, head, temperature, loss_options

    def forward(self, x: Shaped[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b width"], Float[Tensor, "b dim"]]:
        """(h, z): the representation and what the loss sees of it."""
        h = self.encoder(x)
        return h, self.head(h)

    def loss(
        self, views: Sequence[Float[Tensor, "n c h w"]], labels: Int[Tensor, "n"] | None = None
    ) -> Float[Tensor, ""]:
        """`sup_con`, in nats, of views of N pictures; all go through in one pass, and share batch statistics."""
        z = self(torch.cat(list(views)))[1]
        features = torch.stack(z.split(len(views[0])), 1)
        return sup_con(features, labels, temperature=self.temperature, **self.loss_options)


class LinearHead(nn.Module):
    """Stage two: logits [B,K] of representations [B,D] as they are; standardising them is folded into the weights.

    ridge: as in `LinearProbe`.  Before `fit` all logits are 0.
    """

    def __init__(self, dim: int, classes: int, ridge: Literal["inner"] | float | int = "inner") -> None:
        super().__init__()
        self.ridge = ridge
        self.weight = nn.Parameter(torch.zeros(classes, dim))
        self.bias = nn.Parameter(torch.zeros(classes))

    @torch.no_grad()
    def fit(self, h: Float[Tensor, "n d"], y: Int[Tensor, "n"]) -> "LinearHead":
        """Multinomial logistic regression by L-BFGS; labels of −1 are left out.

        InputError for less than two classes.
        """
        probe = LinearProbe(self.ridge, classes=len(self.bias)).fit(h, y)
        weight, bias = probe.folded()
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        return self

    def forward(self, h: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return F.linear(h, self.weight, self.bias)
