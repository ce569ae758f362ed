"""Sphere tracing of many rays at once: each goes on by its distance to the nearest surface until it is there.

Hart, The Visual Computer 1996.  Distances that are too large by a factor (of bent shapes) need a shorter `stride`.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Distance = Callable[[np.ndarray], np.ndarray]  # [P,3] -> [P], negative inside


def trace(
    distance: Distance, o: Float[np.ndarray, "r 3"], d: Float[np.ndarray, "r 3"], near: float | int, far: float | int,
    *, stride: float | int = 1.0, close: float | int = 1e-3, steps: int = 128,
) -> Float[np.ndarray, "r"]:  # fmt: skip
    """The distance along unit rays at which each first comes within `close` of the surface; inf where it does not."""
    t = np.full(len(o), float(near), o.dtype)
    going = np.arange(len(o))
    for _ in range(steps):
        left = distance(o[going] + t[going, None] * d[going])
        there = left < close
        t[going[~there]] += stride * left[~there]
        gone = t[going] > far
        t[going[gone]] = np.inf
        going = going[~(there | gone)]
        if not len(going):
            break
    return t


def normals(distance: Distance, x: Float[np.ndarray, "p 3"], step: float | int = 1e-3) -> Float[np.ndarray, "p 3"]:
    """Unit normals at points of the surface, from differences at the corners of a tetrahedron."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], x.dtype)
    n = sum(c * distance(x + np.asarray(step, x.dtype) * c)[:, None] for c in corners)
    return np.asarray(n / np.linalg.norm(n, axis=1, keepdims=True).clip(1e-12))
