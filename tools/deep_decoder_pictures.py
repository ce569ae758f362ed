"""The library's card, and the code that ships as a sample, from a run of the job:

    precis run deep_decoder --size 192 --width 24 --steps 3000 --out coffee-run
    python tools/deep_decoder_pictures.py coffee-run
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from card import SIZE, save_card
from PIL import Image, ImageDraw, ImageFont

from precis.data.embedded import photo
from precis.data.images import resize
from precis.lab.sheets import INK

ASSETS = Path(__file__).parents[1] / "src" / "precis" / "papers" / "deep_decoder" / "assets"


def main(run: Path) -> None:
    ASSETS.mkdir(exist_ok=True)
    shutil.copyfile(run / "code.pdd", ASSETS / "coffee.pdd")
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    made = Image.open(run / "decoded.png").convert("RGB")
    truth = Image.fromarray(np.moveaxis(resize(photo("coffee"), made.size[::-1]), 0, -1))
    save_card("deep_decoder", _card(truth, made, int(metrics["parameters"])), quality=80)


def _card(truth: Image.Image, made: Image.Image, weights: int) -> Image.Image:
    """One scene: the photograph's pixels on the left, on the right what the decoder holds."""
    width, height = SIZE
    scale = max(width / made.width, height / made.height)
    size = (round(made.width * scale), round(made.height * scale))
    wide = [p.resize(size, Image.Resampling.BICUBIC) for p in (truth, made)]
    left, top = (wide[0].width - width) // 2, (wide[0].height - height) // 2
    layers = [np.asarray(p.crop((left, top, left + width, top + height))) for p in wide]
    y, x = np.mgrid[:height, :width]
    card = Image.fromarray(np.where((x > width / 2 + 0.25 * (y - height / 2))[..., None], layers[1], layers[0]))
    draw, font = ImageDraw.Draw(card), ImageFont.load_default(16)
    for text, anchor, at in (
        (f"{3 * truth.width * truth.height:,} values", "lb", (10, height - 8)),
        (f"{weights:,} weights", "rb", (width - 10, height - 8)),
    ):
        draw.rounded_rectangle(np.add(draw.textbbox(at, text, font, anchor), (-5, -3, 5, 3)).tolist(), 4, "#ffffffd0")
        draw.text(at, text, INK, font, anchor)
    return card


if __name__ == "__main__":
    main(Path(sys.argv[1]))
