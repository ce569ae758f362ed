"""The picture of RevNet's card, from a run of the job on a folder of pictures:

    precis run revnet pictures/ --plan --out revnet-run && python tools/revnet_picture.py revnet-run
"""

import io
import sys
from pathlib import Path

from card import save_card
from PIL import Image


def main(run: Path) -> None:
    chart = Image.open(io.BytesIO((run / "memory.png").read_bytes())).convert("RGB")
    save_card("revnet", chart)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
