"""The surface of a density: where it lies, which way it faces, and what is said where there is hardly one."""

import math

import numpy as np
import pytest
import torch

from precis.fields.nerf_mesh import density_mesh

BOX = torch.tensor([[-1.0, -1, -0.5], [1.0, 1, 0.5]])
LEVEL = math.log(2) * 32 / 2


def test_a_ball_of_half_opaque_voxels():
    mesh, against = density_mesh(lambda x: LEVEL * (1.4 - 2 * x.norm(dim=-1)).exp(), 32, BOX * 1.0)
    inside = np.abs(mesh.vertices[:, 2]) < 0.45
    assert np.abs(np.linalg.norm(mesh.vertices[inside], axis=1) - 0.7).max() < 0.01 and against == ""
    ways = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert ((mesh.normals * ways).sum(1)[inside] > 0.98).all()


@pytest.mark.parametrize(("density", "words"), [
    (lambda x: 0 * x[:, 0] + 0.5, "the density is 0.5 at most, and a surface is where it passes 11.1, a voxel half"),
    (lambda x: 0 * x[:, 0] + 50.0, "the density is high everywhere, and a surface is where it passes 11.1"),
])  # fmt: skip
def test_where_there_is_no_surface(density, words):
    mesh, against = density_mesh(density, 32, BOX)
    assert mesh is None and against.startswith(words)


def test_a_speck_is_told():
    speck = lambda x: 100.0 * ((x - torch.tensor([0.1, 0.1, 0.1])).norm(dim=-1) < 0.04)
    mesh, against = density_mesh(speck, 64, BOX)
    assert len(mesh.faces) and "holds little of the scene" in against and f"of {64 * 64 * 32:,} voxels" in against
