"""What pruning jobs share: the change of accuracy, and the multiply–accumulates of a smaller graph."""

import numpy as np
import pytest
import torch

from precis.nn.backbones import backbone
from precis.nn.cost import count
from precis.papers.pruning import _graph_macs, change
from precis.sparsity.compact import compact
from precis.sparsity.masks import prunable


def test_the_change_is_paired():
    before = np.array([True] * 80 + [False] * 20)
    after = before.copy()
    after[:8] = False
    after[80:82] = True
    found = change(before, after)
    assert found.points == pytest.approx(-6) and found.low < -6 < found.high < 0.5
    assert found.p == pytest.approx(0.109375)  # binomial: 2 of 10
    same = change(before, before)
    assert same.points == same.low == same.high == 0 and same.p == 1


@pytest.mark.parametrize("spec", ["mlp:20-10", "conv:6x2"])
def test_macs_of_a_graph_are_those_of_the_modules(spec):
    net = backbone(spec, (1, 8, 8), 3, generator=torch.Generator().manual_seed(0))
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in prunable(net).items()}
    first = next(iter(masks))
    masks[first][:2] = False
    for name, m in masks.items():
        if name != first and m.shape[1] == len(masks[first]):
            m[:, :2] = False
    found = compact(net, masks, torch.rand(4, 1, 8, 8))
    smaller = backbone("mlp:18-10" if spec[0] == "m" else "conv:6x2", (1, 8, 8), 3)
    if spec[0] == "c":
        from torch import nn

        smaller.blocks[0][0], smaller.blocks[0][1] = nn.Conv2d(1, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        smaller.blocks[1][0] = nn.Conv2d(4, 12, 3, 2, 1, bias=False)
    assert _graph_macs(found.module, torch.rand(1, 1, 8, 8)) == count(smaller, torch.rand(1, 1, 8, 8)).macs
