"""Pictures of a run: memory against depth, and how well blocks are rebuilt."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from precis.lab.figures import Chart, arm_colours

from .budget import KINDS, Need, show_bytes


def draw_memory(
    lines: Mapping[str, Mapping[int, Need]], batch: int, units: int | None, mine: Need | None, limit: int | None
) -> bytes:
    """PNG: bytes kept for the backward pass over depth, a line a kind of net; the run's own net, and the limit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.75), layout="constrained")
    axes = figure.add_subplot()
    colours = arm_colours(("revnet", "resnet", "checkpoint"))
    for kind, needs in lines.items():
        values = [need.kept(batch) / 2**20 for need in needs.values()]
        axes.plot(list(needs), values, "o-", color=colours[kind], linewidth=2, markersize=5, label=KINDS[kind])
    if units is not None and mine is not None:
        axes.plot([units], [mine.kept(batch) / 2**20], "*", color="black", markersize=13, label="this net")
    if limit is not None:
        axes.axhline(limit / 2**20, color="#777777", linestyle="--", linewidth=1.2)
        words = f"limit of a whole step: {show_bytes(limit)}"
        axes.text(max(lines["revnet"]), limit / 2**20, words, va="bottom", ha="right", fontsize=8.5)
    axes.set_xlabel("units a stage (of a residual net: pairs of blocks, half as wide)")
    axes.set_ylabel(f"MiB kept for backward, {batch} pictures")
    axes.set_yscale("log")
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    words = "; ".join(f"{KINDS[k]} {show_bytes(list(n.values())[-1].kept(batch))}" for k, n in lines.items())
    return Chart(figure, f"memory kept for the backward pass at {max(lines['revnet'])} units a stage: {words}").png()


def draw_errors(stages: Sequence[Tensor]) -> bytes:
    """PNG: relative error of each block's rebuilt input, a line a stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes: Any = figure.add_subplot()
    at = 0
    for i, (errors, colour) in enumerate(zip(stages, arm_colours(map(str, range(len(stages)))).values())):
        places = range(at + 1, at + 1 + len(errors))
        axes.plot(list(places), errors.clamp(min=1e-9).tolist(), "o-", color=colour, label=f"stage {i + 1}")
        at += len(errors)
    axes.set_yscale("log")
    axes.set_xlabel("reversible block; each stage is rebuilt from its own output")
    axes.set_ylabel("relative error of its rebuilt input")
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if len(stages) > 1:
        axes.legend(frameon=False)
    worst = max(float(errors.max()) for errors in stages)
    return Chart(figure, f"reconstruction error by block, at most {worst:.2g}").png()
