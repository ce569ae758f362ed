"""Pictures taken of a made scene, with everything that is known about them, and cameras to take them.

Camera axes are OpenGL's: x right, y up, z backwards; pixel (column i, row j) looks along
((i + ½ − cx)/fx, −(j + ½ − cy)/fy, −1) in camera axes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8


@dataclass(frozen=True, eq=False)
class Capture:
    """V views of one scene.

    images          uint8 [V,H,W,3 or 4]; with 4, the last is opacity and the colours are straight (not premultiplied)
    c2w             float32 [V,3,4]: camera to world, columns right, up, backwards, position
    K               float32 [V,4]: fx, fy, cx, cy in pixels
    size            (W, H)
    near, far       along unit rays; the scene lies between
    aabb            float32 [2,3]: lower and upper corner of a box around the scene
    time            float32 [V] in 0 … 1, if the scene moves
    frame           int64 [V]: the instant of each view, if the scene moves
    masks           bool [V,H,W]: pixels that show a moving part
    depth           float32 [V,H,W]: distance from the camera's position, NaN where nothing is
    static_points   float32 [P,3] on surfaces that do not move
    """

    images: UInt8[np.ndarray, "v h w c"]
    c2w: Float32[np.ndarray, "v 3 4"]
    K: Float32[np.ndarray, "v 4"]
    size: tuple[int, int]
    near: float
    far: float
    aabb: Float32[np.ndarray, "2 3"]
    time: Float32[np.ndarray, "v"] | None = None
    frame: np.ndarray | None = None
    masks: Bool[np.ndarray, "v h w"] | None = None
    depth: Float32[np.ndarray, "v h w"] | None = None
    static_points: Float32[np.ndarray, "p 3"] | None = None

    def rgb(self, background: float | int = 1.0) -> Float32[np.ndarray, "v h w 3"]:
        """The pictures in [0, 1] before a grey of that brightness."""
        x = self.images.astype(np.float32) / 255
        if x.shape[-1] == 3:
            return x
        return np.asarray(x[..., :3] * x[..., 3:] + np.float32(background) * (1 - x[..., 3:]))


class Scene(NamedTuple):
    """Views to learn from, and views of the same scene that are kept back."""

    train: Capture
    test: Capture


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> Float32[np.ndarray, "v 3 4"]:
    """c2w of cameras at `position` [V,3] that look at `target` [3] or [V,3]."""
    position = np.asarray(position, np.float64)
    backwards = position - target
    backwards /= np.linalg.norm(backwards, axis=-1, keepdims=True)
    right = np.cross(np.broadcast_to(up, backwards.shape), backwards)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    return np.stack([right, np.cross(backwards, right), backwards, position], -1).astype(np.float32)


def pinhole(views: int, width: int, height: int, field_of_view: float) -> Float32[np.ndarray, "v 4"]:
    """K of `views` equal cameras that see `field_of_view` degrees across."""
    focal = width / 2 / np.tan(np.radians(field_of_view) / 2)
    return np.tile(np.array([focal, focal, width / 2, height / 2], np.float32), (views, 1))


def camera_rays(
    c2w: Float32[np.ndarray, "v 3 4"], K: Float32[np.ndarray, "v 4"], size: tuple[int, int], over: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and unit directions [V,H,W,3] (float64) of the pixels' centres; `over`² rays a pixel: [V,oH,oW,3]."""
    width, height = size
    column, row = ((np.arange(over * n) + 0.5) / over for n in (width, height))
    x = (column[None, None] - K[:, 2, None, None]) / K[:, 0, None, None]
    y = -(row[None, :, None] - K[:, 3, None, None]) / K[:, 1, None, None]
    x, y = np.broadcast_arrays(x, y)
    local = np.stack([x, y, -np.ones_like(x)], -1).astype(np.float64)
    d = np.einsum("vij,vhwj->vhwi", c2w[:, :, :3].astype(np.float64), local)
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    return np.broadcast_to(c2w[:, None, None, :, 3].astype(np.float64), d.shape), d
