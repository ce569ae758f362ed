"""The picture of the library's card, from a run of the job:

    precis run nerf --out nerf-run && python tools/nerf_pictures.py nerf-run
"""

import sys
from pathlib import Path

import numpy as np
from card import SIZE, save_card
from PIL import Image

from precis.papers.depth_maps import in_colour
from precis.papers.nerf.views import look

PLACES = ((125.0, 10.0), (165.0, 25.0), (205.0, 10.0))  # azimuth and elevation, from left to right
AWAY = 1.7


def main(run: Path) -> None:
    """Three views of the learned scene side by side, the last as depth."""
    card = Image.new("RGB", SIZE, "white")
    width = SIZE[0] // len(PLACES)
    for i, (azimuth, elevation) in enumerate(PLACES):
        made, background = look(run, {"azimuth": azimuth, "elevation": elevation, "distance": AWAY}, (width, SIZE[1]))
        opacity = made.opacity.numpy()[..., None]
        rgb = made.rgb.numpy() + (1 - opacity) * background
        if i == len(PLACES) - 1:
            depth = made.depth.numpy() / opacity[..., 0].clip(1e-6)
            rgb = in_colour(np.where(opacity[..., 0] > 0.5, depth, np.inf), depth.max())
        card.paste(Image.fromarray(np.rint(rgb.clip(0, 1) * 255).astype(np.uint8)), (i * width, 0))
    save_card("nerf", card)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
