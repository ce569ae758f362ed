"""The picture of a comparison: error against batch size, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from precis.lab.figures import Chart, arm_colours
from precis.lab.words import counted


def draw_errors(cells: Sequence[Any], names: Mapping[str, str], lr: float) -> bytes:
    """PNG: a line a norm over the batch sizes, bars for 95 % intervals, a dot for every training; the rate, and m."""
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
            axes.plot([x - 0.03] * len(c.errors), c.errors, ".", color=colours[norm], alpha=0.7, markersize=5)
    values = {c.batch: c.values_at_last_map for c in cells}
    axes.set_xticks(range(len(sizes)), [f"{size}\nm = {values[size]}" for size in sizes])
    axes.set_xlabel("pictures a batch; m: values of a batch statistic at the last map")
    axes.set_title(f"learning rate {lr:g} at 32 pictures, in proportion to the batch: not tuned", fontsize=9.5)
    axes.set_ylabel("error (%); bars: 95 %, dots: trainings")
    axes.set_ylim(bottom=0, top=min(100, 1.08 * max(c.high for c in cells)))
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    words = "; ".join(f"{names[c.norm]} at {c.batch}: {c.error:.1f} %" for c in cells)
    return Chart(figure, f"error against batch size: {words}").png()


def draw_conversion(points: Sequence[Any], pictures: int, epochs: int, rate: float) -> bytes:
    """PNG: accuracy of the net as it was, converted, and of both fine-tuned at each batch size, with 95 % intervals."""
    from matplotlib.figure import Figure

    sizes = sorted({p.batch for p in points if p.batch is not None})
    figure = Figure(figsize=(3.4 + 0.75 * len(sizes), 3.9), layout="constrained")
    axes = figure.add_subplot()
    colours = arm_colours(("bn", "gn"))
    for norm, words, shift in (("bn", "batch norm", -0.06), ("gn", "group norm", 0.06)):
        plain = [p for p in points if p.norm == norm and p.batch is None]
        tuned = sorted((p for p in points if p.norm == norm and p.batch is not None), key=lambda p: p.batch)
        for mine, at, line in (
            (plain, [0 if norm == "bn" else 1], ""), (tuned, [2 + sizes.index(p.batch) + shift for p in tuned], "-")
        ):  # fmt: skip
            spread = [[p.value - p.low for p in mine], [p.high - p.value for p in mine]]
            axes.errorbar(at, [p.value for p in mine], yerr=spread, color=colours[norm], marker="o", markersize=6,
                          capsize=4, linewidth=1.8, linestyle=line, label=words if line == "" else None)  # fmt: skip
        axes.axhline(plain[0].value, color=colours[norm], linewidth=0.8, linestyle=":")
    names = ["as it was", "converted", *(f"batch {size}" for size in sizes)]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    right = f"right: both tuned for {counted(epochs, 'epoch')}, rate {rate:g} at 32 pictures"
    axes.set_xlabel(right if sizes else "nothing was trained", fontsize=9)
    axes.set_ylabel(f"right of {pictures} held-out pictures (%); bars: 95 %")
    axes.set_ylim(0, 102)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
    words = "; ".join(f"{p.norm} {'' if p.batch is None else f'at {p.batch} '}{p.value:.1f} %" for p in points)
    return Chart(figure, f"accuracy before and after the conversion: {words}").png()
