"""The picture of the library's card: one day of the job's sample, known better as more of it is seen.

    precis run neural_process --out curves-run && python tools/neural_process_pictures.py curves-run
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from card import save_card
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from precis.lab.figures import PALETTE
from precis.papers.neural_process.common import draw
from precis.papers.neural_process.reading import read_functions
from precis.papers.neural_process.samples import daily_curves
from precis.papers.neural_process.tasks_functions import BANDS, Scale, predict, split
from precis.train.checkpoint import load_model

SEEN = (1, 4, 12)


class Seed:
    seed = 0


def main(run: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = read_functions(daily_curves(Path(folder) / "daily_curves.csv"))
    train, held = split([f for f in found.items if len(f.x)], draw(Seed, "split"))
    net, scale = load_model(run).eval(), Scale.of(train)
    days = sorted((f for f in held if len(f.x) > max(SEEN) + 3), key=lambda f: float(np.ptp(f.y)))
    day = days[len(days) // 2]  # one of middling swing
    order = np.random.default_rng(0).permutation(len(day.x))
    at = np.linspace(0, 24, 200)[:, None]
    figure = Figure(figsize=(4.8, 3.0), dpi=100)
    FigureCanvasAgg(figure)
    for i, n in enumerate(SEEN):
        axes = figure.add_axes((0.02 + 0.325 * i, 0.04, 0.31, 0.92))
        known = np.sort(order[:n])
        mean, std = (v[:, 0] for v in predict(net, scale, day.x[known], day.y[known], at))
        for band, alpha in ((90, 0.2), (50, 0.4)):
            axes.fill_between(at[:, 0], mean - BANDS[band] * std, mean + BANDS[band] * std, color=PALETTE[0],
                              alpha=alpha, linewidth=0)  # fmt: skip
        axes.plot(at[:, 0], mean, color=PALETTE[0], linewidth=1.8)
        axes.plot(day.x[:, 0], day.y[:, 0], ".", color="#a9a9a9", markersize=4)
        axes.plot(day.x[known, 0], day.y[known, 0], "o", color=PALETTE[3], markersize=5)
        axes.set(xlim=(0, 24), ylim=(day.y.min() - 6, day.y.max() + 6), xticks=[], yticks=[])
        for side in axes.spines.values():
            side.set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100, facecolor="white")
    save_card("neural_process", Image.open(out).convert("RGB"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
