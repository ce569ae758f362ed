"""The picture of invariance's card, from a run on the built-in sample (frames, and what is nearest in other clips):

    precis run invariance --batch 64 --epochs 30 --out clips && python tools/invariance_picture.py clips
"""

import sys
from pathlib import Path

from card import save_card
from PIL import Image


def main(run: Path) -> None:
    sheet = Image.open(run / "gallery.png").convert("RGB")
    row = sheet.width / 18  # two queries abreast, eight neighbours of each
    shown = sheet.crop((0, round(sheet.height - 5 * row), round(8 * row), sheet.height))  # the last five rows
    save_card("invariance", shown, quality=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
