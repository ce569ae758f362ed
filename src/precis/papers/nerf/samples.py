"""The built-in scene: a bust on a plinth, 48 photographs and 9 to test by, in Blender's format."""

import json
from pathlib import Path

import numpy as np

from precis.data.images import write_image
from precis.data.scenes3d import Capture, capture


def make_sample(folder: Path, views: int = 48, size: int = 64) -> Path:
    """Write the scene into `folder`/bust; its path."""
    root = folder / "bust"
    made = capture("static", views, size)
    for split, part in (("train", made.train), ("test", made.test)):
        write_blender(root, split, part)
    return root


def write_blender(root: Path, split: str, views: Capture) -> None:
    """transforms_{split}.json and its pictures."""
    (root / split).mkdir(parents=True, exist_ok=True)
    frames = []
    for v, image in enumerate(views.images):
        write_picture(root / split / f"r_{v}.png", image)
        matrix = np.concatenate([views.c2w[v].astype(np.float64), [[0, 0, 0, 1]]])
        frames.append({"file_path": f"./{split}/r_{v}", "transform_matrix": matrix.tolist()})
    angle = 2 * np.arctan(views.size[0] / 2 / float(views.K[0, 0]))
    meta = {"camera_angle_x": float(angle), "frames": frames}
    (root / f"transforms_{split}.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def write_picture(path: Path, image: np.ndarray) -> None:
    """[H,W,3 or 4] as PNG."""
    planes = np.moveaxis(image, -1, 0)
    write_image(path, planes[:3], planes[3:] if len(planes) == 4 else None)
