"""The pictures of the contrastive claims: what is held out, mixed, cut, and refused."""

import numpy as np
import pytest
import torch

from precis.errors import InputError
from precis.papers.contrastive_sets import Setting, characters, load_pool, mixed, pool_of

SMALL = Setting(train=120, test=60, batch=32, steps=2, encoder="conv:4x2")
POOL = load_pool(SMALL, None)


def test_seeds_see_the_same_pictures_and_tuning_no_test_picture():
    pool = pool_of(POOL, 10_000, "cpu")
    assert len(pool.images) == 96 and torch.equal(pool.test_images, POOL.images[96:])
    assert torch.equal(pool_of(POOL, 0, "cpu").test_images, POOL.test_images)


def test_glyphs_are_held_out_by_typeface_and_mixed():
    pool = load_pool(Setting("glyphs", 16, train=72, test=36), None)
    assert len(pool.images) == 72 and len(pool.test_images) == 36 and len(pool.labels.unique()) == 36
    assert not torch.equal(pool.labels, pool.labels.sort().values)


def test_pictures_of_one_s_own(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", images=rng.integers(0, 256, (100, 8, 8)).astype(np.uint8), labels=np.arange(100) % 4)
    pool = load_pool(SMALL, tmp_path / "own.npz")
    assert len(pool.images) == 80 and len(pool.test_images) == 20
    with pytest.raises(InputError, match="64 training pictures or more"):
        np.savez(tmp_path / "few.npz", images=np.zeros((40, 8, 8), np.uint8), labels=np.arange(40) % 4)
        load_pool(SMALL, tmp_path / "few.npz")


def test_characters_are_as_many_of_each_class_in_typefaces_of_their_own():
    pool = characters("upper", 5, Setting(size=8, train=22, test=11), 16)
    assert pool.images.shape == (20, 1, 16, 16) and pool.labels.bincount().tolist() == [4] * 5 and pool.classes == 5
    assert pool.test_labels.bincount().tolist() == [2] * 5 and not torch.equal(pool.labels, pool.labels.sort().values)
    known = {x.numpy().tobytes() for x in pool.images}
    assert not known & {x.numpy().tobytes() for x in pool.test_images}


def test_mixing_keeps_pictures_with_their_labels():
    y = np.arange(30) % 7
    x, label = mixed(y[:, None] * np.ones((1, 4), np.uint8), y, 0)
    assert torch.equal(x[:, 0], label) and label.bincount().tolist() == np.bincount(y).tolist()
    assert not np.array_equal(label.numpy(), y)
