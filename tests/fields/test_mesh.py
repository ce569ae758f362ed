import numpy as np
import pytest
import torch

from precis.fields.mesh import extract_mesh, sample_field, sample_surface, surface_errors

CENTRE = torch.tensor([0.1, -0.2, 0.3])
BOUNDS = (np.array([-1.0, -0.9, -0.8]), np.array([0.9, 1.2, 1.1]))


def sphere(x: torch.Tensor) -> torch.Tensor:
    return (x - CENTRE).norm(dim=1, keepdim=True) - 0.5


def test_a_sphere_comes_out_where_it_is() -> None:
    mesh = extract_mesh(sphere, (40, 26, 60), BOUNDS)
    offset = mesh.vertices - CENTRE.numpy()
    radius = np.linalg.norm(offset, axis=1)
    voxel = max(1.9 / 39, 2.1 / 25, 1.9 / 59)
    assert np.abs(radius - 0.5).max() < voxel / 2
    assert ((offset / radius[:, None]) * mesh.normals).sum(1).min() > 0.99
    corners = mesh.vertices[mesh.faces]
    volume = np.einsum("ni,ni->n", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.02)  # positive: triangles face outwards


def test_axes_keep_their_order() -> None:
    values = sample_field(lambda x: x[:, 0] + 10 * x[:, 1] + 100 * x[:, 2], (3, 4, 5), (np.zeros(3), np.ones(3)))
    assert values.shape == (3, 4, 5)
    assert values[2, 0, 0] == pytest.approx(1) and values[0, 3, 0] == pytest.approx(10)
    assert values[0, 0, 4] == pytest.approx(100)


def test_errors_between_surfaces() -> None:
    generator = np.random.default_rng(0)
    direction = generator.normal(size=(4000, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    here = surface_errors(direction, direction, direction, direction)
    assert here["chamfer"] == 0 and here["normal"] == pytest.approx(0, abs=1e-12)
    larger = surface_errors(direction * 1.1, direction, direction, direction)
    assert larger["chamfer"] == pytest.approx(0.1, abs=0.002)
    points, normals = sample_surface(extract_mesh(sphere, 50, BOUNDS), 4000, np.random.default_rng(1))
    errors = surface_errors(points, normals, direction * 0.5 + CENTRE.numpy(), direction)
    assert errors["chamfer"] < 0.02 and errors["normal"] < 0.01
    assert ((points - CENTRE.numpy()) * normals).sum(1).min() > 0


def test_no_surface_is_an_error() -> None:
    with pytest.raises(ValueError, match="no surface at 0"):
        extract_mesh(lambda x: x.norm(dim=1) + 1, 8)
