"""The picture of supcon's card, from a run of the job on pictures with classes:

    precis run supcon pictures/ --out classes && python tools/supcon_picture.py classes
"""

import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "supcon" / "assets" / "card.webp"


def main(run: Path) -> None:
    sheet = Image.open(run / "map.png").convert("RGB")
    wide = round(sheet.height * 480 / 300)
    card = Image.new("RGB", (max(wide, sheet.width), sheet.height), "white")
    card.paste(sheet, ((card.width - sheet.width) // 2, 0))
    CARD.parent.mkdir(exist_ok=True)
    card.resize((480, 300), Image.Resampling.LANCZOS).save(CARD, quality=80, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
