"""The picture of the library's card, from a run of the job:

    precis run nerf SCENE --out nerf-run && python tools/nerf_pictures.py nerf-run
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "nerf" / "assets" / "card.webp"


def main(run: Path, size: tuple[int, int] = (480, 300)) -> None:
    """Frames of the orbit side by side, and the depth of the last."""
    frames = Image.open(run / "orbit.webp"), Image.open(run / "orbit_depth.webp")
    count = frames[0].n_frames
    tiles = []
    for kind, at in ((0, 0), (0, count // 3), (1, 2 * count // 3)):
        frames[kind].seek(at)
        tiles.append(frames[kind].convert("RGB"))
    width, height = size
    card = Image.new("RGB", size, "white")
    share = width // len(tiles)
    for i, tile in enumerate(tiles):
        picture = np.asarray(tile)
        columns = np.flatnonzero((picture < 250).any((0, 2)))
        middle = int(columns.mean()) if len(columns) else tile.width // 2
        scale = height / tile.height
        big = tile.resize((round(tile.width * scale), height), Image.Resampling.LANCZOS)
        left = int(np.clip(middle * scale - share / 2, 0, max(big.width - share, 0)))
        card.paste(big.crop((left, 0, left + share, height)), (i * share, 0))
    CARD.parent.mkdir(exist_ok=True)
    card.save(CARD, quality=85, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
