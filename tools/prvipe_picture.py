"""The picture of prvipe's card, from a run of the job on the built-in sample: the first queries of its gallery.

    precis run prvipe --out poses && python tools/prvipe_picture.py poses
"""

import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "prvipe" / "assets" / "card.webp"


def main(run: Path) -> None:
    sheet = Image.open(run / "gallery.png").convert("RGB")
    width, height = sheet.size
    left, top = round(0.005 * width), round(0.037 * height)
    across = round(5.05 / 9.05 * width)
    part = sheet.crop((left, top, left + across, top + round(across * 300 / 480)))
    CARD.parent.mkdir(exist_ok=True)
    part.resize((480, 300), Image.Resampling.LANCZOS).save(CARD, quality=80, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
