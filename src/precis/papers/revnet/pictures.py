"""Pictures of a run: memory against depth, and how well blocks are rebuilt."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from precis.lab.figures import Chart, arm_colours

from .budget import Form, Need, show_bytes


def draw_memory(
    lines: Mapping[str, Mapping[int, Need]], form: Form, batch: int, mine: tuple[int, Need] | None = None,
    limit: int | None = None, steps: bool = False,
) -> bytes:  # fmt: skip
    """PNG: bytes kept for the backward pass over depth, a line a kind of net.

    mine: units and need of the run's own net, a star.  steps: a second panel has the whole step, of which `limit` is
    the limit; without it the run's own step is a hollow star, so that the limit never stands beside what is kept alone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5 if steps else 6.2, 4), layout="constrained")
    axes: list[Any] = list(figure.subplots(1, 1 + steps, squeeze=False)[0])
    depths = sorted({n for needs in lines.values() for n in needs} | ({mine[0]} if mine else set()))
    of_step = lambda need: need.total(batch)
    _lines(axes[0], lines, form, lambda need: need.kept(batch))
    alone = limit is None or steps
    axes[0].set_ylabel("kept for the backward pass" if alone else "lines: kept for the backward pass")
    if steps:
        _lines(axes[1], lines, form, of_step)
        axes[1].set_ylabel("a whole training step")
    if mine is not None:
        units, need = mine
        axes[0].plot([units], [need.kept(batch)], "*", color="black", markersize=13, label="this net: kept")
        if limit is not None and not steps:
            axes[0].plot([units], [of_step(need)], "*", color="black", markerfacecolor="none", markersize=13,
                         label="this net: a whole step")  # fmt: skip
    if limit is not None and (steps or mine is not None):
        axes[-1].axhline(limit, color="#777777", linestyle="--", linewidth=1.2,
                         label=f"limit of a whole step: {show_bytes(limit)}")  # fmt: skip
    for panel in axes:
        panel.set_xscale("log", base=2)
        panel.set_xticks(depths, [str(n) for n in depths])
        panel.set_xlabel("units a stage (of a residual net: pairs of blocks)")
        _byte_ticks(panel)
        panel.minorticks_off()
        panel.grid(axis="y", color="#dddddd", linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Memory of a training step with {batch} pictures", fontsize=11)
    figure.legend(*_labels(axes), frameon=False, loc="outside lower center", ncols=3 if steps else 2, fontsize=9)
    words = "; ".join(f"{form.name(k)} {show_bytes(list(n.values())[-1].kept(batch))}" for k, n in lines.items())
    return Chart(figure, f"memory kept for the backward pass at {max(lines['revnet'])} units a stage: {words}").png()


def _lines(
    axes: Any, lines: Mapping[str, Mapping[int, Need]], form: Form, value: Callable[[Need], float]
) -> None:  # fmt: skip
    colours = arm_colours(("revnet", "resnet", "checkpoint"))
    for kind, needs in lines.items():
        axes.plot(list(needs), [value(need) for need in needs.values()], "o-", color=colours[kind], linewidth=2,
                  markersize=5, label=form.name(kind))  # fmt: skip


def _byte_ticks(axes: Any) -> None:
    """A logarithmic axis of bytes with a few powers of two, named as people write them."""
    values = [float(y) for line in axes.get_lines() for y in line.get_ydata()]
    low, high = min(values), max(values)
    first, last = math.floor(math.log2(low) - 0.1), math.ceil(math.log2(high) + 0.1)
    axes.set_yscale("log", base=2)
    axes.set_ylim(2.0**first, 2.0**last)
    ticks = [2.0**n for n in range(first, last + 1, max(1, math.ceil((last - first) / 8)))]
    axes.set_yticks(ticks, [show_bytes(tick) for tick in ticks])


def _labels(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Handles and labels of all panels, each label once."""
    found = {label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels())}
    return list(found.values()), list(found)


def draw_errors(stages: Sequence[Tensor], whole: bool = False) -> bytes:
    """PNG: relative error of each block's rebuilt input, a line a stage; `whole`: all from the net's last output."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes: Any = figure.add_subplot()
    at = 0
    for i, (errors, colour) in enumerate(zip(stages, arm_colours(map(str, range(len(stages)))).values())):
        places = range(at + 1, at + 1 + len(errors))
        axes.plot(list(places), errors.clamp(min=1e-9).tolist(), "o-", color=colour, label=f"stage {i + 1}")
        at += len(errors)
    axes.set_yscale("log")
    axes.set_xlabel("block or transition; all are rebuilt from the net's last output" if whole else
                    "reversible block; each stage is rebuilt from its own output")  # fmt: skip
    axes.set_ylabel("relative error of its rebuilt input")
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if len(stages) > 1:
        axes.legend(frameon=False)
    worst = max(float(errors.max()) for errors in stages)
    return Chart(figure, f"reconstruction error by block, at most {worst:.2g}").png()
