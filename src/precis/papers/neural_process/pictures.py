"""What a person looks at: predictions with their bands, completions with their uncertainty."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.fields.neural_process_variants import LatentCNP
from precis.lab.figures import PALETTE, Chart, contact_sheet, plain
from precis.lab.sheets import INK

from .reading import Function, Functions

SHOWN = 6  # functions, or pictures, of a figure
OURS, PEER = PALETTE[0], PALETTE[1]
VEIL = np.array([0.16, 0.22, 0.36], np.float32)[:, None, None]  # pixels that were not shown


def predictions_chart(net: Any, scale: Any, held: list[Function], found: Functions, pooled: Any) -> Chart:
    """Held-out functions predicted from a few of their points: mean, 50 % and 90 % bands, and a GP beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from .tasks_functions import BANDS, predict

    some = (held or [f for f in found.items if len(f.x) > 1])[:SHOWN]
    figure = Figure(figsize=(9.6, 2.6 * ((len(some) + 2) // 3) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots((len(some) + 2) // 3, min(3, len(some)), squeeze=False)).ravel()
    for axes in panels[len(some) :]:
        axes.set_visible(False)
    for axes, f in zip(panels, some):
        n = min(len(f.x) - 1, 8)
        known = np.unique(np.linspace(0, len(f.x) - 1, n).astype(int))
        rest = np.setdiff1d(np.arange(len(f.x)), known)
        low, high = f.x[:, 0].min(), f.x[:, 0].max()
        at = np.linspace(low, high, 200)[:, None]
        mean, std = (v[:, 0] for v in predict(net, scale, f.x[known], f.y[known], at))
        for band, alpha in ((90, 0.15), (50, 0.3)):
            axes.fill_between(at[:, 0], mean - BANDS[band] * std, mean + BANDS[band] * std, color=OURS, alpha=alpha,
                              linewidth=0)  # fmt: skip
        if isinstance(net, LatentCNP):
            for line in _drawn(net, scale, f, known, at):
                axes.plot(at[:, 0], line, color=OURS, linewidth=0.6, alpha=0.6)
        peer, _ = pooled.predict(f.x[known], f.y[known], at)
        axes.plot(at[:, 0], mean, color=OURS, linewidth=1.8, label="neural process, with 50 % and 90 %")
        axes.plot(at[:, 0], peer[:, 0], color=PEER, linewidth=1.2, linestyle="--", label="GP, kernel of all functions")
        axes.plot(f.x[rest, 0], f.y[rest, 0], ".", color="#9a9a9a", markersize=3.5, label="not shown")
        axes.plot(f.x[known, 0], f.y[known, 0], "o", color=INK, markersize=4.5, label="shown")
        axes.set_title(plain(f.name), fontsize=9)
        axes.set_xlabel(plain(found.x_names[0]), fontsize=8)
        axes.set_ylabel(plain(found.y_names[0]), fontsize=8)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return Chart(figure, "predictions of functions that training did not see")


@torch.no_grad()
def _drawn(net: LatentCNP, scale: Any, f: Function, known: np.ndarray, at: np.ndarray, draws: int = 8) -> np.ndarray:
    device = next(net.parameters()).device
    x, y, places = (
        t[None].to(device) for t in (scale.inputs(f.x[known]), scale.values(f.y[known]), scale.inputs(at))
    )
    found = net.draw(x, y, places, draws, torch.Generator().manual_seed(0))[:, 0, :, 0]
    return np.asarray(found.double().cpu()) * scale.y_std[0] + scale.y_mean[0]


def completion_sheet(images: Tensor, rows: list[Tensor], means: Tensor, sigmas: Tensor) -> bytes:
    """Columns are pictures [B,C,S,S]; rows: what is shown, the completion, its σ, the picture.  rows: shown pixels."""
    size = images.shape[-1]
    tiles = [veiled(image, r) for image, r in zip(images, rows)]
    tiles += [numpy(m.clamp(0, 1)) for m in means]
    peak = float(sigmas.max())
    tiles += [heat(numpy(s)[0] / peak) for s in sigmas]
    tiles += [numpy(image) for image in images]
    names = ["shown", "completed", f"σ, white {peak:.2f}", "picture"]
    return contact_sheet(tiles, columns=len(images), rows=names, size=max(96, size))


def veiled(image: Tensor, rows: Tensor) -> np.ndarray:
    """[3,S,S]: the shown pixels, dark blue elsewhere."""
    pixels = np.broadcast_to(numpy(image), (3, *image.shape[1:]))
    seen = np.zeros(image.shape[1] * image.shape[2], bool)
    seen[np.asarray(rows.cpu())] = True
    return np.where(seen.reshape(1, *image.shape[1:]), pixels, VEIL)


def heat(values: np.ndarray) -> np.ndarray:
    """[H,W] in 0 … 1 to [3,H,W]: black, red, yellow, white."""
    v = np.clip(values, 0, 1)
    return np.stack([np.clip(3 * v, 0, 1), np.clip(3 * v - 1, 0, 1), np.clip(3 * v - 2, 0, 1)])


def numpy(x: Tensor) -> np.ndarray:
    return np.asarray(x.detach().float().cpu().numpy())
