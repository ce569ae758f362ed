"""The picture of variational dropout's card, from a run of the job:

    precis run variational_dropout --out sparse && python tools/variational_dropout_picture.py sparse
"""

import io
import sys
from pathlib import Path

from card import save_card
from PIL import Image


def main(run: Path) -> None:
    chart = Image.open(io.BytesIO((run / "log_alpha.png").read_bytes())).convert("RGB")
    save_card("variational_dropout", chart)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
