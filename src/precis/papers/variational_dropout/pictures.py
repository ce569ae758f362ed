"""The pictures of a run: log α of every layer, the pixels that are looked at, accuracy against the threshold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from precis.lab.figures import Chart
from precis.sparsity.variational_dropout import variational_layers

KEPT, GONE, EDGE = "#2f6f9f", "#c9a27a", "#b03a2e"
MOST = 6


def draw_log_alpha(model: nn.Module, threshold: float) -> bytes:
    """PNG: a histogram a layer (the largest six), what is removed in another colour, the threshold as a line."""
    from matplotlib.figure import Figure

    layers = variational_layers(model)
    if len(layers) > MOST:
        largest = sorted(layers, key=lambda pair: -pair[1].weight.numel())[:MOST]
        layers = [pair for pair in layers if pair in largest]
    figure = Figure(figsize=(6, 0.6 + 1.25 * len(layers)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(layers), 1, sharex=True))
    edges, words = np.linspace(-8, 8, 65), []
    for axes, (name, layer) in zip(panels, layers):
        values = layer.log_alpha.detach().flatten().cpu().numpy()
        removed = 100 * float((values >= threshold).mean())
        for part, colour in ((values[values < threshold], KEPT), (values[values >= threshold], GONE)):
            axes.hist(part, bins=edges, color=colour)
        axes.axvline(threshold, color=EDGE, linewidth=1.2)
        axes.set_title(f"{name}: {len(values):,} weights, {removed:.1f} % removed", fontsize=9, loc="left")
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        words.append(f"{name}: {removed:.1f} % of {len(values)}")
    panels[-1].set_xlabel("log α   (left: a weight with little noise; right: noise alone)")
    panels[0].set_ylabel("weights (log)", fontsize=8)
    panels[-1].set_xlim(-8.2, 8.2)
    return Chart(figure, "histograms of log α; removed of " + "; ".join(words)).png()


def draw_pixels(kept: Tensor, images: Tensor) -> bytes:
    """PNG: the mean picture, and for every pixel [H,W] how many weights of the first layer still look at it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(images[:2000].float().mean((0, 1)).cpu(), cmap="gray")
    left.set_title("mean of the pictures", fontsize=9)
    counts = kept.cpu().numpy()
    shown = right.imshow(np.where(counts > 0, counts, np.nan), cmap="viridis", vmin=0)
    right.set_facecolor("#e8e4de")
    right.set_title(f"weights left a pixel ({(counts == 0).sum()} of {counts.size} pixels: none)", fontsize=9)
    figure.colorbar(shown, ax=right, shrink=0.85)
    for axes in (left, right):
        axes.set_xticks([])
        axes.set_yticks([])
    return Chart(figure, f"weights of the first layer that are left a pixel; none at {(counts == 0).sum()}").png()


def draw_thresholds(rows: Sequence[tuple[Any, ...]], threshold: float) -> bytes:
    """PNG: validation accuracy and compression over thresholds; rows (threshold, kept, compression, accuracy)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    x = [row[0] for row in rows]
    axes.plot(x, [100 * row[3] for row in rows], color=KEPT, marker="o", markersize=4, linewidth=1.8)
    axes.set_xlabel("threshold of log α")
    axes.set_ylabel("validation accuracy (%)", color=KEPT)
    axes.axvline(threshold, color=EDGE, linewidth=1.2)
    other = axes.twinx()
    other.plot(x, [row[2] for row in rows], color=GONE, linewidth=1.8)
    other.set_yscale("log")
    other.set_yticks(marks := compression_marks([row[2] for row in rows]), [f"{mark:g}×" for mark in marks])
    other.minorticks_off()
    other.set_ylabel("compression", color="#8a6238")
    for one in (axes, other):
        one.spines["top"].set_visible(False)
    return Chart(figure, f"validation accuracy and compression against the threshold, {threshold:g} being used").png()


def compression_marks(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10, 20, … from the last at or below the least of `values` to the first at or above their greatest."""
    steps = [float(m) * 10**k for k in range(13) for m in (1, 2, 5)]
    low = max(step for step in steps if step <= max(min(values), 1))
    high = next((step for step in steps if step >= max(values)), steps[-1])
    return [step for step in steps if low <= step <= high]
