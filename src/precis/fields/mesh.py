"""From a signed distance function to a triangle mesh, and how far a mesh is from a surface.

    chamfer = (mean_a min_b ‖a − b‖ + mean_b min_a ‖a − b‖)/2,     normal error = mean of 1 − |n_a · n_b| likewise

Lorensen and Cline, SIGGRAPH 1987 (by scikit-image, in the variant of Lewiner et al., 2003).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from precis.nn.coordinates import coordinate_grid

Number = float | int


class Mesh(NamedTuple):
    """Vertices [V,3] with unit normals [V,3], and triangles [T,3] of vertex numbers, counter-clockwise from outside."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "t 3"]
    normals: Float[np.ndarray, "v 3"]


@torch.no_grad()
def sample_field(
    field: Callable[[Tensor], Tensor], resolution: int | tuple[int, int, int],
    bounds: tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]] | tuple[Number, Number] = (-1.0, 1.0), *,
    rows: int = 1 << 16, device: torch.device | str | None = None,
) -> Float[np.ndarray, "x y z"]:  # fmt: skip
    """`field` [N,3] -> [N,1] or [N] on a grid that reaches to the bounds, axes in the order of the coordinates."""
    shape = (resolution,) * 3 if isinstance(resolution, int) else resolution
    low, high = (torch.as_tensor(np.broadcast_to(np.asarray(b), 3).copy(), dtype=torch.float32) for b in bounds)
    grid = (coordinate_grid(shape, align_corners=True, span=(0.0, 1.0)) * (high - low) + low).to(device)
    return torch.cat([field(part).reshape(-1).cpu() for part in torch.split(grid, rows)]).reshape(shape).numpy()


def extract_mesh(
    field: Callable[[Tensor], Tensor], resolution: int | tuple[int, int, int] = 128,
    bounds: tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]] | tuple[Number, Number] = (-1.0, 1.0),
    level: Number = 0.0, *, rows: int = 1 << 16, device: torch.device | str | None = None,
) -> Mesh:  # fmt: skip
    """The surface field = level inside the bounds, by marching cubes; normals point to where the field grows.

    Raises ValueError if the field does not cross the level there.
    """
    from skimage.measure import marching_cubes

    values = sample_field(field, resolution, bounds, rows=rows, device=device)
    low, high = (np.broadcast_to(np.asarray(b, dtype=np.float64), 3) for b in bounds)
    if not values.min() < level < values.max():
        raise ValueError(
            f"the field has no surface at {level:g} inside the bounds: "
            f"it goes from {values.min():.3g} to {values.max():.3g}"
        )
    step = (high - low) / (np.array(values.shape) - 1)
    vertices, faces, normals, _ = marching_cubes(values, level, spacing=tuple(step))
    # scikit-image's normals point down the field, and are those of a grid of unit steps.
    normals = -normals / step
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-30)
    return Mesh((vertices + low).astype(np.float32), faces.astype(np.int64), normals.astype(np.float32))


def sample_surface(mesh: Mesh, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n points [n,3], uniform on the triangles, and the unit normals [n,3] of their triangles."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    which = generator.choice(len(area), n, p=area / area.sum())
    u, v = np.sqrt(generator.random((n, 1))), generator.random((n, 1))
    a, b, c = corners[which].transpose(1, 0, 2)
    return (1 - u) * a + u * (1 - v) * b + u * v * c, cross[which] / area[which, None]


def surface_errors(
    points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], true_points: Float[np.ndarray, "m 3"],
    true_normals: Float[np.ndarray, "m 3"],
) -> dict[str, float]:  # fmt: skip
    """"chamfer" (in the units of the points) and "normal" error (0 … 1) between two sampled surfaces, both ways."""
    there, nearest = cKDTree(true_points).query(points)
    back, nearest_back = cKDTree(points).query(true_points)
    one = 1 - np.abs((normals * true_normals[nearest]).sum(1))
    two = 1 - np.abs((true_normals * normals[nearest_back]).sum(1))
    return {"chamfer": float(there.mean() + back.mean()) / 2, "normal": float(one.mean() + two.mean()) / 2}
