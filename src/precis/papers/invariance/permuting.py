"""Targets permuted among base pictures: what a score would be if the pictures of a target had nothing in common."""

from math import factorial

import torch
from jaxtyping import Int64
from torch import Tensor

WAYS = 10  # permutations, at most, that are averaged
FEW = 10  # other ways to group the base pictures; with fewer the reference means little
TRIES = 50  # draws for each that is wanted


def other_targets(target: Int64[Tensor, "n"], base: Int64[Tensor, "n"], seed: int) -> tuple[int, list[Tensor]]:
    """How many groupings of the base pictures there are other than the real one, and the targets [N] of up to `WAYS`.

    The pictures of a base stay together, and every target keeps its number of bases.  Groupings that differ in the
    groups' names alone are one: a score does not know names, so that exchanging two whole targets permutes nothing.
    """
    base = base.unique(return_inverse=True)[1]
    of = torch.zeros(int(base.max()) + 1, dtype=target.dtype)
    of[base] = target
    possible, generator = ways(of.bincount().tolist()) - 1, torch.Generator().manual_seed(seed)
    seen = {_grouping(of)}
    found: list[Tensor] = []
    for _ in range(TRIES * WAYS):
        if len(found) == min(WAYS, possible):
            break
        drawn = of[torch.randperm(len(of), generator=generator)]
        if (grouping := _grouping(drawn)) not in seen:
            seen.add(grouping)
            found.append(drawn[base])
    return possible, found


def ways(sizes: list[int]) -> int:
    """In how many ways things are put into groups of these sizes, where groups of one size have no names."""
    sizes = [size for size in sizes if size]
    count = factorial(sum(sizes))
    for size in sizes:
        count //= factorial(size)
    for size in set(sizes):
        count //= factorial(sizes.count(size))
    return count


def _grouping(of: Tensor) -> tuple[int, ...]:
    """The groups in the order of their first members."""
    names: dict[int, int] = {}
    return tuple(names.setdefault(t, len(names)) for t in of.tolist())
