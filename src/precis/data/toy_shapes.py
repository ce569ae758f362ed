"""Signed distances [P] of points [P,3] to eight solids of about unit size: negative inside, never too large outside."""

from collections.abc import Callable

import numpy as np

REACH = 1.3  # radius of a ball around every one of them


def _sphere(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(x, axis=1) - 1)


def _solid(outside: np.ndarray) -> np.ndarray:
    """Distance from signed distances along independent directions [P,k]."""
    return np.asarray(np.linalg.norm(np.maximum(outside, 0), axis=1) + np.minimum(outside.max(1), 0))


def _box(x: np.ndarray) -> np.ndarray:
    return _solid(np.abs(x) - np.float32(0.75))


def _cylinder(x: np.ndarray) -> np.ndarray:
    return _solid(np.stack([np.hypot(x[:, 0], x[:, 1]) - 0.75, np.abs(x[:, 2]) - 0.85], 1))


def _cone(x: np.ndarray) -> np.ndarray:
    """Height 1.8 over a disc of radius 0.9; exact near the mantle and below, short of the truth at the rim."""
    r, z = np.hypot(x[:, 0], x[:, 1]), x[:, 2]
    mantle = (2 * r + z - 0.9) / np.sqrt(np.float32(5))
    return np.asarray(np.maximum(mantle, -0.9 - z))


def _torus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.hypot(np.hypot(x[:, 0], x[:, 1]) - 0.75, x[:, 2]) - np.float32(0.3))


def _capsule(x: np.ndarray) -> np.ndarray:
    z = x[:, 2] - np.clip(x[:, 2], -0.65, 0.65)
    return np.asarray(np.sqrt(x[:, 0] ** 2 + x[:, 1] ** 2 + z**2) - np.float32(0.45))


def _ellipsoid(x: np.ndarray) -> np.ndarray:
    """Half-axes 1.1, 0.7, 0.5: a bound that sphere tracing may go by, exact at the surface."""
    return np.asarray((np.linalg.norm(x / np.array([1.1, 0.7, 0.5], x.dtype), axis=1) - 1) * np.float32(0.5))


def _octahedron(x: np.ndarray) -> np.ndarray:
    return np.asarray((np.abs(x).sum(1) - np.float32(1.2)) / np.sqrt(np.float32(3)))


DISTANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sphere": _sphere, "box": _box, "cylinder": _cylinder, "cone": _cone, "torus": _torus, "capsule": _capsule,
    "ellipsoid": _ellipsoid, "octahedron": _octahedron,
}  # fmt: skip

SHAPES = tuple(DISTANCES)
