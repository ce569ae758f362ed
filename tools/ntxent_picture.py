"""The picture of ntxent's card, from a run of the job on the built-in sample:

    precis run ntxent --out digits && python tools/ntxent_picture.py digits
"""

import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "ntxent" / "assets" / "card.webp"


def main(run: Path) -> None:
    sheet = Image.open(run / "map_pictures.png").convert("RGB")
    CARD.parent.mkdir(exist_ok=True)
    sheet.resize((480, 300), Image.Resampling.BOX).save(CARD, quality=80, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
