"""Batches in which every class that occurs has several pictures, so that anchors have positives.

With random batches of B pictures from C classes an anchor has (B − 1)/C others of its class on average; where that is
below one or two, a batch of P classes with K pictures each serves better (Hermans et al., 2017, §2, arXiv 1703.07737).
"""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from precis.errors import InputError
from precis.train.feed import IndexBatches

FEWEST = 4  # pictures of a class in a batch, at least


class BalancedBatches(IndexBatches):
    """Indices [P·K] a batch: P = min(classes, ⌊size/4⌋) different classes, K = ⌊size/P⌋ pictures of each.

    labels [N]: −1 is of no class, and left out.  Classes come in a new random order until each had its turn, so that
    all appear equally often.  A class of less than K pictures repeats some in a batch, under other augmentations.  An
    epoch is as many batches as its pictures would fill.  Resumes as `IndexBatches` does.
    """

    def __init__(self, labels: Int[Tensor, "n"], size: int, generator: torch.Generator) -> None:
        self.members = [torch.nonzero(labels == c)[:, 0].cpu() for c in labels.unique().tolist() if c >= 0]
        if len(self.members) < 2 or size < 2 * FEWEST:
            raise InputError(f"balanced batches want two classes and a size of {2 * FEWEST} at least, got "
                             f"{len(self.members)} and {size}")  # fmt: skip
        self.classes = min(len(self.members), size // FEWEST)
        self.each = size // self.classes
        whole = self.classes * self.each
        batches = max(1, sum(map(len, self.members)) // whole)
        super().__init__(batches * whole, whole, generator, drop_last=True)
        self.waiting: list[int] = []

    def _draw(self) -> Tensor:
        return torch.cat([self._pictures(c) for _ in range(len(self)) for c in self._turn()])

    def _turn(self) -> list[int]:
        """The classes of a batch: those still waiting, then others in a new order; the rest wait."""
        while len(self.waiting) < self.classes:
            new = torch.randperm(len(self.members), generator=self.generator).tolist()
            old = self.waiting
            self.waiting = old + [c for c in new if c not in old] + [c for c in new if c in old]
        chosen, self.waiting = self.waiting[: self.classes], self.waiting[self.classes :]
        return chosen

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"waiting": self.waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.waiting = list(state["waiting"])

    def _pictures(self, c: int) -> Tensor:
        rows = self.members[c]
        times = -(-self.each // len(rows))
        orders = [rows[torch.randperm(len(rows), generator=self.generator)] for _ in range(times)]
        return torch.cat(orders)[: self.each]
