"""Regions of clips: boxes from a CSV or a MOT file, or segments that are found and followed."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from precis.contrastive.tracks import Track, auto_tracks, region_pairs
from precis.data.tables import read_table
from precis.errors import InputError

from .clips import Clip

COLUMNS = ("frame", "track", "x0", "y0", "x1", "y1")
SEEN_AT = 96  # pixels of the shorter side at which segments are looked for

Boxes = Literal["auto"] | dict[str, list[Track]]


def read_boxes(given: str, clips: list[Clip]) -> Boxes:
    """{clip's name: tracks}, or "auto"."""
    if given == "auto":
        return "auto"
    path = Path(given).expanduser()
    if not path.is_file():
        raise InputError("--boxes is auto, a CSV, or a MOT file, and there is no such file", file=path)
    rows = _mot(path, clips) if path.suffix.lower() == ".txt" else _csv(path, clips)
    found: dict[str, list[Track]] = {}
    for (clip, _), some in sorted(rows.items()):
        some.sort(key=lambda r: r[0])
        frames, boxes = torch.tensor([int(r[0]) for r in some]), torch.tensor([r[1] for r in some], dtype=torch.float32)
        found.setdefault(clip, []).append(Track(frames, boxes))
    return found


def regions_of(clip: Clip, inside: range, boxes: Boxes, gap: int) -> list[Track]:
    """Tracks within frames `inside` that are seen without a break for more than `gap` frames, as squares to crop."""
    if boxes == "auto":
        small = clip.frames[inside.start : inside.stop].float() / 255
        factor = min(1.0, SEEN_AT / min(small.shape[2:]))
        if factor < 1:
            small = F.interpolate(small, scale_factor=factor, mode="area")
        ratio = torch.tensor([clip.frames.shape[3] / small.shape[3], clip.frames.shape[2] / small.shape[2]] * 2)
        tracks = [Track(t.frames + inside.start, t.boxes * ratio, t.peak) for t in auto_tracks(small)]
    else:
        tracks = boxes.get(clip.name, [])
    runs = []
    for track in tracks:
        kept = (track.frames >= inside.start) & (track.frames < inside.stop)
        frames, places = track.frames[kept], track.boxes[kept]
        breaks = np.flatnonzero(np.diff(frames.numpy()) != 1) + 1
        for part in np.split(np.arange(len(frames)), breaks):
            if len(part) > gap:
                whole = region_pairs([Track(frames[part], places[part])], 0)  # each frame with itself: its square
                runs.append(Track(frames[part], _within(whole.boxes[:, 0], clip.frames.shape[3], clip.frames.shape[2])))
    return runs


def _within(squares: Tensor, width: int, height: int) -> Tensor:
    """Squares moved into the frame, and made smaller where they are larger than it."""
    side = (squares[:, 2:] - squares[:, :2]).clamp(max=min(width, height))
    centre = (squares[:, 2:] + squares[:, :2]) / 2
    room = torch.tensor([width, height]) - side
    corner = torch.minimum((centre - side / 2).clamp(min=0), room)
    return torch.cat([corner, corner + side], 1)


def _csv(path: Path, clips: list[Clip]) -> dict[tuple[str, str], list[tuple[float, list[float]]]]:
    table = read_table(path)
    if missing := [c for c in COLUMNS if c not in table.columns]:
        words = f"columns {', '.join(COLUMNS)} (and clip) are wanted; {', '.join(missing)} is missing"
        raise InputError(words, file=path)
    names = {clip.name: len(clip.frames) for clip in clips}
    if "clip" not in table.columns and len(clips) > 1:
        raise InputError(f"a column clip is wanted: there are {len(clips)} clips", file=path)
    of = table.columns["clip"].astype(np.str_) if "clip" in table.columns else np.full(len(table), clips[0].name)
    numbers = table.numbers(["frame", "x0", "y0", "x1", "y1"])
    rows: dict[tuple[str, str], list[tuple[float, list[float]]]] = {}
    for row, (clip, track, (frame, x0, y0, x1, y1)) in enumerate(zip(of, table.columns["track"], numbers.tolist()), 1):
        if clip not in names:
            raise InputError(f"there is no clip '{clip}'", file=path, row=row)
        if not 0 <= frame < names[clip] or frame % 1:
            raise InputError(f"frame {frame:g}: {clip} has frames 0 to {names[clip] - 1}", file=path, row=row)
        if not (x0 < x1 and y0 < y1):
            raise InputError("a box has x0 < x1 and y0 < y1", file=path, row=row)
        rows.setdefault((str(clip), str(track)), []).append((frame, [x0, y0, x1, y1]))
    return rows


def _mot(path: Path, clips: list[Clip]) -> dict[tuple[str, str], list[tuple[float, list[float]]]]:
    """Lines frame (from 1), id, left, top, width, height, …, as in the MOT challenge."""
    if len(clips) > 1:
        words = f"a MOT file is for one clip, and there are {len(clips)}: give a CSV with a column clip"
        raise InputError(words, file=path)
    rows: dict[tuple[str, str], list[tuple[float, list[float]]]] = {}
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            frame, track, left, top, width, height = (float(v) for v in text.split(",")[:6])
        except ValueError:
            raise InputError("frame, id, left, top, width, height are wanted", file=path, line=line) from None
        if not 1 <= frame <= len(clips[0].frames) or width <= 0 or height <= 0:
            raise InputError(f"frames go from 1 to {len(clips[0].frames)}, and boxes have a size", file=path, line=line)
        box = [left, top, left + width, top + height]
        rows.setdefault((clips[0].name, f"{track:g}"), []).append((frame - 1, box))
    return rows
