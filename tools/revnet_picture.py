"""The picture of RevNet's card, from a run of the job on a folder of pictures:

    precis run revnet pictures/ --plan --out revnet-run && python tools/revnet_picture.py revnet-run
"""

import io
import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "revnet" / "assets" / "card.webp"


def main(run: Path) -> None:
    chart = Image.open(io.BytesIO((run / "memory.png").read_bytes())).convert("RGB")
    CARD.parent.mkdir(exist_ok=True)
    chart.resize((480, 300), Image.Resampling.LANCZOS).save(CARD, quality=85, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
