"""Surfaces: of the canonical scene, of the frozen instant, and with `--meshes all` of every instant.

Those of an instant are found in the observation's space: T is evaluated, never inverted.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from precis.data.captures_names import file_names
from precis.data.points import write_ply
from precis.fields.nerf_mesh import density_mesh
from precis.fields.nerfies import Codes
from precis.papers.job import Work

from .opening import Opened
from .training import Portrait


def instants_of(opened: Opened) -> dict[int, int]:
    """{code: the first training photograph that has it}."""
    found: dict[int, int] = {}
    for v in opened.train:
        found.setdefault(int(opened.frame[v]), v)
    return found


def write_meshes(
    job: Any, opened: Opened, model: Portrait, alpha: float, work: Work, frozen: int, tick: Callable[[], None]
) -> None:
    """mesh_canonical.ply, mesh_frozen.ply, and meshes/ID.ply of every instant if they are asked for."""
    _write(job, opened, model, alpha, work, "mesh_canonical", frozen, canonical=True)
    _write(job, opened, model, alpha, work, "mesh_frozen", frozen)
    if job.meshes == "all":
        views = list(instants_of(opened).values())
        for v, name in zip(views, file_names([opened.names[v] for v in views]), strict=True):
            _write(job, opened, model, alpha, work, f"meshes/{name}", v)
            tick()


def _write(
    job: Any, opened: Opened, model: Portrait, alpha: float, work: Work, name: str, view: int, canonical: bool = False
) -> None:  # fmt: skip
    """A mesh in the units of INPUT, where a cell is half opaque; colours as that photograph's camera sees them."""
    cells = job.mesh_resolution or (192 if work.device.startswith("cuda") else 64)
    codes = Codes(*(None if c is None else c[None] for c in model.of(view)))
    template: Any = model.template if model.fine is None else model.fine
    ways = -opened.cameras.c2w[view, :, 2]

    def density(x: Tensor) -> Tensor:
        return template.density(x) if canonical else model.density(x, codes, alpha)  # type: ignore[no-any-return]

    mesh, against = density_mesh(density, cells, opened.box, work.device)
    if against:
        work.note(f"{name}.ply{' was not made' if mesh is None else ''}: {against}")
    if mesh is None:
        return
    with torch.no_grad():
        at = torch.from_numpy(mesh.vertices).to(work.device)
        if not canonical:
            at = model.canonical(at, codes, alpha)[0]
        extra = [] if codes.appearance is None else [codes.appearance]
        rgb = torch.cat([template(part, ways[None], *extra)[1].cpu() for part in at.split(1 << 15)])
    file = work.folder / f"{name}.ply"
    file.parent.mkdir(parents=True, exist_ok=True)
    colours = (rgb * 255).round().to(torch.uint8).numpy()
    vertices = mesh.vertices / opened.scale - opened.shift.numpy()
    write_ply(file, vertices, mesh.faces, normals=mesh.normals, colours=colours)
