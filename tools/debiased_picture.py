"""The picture of the debiased paper's card, from a run of the job on the built-in sample: the pictures that the loss
takes for negatives of each other although the model places them closest.

    precis run debiased --epochs 4 --out digits && python tools/debiased_picture.py digits
"""

import sys
from pathlib import Path

from card import save_card
from PIL import Image

FOUR_PAIRS = 6 + 8 * 78  # of the sheet's pixels: tiles of 72, gaps of 6


def main(run: Path) -> None:
    sheet = Image.open(run / "false_negatives.png").convert("RGB")
    part = sheet.crop((0, 0, FOUR_PAIRS, sheet.height))
    save_card("debiased", part, quality=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
