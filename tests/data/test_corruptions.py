import numpy as np
import pytest

from precis.data.corruptions import KINDS, corrupted
from precis.errors import InputError


def pictures(side=12):
    return np.random.default_rng(0).integers(60, 190, (4, 3, side, side)).astype(np.uint8)


@pytest.mark.parametrize(("kind", "none"), [("noise", 0), ("blur", 0), ("contrast", 0), ("pixelate", 1)])
def test_without_strength_nothing_changes_and_more_of_it_changes_more(kind, none):
    x = pictures()
    kept = x.copy()
    assert np.array_equal(corrupted(x, kind, none), x)
    far = [np.abs(corrupted(x, kind, none + s).astype(int) - x).mean() for s in (0.1, 0.4, 1.0)]
    assert far[0] <= far[1] < far[2] and np.array_equal(x, kept)


def test_noise_has_the_deviation_asked_for_and_is_the_seed_s():
    x = np.full((20, 1, 16, 16), 128, np.uint8)
    assert corrupted(x, "noise", 0.1).std() == pytest.approx(25.5, rel=0.05)
    assert np.array_equal(corrupted(x, "noise", 0.1, 3), corrupted(x, "noise", 0.1, 3))
    assert not np.array_equal(corrupted(x, "noise", 0.1, 3), corrupted(x, "noise", 0.1, 4))


def test_contrast_shrinks_towards_the_mean():
    x = pictures()
    grey = corrupted(x, "contrast", 1.0)
    assert all(len(np.unique(picture)) == 1 for picture in grey)
    assert np.abs(grey[:, 0, 0, 0] - x.mean((1, 2, 3))).max() <= 0.5
    half = corrupted(x, "contrast", 0.5)
    assert half.std() == pytest.approx(x.std() / 2, rel=0.1)


def test_pixelate_puts_means_of_squares():
    x = pictures()
    expected = x.reshape(4, 3, 4, 3, 4, 3).mean((3, 5)).repeat(3, 2).repeat(3, 3)
    assert np.abs(corrupted(x, "pixelate", 3) - expected).max() <= 0.5
    odd = corrupted(x, "pixelate", 2.5)  # five stretches a side
    assert len(np.unique(odd[0, 0, 0])) <= 5 and odd.shape == x.shape


def test_blur_keeps_the_mean_and_stays_within_a_picture():
    x = np.zeros((2, 1, 15, 15), np.uint8)
    x[0, 0, 7, 7] = 255
    made = corrupted(x, "blur", 1.0)
    assert made[1].max() == 0 and made[0].sum() == pytest.approx(255, abs=25)
    assert made[0, 0, 7, 7] == pytest.approx(255 / (2 * np.pi), abs=2)


@pytest.mark.parametrize(("kind", "strength"), [("noise", -1), ("contrast", 1.5), ("pixelate", 0.5), ("fog", 1)])
def test_what_there_is_not(kind, strength):
    with pytest.raises(InputError, match=kind):
        corrupted(pictures(), kind, strength)


def test_all_kinds_are_known():
    assert set(KINDS) == {"noise", "blur", "contrast", "pixelate"}
