"""Made scenes with cameras, whose truth is known: `flatland` (a world in a plane) and `capture` (a bust, in space).

Both give `Scene(train, test)` of `Capture`s (see `scenes3d_views`), the same for the same arguments on every machine.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from precis.data.scenes3d_flat import World, moving_world, still_world, surface_points
from precis.data.scenes3d_views import Capture, Scene, camera_rays, look_at, pinhole

__all__ = ["Capture", "Scene", "capture", "capture_occupied", "flatland", "flatland_occupied", "flatland_world"]

STATIC_POINTS = 2048


def flatland(
    seed: int, frames: int = 36, moving: bool = False, size: int = 64, *, test: int = 12, specular: bool = True,
    turn: float | int = 12.0,
) -> Scene:  # fmt: skip
    """Pictures of `size` × 1 pixels from cameras in the plane z = 0.

    Static: `frames` cameras on a circle of radius 4 around three discs and three boxes (RGBA), and `test` more, each
    in the middle between two neighbours.  `specular=False` takes the highlight off the one glossy disc.

    Moving: a head that turns by ± `turn` degrees, bends and wanders before five boxes (RGB on white); one view an
    instant, from a camera at distance 0.7 that sweeps ±35°.  The test views are those of a second camera, 12° further,
    at the same instants.  Points and cameras together have a diagonal of about 1.
    """
    return _flatland(seed, frames, moving, size, test, specular, float(turn))


@lru_cache(maxsize=8)
def _flatland(
    seed: int, frames: int, moving: bool, size: int, test: int, specular: bool, turn: float
) -> Scene:
    world = flatland_world(seed, frames, moving, specular=specular, turn=turn)
    if moving:
        sweep = np.radians(35) * np.sin(3 * np.pi * np.arange(frames) / frames)
        angles = sweep - np.pi / 2, sweep - np.pi / 2 + np.radians(12)
        return Scene(*(_moving_views(world, a, size, seed) for a in angles))
    if not 1 <= test <= frames:
        raise ValueError(f"test must be between 1 and frames ({frames}), got {test}")
    between = (np.arange(test) * frames // test + 0.5) * 2 * np.pi / frames
    angles = np.arange(frames) * 2 * np.pi / frames, between
    return Scene(*(_still_views(world, a, size) for a in angles))


def flatland_world(
    seed: int, frames: int = 36, moving: bool = False, *, specular: bool = True, turn: float | int = 12.0
) -> World:
    """The shapes and motions behind `flatland`: true colours, densities and deformations."""
    return moving_world(seed, frames, float(turn)) if moving else still_world(seed, specular)


def flatland_occupied(
    world: World, x: Float[np.ndarray, "p 3"], frames: int = 1
) -> Bool[np.ndarray, "{frames} p"]:
    """Whether there is matter at points of the plane (their z is not looked at), a row an instant.

    Space that is free in every frame: `~flatland_occupied(world, x, frames).any(0)`.
    """
    return np.stack([world.occupied(np.asarray(x, np.float64)[:, :2], f) for f in range(frames)])


def capture(
    kind: Literal["static", "moving"] = "static", views: int = 48, size: int = 64, seed: int = 0, *,
    turn: float | int = 14.0,
) -> Scene:  # fmt: skip
    """A bust on a plinth: `views` pictures of size² pixels, and a fifth as many test views.

    "static" (RGBA): cameras on the upper hemisphere, all around; test cameras lie between them.
    "moving" (RGB): it turns by ± `turn` degrees, nods, bends and sways in a niche with boxes; one view an instant from
    a camera that sweeps ±35°, and a second one, 10° further, for the test views: as many, at the same instants.
    """
    from precis.data.scenes3d_bust import moving_bust, still_bust

    if views < 2 or size < 4:
        raise ValueError(f"a capture needs at least 2 views of 4 pixels, got {views} of {size}")
    if kind == "static":
        return still_bust(views, size, seed)
    if kind == "moving":
        return moving_bust(views, size, seed, float(turn))
    raise ValueError(f"kind must be static or moving, got {kind!r}")


def capture_occupied(
    kind: Literal["static", "moving"], views: int, seed: int, x: Float[np.ndarray, "p 3"], *, turn: float | int = 14.0
) -> Bool[np.ndarray, "f p"]:
    """Whether there is matter at points of that capture, a row an instant (static: one row)."""
    from precis.data.scenes3d_bust import SMALL, bust_world

    bust = bust_world(kind, views, seed, float(turn))
    frames, scale = (views, SMALL) if kind == "moving" else (1, 1.0)
    return np.stack([bust.occupied(np.asarray(x, np.float64) / scale, f) for f in range(frames)])


def _still_views(world: World, angles: np.ndarray, size: int) -> Capture:
    c2w, K = _circle(angles, 4.0), pinhole(len(angles), size, 1, 45.0)
    near, far = 2.0, 6.0
    rgb, alpha, depth, _ = _pictures(world, c2w, K, size, near, far, np.zeros(len(angles), np.int64))
    straight = rgb / np.maximum(alpha, 1e-6)[..., None]
    images = _bytes(np.concatenate([straight, alpha[..., None]], -1))
    aabb = np.array([[-1.3, -1.3, -0.1], [1.3, 1.3, 0.1]], np.float32)
    return Capture(images, c2w, K, (size, 1), near, far, aabb, depth=_where(depth, alpha))


def _moving_views(world: World, angles: np.ndarray, size: int, seed: int) -> Capture:
    frames = np.arange(len(angles))
    c2w, K = _circle(angles, 0.7), pinhole(len(angles), size, 1, 50.0)
    near, far = 0.35, 1.05
    rgb, alpha, depth, moving = _pictures(world, c2w, K, size, near, far, frames)
    points = np.zeros((STATIC_POINTS, 3), np.float32)
    points[:, :2] = surface_points(world.shapes, STATIC_POINTS, seed)
    aabb = np.array([[-0.36, -0.3, -0.02], [0.36, 0.32, 0.02]], np.float32)
    time = (frames / max(len(frames) - 1, 1)).astype(np.float32)
    return Capture(
        _bytes(rgb + 1 - alpha[..., None]), c2w, K, (size, 1), near, far, aabb, time, frames, moving > 0.5,
        _where(depth, alpha), points,
    )  # fmt: skip


def _circle(angles: np.ndarray, radius: float) -> np.ndarray:
    position = radius * np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], 1)
    return look_at(position, np.zeros(3), np.array([0.0, 0.0, 1.0]))


def _pictures(
    world: World, c2w: np.ndarray, K: np.ndarray, size: int, near: float, far: float, frames: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Premultiplied colour [V,1,W,3], opacity, depth × opacity and opacity of the moving part [V,1,W]."""
    o, d = camera_rays(c2w, K, (size, 1))
    looks = [world.look(o[v, 0, :, :2], d[v, 0, :, :2], near, far, int(f)) for v, f in enumerate(frames)]
    return tuple(np.stack(part)[:, None] for part in zip(*looks, strict=True))


def _where(depth: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Mean depth where a ray meets something, else NaN."""
    return np.where(alpha > 0.5, depth / np.maximum(alpha, 1e-6), np.nan).astype(np.float32)


def _bytes(x: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
