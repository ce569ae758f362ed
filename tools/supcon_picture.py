"""The picture of supcon's card, from a run of the job on the built-in sample:

    precis run supcon --epochs 40 --out digits && python tools/supcon_picture.py digits
"""

import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "supcon" / "assets" / "card.webp"


def main(run: Path) -> None:
    sheet = Image.open(run / "map.png").convert("RGB")
    inside = sheet.crop((16, 52, sheet.width - 16, sheet.height - 16))  # without the title and the frame
    wide = round(inside.height * 480 / 300)
    card = Image.new("RGB", (max(wide, inside.width), inside.height), "white")
    card.paste(inside, ((card.width - inside.width) // 2, 0))
    CARD.parent.mkdir(exist_ok=True)
    card.resize((480, 300), Image.Resampling.LANCZOS).save(CARD, quality=80, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
