"""The picture of the library's card, from a run of the job:

    precis run nerfies --out bust-run && python tools/nerfies_pictures.py bust-run
"""

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
SIZE = (480, 300)


def main(run: Path) -> None:
    """Above the frozen instant from four sides, below four instants from one side, as they were rendered."""
    rows = []
    for name in ("orbit", "playback"):
        with Image.open(run / f"{name}.webp") as clip:
            picked = [round(i * (clip.n_frames - 1) / 3) for i in range(4)]
            rows.append([_frame(clip, i) for i in picked])
    side = SIZE[0] // 4
    card = Image.new("RGB", SIZE, "white")
    top = (SIZE[1] - 2 * side) // 3
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            square = picture.resize((side - 6, side - 6), Image.Resampling.LANCZOS)
            card.paste(square, (c * side + 3, top + r * (side + top) + 3))
    file = ROOT / "src" / "precis" / "papers" / "nerfies" / "assets" / "card.webp"
    file.parent.mkdir(exist_ok=True)
    card.save(file, quality=85, method=6)


def _frame(clip: Image.Image, number: int) -> Image.Image:
    clip.seek(number)
    return clip.convert("RGB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
