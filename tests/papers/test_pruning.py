"""What pruning jobs share: the change of accuracy, and the multiply–accumulates of a smaller graph."""

import zlib

import numpy as np
import pytest
import torch
from tests.papers.runs import Heard

from precis.lab.timing import Timing
from precis.nn.backbones import backbone
from precis.nn.cost import count
from precis.papers.labelled import Labelled, Part
from precis.papers.pruning import Net, _compared, _graph_macs, change, export
from precis.sparsity.compact import compact
from precis.sparsity.masks import apply_masks_, magnitude_masks, prunable


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


@pytest.mark.parametrize(("dense", "other", "words"), [
    ([2.0, 2.1, 1.9, 2.0], [1.0, 1.0, 1.05, 0.95], "2.00 times faster than dense"),
    ([1.0, 1.0, 1.05, 0.95], [2.0, 2.1, 1.9, 2.0], "2.00 times slower than dense"),
    # every other round of it was disturbed: in turns 2.3 times slower, by the medians a tenth
    ([1.0, 1.0, 1.0, 1.0, 1.0], [1.1, 5.0, 1.1, 5.0, 1.1], "not told apart from dense"),
    # both say slower, though not by how much
    ([1.0, 1.0, 1.0, 2.5, 3.0], [9.0, 9.1, 9.0, 9.2, 9.0], "6.1 to 9 times slower than dense"),
    ([9.0, 9.1, 9.0, 9.2, 9.0], [1.0, 1.0, 1.0, 2.5, 3.0], "6.1 to 9 times faster than dense"),
    ([1.0, 2.0, 0.5, 1.0], [0.9, 0.7, 1.3, 0.9], "not told apart from dense"),
    ([1.001, 1.001, 1.002, 1.002], [1.0, 1.0, 1.001, 1.001], "not told apart from dense"),
])  # fmt: skip
def test_the_ratio_in_words_is_that_of_the_medians(dense, other, words):
    medians = {"dense": float(np.median(dense)), "pruned": float(np.median(other))}
    timed = Timing(medians, 1.0, (1.0, 1.0), {"dense": tuple(dense), "pruned": tuple(other)})
    assert _compared(timed, "pruned") == words


class Kept(Heard):
    def table(self, name, rows):
        self.kept = {name: rows}


def test_bytes_are_compared_like_with_like_and_every_layer_has_a_row(tmp_path):
    dense = backbone("mlp:20-10", (1, 8, 8), 3, generator=torch.Generator().manual_seed(0)).eval()
    pruned = backbone("mlp:20-10", (1, 8, 8), 3)
    pruned.load_state_dict(dense.state_dict())
    masks = magnitude_masks(prunable(pruned), density=0.3)
    apply_masks_(pruned, masks)
    part = Part(torch.randint(0, 256, (120, 1, 8, 8), dtype=torch.uint8), torch.arange(120) % 3)
    work, data = Kept(tmp_path), Labelled(part, part, part, ("a", "b", "c"))
    found = export(work, Net(pruned, None, False), dense, pruned.eval(), masks, data)
    raw = b"".join(t.numpy().tobytes() for t in dense.state_dict().values())
    assert found["bytes_dense_deflated"] == len(zlib.compress(raw, 9)) < found["bytes_dense"] == len(raw)
    plain = found["bytes_dense"] / found["bytes_compressed"]
    small = found["bytes_dense_deflated"] / found["bytes_deflated"]
    words = next(note for note in work.notes if "the compression" in note)
    assert f"{plain:.3g} times fewer bytes than the dense one" in words
    assert f"{small:.3g} times fewer where both are deflated" in words
    assert "Deflate may come below it" in " ".join(work.notes)
    layers = {row["layer"]: row for row in work.kept["layers"]}
    assert set(layers) == set(masks) and layers["layers.0.weight"]["shape"] == (20, 64)
    assert all(row["surviving"] == int(masks[name].sum()) for name, row in layers.items())
    assert all(row["density"] == row["surviving"] / row["weights"] for row in layers.values())
