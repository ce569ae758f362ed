"""Looking into a finished run: a window of a picture, a shape from any side, computed from the saved function."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from precis.errors import InputError

PICTURES = ("fit", "resample", "poisson", "blend")


@torch.no_grad()
def zoom(folder: Path, at: dict[str, float], size: tuple[int, int]) -> np.ndarray:
    """The window x0 … x1 × y0 … y1 (shares of width and height, y down) as [C,size[1],size[0]] in 0 … 1."""
    net, settings = _opened(folder, PICTURES)
    x0, x1, y0, y1 = (float(at[name]) for name in ("x0", "x1", "y0", "y1"))
    if not (x0 < x1 and y0 < y1):
        raise InputError("a window needs x0 < x1 and y0 < y1")
    width, height = size
    like = next(net.parameters())
    across = x0 + (x1 - x0) * (torch.arange(width, device=like.device) + 0.5) / width
    down = y0 + (y1 - y0) * (torch.arange(height, device=like.device) + 0.5) / height
    if settings.get("align_corners"):  # pixel centres i + ½ of N lie at −1 + 2i/(N−1)
        down, across = (_to_corners(u, n) for u, n in zip((down, across), _pixels(folder)))
    else:
        down, across = 2 * down - 1, 2 * across - 1
    grid = torch.stack(torch.meshgrid(down, across, indexing="ij"), -1).reshape(-1, 2)
    values = torch.cat([net(part) for part in grid.split(1 << 16)]).T.reshape(-1, height, width)
    return _as_picture(((values + 1) / 2).cpu().numpy(), bool(settings.get("linear")))


def orbit(folder: Path, at: dict[str, float], size: tuple[int, int]) -> np.ndarray:
    """The shape as [3,size[1],size[0]] in 0 … 1, from azimuth and elevation (degrees) at a distance (half-widths)."""
    from .render import lookup, shaded

    net, _ = _opened(folder, ("sdf",))
    def gradient(x: torch.Tensor) -> torch.Tensor:
        return net.jet(x, 1).grad[:, 0]

    away = max(float(at.get("distance", 3.4)), 1.8)
    return shaded(lookup(_distances(str(folder), _stamp(folder))), gradient, azimuth=float(at.get("azimuth", 35)),
                  elevation=float(at.get("elevation", 25)), away=away, size=size,
                  device=next(net.parameters()).device)  # fmt: skip


def _opened(folder: Path, tasks: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError("there is no finished run in this folder", file=folder) from None
    if result.get("task") not in tasks:
        words = f"this view is for runs of {' or '.join(tasks)}, and this is {result.get('task')}"
        raise InputError(words, file=folder)
    return _model(str(folder), _stamp(folder)), result.get("settings", {})


def _stamp(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_mtime_ns if (folder / "model.safetensors").exists() else 0


@lru_cache(maxsize=4)
def _model(folder: str, stamp: int) -> Any:
    from precis.train.checkpoint import load_model

    return load_model(folder, device="cuda" if torch.cuda.is_available() else "cpu").requires_grad_(False)


@lru_cache(maxsize=2)
def _distances(folder: str, stamp: int) -> torch.Tensor:
    """Φ on a 64³ grid [x,y,z]."""
    from precis.fields.mesh import sample_field

    net = _model(folder, stamp)
    device = next(net.parameters()).device
    return torch.from_numpy(sample_field(lambda x: net(x), 64, device=device)).float().to(device)


def _to_corners(share: torch.Tensor, n: int) -> torch.Tensor:
    return 2 * (share * n - 0.5) / (n - 1) - 1 if n > 1 else 0 * share


def _pixels(folder: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(folder / "reconstruction.png") as picture:
        return picture.height, picture.width


def _as_picture(values: np.ndarray, linear: bool) -> np.ndarray:
    from .pictures import Picture

    alpha = len(values) in (2, 4)
    return Picture(values, alpha, linear, False, 0.0, 1.0, values.shape[1:]).back(values)
