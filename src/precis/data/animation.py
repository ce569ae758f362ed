"""Moving pictures: frames from a folder, GIF, WebP, APNG or multi-page TIFF, and to WebP, GIF or numbered PNG.

No video encoder is a dependency.  MP4 and its like are read and written only where imageio finds a plug-in (PyAV or
imageio-ffmpeg).
"""

import math
import warnings
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precis.data.decode import open_pillow
from precis.data.files import contents, existing, whole
from precis.data.images import SUFFIXES, Image, as_bytes, read_image, to_pillow, write_image
from precis.data.sources import natural
from precis.errors import InputError

MAX_PIXELS = 400_000_000
VIDEO = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
WANTED = "a folder of numbered pictures, a GIF, WebP, APNG or multi-page TIFF"


class Frames(NamedTuple):
    """`pixels` [T,C,H,W] uint8 or float32 as `read_image` gives them, `alpha` [T,1,H,W] or None; `fps` or None."""

    pixels: np.ndarray
    alpha: np.ndarray | None
    fps: float | None


def read_frames(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Frames:
    """All frames, in order, of one size; at most `max_pixels` pixels in all (checked before decoding).

    Where durations in a GIF or WebP are whole multiples of the shortest, a long frame is repeated, so that the rate is
    constant; otherwise `fps` is the mean rate.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, max_pixels)
    if existing(path, WANTED).suffix.lower() in VIDEO:
        return _from_video(path, max_pixels)
    return _from_pages(path, max_pixels)


def write_animation(path: str | Path, frames: np.ndarray, fps: float | int = 25.0) -> Path:
    """Write [T,C,H,W] or [T,H,W] (uint8, or floats in [0, 1]) as the suffix says: .webp (lossless), .gif, or .mp4.

    A path without a suffix is a folder of PNGs (00000.png, …).  An .mp4 becomes .webp where no encoder is installed:
    the path returned is the one written.
    """
    path, frames = Path(path), np.asarray(frames)
    frames = frames[:, None] if frames.ndim == 3 else frames
    if frames.ndim != 4 or frames.shape[1] not in (1, 3) or 0 in frames.shape:
        raise ValueError(f"frames are [T,H,W], [T,1,H,W] or [T,3,H,W], got {list(frames.shape)}")
    if not 0 < fps <= 1000:
        raise InputError(f"--fps must be above 0 and at most 1000, got {fps:g}")
    suffix = path.suffix.lower()
    if suffix in VIDEO and _video_plugin() is None:
        path, suffix = path.with_suffix(".webp"), ".webp"
    if suffix == "":
        path.mkdir(parents=True, exist_ok=True)
        for i, frame in enumerate(frames):
            write_image(path / f"{i:05d}.png", frame)
    elif suffix in VIDEO:
        _to_video(path, as_bytes(frames), float(fps))
    elif suffix in (".webp", ".gif"):
        first, *rest = [to_pillow(frame) for frame in frames]
        extra: dict[str, Any] = {"lossless": True, "method": 2} if suffix == ".webp" else {"disposal": 1}
        ends = [round(1000 * (i + 1) / fps) for i in range(len(frames))]
        durations = [max(1, end - start) for start, end in zip([0, *ends], ends)]
        with whole(path) as beside:
            first.save(beside, save_all=True, append_images=rest, duration=durations, loop=0, **extra)
    else:
        raise InputError(f"cannot write an animation as '{suffix}': use .webp, .gif or a folder", file=path)
    return path


def _from_folder(path: Path, max_pixels: int) -> Frames:
    files = sorted((f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.name[0] != "."), key=_by_name)
    if not files:
        raise InputError(f"there is no picture in the folder; {WANTED} is wanted", file=path)
    pictures: list[Image] = []
    for file in files:
        pictures.append(read_image(file))
        size, first = pictures[-1].pixels.shape[1:], pictures[0].pixels.shape[1:]
        if size != first:
            words = f"the frame is {size[1]}×{size[0]} pixels, {files[0].name} {first[1]}×{first[0]}; make them equal"
            raise InputError(words, file=file)
        _check_total(len(files) * math.prod(size), path, max_pixels)
    return _stack(pictures, None)


def _by_name(file: Path) -> Any:
    return natural(file.name)


def _from_pages(path: Path, max_pixels: int) -> Frames:
    data = contents(path, WANTED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = open_pillow(data, str(path), max_pixels)
        try:
            count = int(getattr(picture, "n_frames", 1))
        except Exception as error:
            raise InputError(f"the file is damaged or cut short ({error})", file=path) from error
    _check_total(count * math.prod(picture.size), path, max_pixels)
    if picture.format == "TIFF":
        return _from_tiff(data, path, count)
    pictures, durations = [], []
    for index in range(count):
        try:
            picture.seek(index)
            shown = np.moveaxis(np.asarray(picture.convert("RGBA")), -1, 0)
        except Exception as error:  # a decoder may raise anything on broken bytes
            raise InputError(f"frame {index + 1} of {count} is damaged or cut short ({error})", file=path) from error
        pictures.append(Image(shown[:3], shown[3:], {}))
        durations.append(float(picture.info.get("duration", 0) or 0))
    repeats, fps = _rate(durations)
    _check_total(sum(repeats) * math.prod(picture.size), path, max_pixels)
    frames = _stack([p for p, times in zip(pictures, repeats) for _ in range(times)], fps)
    may_be_grey = picture.format == "GIF" or picture.mode in ("L", "LA", "1")
    grey = may_be_grey and (frames.pixels == frames.pixels[:, :1]).all()
    opaque = frames.alpha is None or (frames.alpha == 255).all()
    return Frames(frames.pixels[:, :1].copy() if grey else frames.pixels, None if opaque else frames.alpha, fps)


def _from_tiff(data: bytes, path: Path, count: int) -> Frames:
    pictures = [read_image(data, name=f"{path} page {index + 1}", page=index) for index in range(count)]
    if len({p.pixels.shape[1:] for p in pictures}) != 1:
        raise InputError("the pages differ in size; make them equal", file=path)
    return _stack(pictures, None)


def _rate(durations: list[float]) -> tuple[list[int], float | None]:
    """How often each frame is shown at a constant rate, and that rate; milliseconds in."""
    if len(durations) < 2 or min(durations) <= 0:
        return [1] * len(durations), None
    whole_ms = [round(d) for d in durations]
    step = reduce(math.gcd, whole_ms)
    if step == min(whole_ms):
        return [d // step for d in whole_ms], 1000 / step
    return [1] * len(durations), 1000 * len(durations) / sum(durations)


def _stack(pictures: list[Image], fps: float | None) -> Frames:
    channels = max(p.pixels.shape[0] for p in pictures)
    floats = any(p.pixels.dtype != np.uint8 for p in pictures)

    def alike(array: np.ndarray) -> np.ndarray:
        return array.astype(np.float32) / np.float32(255) if floats and array.dtype == np.uint8 else array

    pixels = np.stack([np.broadcast_to(alike(p.pixels), (channels, *p.pixels.shape[1:])) for p in pictures])
    if all(p.alpha is None for p in pictures):
        return Frames(pixels, None, fps)
    top = np.float32(1) if floats else np.uint8(255)
    full = [np.full((1, *p.pixels.shape[1:]), top) if p.alpha is None else alike(p.alpha) for p in pictures]
    return Frames(pixels, np.stack(full), fps)


def _check_total(pixels: int, path: Path, max_pixels: int) -> None:
    if pixels > max_pixels:
        words = f"the frames have {pixels:,} pixels in all, more than the limit of {max_pixels:,}"
        raise InputError(f"{words}; take fewer or smaller ones", file=path)


def _video_plugin() -> str | None:
    """The imageio plug-in that is installed, if any."""
    return "pyav" if find_spec("av") else "FFMPEG" if find_spec("imageio_ffmpeg") else None


def _from_video(path: Path, max_pixels: int) -> Frames:
    plugin = _video_plugin()
    if plugin is None:
        words = f"no video reader is installed; make frames with: ffmpeg -i {path.name} frames/%05d.png"
        raise InputError(f"{words}, and give the folder", file=path)
    import imageio.v3 as imageio

    frames: list[np.ndarray] = []
    try:
        fps = float(imageio.immeta(path, plugin=plugin, exclude_applied=False).get("fps", 0)) or None
        for frame in imageio.imiter(path, plugin=plugin):
            frames.append(np.moveaxis(frame, -1, 0))
            _check_total(len(frames) * math.prod(frame.shape[:2]), path, max_pixels)
    except InputError:
        raise
    except Exception as error:  # whatever the plug-in raises
        raise InputError(f"the video cannot be read ({error}); a folder of frames can", file=path) from error
    if not frames:
        raise InputError("the video holds no frame", file=path)
    return Frames(np.stack(frames), None, fps)


def _to_video(path: Path, frames: np.ndarray, fps: float) -> None:
    import imageio.v3 as imageio

    stack = np.moveaxis(np.broadcast_to(frames, (len(frames), 3, *frames.shape[2:])), 1, -1)
    even = stack[:, : stack.shape[1] // 2 * 2, : stack.shape[2] // 2 * 2]  # 4:2:0 colour needs even sides
    plugin = _video_plugin()
    assert plugin is not None
    options: dict[str, Any] = {"codec": "libx264"} if plugin == "pyav" else {"codec": "libx264", "macro_block_size": 1}
    with whole(path) as beside:
        imageio.imwrite(beside, even, plugin=plugin, fps=fps, **options)
