"""The picture of MobileNetV2's card: what is left of a spiral after a ReLU in 2, 3, 5 and 15 dimensions.

    python tools/mobilenet_picture.py
"""

import io

import torch
from card import save_card
from matplotlib.figure import Figure
from PIL import Image

from precis.lab.figures import Chart
from precis.vision.mobilenet_theory import embedded, information_loss, read_out, spiral

DIMENSIONS = (2, 3, 5, 15, 30)


def main() -> None:
    x = spiral(400)
    figure = Figure(figsize=(6, 3.75), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    panels = [("a spiral", x)]
    for dim in DIMENSIONS:
        draw = torch.Generator().manual_seed(0)
        loss = float(information_loss(dim, 400, 50, generator=draw).mean())
        draw.manual_seed(3)
        share = f"{100 * loss:.0f} %" if loss > 0.005 else "< 0.1 %"
        panels.append((f"ReLU in {dim}: {share} lost", read_out(x, embedded(x, dim, 1, draw))[0]))
    for axis, (title, points) in zip(axes, panels):
        axis.scatter(points[:, 0], points[:, 1], c=torch.linspace(0, 1, len(points)), cmap="turbo", s=7)
        axis.set_title(title, fontsize=11)
        axis.set_aspect("equal")
        axis.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35))
        axis.axis("off")
    chart = Image.open(io.BytesIO(Chart(figure, "a spiral and what ReLU leaves of it").png())).convert("RGB")
    save_card("mobilenet", chart)


if __name__ == "__main__":
    main()
