"""A surface from oriented points, as the zero set of a signed distance function: `sdf`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.points import Points, read_points, write_ply
from precis.errors import InputError, RunFailed
from precis.fields.mesh import extract_mesh, sample_field
from precis.fields.siren_pde import UnitBox, fit_sdf, to_unit_box
from precis.lab.figures import contact_sheet, curves
from precis.papers.job import Work
from precis.papers.work import save

from .common import Metrics, Scalars, batch_of, diverging, draw, finish, make_net, numpy, training, write_curve
from .normals import estimate_normals
from .render import REACH, lookup, shaded

FEWEST, MARGIN = 100, 0.1


def run_sdf(job: Any, work: Work) -> Metrics:
    """Φ = 0 and ∇Φ = n at the points, ‖∇Φ‖ = 1 everywhere; the mesh is in the units of INPUT."""
    cloud = load_cloud(job, work)
    box = to_unit_box(torch.from_numpy(cloud.points).float(), MARGIN)
    points, normals = (x.to(work.device) for x in (box.points, torch.from_numpy(cloud.normals).float()))
    net = make_net(job, work, 3, 1)
    run = fit_sdf(
        net, points, normals, generator=draw(job, "batches"), batch=batch_of(job), **training(job, work, show=_terms)
    )
    metrics = errors_at(net, points, normals, box.scale)
    metrics["eikonal_error"] = _eikonal(work, net, draw(job, "sample"))
    cells = job.mesh_resolution or (256 if work.device.startswith("cuda") else 96)
    metrics |= _mesh(work, net, box, cells)
    _pictures(work, net)
    write_curve(work, "loss.png", run, "loss", "loss", log_y=True)
    return metrics | finish(work, net)


def load_cloud(job: Any, work: Work) -> Points:
    """Points with normals; what no surface can be had from is told."""
    cloud = read_points(job.input)
    if len(cloud.points) < FEWEST:
        raise InputError(f"{len(cloud.points)} points; a surface needs at least {FEWEST}", file=job.input)
    spread = np.linalg.svd(cloud.points - cloud.points.mean(0), compute_uv=False)
    if spread[1] <= 1e-7 * spread[0] or spread[0] == 0:
        place = "in one place" if spread[0] == 0 else "on one line"
        raise InputError(f"all points lie {place}: there is no area that they could cover", file=job.input)
    if job.estimate_normals:
        if cloud.normals is not None:
            work.note("--estimate-normals: the normals of the file were not read")
        return Points(cloud.points, estimate_normals(cloud.points))
    if cloud.normals is None:
        words = "the points have no normals (columns nx ny nz); --estimate-normals makes them from their neighbours"
        raise InputError(words, file=job.input)
    return cloud


@torch.no_grad()
def errors_at(net: Any, points: Tensor, normals: Tensor, scale: float) -> Metrics:
    """Mean |Φ| at the points, in their units, and the mean angle between ∇Φ and the normals."""
    jets = [net.jet(part, 1) for part in points.split(1 << 16)]
    distance = torch.cat([jet.value.abs() for jet in jets]).mean() * scale
    cosine = torch.cosine_similarity(torch.cat([jet.grad[:, 0] for jet in jets]), normals, dim=1)
    angle = cosine.clamp(-1, 1).arccos().rad2deg().mean()
    return {"mean_distance": float(distance), "normal_error_degrees": float(angle)}


def gradient_of(net: Any) -> Any:
    return lambda x: torch.cat([net.jet(part, 1).grad[:, 0] for part in x.split(1 << 16)])


@torch.no_grad()
def _eikonal(work: Work, net: Any, generator: torch.Generator) -> float:
    """Mean of | ‖∇Φ‖ − 1 | in the box, and its histogram."""
    x = (torch.rand(1 << 15, 3, generator=generator) * 2 - 1).to(work.device)
    length = numpy(gradient_of(net)(x).norm(dim=1))
    counts, edges = np.histogram(length, bins=80, range=(0, 2))
    middle = (edges[1:] + edges[:-1]) / 2
    share = {"share": (middle, counts / len(length))}
    chart = curves(share, x_label="‖∇Φ‖ in the box (1: a distance)", y_label="share")
    save(work.folder / "eikonal.png", chart.png())
    return float(np.abs(length - 1).mean())


def _mesh(work: Work, net: Any, box: UnitBox, cells: int) -> Metrics:
    try:
        mesh = extract_mesh(lambda x: net(x), cells, (-REACH, REACH), device=work.device)
    except ValueError as error:
        raise RunFailed(f"no surface was found ({error}): try more --steps, or check the normals") from None
    vertices = mesh.vertices * box.scale + box.centre.numpy()
    write_ply(work.folder / "mesh.ply", vertices, mesh.faces, normals=mesh.normals)
    corners = vertices[mesh.faces].astype(np.float64)
    corners -= corners.mean((0, 1))
    cross = np.cross(corners[:, 1], corners[:, 2])
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    volume = float((corners[:, 0] * cross).sum() / 6)
    return {"vertices": len(vertices), "faces": len(mesh.faces), "area": float(area), "volume": volume}


def _pictures(work: Work, net: Any) -> None:
    """The shape from two sides, and slices through the middle of the box."""
    values = sample_field(lambda x: net(x), 64 if work.device == "cpu" else 160, device=work.device)
    distance = lookup(torch.from_numpy(values).float().to(work.device))
    views = [
        shaded(distance, gradient_of(net), azimuth=a, elevation=e, size=(384, 384), device=work.device)
        for a, e in ((35.0, 25.0), (125.0, 25.0), (35.0, 80.0))
    ]
    work.image("shape", views[0])
    slices = [slice_picture(net, axis, work.device) for axis in range(3)]
    labels = ["from the front", "from the side", "from above", "slice x = 0", "slice y = 0", "slice z = 0"]
    save(work.folder / "overview.png", contact_sheet([*views, *slices], labels, columns=3, size=384))
    work.show("overview.png")


@torch.no_grad()
def slice_picture(net: Any, axis: int, device: str, size: int = 384) -> np.ndarray:
    """Distances in a plane through the middle: red outside, blue inside, lines a tenth apart, the surface black."""
    line = torch.linspace(-1, 1, size, device=device)
    down, right = torch.meshgrid(-line, line, indexing="ij")
    planes = {0: (torch.zeros_like(down), right, down), 1: (right, torch.zeros_like(down), down),
              2: (right, down, torch.zeros_like(down))}  # fmt: skip
    x = torch.stack(planes[axis], -1).reshape(-1, 3)
    values = numpy(torch.cat([net(part) for part in x.split(1 << 16)])).reshape(size, size)
    picture = diverging(values, 1.0)
    pixel = 2 / size
    picture[:, np.abs(values - 0.1 * np.round(values / 0.1)) < 0.5 * pixel] *= 0.8
    picture[:, np.abs(values) < 1.2 * pixel] = 0.1
    return picture


def _terms(scalars: Scalars) -> Scalars:
    return {name: scalars[name] for name in ("loss", "sdf", "normal", "eikonal") if name in scalars}
