"""The picture of invariance's card, from a run of the job on the built-in sample (frames of clips, laid out by a map):

    precis run invariance --out clips && python tools/invariance_picture.py clips
"""

import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "invariance" / "assets" / "card.webp"


def main(run: Path) -> None:
    sheet = Image.open(run / "map_pictures.png").convert("RGB")
    CARD.parent.mkdir(exist_ok=True)
    sheet.resize((480, 300), Image.Resampling.BOX).save(CARD, quality=80, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
