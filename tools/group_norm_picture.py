"""The picture of Group Normalization's card, from a run of the job:

    precis run group_norm --out norms && python tools/group_norm_picture.py norms
"""

import io
import sys
from pathlib import Path

from card import save_card
from PIL import Image


def main(run: Path) -> None:
    chart = Image.open(io.BytesIO((run / "errors.png").read_bytes())).convert("RGB")
    save_card("group_norm", chart)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
