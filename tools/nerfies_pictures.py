"""The picture of the library's card, from a run of the job:

    precis run nerfies --out bust-run && python tools/nerfies_pictures.py bust-run
"""

import sys
from pathlib import Path

from card import SIZE, save_card
from PIL import Image


def main(run: Path) -> None:
    """Above four photographs that were kept back, below what was rendered in their place."""
    files = sorted((run / "validation").glob("*.png"))
    rows: list[list[Image.Image]] = [[], []]
    for file in (files[round(i * (len(files) - 1) / 3)] for i in range(4)):
        with Image.open(file) as picture:
            side = picture.width // 3  # rendered, photograph, error
            for row, left in zip(rows, (side, 0)):
                row.append(picture.convert("RGB").crop((left, 0, left + side, picture.height)))
    side = SIZE[0] // 4
    card = Image.new("RGB", SIZE, "white")
    top = (SIZE[1] - 2 * side) // 3
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            square = picture.resize((side - 6, side - 6), Image.Resampling.LANCZOS)
            card.paste(square, (c * side + 3, top + r * (side + top) + 3))
    save_card("nerfies", card)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
