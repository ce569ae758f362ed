"""Permuted targets are never the real ones, not by other names either."""

from itertools import permutations

import pytest
import torch

from precis.papers.invariance.permuting import WAYS, other_targets, ways


def sets(sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures of every base."""
    of = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return of.repeat_interleave(2), torch.arange(len(of)).repeat_interleave(2)


def groups(target: torch.Tensor, base: torch.Tensor) -> frozenset:
    return frozenset(frozenset(base[target == t].tolist()) for t in target.unique())


@pytest.mark.parametrize("sizes", [[1, 1], [2, 1], [2, 2], [1, 1, 1], [3, 2], [3, 3]])
@pytest.mark.parametrize("seed", range(5))
def test_they_are_counted_and_differ_from_the_real_ones_and_from_each_other(sizes, seed):
    target, base = sets(sizes)
    of = target[::2].tolist()
    each = {groups(torch.tensor(p).repeat_interleave(2), base) for p in permutations(of)}
    possible, found = other_targets(target, base, seed)
    assert possible == len(each) - 1 == ways(sizes) - 1 and len(found) == min(possible, WAYS)
    drawn = {groups(t, base) for t in found}
    assert groups(target, base) not in drawn and len(drawn) == len(found) and drawn <= each
    assert all((t[::2] == t[1::2]).all() and t.bincount().tolist() == target.bincount().tolist() for t in found)


def test_large_sets_take_some_ways_that_follow_from_the_seed():
    target, base = sets([20] * 8)
    possible, found = other_targets(target, base, 1)
    assert possible > 1e6 and len(found) == WAYS
    assert all(torch.equal(a, b) for a, b in zip(found, other_targets(target, base, 1)[1]))
    assert not torch.equal(found[0], other_targets(target, base, 2)[1][0])
