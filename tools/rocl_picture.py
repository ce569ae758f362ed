"""The picture of rocl's card, from a run of the job on the built-in sample:

    precis run rocl --eps 0.1 --epochs 30 --out robust && python tools/rocl_picture.py robust
"""

import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "rocl" / "assets" / "card.webp"
SIZE = (480, 300)
HEAD, ROW, ROWS = 34, 178, 3  # of the sheet, in pixels: its header, a row of pictures with captions, rows shown


def main(run: Path) -> None:
    sheet = Image.open(run / "attacks.png").convert("RGB")
    sheet = sheet.crop((0, 0, sheet.width, HEAD + ROWS * ROW))
    scale = min(SIZE[0] / sheet.width, SIZE[1] / sheet.height)
    sheet = sheet.resize((round(sheet.width * scale), round(sheet.height * scale)), Image.Resampling.LANCZOS)
    card = Image.new("RGB", SIZE, "white")
    card.paste(sheet, ((SIZE[0] - sheet.width) // 2, (SIZE[1] - sheet.height) // 2))
    CARD.parent.mkdir(exist_ok=True)
    card.save(CARD, quality=85, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
