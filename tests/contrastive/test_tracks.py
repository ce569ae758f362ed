import numpy as np
import pytest
import torch
import torch.nn.functional as F

from precis.contrastive.tracks import Track, auto_tracks, crop_boxes, region_pairs, shot_lengths


def film(t=9, size=40, side=10, step=2):
    """A textured square that goes right over a smooth ground, and its boxes."""
    rng = np.random.default_rng(0)
    patch = torch.from_numpy(rng.integers(120, 256, (3, side, side)).astype(np.uint8))
    frames = torch.full((t, 3, size, size), 40, dtype=torch.uint8)
    boxes = []
    for i in range(t):
        x = 4 + step * i
        frames[i, :, 12 : 12 + side, x : x + side] = patch
        boxes.append([x, 12, x + side, 12 + side])
    return frames, torch.tensor(boxes, dtype=torch.float32)


def test_a_moving_square_is_found_and_followed():
    frames, truth = film()
    tracks = auto_tracks(frames, per_frame=1, every=20)
    assert len(tracks) == 1 and tracks[0].frames.tolist() == list(range(9)) and tracks[0].peak > 0.9
    assert (tracks[0].boxes - truth).abs().max() <= 2
    assert auto_tracks(frames, per_frame=1, every=20, length=4)[0].frames.tolist() == [0, 1, 2, 3]
    assert auto_tracks(frames[:1]) == [] and auto_tracks(torch.full((3, 3, 20, 20), 9, dtype=torch.uint8)) == []


def test_a_region_that_goes_is_not_followed():
    frames, _ = film()
    rng = np.random.default_rng(1)
    frames[4:] = torch.from_numpy(rng.integers(0, 255, (5, 3, 40, 40)).astype(np.uint8))
    track = auto_tracks(frames, per_frame=1, every=20, min_peak=0.6)[0]
    assert track.frames.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="out of range"):
        auto_tracks(frames, min_peak=2)


def test_pairs_of_regions_are_squares_around_the_same_track():
    long = Track(torch.tensor([3, 4, 5, 9]), torch.arange(16.0).view(4, 4))
    tracks = [long, Track(torch.tensor([0]), torch.ones(1, 4))]
    found = region_pairs(tracks, 2, context=0.0)
    assert found.frames.tolist() == [[3, 5]] and found.track.tolist() == [0]
    wide = region_pairs([Track(torch.tensor([0, 1]), torch.tensor([[0.0, 0, 10, 4]] * 2))], 1, context=0.1)
    assert wide.boxes[0, 0].tolist() == [-1, -4, 11, 8]
    assert region_pairs(tracks, 50).boxes.shape == (0, 2, 4)
    with pytest.raises(ValueError, match="negative"):
        region_pairs(tracks, -1)


def test_crops_are_those_of_interpolate_and_go_on_at_the_edge():
    frames = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = crop_boxes(frames, torch.tensor([1, 0]), torch.tensor([[4.0, 2, 16, 14], [-4, -4, 4, 4]]), 6)
    wanted = F.interpolate(frames[1:2, :, 2:14, 4:16].float(), (6, 6), mode="bilinear", antialias=True)
    assert (out[0].float() - wanted[0]).abs().max() <= 0.5 + 1e-4
    padded = F.pad(frames[:1].float(), (4, 4, 4, 4), mode="replicate")[:, :, :8, :8]
    wanted = F.interpolate(padded, (6, 6), mode="bilinear", antialias=True)
    assert (out[1].float() - wanted[0]).abs().max() <= 0.5 + 1e-4


def test_cuts_part_a_film_and_slow_changes_do_not():
    slow = torch.linspace(0.2, 0.3, 6).view(6, 1, 1, 1).expand(6, 3, 8, 8)
    other = torch.full((4, 3, 8, 8), 0.9)
    assert shot_lengths(torch.cat([slow, other, slow])) == [6, 4, 6]
    assert shot_lengths(slow) == [6] and shot_lengths((255 * slow[:1]).to(torch.uint8)) == [1]
