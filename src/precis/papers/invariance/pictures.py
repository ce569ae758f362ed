"""Pictures of a measurement: scores as bars, and what the best units fire on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.lab.figures import PALETTE, Chart, contact_sheet
from precis.papers.contrastive_maps import RIGHT, WRONG, framed

ROWS, ACROSS = 12, 10
FAINT = "#c8cbd0"


class Shown(NamedTuple):
    """One change: pictures, features [N,D], targets and their names, and the best units [T,m] of each target."""

    change: str
    images: Tensor
    f: Tensor
    target: Tensor
    names: tuple[str, ...]
    units: Tensor


def score_bars(rows: Sequence[dict[str, Any]]) -> bytes:
    """A group of bars a change, one an encoder, each with its number; a black line: the same net untrained; a grey one:
    targets permuted."""
    return score_chart(rows).png()


def score_chart(rows: Sequence[dict[str, Any]]) -> Chart:
    """`score_bars` before it is a PNG."""
    from matplotlib.figure import Figure

    changes = list(dict.fromkeys(row["change"] for row in rows))
    encoders = list(dict.fromkeys(row["encoder"] for row in rows))
    across = min(12.0, 2.6 + 0.9 * len(changes) * max(1, len(encoders) / 2))
    figure = Figure(figsize=(across, 3.4), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(encoders)
    top = min(108.0, 1.25 * max(_highest(row) for row in rows) + 5)
    for row in rows:
        at = changes.index(row["change"]) + (encoders.index(row["encoder"]) - (len(encoders) - 1) / 2) * width
        axes.bar(at, row["score"], width * 0.92, color=PALETTE[encoders.index(row["encoder"]) % len(PALETTE)])
        _number(axes, at, row, top)
        if "untrained" in row:
            axes.plot([at - width * 0.46, at + width * 0.46], [row["untrained"]] * 2, color="black", linewidth=1.6)
        if "shuffled" in row:
            axes.plot([at - width * 0.46, at + width * 0.46], [row["shuffled"]] * 2, color=FAINT, linewidth=1.6)
    colour = lambda i: PALETTE[i % len(PALETTE)]
    handles: list[Any] = [axes.bar(0, 0, color=colour(i), label=name) for i, name in enumerate(encoders)]
    handles += axes.plot([], [], color="black", label="untrained") if any("untrained" in r for r in rows) else []
    handles += axes.plot([], [], color=FAINT, label="targets permuted")
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    names = ["all changes" if c == "all" else c.replace("_", " ") for c in changes]
    axes.set_xticks(range(len(changes)), names, fontsize=8)
    axes.set_ylim(0, top)
    axes.set_ylabel("firing score (%)")
    axes.spines[["top", "right"]].set_visible(False)
    words = "; ".join(f"{r['encoder']}, {r['change']}: {r['score']:.1f} %" for r in rows)
    return Chart(figure, f"invariance: {words}")


def _highest(row: dict[str, Any]) -> float:
    return max(row["score"], row.get("untrained", 0), row.get("shuffled", 0))


def _number(axes: Any, at: float, row: dict[str, Any], top: float) -> None:
    """The score over its bar; where a line runs just above, so that it would be read as the line's, inside the bar."""
    score, room = row["score"], 0.08 * top
    lines = [row[name] for name in ("untrained", "shuffled") if name in row]
    crossed = [y for y in lines if score < y < score + room]
    if not crossed or score < 1.5 * room:
        axes.annotate(f"{score:.1f}", (at, max([score, *crossed])), xytext=(0, 2), textcoords="offset points",
                      ha="center", fontsize=8)  # fmt: skip
    else:
        axes.annotate(f"{score:.1f}", (at, score), xytext=(0, -3), textcoords="offset points", ha="center", va="top",
                      fontsize=8, color="white")  # fmt: skip


def unit_sheet(shown: Sequence[Shown], two_sided: bool) -> bytes:
    """A row for the best unit of some targets (a target and a change at a time): the pictures on which it is highest.
    Frames: of that target, or of another."""
    tiles: list[np.ndarray] = []
    words: list[str] = []
    count = max(1, min(ROWS, max(len(s.names) for s in shown) if len(shown) == 1 else ROWS))
    for i in range(count):
        s = shown[i % len(shown)]
        y = (i // len(shown) + i % len(shown)) % len(s.names)
        f = torch.cat([s.f, -s.f], 1) if two_sided else s.f
        unit = int(s.units[y, 0])
        best = _spread(f[:, unit], ACROSS)
        said = [s.names[y][:20], "" if s.change == "all" else s.change.replace("_", " ")[:20]]
        words += said + [""] * (ACROSS - len(said))
        for j in best:
            tiles.append(framed(s.images[j], RIGHT if int(s.target[j]) == y else WRONG))
        tiles += [np.full_like(tiles[-1], 255)] * (ACROSS - len(best))
    return contact_sheet(tiles, words, columns=ACROSS, size=72)


def _spread(values: Tensor, count: int) -> list[int]:
    """Places of `count` values at equal steps among the highest eighth (the very highest are often of one picture)."""
    top = values.topk(max(min(len(values), count), len(values) // 8)).indices
    return top[torch.linspace(0, len(top) - 1, min(count, len(top))).long()].tolist()


