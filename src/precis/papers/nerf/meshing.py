"""The surface of a learned scene as a coloured mesh, in the units of INPUT."""

import math
from typing import Any

import numpy as np
import torch

from precis.data.points import write_ply
from precis.fields.mesh import extract_mesh


@torch.no_grad()
def write_mesh(work: Any, place: Any, learned: Any) -> dict[str, float | None]:
    """Marching cubes where a voxel is half opaque, σ = ln 2/voxel; colours are the mean over six directions.

    Where the density reaches that nowhere, a note and no file.
    """
    field, fast = learned.field, learned.fast
    open_box = torch.tensor([[-1.0] * 3, [1.0] * 3])  # of contracted space: what is not distorted
    whole = learned.proposed is not None or (fast is not None and fast.open)
    box = open_box if whole else place.box if fast is None else fast.grid.aabb.cpu()
    cells = 128 if work.device == "cpu" else 256
    side = (box[1] - box[0]).numpy()
    across, along, up = (int(n) for n in np.maximum(np.round(cells * side / side.max()), 8))
    voxel = float(side.max()) / cells
    live = None if fast is None else fast.grid.cells().around

    def density(x: torch.Tensor) -> torch.Tensor:
        sigma = field.density(x)
        if fast is None or live is None:
            return sigma
        n, own = fast.grid.resolution, fast.grid.aabb
        at = ((x - own[0]) / (own[1] - own[0]) * n).long().clamp(0, n - 1)
        return sigma * live[(at[:, 0] * n + at[:, 1]) * n + at[:, 2]]

    try:
        # Normals point to where a field grows; density grows inwards.
        bounds = box[0].numpy(), box[1].numpy()
        mesh = extract_mesh(
            lambda x: -density(x), (across, along, up), bounds, -math.log(2) / voxel, device=work.device
        )
    except ValueError as error:
        work.note(f"no mesh: {error}; train for longer")
        return {"vertices": None, "faces": None}
    x = torch.from_numpy(mesh.vertices).to(work.device)
    ways = torch.cat([torch.eye(3), -torch.eye(3)]).to(work.device)
    seen = [torch.cat([field(p, d.expand_as(p))[1] for p in x.split(1 << 15)]) for d in ways]
    colour = torch.stack(seen).mean(0)
    vertices = place.back(x.cpu()).numpy()
    colours = np.rint(colour.cpu().numpy().clip(0, 1) * 255).astype(np.uint8)
    write_ply(work.folder / "mesh.ply", vertices, mesh.faces, normals=mesh.normals, colours=colours)
    return {"vertices": float(len(vertices)), "faces": float(len(mesh.faces))}
