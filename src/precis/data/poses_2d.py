"""2-D keypoints from files: COCO and OpenPose JSON, CSV (columns by name, or numbered, as MediaPipe's), .npz and .npy.

Coordinates come as they are, in pixels or shares of the picture; what a layout means is the business of
`precis.contrastive.prvipe_keypoints`.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from precis.data.arrays import read_arrays
from precis.data.files import contents
from precis.data.tables import Table, read_table
from precis.errors import InputError

WANTED = "keypoints (COCO or OpenPose JSON, CSV, .npz or .npy)"
_CAMERA = ("view", "camera", "cam", "view_id", "camera_id", "cam_id")
_SCORE = ("score", "confidence", "conf", "visibility", "v", "c", "likelihood")


@dataclass(frozen=True, eq=False)
class Keypoints:
    """`points` [N,J,2] (NaN: missing), `score` [N,J] in 0…1 (1 where none is given), one `ids` a row.

    names: of the points, if the file says; layout: what the format is known to be; views and poses: columns `view` (or
    camera) and `pose` of a CSV, arrays `views` and `pose` of .npz, which say by which camera a row was taken and which
    rows show one pose; for COCO JSON views are fields of that name or folders called after cameras.
    """

    points: np.ndarray
    score: np.ndarray
    ids: tuple[str, ...]
    file: str
    names: tuple[str, ...] | None = None
    layout: str | None = None
    views: np.ndarray | None = None
    poses: np.ndarray | None = None


def read_2d(path: str | Path) -> Keypoints:
    """Read a file, or a folder of OpenPose JSON files; several people in a picture are a row each."""
    path = Path(path)
    if path.is_dir():
        return _openpose(sorted(path.glob("*.json")), path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _json(path)
    if suffix in (".npz", ".npy"):
        return _arrays(path)
    return _csv(read_table(path))


def _json(path: Path) -> Keypoints:
    content = _loaded(path)
    if isinstance(content, dict) and "people" in content:
        return _openpose([path], path)
    found = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(found, list) or not all(isinstance(a, dict) for a in found):
        raise InputError(f"it holds no list of annotations; {WANTED} are wanted", file=path)
    rows = [(i, a) for i, a in enumerate(found) if "keypoints" in a]
    if not rows:
        raise InputError(f"no annotation has 'keypoints'; {WANTED} are wanted", file=path)
    images = {}
    if isinstance(content, dict):
        images = {one.get("id"): one for one in content.get("images", []) if isinstance(one, dict)}
    pictures = [images.get(a.get("image_id"), {}) for _, a in rows]
    count = len(rows[0][1]["keypoints"]) // 3
    values = [_triples(a["keypoints"], count, path, i + 1) for i, a in rows]
    ids = [_name(one.get("file_name") or a.get("image_id"), a.get("id"), i) for one, (i, a) in zip(pictures, rows)]
    views = _views([a for _, a in rows], pictures)
    return _keypoints(np.stack(values), ids, path, layout="coco17" if count == 17 else None, views=views)


def _views(annotations: list[dict[str, Any]], pictures: list[dict[str, Any]]) -> np.ndarray | None:
    """By which camera each row was taken, where all say it and there are two at least: a field of the annotation or of
    its image, else a folder of the image's file that is called after a camera, as cam2/0001.jpg."""
    said = []
    for person, picture in zip(annotations, pictures):
        fields = [v for one in (person, picture) for k in _CAMERA if isinstance(v := one.get(k), str | int) and v != ""]
        folders = re.split(r"[\\/]", str(picture.get("file_name") or ""))[:-1]
        named = [folder for folder in folders if re.fullmatch(r"(.*[_.-])?(cam|camera|view)[_.-]?\d+", folder, re.I)]
        said.append(str(fields[0]) if fields else named[-1] if named else None)
    return np.array(said) if None not in said and len(set(said)) > 1 else None


def _name(picture: Any, person: Any, place: int) -> str:
    words = [str(part) for part in (picture, person) if part is not None]
    return "/".join(words) if words else str(place + 1)


