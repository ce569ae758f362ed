"""Predictions of functions of one variable, with their bands: those asked for, and held-out ones."""

from typing import Any

import numpy as np
import torch

from precis.fields.neural_process_variants import LatentCNP
from precis.lab.figures import PALETTE, Chart, plain
from precis.lab.sheets import INK

from .reading import Function, Functions

SHOWN = 6  # held-out functions of a figure
ASKED = 12  # functions of a figure that were asked for
OURS, PEER = PALETTE[0], PALETTE[1]
GREY = "#9a9a9a"


def asked_chart(
    net: Any, scale: Any, asked: list[tuple[Function, np.ndarray]], found: Functions, pooled: Any
) -> Chart:  # fmt: skip
    """What the user asked for: each function given all of its points, over these and the places asked for."""
    some = asked[:ASKED]
    figure, panels = _panels(len(some))
    for axes, (f, places) in zip(panels, some):
        every = np.concatenate([f.x, places])
        at = np.unique(np.concatenate([np.linspace(every.min(), every.max(), 200)[:, None], places]))[:, None]
        _draw(axes, net, scale, pooled, f.x, f.y, at)
        mean = _predict(net, scale, f.x, f.y, places)[0]
        axes.plot(f.x[:, 0], f.y[:, 0], "o", color=INK, markersize=4.5, label="given")
        if len(places) <= 40:
            axes.plot(places[:, 0], mean, "D", color=OURS, markersize=4, markeredgecolor="white", label="asked for")
        _name(axes, f, found)
    return _finished(figure, panels, "predictions that were asked for")


def predictions_chart(net: Any, scale: Any, held: list[Function], found: Functions, pooled: Any) -> Chart:
    """Held-out functions predicted from a few of their points: mean, 50 % and 90 % bands, and a GP beside it."""
    some = (held or [f for f in found.items if len(f.x) > 1])[:SHOWN]
    figure, panels = _panels(len(some))
    for axes, f in zip(panels, some):
        n = min(len(f.x) - 1, 8)
        known = np.unique(np.linspace(0, len(f.x) - 1, n).astype(int))
        rest = np.setdiff1d(np.arange(len(f.x)), known)
        low, high = f.x[:, 0].min(), f.x[:, 0].max()
        _draw(axes, net, scale, pooled, f.x[known], f.y[known], np.linspace(low, high, 200)[:, None])
        axes.plot(f.x[rest, 0], f.y[rest, 0], ".", color=GREY, markersize=3.5, label="not shown")
        axes.plot(f.x[known, 0], f.y[known, 0], "o", color=INK, markersize=4.5, label="shown")
        _name(axes, f, found)
    return _finished(figure, panels, "predictions of functions that training did not see")


def _panels(count: int) -> tuple[Any, Any]:
    """A figure of so many panels, at most three in a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = (count + 2) // 3
    figure = Figure(figsize=(9.6, 2.6 * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(rows, min(3, count), squeeze=False)).ravel()
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels


def _predict(net: Any, scale: Any, x: np.ndarray, y: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [m] of the first output."""
    from .tasks_functions import predict

    mean, std = predict(net, scale, x, y, at)
    return mean[:, 0], std[:, 0]


def _draw(axes: Any, net: Any, scale: Any, pooled: Any, x: np.ndarray, y: np.ndarray, at: np.ndarray) -> None:
    """The predictive given x and y, whole functions where the net draws them, and the GP's mean."""
    from .tasks_functions import BANDS

    mean, std = _predict(net, scale, x, y, at)
    for band, alpha in ((90, 0.15), (50, 0.3)):
        axes.fill_between(at[:, 0], mean - BANDS[band] * std, mean + BANDS[band] * std, color=OURS, alpha=alpha,
                          linewidth=0)  # fmt: skip
    if isinstance(net, LatentCNP) and len(x):
        for line in _drawn(net, scale, x, y, at):
            axes.plot(at[:, 0], line, color=OURS, linewidth=0.6, alpha=0.6)
    axes.plot(at[:, 0], mean, color=OURS, linewidth=1.8, label="neural process, with 50 % and 90 %")
    if len(x):
        peer, _ = pooled.predict(x, y, at)
        axes.plot(at[:, 0], peer[:, 0], color=PEER, linewidth=1.2, linestyle="--", label="GP, shared kernel")


@torch.no_grad()
def _drawn(
    net: LatentCNP, scale: Any, x: np.ndarray, y: np.ndarray, at: np.ndarray, draws: int = 8
) -> np.ndarray:  # fmt: skip
    device = next(net.parameters()).device
    known, values, places = (t[None].to(device) for t in (scale.inputs(x), scale.values(y), scale.inputs(at)))
    found = net.draw(known, values, places, draws, torch.Generator().manual_seed(0))[:, 0, :, 0]
    return np.asarray(found.double().cpu()) * scale.y_std[0] + scale.y_mean[0]


def _name(axes: Any, f: Function, found: Functions) -> None:
    axes.set_title(plain(f.name), fontsize=9)
    axes.set_xlabel(plain(found.x_names[0]), fontsize=8)
    axes.set_ylabel(plain(found.y_names[0]), fontsize=8)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _finished(figure: Any, panels: Any, alt: str) -> Chart:
    """The legend of what any panel holds, below all."""
    named: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            named.setdefault(label, handle)
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return Chart(figure, alt)
