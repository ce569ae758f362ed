"""Cuts in made films: hard ones between dim and bright shots, and what is none."""

import numpy as np
import pytest
import torch
from tests.papers.runs import Heard

from precis.contrastive.tracks import shot_lengths
from precis.papers.invariance.clips import Clip, gap_of, too_short
from precis.papers.invariance.cutting import pieces
from precis.papers.opening import make_job

SIDE = 32


def shot(frames: int, ground: tuple[int, int, int], speed: float = 1.0, seed: int = 0, noise: float = 3) -> np.ndarray:
    """A square that moves over a ground of one colour, with noise: uint8 [T,3,32,32]."""
    rng = np.random.default_rng(seed)
    out = np.empty((frames, 3, SIDE, SIDE))
    out[:] = np.array(ground, float)[:, None, None]
    for t in range(frames):
        x = int(4 + speed * t) % (SIDE - 10)
        out[t, :, 10:20, x : x + 10] = np.array([200, 60, 60])[:, None, None]
    return (out + rng.normal(0, noise, out.shape)).clip(0, 255).astype(np.uint8)


def split(film: np.ndarray, cuts: float | None = None) -> list[int]:
    return pieces(torch.from_numpy(film), cuts)


def test_hard_cuts_are_found_between_like_and_unlike_shots():
    grounds = [(90, 90, 90), (120, 90, 90), (120, 120, 60), (20, 20, 20), (60, 60, 60), (60, 100, 200), (250, 250, 250)]
    film = np.concatenate([shot(12 + i, ground, seed=i) for i, ground in enumerate(grounds)])
    wanted = [12 + i for i in range(7)]
    assert split(film) == wanted
    assert len(shot_lengths(torch.from_numpy(film), 0.5)) < 7  # the limit of before missed some


def test_what_moves_fast_flashes_fades_or_stands_still_is_not_cut():
    rng = np.random.default_rng(1)
    share = 0.5 + 0.4 * np.sin(0.9 * np.arange(40))  # a bright thing that fills most of the frame, and leaves it
    fast = shot(40, (60, 60, 60))
    for t, s in enumerate(share):
        fast[t, :, :, : int(s * SIDE)] = 170
    assert split(fast) == [40]
    flash = shot(30, (60, 60, 60))
    for lasts in (1, 2, 3):
        lit = flash.copy()
        lit[12 : 12 + lasts] = 250
        assert split(lit) == [30], lasts
    white = np.full((1, 3, SIDE, SIDE), 250, np.uint8)
    other = np.concatenate([shot(15, (60, 60, 60)), white, shot(15, (30, 90, 180))])
    assert sorted(split(other), reverse=True)[:2] in ([15, 15], [16, 15])  # a flash over a cut does not hide the cut
    still = np.repeat(shot(1, (80, 80, 80)), 25, 0)
    assert split(still) == [25]
    assert split((still + rng.integers(0, 3, still.shape)).astype(np.uint8)) == [25]
    w = np.linspace(0, 1, 24)[:, None, None, None]
    fade = (shot(24, (40, 40, 40)) * (1 - w) + shot(24, (200, 200, 200)) * w).astype(np.uint8)
    film = np.concatenate([shot(20, (40, 40, 40)), fade, shot(20, (200, 200, 200))])
    assert split(film) == [64]


def test_a_number_is_absolute_and_few_frames_are_compared_with_nothing():
    film = np.concatenate([shot(10, (60, 60, 60)), shot(10, (90, 90, 90))])
    assert split(film, 1.0) == [20] and split(film, 0.05) == shot_lengths(torch.from_numpy(film), 0.05)
    assert split(film[9:11]) == [2] and split(film[:1]) == [1]
    dark = np.concatenate([shot(1, (0, 0, 0)), shot(1, (255, 255, 255))])
    assert split(dark) == [1, 1]


@pytest.mark.parametrize(("lengths", "gap", "words"), [
    ([[90]], 30, "a third of the median clip"),
    ([[30, 30, 1, 30], [36]], 10, "a third of the median uncut piece"),  # a lone frame holds no pair
    ([[1, 1]], 1, "uncut piece"),
])  # fmt: skip
def test_the_gap_is_of_uncut_pieces(lengths, gap, words):
    from precis.papers.catalogue import find

    work, clip = Heard(), Clip("a", torch.zeros(1, 3, 2, 2, dtype=torch.uint8), ("0",), None)
    assert gap_of(make_job(find()["invariance"], None), [clip] * len(lengths), lengths, work) == gap
    assert words in work.notes[0]


def test_words_say_what_is_too_short():
    assert too_short([12], 20) == "shorter than 21 frames"
    words = too_short([75] * 8, 200)
    assert "8 uncut pieces of at most 75 frames" in words and "201" in words and "--gap" in words and "--cuts" in words
