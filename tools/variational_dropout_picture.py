"""The picture of variational dropout's card, from a run of the job:

    precis run variational_dropout --out sparse && python tools/variational_dropout_picture.py sparse
"""

import io
import sys
from pathlib import Path

from PIL import Image

CARD = Path(__file__).parents[1] / "src" / "precis" / "papers" / "variational_dropout" / "assets" / "card.webp"


def main(run: Path) -> None:
    chart = Image.open(io.BytesIO((run / "log_alpha.png").read_bytes())).convert("RGB")
    card = Image.new("RGB", (480, 300), "white")
    chart.thumbnail((470, 292), Image.Resampling.LANCZOS)
    card.paste(chart, ((480 - chart.width) // 2, (300 - chart.height) // 2))
    CARD.parent.mkdir(exist_ok=True)
    card.save(CARD, quality=85, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
