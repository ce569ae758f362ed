"""The surface of a density σ as a triangle mesh: where a voxel is half opaque, 1 − e^{−σ·voxel} = ½.

Marching cubes: Lorensen and Cline, SIGGRAPH 1987 (`precis.fields.mesh`).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from precis.fields.mesh import Mesh, extract_mesh

FEW = 1e-4  # of the voxels: so little that is dense is hardly a scene


def density_mesh(
    density: Callable[[Tensor], Tensor], cells: int, box: Float[Tensor, "2 3"],
    device: torch.device | str | None = None,
) -> tuple[Mesh | None, str]:  # fmt: skip
    """The surface of `density` [N,3] -> [N] (1/length) inside the box, of whose longest side a voxel is one in `cells`,
    normals pointing out of what is dense; and what speaks against it, in words ("": nothing).

    None where no voxel, or every one, is half opaque.
    """
    side = (box[1] - box[0]).cpu().numpy()
    level = math.log(2) * cells / float(side.max())
    x, y, z = (int(n) for n in np.maximum(np.round(cells * side / side.max()), 8))
    dense, most = 0, -math.inf

    def outwards(x: Tensor) -> Tensor:  # normals point to where a field grows; density grows inwards
        nonlocal dense, most
        sigma = density(x)
        dense, most = dense + int((sigma > level).sum()), max(most, float(sigma.max()))
        return -sigma

    wanted = f"a surface is where it passes {level:.3g}, a voxel half opaque"
    try:
        mesh = extract_mesh(outwards, (x, y, z), (box[0].cpu().numpy(), box[1].cpu().numpy()), -level, device=device)
    except ValueError:
        reached = f"the density is {most:.3g} at most" if most <= level else "the density is high everywhere"
        return None, f"{reached}, and {wanted}"
    if dense < FEW * x * y * z:
        return mesh, f"it holds little of the scene: {dense:,} of {x * y * z:,} voxels are dense, and {wanted}"
    return mesh, ""
