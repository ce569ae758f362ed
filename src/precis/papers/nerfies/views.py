"""Cameras around a frozen instant, and the live view of a finished run."""

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from precis.errors import InputError
from precis.fields.nerf_cameras import Cameras, focus, look_at
from precis.fields.nerfies import render_many

SWING = 12.0  # degrees to either side
PLACE = "camera.json"
BEGIN = {"azimuth": 30.0, "elevation": 20.0, "distance": 3.0}  # where a viewer begins: at the instant's own camera
LEAST = 1e-3  # of lengths that must not vanish


def swing(cameras: Cameras, view: int, n: int) -> Cameras:
    """n places of the camera of `view` as it swings to both sides, and a little up and down, about the focus."""
    turn = 2 * math.pi * torch.arange(n) / n
    azimuth, elevation = SWING * turn.sin(), SWING / 3 * (2 * turn).sin()
    target = focus(cameras)
    poses = [around(cameras.c2w[view], target, float(a), float(e), 1.0) for a, e in zip(azimuth, elevation)]
    rows = [view] * n
    bent = None if cameras.distortion is None else cameras.distortion[rows]
    return Cameras(torch.stack(poses), cameras.K[rows], cameras.size[rows], distortion=bent, model=cameras.model)


def around(pose: Tensor, target: Tensor, azimuth: float, elevation: float, distance: float) -> Tensor:
    """The pose [3,4] turned about `target` by degrees, at a multiple of its distance, looking at it."""
    up = F.normalize(pose[:, 1], dim=0)
    offset = pose[:, 3] - target
    east = F.normalize(torch.linalg.cross(up, offset), dim=0)
    north = F.normalize(torch.linalg.cross(offset, east), dim=0)
    a, e = math.radians(azimuth), math.radians(max(-89.0, min(89.0, elevation)))
    length = offset.norm()
    ahead = F.normalize(offset, dim=0)
    way = math.cos(e) * (math.cos(a) * ahead + math.sin(a) * east) + math.sin(e) * north
    return look_at((target + distance * length * way)[None], target, up)[0]


def remember(cameras: Cameras, view: int, codes: Any, alpha: float) -> dict[str, Any]:
    """What `orbit` needs beside the model, as JSON values."""
    return {
        "c2w": cameras.c2w[view].tolist(), "K": cameras.K[view].tolist(), "size": cameras.size[view].tolist(),
        "target": focus(cameras).tolist(), "alpha": alpha,
        "codes": [None if c is None else c.tolist() for c in codes],
    }  # fmt: skip


@torch.no_grad()
def orbit(folder: Path, at: dict[str, float], size: tuple[int, int]) -> np.ndarray:
    """The frozen instant as [3,size[1],size[0]] in 0 … 1; at `BEGIN` from the place of its own photograph.

    The span of depths that is rendered goes with the camera, so that the scene is there from afar and from near.
    """
    from precis.fields.nerfies import Codes

    try:
        place = json.loads((folder / PLACE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError("there is no finished run in this folder", file=folder) from None
    model = _model(str(folder), (folder / "model.safetensors").stat().st_mtime_ns)
    device = next(model.parameters()).device
    width, height = size
    look = {name: float(at.get(name, usual)) for name, usual in BEGIN.items()}
    own, target = torch.tensor(place["c2w"]), torch.tensor(place["target"])
    times = max(look["distance"] / BEGIN["distance"], LEAST)
    turned = look["azimuth"] - BEGIN["azimuth"], look["elevation"] - BEGIN["elevation"]
    pose = around(own, target, *turned, times)
    turn = pose[:, :3] @ around(own, target, 0.0, 0.0, 1.0)[:, :3].T  # the photograph looks a little past the target
    pose = torch.cat([turn @ own[:, :3], pose[:, 3:]], 1)
    moved = (times - 1) * float((own[:, 3] - target).norm())
    near, far = max(model.near + moved, LEAST * model.far), max(model.far + moved, 2 * LEAST * model.far)
    full = max(place["size"][0] / width, place["size"][1] / height)
    focal = place["K"][0] / full
    K = torch.tensor([[focal, focal, width / 2, height / 2]])
    cameras = Cameras(pose[None], K, (width, height)).to(device)
    codes = Codes(*(None if c is None else torch.tensor(c, device=device) for c in place["codes"]))
    rays = cameras.all_rays(0, unit=True)
    def drawn(r: Any, c: Any) -> Any:
        return model.passes(model, r, c, place["alpha"], near, far, background=model.background).best

    rgb, _, _ = render_many(drawn, rays, codes)
    return rgb.clamp(0, 1).permute(2, 0, 1).cpu().numpy()


@lru_cache(maxsize=4)
def _model(folder: str, stamp: int) -> Any:
    from precis.train.checkpoint import load_model

    return load_model(folder, device="cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False)
