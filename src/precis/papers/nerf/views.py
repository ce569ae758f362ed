"""Looking at a learned scene from any side."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from precis.errors import InputError
from precis.fields.nerf_cameras import Cameras, look_at
from precis.fields.nerf_fast import FastModel, fast_renderer
from precis.fields.nerf_fit import Renderer, dense_renderer, render_view
from precis.fields.nerf_grid import OccupancyGrid
from precis.fields.nerf_ndc import NdcField, ndc_renderer, restored
from precis.fields.nerf_proposal import ProposalModel, proposal_renderer
from precis.fields.nerf_render import Rendered

COARSE = 200  # pixels below which steps are doubled
BEGIN = {"azimuth": 30.0, "elevation": 20.0, "distance": 3.0}  # of a viewer
USUAL = BEGIN["distance"]


def orbit(folder: Path, at: dict[str, float], size: tuple[int, int]) -> np.ndarray:
    """The scene [3,size[1],size[0]] in 0 … 1 from azimuth and elevation (degrees); distance 3 is the cameras' own.

    If the cameras stand on one side, azimuth 30 is where they are, and so is elevation 20 if they stand close together.
    """
    made, background = look(folder, at, size)
    rgb, clear = made.rgb.cpu().numpy(), 1 - made.opacity.cpu().numpy()[..., None]
    return np.moveaxis((rgb + clear * background).clip(0, 1), -1, 0)


def look(folder: Path, at: dict[str, float], size: tuple[int, int]) -> tuple[Rendered, np.ndarray]:
    """That view before the background, with opacity and depth; and the background's colour."""
    try:
        scene = json.loads((folder / "scene.json").read_text(encoding="utf-8"))
        stamp = (folder / "model.safetensors").stat().st_mtime_ns
    except (OSError, ValueError):
        raise InputError("there is no finished run in this folder", file=folder) from None
    width, height = size
    render, device = opened(str(folder), stamp, max(size) < COARSE)
    up, centre = (torch.tensor(scene[name], dtype=torch.float32) for name in ("up", "centre"))
    east = F.normalize(torch.linalg.cross(up, torch.eye(3)[int(up.abs().argmin())]), dim=0)
    azimuth, elevation = (float(at.get(name, BEGIN[name])) for name in ("azimuth", "elevation"))
    if scene.get("ahead") is not None:
        east, azimuth = F.normalize(torch.tensor(scene["ahead"]), dim=0), azimuth - BEGIN["azimuth"]
    if scene.get("rise") is not None:
        elevation += scene["rise"] - BEGIN["elevation"]
    north = torch.linalg.cross(up, east)
    a, e = np.radians([azimuth, np.clip(elevation, -89, 89)])
    away = max(float(at.get("distance", USUAL)), 0.05) * scene["radius"] / USUAL
    way = float(np.cos(e)) * (float(np.cos(a)) * east + float(np.sin(a)) * north) + float(np.sin(e)) * up
    c2w = look_at((centre + away * way)[None], centre, up)
    focal = scene["focal"] * min(width, height)
    K = torch.tensor([[focal, focal, width / 2, height / 2]])
    made = render_view(render, Cameras(c2w, K, (width, height)).to(device), 0)
    return made, np.array(scene["background"], np.float32)


def saved_grid(aabb: list[list[float]], resolution: int) -> OccupancyGrid:
    """The empty grid that a saved state is put into."""
    return OccupancyGrid(torch.tensor(aabb), resolution)


@lru_cache(maxsize=2)
def opened(folder: str, stamp: int, coarse: bool) -> tuple[Renderer, str]:
    """The run's renderer; `coarse`: with steps of twice the length, or half as many samples."""
    from precis.train.checkpoint import load_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    scene = json.loads((Path(folder) / "scene.json").read_text(encoding="utf-8"))
    field: Any = load_model(folder, device=device).requires_grad_(False)
    if scene.get("sampling") == "proposal":
        proposal: Any = load_model(folder, name="proposal", device=device)
        proposed = ProposalModel(field, proposal, *([(32, 24)] if coarse else []))
        return proposal_renderer(proposed, near=scene["near"], far=scene["far"], background=None), device
    if scene["model"] == "fast":
        grid: Any = load_model(folder, name="grid", device=device)
        model = FastModel(field, grid, scene["step"] * (2 if coarse else 1), True, scene["open"])
        near, far = (scene["near"], scene["far"]) if scene["open"] else (0.02, 4 * scene["far"])
        return fast_renderer(model, near=near, far=far, background=None), device
    fine = load_model(folder, name="fine", device=device) if scene["model"] == "vanilla" else None
    samples = (24, 24) if scene["model"] == "tiny" else (64, 128)
    if scene.get("ndc") is None:
        return dense_renderer(field, scene["near"], scene["far"], *samples, fine=fine, background=None), device
    view = restored(scene["ndc"])
    seen, better = (n if n is None else NdcField(n, view) for n in (field, fine))
    cube = dense_renderer(seen, 0.0, 1.0, *samples, fine=better, background=None)
    return ndc_renderer(cube, view, scene["far"]), device
