"""Which pictures make a batch: random ones, or a few classes with several pictures each and a share without label."""

import math
from typing import Any

import torch
from torch import Tensor

from precis.contrastive.supcon import BalancedBatches
from precis.errors import InputError
from precis.papers.job import Work
from precis.train.feed import IndexBatches

FEW = 2  # pictures of a class in a batch on average, below which batches are balanced
LEAST = 8  # pictures with a label that a balanced batch has room for, at least


class MixedBatches(BalancedBatches):
    """Balanced batches of `size − others` pictures with a label, and in each `others` different ones
    without (−1), all equally often."""

    def __init__(self, labels: Tensor, size: int, others: int, generator: torch.Generator) -> None:
        super().__init__(labels, size - others, generator)
        self.unlabelled, self.others = torch.nonzero(labels < 0)[:, 0].cpu(), others
        whole, batches = self.classes * self.each, len(self)
        IndexBatches.__init__(self, batches * (whole + others), whole + others, generator, drop_last=True)

    def _draw(self) -> Tensor:
        batches, n = len(self), len(self.unlabelled)
        known = super()._draw().view(batches, -1)
        each = n // self.others  # batches from one order, so that none has a picture twice
        orders = [torch.randperm(n, generator=self.generator) for _ in range(-(-batches // each))]
        rest = torch.cat([order[: each * self.others].view(each, -1) for order in orders])[:batches]
        return torch.cat([known, self.unlabelled[rest]], 1).flatten()


def batches_of(job: Any, work: Work, labels: Tensor, batch: int) -> Any:
    """A function generator → batches of the pictures with these labels [N] (−1: none); None: random ones."""
    known = labels[labels >= 0]
    missing = len(labels) - len(known)
    classes = len(known.unique())
    mean = batch * len(known) / len(labels) / classes
    left_out = bool(missing) and job.unlabelled == "ignore"
    # As many without a label as a random batch has, if that leaves room for two classes.
    others = 0 if left_out or not missing else min(max(1, round(batch * missing / len(labels))), batch - LEAST)
    few = mean < FEW and batch >= LEAST and (others > 0 or left_out or not missing)
    average = f"{math.floor(100 * mean) / 100:g}"  # never rounded up to what it is below
    if job.balanced == "no" or not (job.balanced == "yes" or left_out or few):
        if left_out:
            raise InputError("--unlabelled ignore draws balanced batches: leave --balanced at auto")
        if mean < FEW:
            work.note(f"a batch of {batch} has {average} pictures of a class on average: many have no positive but "
                      "their own views (--balanced yes)")  # fmt: skip
        return None
    mixed = others > 0
    make = lambda generator: (
        MixedBatches(labels, batch, others, generator) if mixed else BalancedBatches(labels, batch, generator)
    )
    plan = make(torch.Generator())
    rest = f", and {others} without a label" if mixed else ""
    work.note(f"batches are balanced: {plan.classes} classes with {plan.each} pictures each{rest} (a random batch of "
              f"{batch} has {average} of a class on average)")  # fmt: skip
    if missing and not mixed:
        why = "--unlabelled ignore" if left_out else f"--batch {batch} has room for balanced classes alone"
        work.note(f"the {missing} pictures without a label are in no batch ({why})")
    return make
