"""Stick figures: a pose and its neighbours, the poses that the embedder finds ambiguous, two sequences side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from precis.contrastive.prvipe_keypoints import STD13_2D
from precis.lab.figures import Chart

from .reading import People

LEFT, RIGHT, MIDDLE = "#cc4f0a", "#2b7bba", "#555555"
LINES = [(STD13_2D.names.index(a), STD13_2D.names.index(b), LEFT if a.startswith("left") and b.startswith("left") else
          RIGHT if a.startswith("right") and b.startswith("right") else MIDDLE)
         for a, b in STD13_2D.segments]  # fmt: skip


def figure_of(axes: Any, k: np.ndarray, mask: np.ndarray, title: str = "", bar: float | None = None) -> None:
    """One person: left limbs orange, right ones blue, points that are missing left out; a bar for the deviation."""
    for a, b, colour in LINES:
        if mask[a] and mask[b]:
            axes.plot(*k[[a, b]].T, color=colour, linewidth=2, solid_capstyle="round")
    if mask[0]:
        axes.plot(*k[0], "o", color=MIDDLE, markersize=7)
        if mask[1] and mask[2]:
            axes.plot(*np.stack([k[0], k[1:3].mean(0)]).T, color=MIDDLE, linewidth=2)
    seen = k[mask]
    middle, half = (seen.max(0) + seen.min(0)) / 2, max(0.9, 0.55 * float((seen.max(0) - seen.min(0)).max()))
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] + 1.15 * half, middle[1] - half)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(title, fontsize=7, pad=2)
    if bar is not None:
        x, y, width = middle[0] - 0.8 * half, middle[1] + 1.08 * half, 1.6 * half
        axes.plot([x, x + width], [y, y], color="#e4e4e4", linewidth=3, solid_capstyle="butt")
        axes.plot([x, x + width * min(1.0, bar)], [y, y], color="#009e73", linewidth=3, solid_capstyle="butt")


def draw_gallery(
    people: People, shown: Sequence[int], other: People, lists: Sequence[Sequence[int]], spreads: tuple[Tensor, Tensor],
    near: Tensor, where: str,
) -> bytes:  # fmt: skip
    """A row a query: the query and its nearest, each with its distance, name and (bar) standard deviation."""
    across = 1 + max(len(found) for found in lists)
    figure, grid = _grid(len(shown), across)
    top = float(max(s.max() for s in spreads))
    for row, i, found in zip(grid, shown, lists):
        figure_of(row[0], people.k[i].numpy(), people.mask[i].numpy(), f"query: {_short(people.ids[i])}",
                  float(spreads[0][i]) / top)  # fmt: skip
        row[0].add_patch(_frame(row[0]))
        for r, (axes, j) in enumerate(zip(row[1:], found)):
            title = f"{_short(other.ids[j])}  {float(near[i, r]):.2f}"
            figure_of(axes, other.k[j].numpy(), other.mask[j].numpy(), title, float(spreads[1][j]) / top)
    head = f"Nearest poses in {where}" if where else "Nearest poses"
    figure.suptitle(f"{head}: name and distance; green bar: deviation", fontsize=9)
    return Chart(figure, f"stick figures of {len(shown)} queries and their nearest poses").png(130)


def draw_ambiguity(people: People, spread: np.ndarray) -> bytes:
    """The poses with the largest and with the smallest standard deviation."""
    order = np.argsort(spread)
    n = min(8, len(order))
    figure, grid = _grid(2, n)
    for row, chosen, word in zip(grid, (order[::-1][:n], order[:n]), ("largest", "smallest")):
        for axes, i in zip(row, chosen):
            figure_of(axes, people.k[i].numpy(), people.mask[i].numpy(), f"{_short(people.ids[i])}  {spread[i]:.3f}",
                      float(spread[i] / spread.max()))  # fmt: skip
        row[0].text(-0.02, 0.5, word, transform=row[0].transAxes, rotation=90, va="center", ha="right", fontsize=8)
    figure.suptitle("Standard deviation of the embedding: what the view leaves open", fontsize=9)
    return Chart(figure, "the poses with the largest and the smallest deviation").png(130)


def draw_alignment(a: People, b: People, distance: np.ndarray, path: np.ndarray) -> bytes:
    """The distances of all frames with the path through them, and eight aligned pairs of frames."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    parts = figure.add_gridspec(2, 9, width_ratios=[4.5, *[1] * 8])
    axes = figure.add_subplot(parts[:, 0])
    axes.imshow(distance, cmap="Greys", aspect="auto", origin="lower")
    axes.plot(path[:, 1], path[:, 0], color=LEFT, linewidth=2)
    axes.set_xlabel("frame of --index")
    axes.set_ylabel("frame of INPUT")
    for column, at in enumerate(np.linspace(0, len(path) - 1, 8).astype(int)):
        for line, (people, i) in enumerate(((a, path[at, 0]), (b, path[at, 1]))):
            spot = figure.add_subplot(parts[line, 1 + column])
            figure_of(spot, people.k[i].numpy(), people.mask[i].numpy(), _short(people.ids[i]))
    figure.suptitle("Two sequences aligned: distance of every pair of frames, and aligned frames", fontsize=9)
    return Chart(figure, "alignment of two sequences").png(130)


def _grid(rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.15 * columns + 0.3, 1.35 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    return figure, grid


def _frame(axes: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor="#bbbbbb", linewidth=1)


def _short(name: str) -> str:
    return name if len(name) <= 14 else "…" + name[-13:]
