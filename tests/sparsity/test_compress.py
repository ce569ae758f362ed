import math
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from precis.nn.backbones import backbone
from precis.sparsity.compress import compress, decompress, deflated, sizes
from precis.sparsity.masks import apply_masks_, magnitude_masks, prunable


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
def test_what_is_compressed_comes_back_bit_for_bit(density, dtype):
    net = backbone("small_resnet:width=3", (1, 8, 8), 3, generator=torch.Generator().manual_seed(0))
    masks = magnitude_masks(prunable(net), density=density)
    state = apply_masks_(net, masks).to(dtype).state_dict()
    back = decompress(compress(state, masks))
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name


def test_a_shared_weight_is_written_once():
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    net[2].weight = net[0].weight
    masks = magnitude_masks(prunable(net), density=0.5)
    apply_masks_(net, masks)
    packed = compress(net.state_dict(), masks)
    assert "2.weight.tied" in packed and "2.weight" not in packed
    back = decompress(packed)
    assert torch.equal(back["2.weight"], net[0].weight) and set(back) == set(net.state_dict())
    assert sizes(net.state_dict(), masks).dense == 4 * (36 + 12)


def test_sizes_are_those_of_the_formulas():
    torch.manual_seed(0)
    net = nn.Linear(64, 32)
    masks = magnitude_masks(prunable(net), density=0.125)
    state = apply_masks_(net, masks).state_dict()
    found = sizes(state, masks)
    entropy = -(0.125 * math.log2(0.125) + 0.875 * math.log2(0.875))
    assert found.dense == 4 * (2048 + 32) and found.ratio == 8
    assert found.compressed == 2048 // 8 + 4 * 256 + 16 + 4 * 32
    assert found.entropy_bound == math.ceil(2048 * entropy / 8 + 4 * 256) + 128
    packed = compress(state, masks)
    assert found.deflated == len(zlib.compress(b"".join(t.numpy().tobytes() for t in packed.values()), 9))


def test_deflate_takes_a_shared_tensor_once_and_what_repeats_for_little():
    shared = torch.randn(500)
    alone = deflated({"a": shared})
    assert deflated({"a": shared, "b": shared}) == alone and deflated({"a": shared, "b": shared.clone()}) > alone
    assert alone > 0.8 * 4 * 500 and deflated({"a": torch.zeros(500), "none": torch.zeros(0)}) < 40


def test_what_does_not_fit_is_refused():
    net = nn.Linear(8, 8)
    masks = magnitude_masks(prunable(net), density=0.5)
    with pytest.raises(ValueError, match="weight is not 0 everywhere"):
        compress(net.state_dict(), masks)
    packed = compress(apply_masks_(net, masks).state_dict(), masks)
    with pytest.raises(ValueError, match="31 values for 32 living entries"):
        decompress(packed | {"weight.values": packed["weight.values"][1:]})
    with pytest.raises(ValueError, match="holds 7 bytes for 64 entries"):
        decompress(packed | {"weight.bits": packed["weight.bits"][1:]})
