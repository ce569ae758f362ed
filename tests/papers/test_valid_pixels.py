"""Scores over the pixels that count, against plain loops; depth pictures with their scale."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.papers.runs import Heard

from precis.nn.image import psnr, ssim
from precis.papers.depth_maps import DepthMaps
from precis.papers.valid_pixels import psnr_of, ssim_of


def pair(seed=0, h=17, w=15):
    rng = np.random.default_rng(seed)
    a = rng.random((h, w, 3))
    return a, np.clip(a + 0.1 * rng.standard_normal(a.shape), 0, 1)


def test_without_a_mask_they_are_the_plain_scores():
    a, b = pair()
    x, y = (torch.from_numpy(np.moveaxis(z, -1, 0)).float()[None] for z in (a, b))
    for valid in (None, np.ones((17, 15), bool)):
        assert psnr_of(a, b, valid) == pytest.approx(float(psnr(x, y)), abs=1e-4)
        assert ssim_of(a, b, valid) == pytest.approx(float(ssim(x, y)), abs=1e-6)
    assert ssim_of(a[:9], b[:9]) is None


def test_what_is_masked_out_does_not_count():
    a, b = pair(1)
    valid = np.ones((17, 15), bool)
    valid[14:, 12:] = False
    expected = -10 * np.log10(((a - b) ** 2)[valid].mean())
    windows = []
    for r in range(7):
        for c in range(5):
            if valid[r : r + 11, c : c + 11].all():
                parts = (np.moveaxis(z[r : r + 11, c : c + 11], -1, 0)[None] for z in (a, b))
                windows.append(float(ssim(*(torch.from_numpy(z).float() for z in parts))))
    assert 0 < len(windows) < 35
    wrong = b.copy()
    wrong[14:, 12:] = 1 - wrong[14:, 12:]
    for other in (b, wrong):
        assert psnr_of(a, other, valid) == pytest.approx(expected, abs=1e-6)
        assert ssim_of(a, other, valid) == pytest.approx(np.mean(windows), abs=1e-5)
    assert psnr_of(a, wrong) < expected - 1


def test_nothing_that_counts_has_no_score():
    a, b = pair(2)
    assert psnr_of(a, b, np.zeros((17, 15), bool)) is None
    stripes = np.ones((17, 15), bool)
    stripes[::5] = False  # no whole window
    assert psnr_of(a, b, stripes) is not None and ssim_of(a, b, stripes) is None


def test_all_depth_pictures_have_one_scale_and_say_it(tmp_path):
    work = Heard(tmp_path)
    maps = DepthMaps(work)
    near, far = np.array([[0.5, 1.0], [2.0, 3.0]], np.float32), np.full((2, 2), 8.0, np.float32)
    maps.add("depth/a", near)
    maps.add("renders/b", far)
    step = maps.finish()
    assert step == pytest.approx(8 / 65535)
    for name, depth in (("depth/a", near), ("renders/b", far)):
        with Image.open(tmp_path / f"{name}_depth.png") as picture:
            assert float(picture.text["units_per_step"]) == step
            values = np.asarray(picture).astype(np.float64)
        np.testing.assert_allclose(values * step, depth, atol=step / 2 + 1e-9)
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), depth)
    assert "0.00012207" in work.notes[0] and json.dumps(step)
