import numpy as np
import pytest
import torch

from precis.errors import InputError
from precis.papers import pools
from precis.papers.pools import Pool, at, draw, read_pool


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_both_parts_are_drawn_where_the_pool_has_no_test_part():
    pool = Pool(torch.arange(20.0).view(20, 1, 1, 1), torch.arange(20), 20, 0)
    train, test = draw(pool, 12, 8, 5, seeded())
    order = torch.randperm(20, generator=seeded())
    assert torch.equal(train, order[:8]) and torch.equal(test, order[12:17])
    train, test = draw(pool, 12, None, None, seeded())
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(20)) and len(train) == 12
    found = at(pool, train, test)
    assert torch.equal(found.y, train) and torch.equal(found.test_x.flatten(), test.float())


def test_a_test_part_of_its_own_is_left_as_it_is():
    pool = Pool(torch.zeros(20, 1, 1, 1), torch.arange(20), 20, 15)
    train, test = draw(pool, 3, 6, 4, seeded())
    assert torch.equal(train, torch.randperm(15, generator=seeded())[:6]) and test.tolist() == [15, 16, 17, 18]
    assert len(draw(pool, 3, None, None, seeded())[0]) == 15 and len(draw(pool, 3, None, None, seeded())[1]) == 5


def test_digits_and_standard_sets(monkeypatch):
    for size in (8, 16):
        pool = read_pool("digits", size, None)
        assert pool.images.shape == (1797, 1, size, size) and pool.images.max() == 1 and pool.images.min() == 0
    images = np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2)
    part = type("Part", (), {"images": images, "labels": np.array([0, 1, 1]), "classes": ("a", "b")})
    monkeypatch.setattr(pools, "load", lambda name, part_name, download: part)
    pool, whole = read_pool("mnist", 2, None), read_pool("mnist", 2, None, whole_bytes=True)
    assert pool.border == 3 and len(pool.images) == 6 and pool.classes == 2
    assert whole.images.dtype == torch.uint8 and torch.equal(pool.images, whole.images.float() / 255)


def test_pictures_of_one_s_own(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (120, 1, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(120) % 3)
    pool = read_pool("digits", 8, tmp_path / "own.npz")
    assert torch.equal(pool.images, torch.from_numpy(images).float() / 255) and (pool.classes, pool.border) == (3, 0)
    with pytest.raises(InputError, match="at least 200 labelled pictures are wanted, got 120"):
        read_pool("digits", 8, tmp_path / "own.npz", fewest=200)
    np.savez(tmp_path / "one.npz", images=images, labels=np.zeros(120, int))
    with pytest.raises(InputError, match="at least two classes"):
        read_pool("digits", 8, tmp_path / "one.npz")
