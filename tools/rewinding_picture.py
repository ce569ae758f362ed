"""The picture of rewinding's card, from a run of the job:

    precis run rewinding --densities 0.3,0.1,0.05,0.02,0.01 --compare --one-shot --rows 500 --epochs 30 --out run
    python tools/rewinding_picture.py run
"""

import io
import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "rewinding" / "assets" / "card.webp"


def main(run: Path) -> None:
    chart = Image.open(io.BytesIO((run / "curve.png").read_bytes())).convert("RGB")
    CARD.parent.mkdir(exist_ok=True)
    chart.resize((480, 300), Image.Resampling.LANCZOS).save(CARD, quality=85, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
