"""The picture of ntxent's card, from a run of the job on the built-in sample:

    precis run ntxent --out digits && python tools/ntxent_picture.py digits
"""

import sys
from pathlib import Path

from card import save_card
from PIL import Image


def main(run: Path) -> None:
    sheet = Image.open(run / "map_pictures.png").convert("RGB")
    save_card("ntxent", sheet, quality=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
