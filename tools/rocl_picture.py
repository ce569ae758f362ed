"""The picture of rocl's card, from a run of the job on the built-in sample:

    precis run rocl --eps 0.1 --epochs 30 --out robust && python tools/rocl_picture.py robust
"""

import sys
from pathlib import Path

from card import save_card
from PIL import Image

HEAD, ROW, ROWS = 34, 178, 3  # of the sheet, in pixels: its header, a row of pictures with captions, rows shown


def main(run: Path) -> None:
    sheet = Image.open(run / "attacks.png").convert("RGB")
    sheet = sheet.crop((0, 0, sheet.width, HEAD + ROWS * ROW))
    save_card("rocl", sheet)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
