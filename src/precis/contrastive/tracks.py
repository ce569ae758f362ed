"""Regions that are followed through a clip: given boxes, or segments found again by correlation; and cuts of a film.

A region of frame i is followed to frame i + gap, and the two crops are a positive pair.  Purushwalkam and Gupta,
NeurIPS 2020, §5 (arXiv 2007.13916), whose boxes come from another method; ours from segments (Felzenszwalb and
Huttenlocher, IJCV 2004) and normalised cross-correlation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

Number = int | float
BINS = 8  # a colour channel, in the histograms that tell cuts
SMALLEST, LARGEST = 0.02, 0.6  # shares of the frame that a segment's box may have
SEARCH = 0.5  # how far, in sides of the box, a region may move between two frames


class Track(NamedTuple):
    """One region through frames [T] (indices), boxes [T,4] = x0, y0, x1, y1 in pixels, and its least correlation."""

    frames: Int64[Tensor, "t"]
    boxes: Float[Tensor, "t 4"]
    peak: float = 1.0


class RegionPairs(NamedTuple):
    """The frames [P,2] and crop boxes [P,2,4] of pairs, and the track [P] that each comes from."""

    frames: Int64[Tensor, "p 2"]
    boxes: Float[Tensor, "p 2 4"]
    track: Int64[Tensor, "p"]


def region_pairs(tracks: Sequence[Track], gap: int, context: Number = 0.1) -> RegionPairs:
    """Boxes of the same region `gap` frames apart, as squares with `context` of the longer side around it."""
    if gap < 0 or context < 0:
        raise ValueError(f"gap and context must not be negative, got {gap} and {context}")
    frames, boxes, owner = [], [], []
    for number, track in enumerate(tracks):
        place = {int(frame): i for i, frame in enumerate(track.frames)}
        found = [(i, place[frame + gap]) for frame, i in place.items() if frame + gap in place]
        if found:
            index = torch.tensor(found)
            frames.append(track.frames[index])
            boxes.append(_squared(track.boxes[index].float(), float(context)))
            owner += [number] * len(found)
    if not frames:
        return RegionPairs(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2, 4), torch.zeros(0, dtype=torch.long))
    return RegionPairs(torch.cat(frames), torch.cat(boxes), torch.tensor(owner))


def crop_boxes(
    frames: UInt8[Tensor, "t c h w"], index: Int64[Tensor, "p"], boxes: Float[Tensor, "p 4"], size: int
) -> UInt8[Tensor, "p c {size} {size}"]:
    """The boxes of frames[index], resized to size × size (antialiased); beyond the frame its edge goes on."""
    height, width = frames.shape[2:]
    out = torch.empty(len(index), frames.shape[1], size, size, dtype=torch.uint8)
    for row, (i, box) in enumerate(zip(index.tolist(), boxes.tolist(), strict=True)):
        x0, y0, x1, y1 = (round(v) for v in box)
        columns = torch.arange(x0, max(x1, x0 + 1)).clamp(0, width - 1)
        rows = torch.arange(y0, max(y1, y0 + 1)).clamp(0, height - 1)
        part = frames[i][:, rows][:, :, columns][None].float()
        sized = F.interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False)
        out[row] = sized[0].round().clamp(0, 255).to(torch.uint8)
    return out


def shot_lengths(frames: Shaped[Tensor, "t c h w"], threshold: Number = 0.5) -> list[int]:
    """Lengths of the pieces of a clip between cuts: neighbouring frames of which more than `threshold` of the pixels
    would have to change their colour bin (half the sum of absolute differences of their histograms, channels' mean).
    A value between the middles of two bins is shared by them, so that a slow change is small."""
    x = frames.flatten(2).float() / (255 if frames.dtype == torch.uint8 else 1) * (BINS - 1)
    counts = torch.stack([(1 - (x - i).abs()).clamp(min=0).mean(2) for i in range(BINS)], 2)  # [T,C,BINS]
    change = (counts[1:] - counts[:-1]).abs().sum(2).mean(1) / 2
    ends = [*(torch.nonzero(change > threshold)[:, 0] + 1).tolist(), len(frames)]
    return [end - start for start, end in zip([0, *ends], ends) if end > start]


def auto_tracks(
    frames: Shaped[Tensor, "t c h w"], per_frame: int = 4, min_peak: Number = 0.5, *, every: int = 10,
    length: int | None = None,
) -> list[Track]:  # fmt: skip
    """Regions found without being told: in every `every`-th frame the `per_frame` largest segments, each followed.

    A segment's box (2 to 60 % of the frame) is looked for in the next frame within half its side, with the region of
    the frame before as the template; a track ends where the correlation falls below `min_peak`, at the clip's end or
    after `length` frames.  Tracks of one frame are dropped.
    """
    from skimage.segmentation import felzenszwalb

    if per_frame < 1 or every < 1 or not -1 <= min_peak <= 1:
        raise ValueError(f"per_frame {per_frame}, every {every}, min_peak {min_peak}: out of range")
    x = frames.float().numpy() / (255 if frames.dtype == torch.uint8 else 1)
    grey = x.mean(1)
    area, tracks = grey[0].size, []
    for start in range(0, len(x) - 1, every):
        picture = np.moveaxis(x[start], 0, -1)
        least = max(4, int(SMALLEST * area / 2))
        segments = felzenszwalb(picture, scale=100, sigma=0.8, min_size=least, channel_axis=-1)
        stop = len(x) if length is None else min(len(x), start + length)
        for box in _segment_boxes(segments)[:per_frame]:
            track = _follow(grey, start, stop, box, float(min_peak))
            if len(track.frames) > 1:
                tracks.append(track)
    return tracks


def _segment_boxes(segments: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes of segments of a fit size, those of the largest segments first."""
    found = []
    for s in np.unique(segments):
        rows, columns = np.nonzero(segments == s)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        share = (box[2] - box[0]) * (box[3] - box[1]) / segments.size
        if SMALLEST <= share <= LARGEST and min(box[2] - box[0], box[3] - box[1]) >= 3:
            found.append((len(rows), box))
    return [box for _, box in sorted(found, reverse=True)]


def _follow(grey: np.ndarray, start: int, stop: int, box: tuple[int, int, int, int], least: float) -> Track:
    from skimage.feature import match_template

    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    reach = max(2, round(SEARCH * max(width, height)))
    boxes, worst = [box], 1.0
    for i in range(start + 1, stop):
        template = grey[i - 1, y0 : y0 + height, x0 : x0 + width]
        left, top = max(0, x0 - reach), max(0, y0 - reach)
        window = grey[i, top : y0 + height + reach, left : x0 + width + reach]
        if np.ptp(template) < 1e-6:
            break
        fit = match_template(window, template)
        row, column = np.unravel_index(int(fit.argmax()), fit.shape)
        if fit[row, column] < least:
            break
        worst = min(worst, float(fit[row, column]))
        x0, y0 = left + int(column), top + int(row)
        boxes.append((x0, y0, x0 + width, y0 + height))
    return Track(torch.arange(start, start + len(boxes)), torch.tensor(boxes, dtype=torch.float32), worst)


def _squared(boxes: Tensor, context: float) -> Tensor:
    """Squares around boxes [...,4], as wide as the longer side and `context` of it on every side."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = (boxes[..., 2:] - boxes[..., :2]).amax(-1, keepdim=True) * (0.5 + context)
    return torch.cat([centre - half, centre + half], -1)
