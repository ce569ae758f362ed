"""The picture of supcon's card, from a run of the job on the built-in sample:

    precis run supcon --epochs 40 --out digits && python tools/supcon_picture.py digits
"""

import sys
from pathlib import Path

from card import save_card
from PIL import Image


def main(run: Path) -> None:
    sheet = Image.open(run / "map.png").convert("RGB")
    inside = sheet.crop((16, 52, sheet.width - 16, sheet.height - 16))  # without the title and the frame
    save_card("supcon", inside, quality=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
