"""What the deformation does: how far it carries what a photograph shows, and how much it stretches."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.images import write_image
from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerfies_losses import log_singular_values
from precis.lab.figures import curves
from precis.papers.job import Work
from precis.papers.work import save, writing

from .opening import Opened
from .training import Portrait

JACOBIANS = 8  # photographs at which singular values are taken
QUANTILE = 0.99  # of a map's values, below the top of the scale


@torch.no_grad()
def moved(opened: Opened, model: Portrait, view: int, depth: Tensor, alpha: float) -> np.ndarray:
    """‖T(x) − x‖ [H,W] at the surface that a photograph shows, in the units of INPUT; NaN where there is none."""
    x = surface(opened.cameras, view, depth)
    codes = model.codes(torch.full((len(x),), view, device=x.device))
    far = (model.canonical(x, codes, alpha)[0] - x).norm(dim=-1).view(depth.shape).cpu().numpy() / opened.scale
    return np.where(depth.numpy() < 0.9999 * model.far, far, np.nan).astype(np.float32)


class Maps:
    """deformation/NAME.npy and .png, all pictures on one scale from 0 to `top`: what all but a hundredth of the pixels
    of any photograph stay below, rounded up to two figures."""

    def __init__(self, work: Work) -> None:
        self.work, self.most = work, 0.0
        self.names: list[str] = []

    def add(self, name: str | None, found: np.ndarray) -> None:
        """A photograph's map; without a name it counts for the scale alone."""
        if np.isfinite(found).any():
            self.most = max(self.most, float(np.nanquantile(found, QUANTILE)))
        if name is not None:
            self.names.append(name)
            file = self.work.folder / "deformation" / f"{name}.npy"
            with writing(file) as beside:
                np.save(beside, found)

    @property
    def top(self) -> float:
        if not self.most:
            return 1.0
        unit = 10.0 ** (math.floor(math.log10(self.most)) - 1)
        return float(f"{math.ceil(self.most / unit - 1e-9) * unit:.6g}")

    def picture(self, found: np.ndarray) -> np.ndarray:
        """[3,H,W]: dark 0, bright `top` and more, white where nothing is."""
        import matplotlib

        colours = matplotlib.colormaps["magma"](np.nan_to_num(found / self.top).clip(0, 1))[..., :3]
        return np.moveaxis(np.where(np.isnan(found)[..., None], 1.0, colours), -1, 0)

    def finish(self) -> None:
        """The pictures, and what their colours mean."""
        folder = self.work.folder / "deformation"
        for name in self.names:
            write_image(folder / f"{name}.png", self.picture(np.load(folder / f"{name}.npy", allow_pickle=False)))
        self.work.note(f"maps of the deformation: how far T carries the surface that a photograph shows, in the units "
                       f"of INPUT, from dark (0) to bright ({self.top:g} or more); white where nothing is")  # fmt: skip


@torch.no_grad()
def stretching(opened: Opened, model: Portrait, alpha: float, work: Work, names: dict[int, str]) -> dict[str, Any]:
    """Singular values of the Jacobian at the surfaces that training photographs show, as a histogram."""
    if model.warp is None:
        return {}
    found, far, pixels = [], [], []
    for v in opened.train[:: -(-len(opened.train) // JACOBIANS)]:
        depth = torch.from_numpy(np.load(work.folder / "depth" / f"{names[v]}.npy", allow_pickle=False))
        x = surface(opened.cameras, v, depth * opened.scale)
        codes = model.codes(torch.full((len(x),), v, device=x.device))
        place, jacobian = model.canonical(x, codes, alpha, jacobian=True)
        assert jacobian is not None
        found.append(log_singular_values(jacobian.cpu()).exp())
        far.append((place - x).norm(dim=-1).cpu())
        pixel = depth.reshape(-1) * opened.scale / float(opened.cameras.K[v, :2].mean())
        there = (depth.reshape(-1) * opened.scale < 0.9999 * model.far) & (pixel > 0)
        pixels.append((far[-1] / pixel)[there].numpy())
    values = torch.cat(found)
    counts, edges = np.histogram(values.numpy(), bins=60, range=(0.5, 1.5))
    middle = (edges[1:] + edges[:-1]) / 2
    chart = curves({"share": (middle, counts / values.numel())}, x_label="singular values of ∂T/∂x (1: rigid)")
    save(work.folder / "singular_values.png", chart.png())
    mean = float(torch.cat(far).mean()) / opened.scale
    most = hardly(np.concatenate(pixels), work)
    return {"mean_log_stretch": float(values.log().abs().mean()), "mean_deformation": mean, "most_moved_pixels": most}


def hardly(moved_by: np.ndarray, work: Work) -> float | None:
    """How many pixels all but a hundredth of the seen surface are carried by at most; a note if that is less than one,
    None where nothing is seen."""
    if not len(moved_by):
        return None
    most = float(np.quantile(moved_by, QUANTILE))
    if most < 1:
        work.note(f"the field hardly moves anything: {QUANTILE:.0%} of the surface that photographs show is carried by "
                  f"less than {most:.2g} of a pixel.  Nothing moves here, or the training was too short: give it more "
                  "--minutes or --steps")  # fmt: skip
    return most


def surface(cameras: Cameras, view: int, depth: Tensor) -> Tensor:
    """Points [H·W,3] at these distances along a photograph's rays."""
    rays: Rays = cameras.all_rays(view, unit=True)
    return (rays.o + depth.to(rays.o)[..., None] * rays.d).reshape(-1, 3)