def _openpose(files: list[Path], path: Path) -> Keypoints:
    values: list[np.ndarray] = []
    ids: list[str] = []
    for file in files:
        people = _loaded(file)
        people = people.get("people", []) if isinstance(people, dict) else []
        for i, person in enumerate(people):
            flat = person.get("pose_keypoints_2d", []) if isinstance(person, dict) else []
            values.append(_triples(flat, len(values[0]) if values else len(flat) // 3, file, i + 1))
            ids.append(f"{file.stem}/{i + 1}" if len(people) > 1 else file.stem)
    if not values:
        raise InputError(f"no person with 'pose_keypoints_2d' in {len(files)} JSON files; {WANTED} are wanted",
                         file=path)  # fmt: skip
    return _keypoints(np.stack(values), ids, path, layout="body25" if len(values[0]) == 25 else None)


def _triples(flat: Any, count: int, path: Path, row: int) -> np.ndarray:
    try:
        values = np.array([np.nan if v is None else v for v in flat], float)
    except (TypeError, ValueError):
        raise InputError("keypoints are to be numbers: x, y, score, x, y, score, …", file=path, row=row) from None
    if count < 5 or values.shape != (3 * count,):
        raise InputError(f"{values.size} numbers, where three for each of {max(count, 5)} points are wanted", file=path,
                         row=row)  # fmt: skip
    return values.reshape(count, 3)


def _loaded(path: Path) -> Any:
    try:
        return json.loads(contents(path, WANTED, 1 << 29))
    except ValueError as error:
        raise InputError(f"this is no JSON: {str(error)[:80]}", file=path) from None


def _arrays(path: Path) -> Keypoints:
    arrays = read_arrays(path, WANTED)
    key = next((k for k in ("", "keypoints", "poses", "points", "positions_2d") if k in arrays), None)
    if key is None:
        raise InputError(f"no array 'keypoints' among {', '.join(sorted(arrays)[:8])}", file=path)
    points = np.asarray(arrays[key], float) if arrays[key].dtype.kind in "fiu" else np.zeros(0)
    if points.ndim != 3 or points.shape[1] < 5 or points.shape[2] not in (2, 3) or not len(points):
        raise InputError(f"keypoints are [N, points, 2], or 3 with a score; got {list(points.shape)}", file=path)
    if points.shape[2] == 3 and (np.nan_to_num(points[..., 2]).min() < 0 or np.nanmax(points[..., 2]) > 2):
        raise InputError("the third number of a point is no score between 0 and 1: are these 3-D poses? They belong to "
                         "--train", file=path)  # fmt: skip
    ids = [str(i) for i in arrays["ids"]] if "ids" in arrays else [str(i + 1) for i in range(len(points))]
    names = tuple(str(n) for n in arrays["names"]) if "names" in arrays else None
    if len(ids) != len(points) or names is not None and len(names) != points.shape[1]:
        raise InputError("ids and names must be as many as rows and points", file=path)
    score = np.asarray(arrays["score"], float)[..., None] if "score" in arrays else None
    whole = np.concatenate([points[..., :2], score], 2) if score is not None else points
    views, poses = arrays.get("views", arrays.get("view")), arrays.get("pose")
    if any(column is not None and column.shape != (len(points),) for column in (views, poses)):
        raise InputError("arrays 'views' and 'pose' hold one value a row", file=path)
    text = lambda column: None if column is None else column.astype(np.str_)
    return _keypoints(whole, ids, path, names=names, views=text(views), poses=text(poses))


def _csv(table: Table) -> Keypoints:
    lower = {name.strip().lower(): name for name in table.columns}
    found: dict[str, dict[str, str]] = {}
    for key, column in lower.items():
        for pattern in (r"(?P<point>.+)[_.](?P<axis>[a-z]+)", r"(?P<axis>[a-z]+)_?(?P<point>\d+)"):
            if match := re.fullmatch(pattern, key):
                axis = "score" if match["axis"] in _SCORE else match["axis"]
                if axis in ("x", "y", "score"):
                    found.setdefault(match["point"], {})[axis] = column
                break
    points = {name: axes for name, axes in found.items() if {"x", "y"} <= set(axes)}
    if len(points) < 5:
        raise InputError("columns like left_hip_x, left_hip_y, or x0, y0, x1, y1, … are wanted for five points or more",
                         file=table.file)  # fmt: skip
    columns = []
    for axes in points.values():
        two = table.numbers([axes["x"], axes["y"]], missing=True)
        score = table.numbers([axes["score"]], missing=True) if "score" in axes else np.ones((len(two), 1))
        columns.append(np.concatenate([two, score], 1))
    numbered = all(name.isdigit() for name in points)
    order = sorted(range(len(columns)), key=lambda i: int(list(points)[i])) if numbered else range(len(columns))
    text = lambda *names: None if (c := table.first(*names)) is None else table.column(c).astype(np.str_)
    ids = text("id", "name", "file", "image", "frame")
    rows = [str(i + 1) for i in range(len(table))] if ids is None else ids.tolist()
    return _keypoints(
        np.stack([columns[i] for i in order], 1), rows, table.file,
        names=None if numbered else tuple(re.sub(r"[\s-]+", "_", name) for name in points),
        views=text("view", "camera"), poses=text("pose"),
    )  # fmt: skip


def _keypoints(values: np.ndarray, ids: list[str], path: Any, **more: Any) -> Keypoints:
    if np.isinf(values).any():
        row = int(np.argwhere(np.isinf(values))[0][0]) + 1
        raise InputError("a coordinate is infinite", file=path, row=row)
    score = np.ones(values.shape[:2]) if values.shape[2] == 2 else np.clip(np.nan_to_num(values[..., 2]), 0, 1)
    seen: dict[str, int] = {}
    unique = []
    for name in ids:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return Keypoints(values[..., :2], score, tuple(unique), str(path), **more)
