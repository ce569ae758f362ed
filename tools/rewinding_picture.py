"""The picture of rewinding's card, from a run of the job:

    precis run rewinding --densities 0.3,0.1,0.05,0.02,0.01 --compare --one-shot --rows 500 --epochs 30 --out run
    python tools/rewinding_picture.py run
"""

import io
import sys
from pathlib import Path

from card import save_card
from PIL import Image


def main(run: Path) -> None:
    chart = Image.open(io.BytesIO((run / "curve.png").read_bytes())).convert("RGB")
    save_card("rewinding", chart)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
