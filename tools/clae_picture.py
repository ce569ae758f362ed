"""The picture of clae's card, from a run of the job on the built-in sample:

    precis run clae --epochs 30 --out harder && python tools/clae_picture.py harder
"""

import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "clae" / "assets" / "card.webp"
SIZE = (480, 300)


def main(run: Path) -> None:
    sheet = Image.open(run / "hardness.png").convert("RGB")
    sheet = sheet.crop((sheet.width // 2, 0, sheet.width, sheet.height))  # after training
    scale = min(SIZE[0] / sheet.width, SIZE[1] / sheet.height)
    sheet = sheet.resize((round(sheet.width * scale), round(sheet.height * scale)), Image.Resampling.LANCZOS)
    card = Image.new("RGB", SIZE, "white")
    card.paste(sheet, ((SIZE[0] - sheet.width) // 2, (SIZE[1] - sheet.height) // 2))
    CARD.parent.mkdir(exist_ok=True)
    card.save(CARD, quality=85, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
