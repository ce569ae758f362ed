"""The pictures of a run: what was predicted, and what was taken for what."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer, UInt8

from precis.lab.figures import Chart, heat_map, plain

RIGHT, WRONG, PLAIN = "#1b7837", "#b2182b", "#333333"
MOST_CLASSES = 30


def draw_predictions(
    images: UInt8[np.ndarray, "n 3 s s"], probabilities: Float[np.ndarray, "n k"], classes: Sequence[str],
    labels: Sequence[int],
) -> bytes:  # fmt: skip
    """PNG: pictures with the predicted class and its probability; green is right, red is wrong, with the true class.

    A label of −1: unknown, and the words are grey.
    """
    from matplotlib.figure import Figure

    columns = min(8, len(images))
    lines = -(-len(images) // columns)
    figure = Figure(figsize=(1.25 * columns, 1.62 * lines), layout="constrained")
    axes = np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).ravel()
    wrong = 0
    for i, axis in enumerate(axes):
        axis.axis("off")
        if i >= len(images):
            continue
        best = int(probabilities[i].argmax())
        axis.imshow(images[i].transpose(1, 2, 0), interpolation="nearest")
        words, colour = f"{_short(classes[best])} {100 * probabilities[i, best]:.0f} %", PLAIN
        if labels[i] >= 0:
            good = best == labels[i]
            wrong += not good
            colour = RIGHT if good else WRONG
            words += "" if good else f"\n(is {_short(classes[labels[i]])})"
        axis.set_title(words, fontsize=8, color=colour, pad=3)
    told = f", {wrong} of them wrong" if max(labels) >= 0 else ""
    return Chart(figure, f"{len(images)} pictures with their predicted class{told}").png()


def draw_confusion(confusion: Integer[np.ndarray, "k k"], classes: Sequence[str]) -> bytes:
    """PNG: counts, true class by predicted; the names are left out where there are more than thirty."""
    names = [_short(name) for name in classes] if len(classes) <= MOST_CLASSES else None
    return heat_map(confusion, rows=names, columns=names, title="pictures of each class (row) taken for (column)",
                    x_label="predicted", y_label="true", low=0).png()  # fmt: skip


def _short(name: str) -> str:
    name = plain(name)
    return name if len(name) <= 14 else name[:13] + "…"
