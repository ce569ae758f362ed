"""The picture of prvipe's card, from a run of the job on the built-in sample: the first queries of its gallery.

    precis run prvipe --out poses && python tools/prvipe_picture.py poses
"""

import sys
from pathlib import Path

from card import SIZE, save_card
from PIL import Image


def main(run: Path) -> None:
    sheet = Image.open(run / "gallery.png").convert("RGB")
    width, height = sheet.size
    left, top = round(0.005 * width), round(0.037 * height)
    across = round(5.05 / 9.05 * width)
    part = sheet.crop((left, top, left + across, top + round(across * SIZE[1] / SIZE[0])))
    save_card("prvipe", part, quality=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
