"""Captures of things that move: the instant of each photograph, and the layout of the Nerfies release, written.

    dataset.json      ids, train_ids, val_ids                    metadata.json   id: warp_id, appearance_id, camera_id
    scene.json        scale, center, near, far                   points.npy      [P,3] static points, if any
    camera/ID.json    orientation (world to camera, OpenCV axes), position, focal_length, principal_point, …
    rgb/1x/ID.png

`precis.data.captures` reads it, as every other layout.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from precis.data.images import write_image
from precis.data.scenes3d_views import Scene


def instants(
    time: Float[np.ndarray, "v"] | None, train: Bool[np.ndarray, "v"]
) -> tuple[Int64[np.ndarray, "v"], Bool[np.ndarray, "v"]]:
    """The code of each photograph, counted from 0 by the times of the training ones; and which had to take the code of
    the nearest training one, since none has its time.  Without times every photograph is an instant, in their order.
    """
    at = np.arange(len(train), dtype=np.float64) if time is None else np.asarray(time, np.float64)
    known = np.unique(at[train])
    nearest = np.abs(at[:, None] - known).argmin(1)
    return nearest, np.abs(known[nearest] - at) > 1e-9


def write_nerfies(folder: str | Path, scene: Scene) -> Path:
    """A made scene that moves, in this layout: the training views as camera 0, the test views as camera 1."""
    folder = Path(folder)
    (folder / "rgb" / "1x").mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = {}
    ids: tuple[list[str], list[str]] = ([], [])
    for number, views in enumerate(scene):
        for v, pose in enumerate(views.c2w):
            name = f"{'ab'[number]}_{v:04d}"
            ids[number].append(name)
            frame = int(v if views.frame is None else views.frame[v])
            metadata[name] = {"warp_id": frame, "appearance_id": frame, "camera_id": number}
            _write(folder / "camera" / f"{name}.json", _camera(pose, views.K[v], views.size))
            write_image(folder / "rgb" / "1x" / f"{name}.png", views.images[v, ..., :3].transpose(2, 0, 1))
    _write(folder / "metadata.json", metadata)
    _write(folder / "dataset.json", {
        "count": len(metadata), "num_exemplars": len(ids[0]), "ids": [*metadata], "train_ids": ids[0],
        "val_ids": ids[1],
    })  # fmt: skip
    near, far = scene.train.near, scene.train.far
    _write(folder / "scene.json", {"scale": 1.0, "center": [0.0, 0.0, 0.0], "near": near, "far": far})
    if scene.train.static_points is not None:
        np.save(folder / "points.npy", scene.train.static_points)
    return folder


def _camera(pose: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    right, up, back, position = pose.astype(float).T
    fx, fy, cx, cy = K.astype(float)
    return {
        "orientation": [right.tolist(), (-up).tolist(), (-back).tolist()], "position": position.tolist(),
        "focal_length": fx, "principal_point": [cx, cy], "skew": 0.0, "pixel_aspect_ratio": fy / fx,
        "radial_distortion": [0.0, 0.0, 0.0], "tangential_distortion": [0.0, 0.0], "image_size": list(size),
    }  # fmt: skip


def _write(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
