"""COLMAP's sparse models, binary or text: cameras, images, points3D.

Images state the rotation world → camera as a quaternion (w, x, y, z) and a translation, in OpenCV's axes (y down, z
forwards); the centre of the first pixel is (½, ½).
"""

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from precis.data.captures import Described, Frame
from precis.errors import InputError

# Number, name, parameters; the order of the parameters is COLMAP's.
MODELS = {
    0: ("SIMPLE_PINHOLE", 3), 1: ("PINHOLE", 4), 2: ("SIMPLE_RADIAL", 4), 3: ("RADIAL", 5), 4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8), 6: ("FULL_OPENCV", 12), 7: ("FOV", 5), 8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5), 10: ("THIN_PRISM_FISHEYE", 12),
}  # fmt: skip
KNOWN = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV")


class Lens(NamedTuple):
    """A camera of the model: its kind, picture size, parameters."""

    model: str
    width: int
    height: int
    numbers: tuple[float, ...]


class Pose(NamedTuple):
    """A photograph of the model."""

    name: str
    camera: int
    quaternion: tuple[float, ...]
    shift: tuple[float, ...]


def read_colmap(folder: Path, sparse: Path, downscale: int = 1) -> Described:
    """The model in `sparse`, the photographs in images/ of `folder` (or all in images_{downscale}, already smaller)."""
    binary = (sparse / "cameras.bin").exists()
    try:
        cameras = _cameras_bin(sparse / "cameras.bin") if binary else _cameras_txt(sparse / "cameras.txt")
        poses = _images_bin(sparse / "images.bin") if binary else _images_txt(sparse / "images.txt")
        points = _points_bin(sparse / "points3D.bin") if binary else _points_txt(sparse / "points3D.txt")
    except (struct.error, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"this is no whole COLMAP model ({error})", file=sparse) from None
    pictures = next((folder / name for name in ("images", "input") if (folder / name).is_dir()), folder / "images")
    small = folder / f"images_{downscale}"
    smaller = downscale > 1 and all((small / pose.name).is_file() for pose in poses)
    frames = []
    for pose in sorted(poses, key=lambda p: p.name):
        if pose.camera not in cameras:
            raise InputError(f"{pose.name} names camera {pose.camera}, which is not in the model", file=sparse)
        lens = cameras[pose.camera]
        K, bent = split_parameters(lens, sparse)
        frames.append(Frame(
            pose.name, (small if smaller else pictures) / pose.name, to_opengl(pose), K, (lens.width, lens.height),
            None, bent, lens.model == "OPENCV_FISHEYE", reduced=downscale if smaller else 1,
        ))  # fmt: skip
    notes = [] if len(points) else ["the model holds no points: near, far and the box are guessed from the cameras"]
    near, far, box = extent(points, frames)
    return Described("COLMAP", frames, near, far, box, points if len(points) else None, notes=notes)


def to_opengl(pose: Pose) -> Float[np.ndarray, "3 4"]:
    """Camera to world, axes right, up, backwards."""
    w, x, y, z = np.asarray(pose.quaternion) / np.linalg.norm(pose.quaternion)
    turn = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    place = -turn.T @ np.asarray(pose.shift)
    return np.concatenate([turn.T * np.array([1.0, -1.0, -1.0]), place[:, None]], 1)


def split_parameters(lens: Lens, where: Path) -> tuple[tuple[float, float, float, float], tuple[float, ...]]:
    """fx, fy, cx, cy and k1 k2 k3 k4 p1 p2 d1 d2 d3."""
    p = lens.numbers
    if lens.model not in KNOWN:
        raise InputError(f"camera model {lens.model} is not known here; known are {', '.join(KNOWN)}", file=where)
    one_focal = lens.model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
    K = (p[0], p[0], p[1], p[2]) if one_focal else (p[0], p[1], p[2], p[3])
    rest = list(p[3:] if one_focal else p[4:])
    if lens.model == "OPENCV_FISHEYE":
        return K, (*rest, *[0.0] * 5)
    rest += [0.0] * (8 - len(rest))
    k1, k2, p1, p2, k3, k4, k5, k6 = rest
    return K, (k1, k2, k3, 0.0, p1, p2, k4, k5, k6)


def extent(
    points: np.ndarray, frames: list[Frame]
) -> tuple[float | None, float | None, Float[np.ndarray, "2 3"] | None]:
    """Near and far: the 1st and 99th percentile of the points' depths, with a margin; the box alike."""
    if len(points) < 10:
        return None, None, None
    depths = []
    for f in frames:
        c2w = np.asarray(f.c2w)
        depth = -(points - c2w[:3, 3]) @ c2w[:3, 2]
        depths.append(depth[depth > 0])
    low, high = np.percentile(np.concatenate(depths), [1, 99])
    box = np.percentile(points, [1, 99], axis=0)
    margin = 0.1 * (box[1] - box[0]).max()
    return float(0.8 * low), float(1.2 * high), np.stack([box[0] - margin, box[1] + margin])


class _Bytes:
    """Little-endian numbers from a file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.data, self.at = path.read_bytes() if path.exists() else b"", 0

    def take(self, kinds: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + kinds, self.data, self.at)
        self.at += struct.calcsize("<" + kinds)
        return found

    def skip(self, size: int) -> None:
        """Over a counted list of entries of this size."""
        count = int(self.take("Q")[0])
        self.at += size * count

    def word(self) -> str:
        end = self.data.index(b"\0", self.at)
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text


def _cameras_bin(path: Path) -> dict[int, Lens]:
    file = _Bytes(path)
    cameras = {}
    for _ in range(int(file.take("Q")[0])):
        number, model, width, height = (int(n) for n in file.take("iiQQ"))
        name, count = MODELS[model]
        cameras[number] = Lens(name, width, height, file.take("d" * count))
    return cameras


def _images_bin(path: Path) -> list[Pose]:
    file = _Bytes(path)
    poses = []
    for _ in range(int(file.take("Q")[0])):
        numbers = file.take("i7di")
        name = file.word()
        file.skip(24)  # its 2-D points
        poses.append(Pose(name, int(numbers[8]), numbers[1:5], numbers[5:8]))
    return poses


def _points_bin(path: Path) -> Float[np.ndarray, "p 3"]:
    file = _Bytes(path)
    if not file.data:
        return np.zeros((0, 3))
    points = []
    for _ in range(int(file.take("Q")[0])):
        points.append(file.take("Q3d3Bd")[1:4])
        file.skip(8)  # its track
    return np.array(points, np.float64).reshape(-1, 3)


def _lines(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    return [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]


def _cameras_txt(path: Path) -> dict[int, Lens]:
    return {
        int(c[0]): Lens(c[1], int(c[2]), int(c[3]), tuple(float(x) for x in c[4:])) for c in _lines(path) if c
    }  # fmt: skip


def _images_txt(path: Path) -> list[Pose]:
    rows = _lines(path)
    while rows and not rows[-1]:
        rows.pop()
    # Every other line lists 2-D points; it may be empty.
    return [
        Pose(" ".join(r[9:]), int(r[8]), tuple(float(x) for x in r[1:5]), tuple(float(x) for x in r[5:8]))
        for r in rows[::2]
    ]


def _points_txt(path: Path) -> Float[np.ndarray, "p 3"]:
    return np.array([[float(x) for x in r[1:4]] for r in _lines(path) if r], np.float64).reshape(-1, 3)
