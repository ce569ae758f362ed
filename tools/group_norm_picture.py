"""The picture of Group Normalization's card, from a run of the job:

    precis run group_norm --out norms && python tools/group_norm_picture.py norms
"""

import io
import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "group_norm" / "assets" / "card.webp"


def main(run: Path) -> None:
    chart = Image.open(io.BytesIO((run / "errors.png").read_bytes())).convert("RGB")
    CARD.parent.mkdir(exist_ok=True)
    chart.resize((480, 300), Image.Resampling.LANCZOS).save(CARD, quality=85, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
