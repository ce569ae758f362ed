"""The pictures of a run: accuracy against compression, and against what the search has cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from precis.lab.figures import MARKERS, Chart, arm_colours

Lines = Mapping[str, Sequence[tuple[float, float]]]


def draw_curve(lines: Lines, dense: float, deviation: float) -> bytes:
    """PNG: test accuracy (%) over compression, a line a method, and the dense network as a band of one deviation."""
    figure, axes = _axes(lines, "compression (weights per surviving weight)")
    axes.axhspan(dense - deviation, dense + deviation, color="#8a8a8a", alpha=0.25, linewidth=0)
    axes.axhline(dense, color="#555555", linewidth=1, linestyle=(0, (4, 3)), label="dense, ± 1 standard deviation")
    axes.set_xscale("log")
    marks = sorted({round(x, 4) for points in lines.values() for x, _ in points})
    shown = marks if len(marks) <= 7 else marks[:: -(-len(marks) // 7)]
    axes.set_xticks(shown, [f"{x:.3g}×" for x in shown])
    axes.minorticks_off()
    _legend(axes)
    told = {name: ", ".join(f"{y:.1f} % at {x:.3g}×" for x, y in line) for name, line in lines.items()}
    words = "; ".join(f"{name}: {values}" for name, values in told.items())
    return Chart(figure, f"accuracy against compression: dense {dense:.1f} %; {words}").png()


def draw_search(lines: Lines, dense: float) -> bytes:
    """PNG: test accuracy (%) over the epochs of retraining that led to a network."""
    figure, axes = _axes(lines, "epochs of retraining so far")
    axes.axhline(dense, color="#555555", linewidth=1, linestyle=(0, (4, 3)), label="dense")
    _legend(axes)
    return Chart(figure, f"accuracy against epochs of retraining, {', '.join(lines)}").png()


def _axes(lines: Lines, label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6, 3.75), layout="constrained")
    axes = figure.add_subplot()
    colours = arm_colours(("learning-rate rewinding", "weight rewinding", "fine-tuning"))
    for i, (name, points) in enumerate(lines.items()):
        x, y = zip(*points)
        axes.plot(x, y, color=colours.get(name), marker=MARKERS[i], markersize=5, linewidth=1.8, label=name)
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy (%)")
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, fontsize=9)
