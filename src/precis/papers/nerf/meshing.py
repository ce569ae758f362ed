"""The surface of a learned scene as a coloured mesh, in the units of INPUT."""

from typing import Any

import numpy as np
import torch

from precis.data.points import write_ply
from precis.fields.nerf_mesh import density_mesh

ROWS = 1 << 15  # of points whose colours are asked for at once


@torch.no_grad()
def write_mesh(work: Any, place: Any, learned: Any) -> dict[str, float | None]:
    """Marching cubes where a voxel is half opaque; colours are the mean over six directions.

    Of --ndc: in the cube, as far as --far, and with the colours that the mean camera sees.  Where nothing is so dense,
    a note and no file.
    """
    field, fast, view = learned.field, learned.fast, learned.view
    live = None if fast is None else fast.grid.cells().around

    def density(x: torch.Tensor) -> torch.Tensor:
        sigma = field.density(x)
        if fast is None or live is None:
            return sigma
        n, own = fast.grid.resolution, fast.grid.aabb
        at = ((x - own[0]) / (own[1] - own[0]) * n).long().clamp(0, n - 1)
        return sigma * live[(at[:, 0] * n + at[:, 1]) * n + at[:, 2]]

    mesh, against = density_mesh(density, 128 if work.device == "cpu" else 256, box_of(place, learned), work.device)
    if against:
        work.note(f"{'no mesh' if mesh is None else 'the mesh'}: {against}; train for longer")
    if mesh is None:
        return {"vertices": None, "faces": None}
    x, normals, faces = torch.from_numpy(mesh.vertices).to(work.device), mesh.normals, mesh.faces
    world = x
    ways = torch.cat([torch.eye(3), -torch.eye(3)]).to(work.device)[:, None]
    if view is not None:
        world, faces = view.points(x), faces[:, ::-1]  # the cube is a mirror image
        normals = view.normals(x, torch.from_numpy(normals).to(work.device)).cpu().numpy()
        ways = torch.nn.functional.normalize(world - view.pose[:, 3].to(world), dim=-1)[None]
    seen = [torch.cat([field(p, d)[1] for p, d in zip(x.split(ROWS), way.expand_as(x).split(ROWS))]) for way in ways]
    colour = torch.stack(seen).mean(0)
    vertices = place.back(world.cpu()).numpy()
    colours = np.rint(colour.cpu().numpy().clip(0, 1) * 255).astype(np.uint8)
    write_ply(work.folder / "mesh.ply", vertices, faces, normals=normals, colours=colours)
    return {"vertices": float(len(vertices)), "faces": float(len(mesh.faces))}


def box_of(place: Any, learned: Any) -> torch.Tensor:
    """Where the field is looked at, in its own coordinates: [2,3]."""
    fast, view = learned.fast, learned.view
    if view is not None:
        return torch.tensor([[-1.0] * 3, [1.0, 1.0, 1 - 2 * view.near / place.far]])
    if learned.proposed is not None or (fast is not None and fast.open):
        return torch.tensor([[-1.0] * 3, [1.0] * 3])  # of contracted space: what is not distorted
    box: torch.Tensor = place.box if fast is None else fast.grid.aabb.cpu()
    return box
