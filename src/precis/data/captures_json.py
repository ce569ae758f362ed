"""Scenes whose cameras stand in transforms.json: Blender's (three files), nerfstudio's and instant-ngp's (one)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from precis.data.captures import Described, Frame, checked_poses
from precis.data.images import SUFFIXES
from precis.errors import InputError

LENSES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "OPENCV_FISHEYE")
BLENDER_BOX = np.array([[-1.5] * 3, [1.5] * 3])
SPLITS = {"train_filenames": "train", "val_filenames": "val", "test_filenames": "test"}


def read_blender(folder: Path) -> Described:
    """transforms_train.json, and _val and _test where they are; near 2, far 6, box ±1.5."""
    frames: list[Frame] = []
    for split in ("train", "val", "test"):
        path = folder / f"transforms_{split}.json"
        if not path.exists():
            continue
        meta = read_json(path)
        for i, entry in enumerate(_frames(meta, path)):
            frames.append(_frame(entry, meta, path, i, split))
    return Described("Blender", frames, 2.0, 6.0, BLENDER_BOX)


def read_nerfstudio(path: Path) -> Described:
    """One transforms.json; with `aabb_scale` (instant-ngp) the box is known."""
    meta = read_json(path)
    entries = _frames(meta, path)
    named = {name: split for key, split in SPLITS.items() for name in _names(meta, key, path)}
    frames = [_frame(e, meta, path, i, named.get(str(e.get("file_path")))) for i, e in enumerate(entries)]
    notes = []
    if any("depth_file_path" in e for e in entries):
        notes.append("depth maps (depth_file_path) are not used")
    aabb = None
    if "aabb_scale" in meta:
        half = 0.5 * read_number(meta, "aabb_scale", path)
        scale = read_number(meta, "scale", path) if "scale" in meta else 0.33
        if not scale > 0:
            raise InputError(f"scale must be above 0, and is {scale:g}", file=path)
        offset = np.array(read_numbers(meta.get("offset", [0.5] * 3), 3, "offset", path))
        aabb = np.stack([(0.5 - half - offset) / scale, (0.5 + half - offset) / scale])
    return Described("nerfstudio", frames, aabb=aabb, notes=notes)


def read_poses(path: str | Path) -> Float[np.ndarray, "n 3 4"]:
    """Cameras to world without pictures: the frames of a transforms JSON, or .npy [n, 3 or 4, 4]; checked as those of
    photographs are."""
    path = Path(path)
    if not path.exists():
        raise InputError("there is no such file", file=path)
    try:
        if path.suffix == ".npy":
            matrices = np.asarray(np.load(path, allow_pickle=False), np.float64)
        else:
            frames = read_json(path).get("frames") or []
            matrices = np.array([f["transform_matrix"] for f in frames], np.float64)
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"no cameras can be read from it ({error})", file=path) from None
    if matrices.ndim != 3 or matrices.shape[1:] not in ((3, 4), (4, 4)) or not len(matrices):
        raise InputError(f"cameras [n,3 or 4,4] are wanted, found {list(matrices.shape)}", file=path)
    return checked_poses(list(matrices), [f"camera {i}" for i in range(len(matrices))], [], path)


def read_box(text: str) -> Float[np.ndarray, "2 3"]:
    """x0,y0,z0,x1,y1,z1 of an option --aabb."""
    try:
        numbers = np.array([float(x) for x in text.split(",")])
    except ValueError:
        numbers = np.zeros(0)
    if numbers.shape != (6,) or not np.isfinite(numbers).all() or not (numbers[:3] < numbers[3:]).all():
        raise InputError(f"--aabb must be x0,y0,z0,x1,y1,z1 with x0 < x1, y0 < y1, z0 < z1; got {text!r}")
    return numbers.reshape(2, 3)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; InputError with the line where it is broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"this is not JSON: {error.msg}", file=path, line=error.lineno) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"it cannot be read ({error})", file=path) from None
    if not isinstance(found, dict):
        raise InputError("a JSON object with frames is wanted", file=path)
    return found


def _frames(meta: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    frames = meta.get("frames")
    if not isinstance(frames, list) or not all(isinstance(f, dict) for f in frames):
        raise InputError('there is no list of "frames" in it', file=path)
    if not frames:
        raise InputError('its list of "frames" is empty', file=path)
    return frames


def _frame(entry: dict[str, Any], meta: dict[str, Any], path: Path, i: int, split: str | None) -> Frame:
    both = {**meta, **entry}
    if "file_path" not in entry or "transform_matrix" not in entry:
        raise InputError(f"frame {i} has no file_path or no transform_matrix", file=path)
    try:
        c2w = np.asarray(entry["transform_matrix"], np.float64)
    except (TypeError, ValueError):
        c2w = np.zeros(0)
    if c2w.shape not in ((4, 4), (3, 4)):
        raise InputError(f"the transform_matrix of frame {i} must be 4×4 numbers", file=path)
    lens = str(both.get("camera_model", "OPENCV"))
    if lens not in LENSES:
        raise InputError(f"camera model {lens} is not known here; known are {', '.join(LENSES)}", file=path)
    K, size, angle = _intrinsics(both, path)
    numbers = [read_number(both, k, path) if k in both else 0.0 for k in ("k1", "k2", "k3", "k4", "p1", "p2")]
    bent = lens in ("OPENCV", "OPENCV_FISHEYE")
    return Frame(
        str(entry["file_path"]).removeprefix("./"), picture_path(path.parent, str(entry["file_path"])), c2w, K, size,
        angle, (*numbers, 0.0, 0.0, 0.0) if bent else (0.0,) * 9,
        lens == "OPENCV_FISHEYE" or bool(both.get("is_fisheye", False)),
        path.parent / str(entry["mask_path"]) if "mask_path" in entry else None, split,
        read_number(entry, "time", path) if "time" in entry else None,
    )  # fmt: skip


def _intrinsics(both: dict[str, Any], path: Path) -> tuple[Any, tuple[int, int] | None, Any]:
    """K with the size it is for, or the angle of view."""
    size = None
    if "w" in both and "h" in both:
        size = (round(read_number(both, "w", path)), round(read_number(both, "h", path)))
        if min(size) < 1:
            raise InputError(f"w and h must be at least 1, and are {size[0]} and {size[1]}", file=path)
    if "fl_x" in both:
        fx = read_number(both, "fl_x", path)
        fy = read_number(both, "fl_y", path) if "fl_y" in both else fx
        if size is None and not ("cx" in both and "cy" in both):
            raise InputError("fl_x is given without w and h, or cx and cy", file=path)
        middle = (0.0, 0.0) if size is None else (size[0] / 2, size[1] / 2)
        cx, cy = (read_number(both, k, path) if k in both else m for k, m in zip(("cx", "cy"), middle))
        return (fx, fy, cx, cy), size, None  # without a size they are for the picture as it lies on disk
    if "camera_angle_x" in both:
        vertical = read_number(both, "camera_angle_y", path) if "camera_angle_y" in both else None
        return None, size, (read_number(both, "camera_angle_x", path), vertical)
    raise InputError("there is no focal length: fl_x or camera_angle_x is wanted", file=path)


def _names(meta: dict[str, Any], key: str, path: Path) -> list[str]:
    found = meta.get(key, [])
    if not isinstance(found, list):
        raise InputError(f"{key} must be a list of files, and is {found!r}"[:200], file=path)
    return [str(name) for name in found]


def read_numbers(found: Any, count: int, what: str, path: Path) -> list[float]:
    """So many finite numbers, or InputError."""
    fits = isinstance(found, list) and len(found) == count
    if not fits or any(isinstance(x, bool) or not isinstance(x, int | float) or not np.isfinite(x) for x in found):
        raise InputError(f"{what} must be {count} numbers, and is {found!r}"[:200], file=path)
    return [float(x) for x in found]


def read_number(meta: dict[str, Any], key: str, path: Path) -> float:
    """A finite number, or InputError."""
    value = meta[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise InputError(f"{key} must be a number, and is {value!r}", file=path)
    return float(value)


def picture_path(folder: Path, stated: str) -> Path:
    """The file that `file_path` means: its suffix may be left out."""
    path = folder / stated
    if path.suffix.lower() in SUFFIXES or path.is_file():
        return path
    beside = [path.with_name(path.name + end) for end in (".png", ".jpg", ".jpeg", ".webp", ".JPG", ".PNG")]
    return next((p for p in beside if p.is_file()), beside[0])
