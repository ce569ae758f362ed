"""Stick figures: a pose and its neighbours, the poses that the embedder finds ambiguous, two sequences side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from precis.contrastive.prvipe_keypoints import STD13_2D
from precis.lab.figures import Chart

from .reading import People

LEFT, RIGHT, MIDDLE, BAR, EMPTY = "#cc4f0a", "#2b7bba", "#555555", "#009e73", "#e4e4e4"
LINES = [(STD13_2D.names.index(a), STD13_2D.names.index(b), LEFT if a.startswith("left") and b.startswith("left") else
          RIGHT if a.startswith("right") and b.startswith("right") else MIDDLE)
         for a, b in STD13_2D.segments]  # fmt: skip


class Sheet:
    """A grid of cells 1 wide and 1.25 high, all in one drawing."""

    def __init__(self, rows: int, columns: int, title: str, axes: Any = None) -> None:
        from matplotlib.figure import Figure

        self.figure = None
        if axes is None:
            self.figure = Figure(figsize=(1.15 * columns + 0.2, 1.4 * rows + 0.35), layout="constrained")
            axes = self.figure.add_subplot()
            self.figure.suptitle(title, fontsize=9)
        self.axes = axes
        self.lines: list[np.ndarray] = []
        self.colours: list[str] = []
        self.widths: list[float] = []
        axes.set_xlim(-0.15, columns)
        axes.set_ylim(1.25 * rows, 0)
        axes.set_aspect("equal")
        axes.axis("off")

    def person(
        self, cell: tuple[int, int], k: Tensor, mask: Tensor, words: str, bar: float | None = None, frame: bool = False
    ) -> None:
        """One person: left limbs orange, right ones blue, missing points left out; `bar` (0 … 1) lies below."""
        row, column = cell
        there = mask.numpy()
        points = k.numpy().astype(float)
        low, high = points[there].min(0), points[there].max(0)
        scale = 0.78 / max(1.6, float((high - low).max()))
        points = (points - (low + high) / 2) * scale + [column + 0.5, 1.25 * row + 0.62]
        for a, b, colour in LINES:
            if there[a] and there[b]:
                self._line(points[[a, b]], colour, 2.0)
        if there[0]:
            self.axes.plot(*points[0], "o", color=MIDDLE, markersize=6)
            if there[1] and there[2]:
                self._line(np.stack([points[0], points[1:3].mean(0)]), MIDDLE, 2.0)
        self.axes.text(column + 0.5, 1.25 * row + 0.13, words, ha="center", va="center", fontsize=7)
        left, below = column + 0.1, 1.25 * row + 1.1
        if bar is not None:
            self._line(np.array([[left, below], [left + 0.8, below]]), EMPTY, 3.0)
            self._line(np.array([[left, below], [left + 0.8 * min(1.0, bar), below]]), BAR, 3.0)
        if frame:
            x, y = column + 0.03, 1.25 * row + 0.03
            self._line(np.array([[x, y], [x + 0.94, y], [x + 0.94, y + 1.18], [x, y + 1.18], [x, y]]), "#bbbbbb", 1.0)

    def _line(self, points: np.ndarray, colour: str, width: float) -> None:
        self.lines.append(points)
        self.colours.append(colour)
        self.widths.append(width)

    def draw(self) -> None:
        from matplotlib.collections import LineCollection

        self.axes.add_collection(LineCollection(self.lines, colors=self.colours, linewidths=self.widths,
                                                capstyle="round"))  # fmt: skip

    def png(self, alt: str) -> bytes:
        self.draw()
        return Chart(self.figure, alt).png(130)


def draw_gallery(
    people: People, shown: Sequence[int], other: People, lists: Sequence[Sequence[int]], spreads: tuple[Tensor, Tensor],
    near: Tensor, where: str,
) -> bytes:  # fmt: skip
    """A row a query: the query and its nearest, each with its name, distance and (bar) standard deviation."""
    head = f"Nearest poses in {where}" if where else "Nearest poses"
    sheet = Sheet(len(shown), 1 + max(len(found) for found in lists), f"{head}: name and distance; bar: deviation")
    top = float(max(s.max() for s in spreads))
    for row, (i, found) in enumerate(zip(shown, lists)):
        sheet.person((row, 0), people.k[i], people.mask[i], f"query: {_short(people.ids[i])}",
                     float(spreads[0][i]) / top, frame=True)  # fmt: skip
        for r, j in enumerate(found):
            words = f"{_short(other.ids[j])}  {float(near[i, r]):.2f}"
            sheet.person((row, 1 + r), other.k[j], other.mask[j], words, float(spreads[1][j]) / top)
    return sheet.png(f"stick figures of {len(shown)} queries and their nearest poses")


def draw_ambiguity(people: People, spread: np.ndarray) -> bytes:
    """The poses with the largest and with the smallest standard deviation."""
    order = np.argsort(spread)
    n = min(8, len(order))
    sheet = Sheet(2, n, "Standard deviation of the embedding, largest above and smallest below")
    for row, chosen in enumerate((order[::-1][:n], order[:n])):
        for column, i in enumerate(chosen.tolist()):
            words = f"{_short(people.ids[i])}  {spread[i]:.3f}"
            sheet.person((row, column), people.k[i], people.mask[i], words, float(spread[i] / spread.max()))
    return sheet.png("the poses with the largest and the smallest deviation")


def draw_alignment(a: People, b: People, distance: np.ndarray, path: np.ndarray) -> bytes:
    """The distances of all frames with the path through them, and six aligned pairs of frames."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    left.imshow(distance, cmap="Greys", aspect="auto", origin="lower")
    left.plot(path[:, 1], path[:, 0], color=LEFT, linewidth=2)
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    left.set_xlabel("frame of --index, from 0")
    left.set_ylabel("frame of INPUT, from 0")
    sheet = Sheet(2, 6, "", right)
    for column, at in enumerate(np.linspace(0, len(path) - 1, 6).astype(int)):
        for row, (people, i) in enumerate(((a, int(path[at, 0])), (b, int(path[at, 1])))):
            sheet.person((row, column), people.k[i], people.mask[i], _short(people.ids[i]))
    sheet.draw()
    figure.suptitle("Distance of every pair of frames with the best path, and frames that it joins", fontsize=9)
    return Chart(figure, "alignment of two sequences").png(130)


def _short(name: str) -> str:
    return name if len(name) <= 14 else "…" + name[-13:]
