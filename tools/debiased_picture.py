"""The picture of the debiased paper's card, from a run of the job on the built-in sample: the pictures that the loss
takes for negatives of each other although the model places them closest.

    precis run debiased --out digits && python tools/debiased_picture.py digits
"""

import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "debiased" / "assets" / "card.webp"


def main(run: Path) -> None:
    sheet = Image.open(run / "false_negatives.png").convert("RGB")
    width = sheet.height * 480 // 300
    part = sheet.crop((0, 0, min(width, sheet.width), sheet.height))
    CARD.parent.mkdir(exist_ok=True)
    part.resize((480, 300), Image.Resampling.LANCZOS).save(CARD, quality=80, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
