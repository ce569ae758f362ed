"""Pictures cut into tiles, and put together again."""

import numpy as np
import pytest
import torch

from precis.errors import InputError
from precis.papers.tiles import Window, blend, cut, windows


def test_windows_cover_the_picture_and_overlap():
    for size, tile, overlap in (((100, 260), 64, 16), ((64, 64), 64, 16), ((65, 300), 64, 32)):
        found = windows(size, tile, overlap)
        count = np.zeros(size, int)
        for w in found:
            assert w.bottom - w.top == min(tile, size[0]) and w.right - w.left == min(tile, size[1])
            count[w.top : w.bottom, w.left : w.right] += 1
        assert count.min() >= 1
        lefts = sorted({w.left for w in found})
        assert all(b - a <= tile - overlap for a, b in zip(lefts, lefts[1:]))


def test_tiles_of_one_picture_are_that_picture_again():
    picture = torch.rand(1, 3, 60, 44, generator=torch.Generator().manual_seed(0))
    where = windows((30, 22), 16, 4)
    parts = [w.of(picture, 2) for w in where]
    torch.testing.assert_close(blend(parts, where, (30, 22), 2), picture)
    pair = [torch.zeros(1, 1, 4, 6), torch.ones(1, 1, 4, 6)]
    row = blend(pair, [Window(0, 0, 4, 6), Window(0, 4, 4, 10)], (4, 10), 1)[0, 0, 0]
    assert row[:4].eq(0).all() and row[6:].eq(1).all() and 0 < row[4] < row[5] < 1


def test_tiles_are_measured_in_the_result():
    assert [w.size for w in cut((40, 100), 128, 256, 4)] == [(32, 32)] * 8
    assert cut((40, 100), None, 400, 4) == cut((40, 100), 0, 64, 4) == [Window(0, 0, 40, 100)]


def test_every_tile_sees_known_pixels():
    known = torch.ones(1, 1, 300, 300)
    known[..., 40:260, 40:260] = 0
    found = cut((300, 300), None, 128, known=known)
    assert all(window.of(known).mean() > 0.02 for window in found) and len(found) > 1
    assert found[0].size[0] > 128 and cut((300, 300), None, 128) == windows((300, 300), 128, 32)
    with pytest.raises(InputError, match="--tile 0 fits it whole"):
        cut((300, 300), 128, 128, known=known)
    needed = next(n for n in range(128, 300) if all(w.of(known).any() for w in windows((300, 300), n, 32)))
    assert cut((300, 300), needed, 128, known=known) == windows((300, 300), needed, 32)
    known[..., 1:299, 1:299] = 0
    with pytest.raises(InputError, match="larger than the squares of 128 pixels"):
        cut((300, 300), None, 64, known=known)


def test_few_known_pixels_everywhere_need_no_larger_tiles():
    known = (torch.rand(1, 1, 300, 300, generator=torch.Generator().manual_seed(0)) < 0.01).float()
    assert cut((300, 300), None, 128, known=known) == windows((300, 300), 128, 32)
