"""The picture of clae's card, from a run of the job on the built-in sample:

    precis run clae --epochs 30 --out harder && python tools/clae_picture.py harder
"""

import sys
from pathlib import Path

from card import save_card
from PIL import Image


def main(run: Path) -> None:
    sheet = Image.open(run / "hardness.png").convert("RGB")
    sheet = sheet.crop((sheet.width // 2, 0, sheet.width, sheet.height))  # after training
    save_card("clae", sheet)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
