"""The picture of a comparison: error against batch size, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from precis.lab.figures import Chart, arm_colours


def draw_errors(cells: Sequence[Any], names: Mapping[str, str]) -> bytes:
    """PNG: a line a norm over the batch sizes, bars for 95 % intervals, a dot for every training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.75), layout="constrained")
    axes = figure.add_subplot()
    norms = list(dict.fromkeys(c.norm for c in cells))
    sizes = sorted({c.batch for c in cells})
    colours = arm_colours(names)
    for i, norm in enumerate(norms):
        mine = sorted((c for c in cells if c.norm == norm), key=lambda c: c.batch)
        at = [sizes.index(c.batch) + 0.06 * (i - (len(norms) - 1) / 2) for c in mine]
        middle = [c.error for c in mine]
        spread = [[c.error - c.low for c in mine], [c.high - c.error for c in mine]]
        axes.errorbar(at, middle, yerr=spread, color=colours[norm], marker="o", markersize=5, capsize=4, linewidth=1.8,
                      label=names[norm])  # fmt: skip
        for x, c in zip(at, mine):
            axes.plot([x] * len(c.errors), c.errors, ".", color=colours[norm], alpha=0.45, markersize=4)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlabel("pictures a batch")
    axes.set_ylabel("error (%)")
    axes.set_ylim(bottom=0, top=min(100, 1.08 * max(c.high for c in cells)))
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    words = "; ".join(f"{names[c.norm]} at {c.batch}: {c.error:.1f} %" for c in cells)
    return Chart(figure, f"error against batch size: {words}").png()
