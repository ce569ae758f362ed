"""The picture of the library's card, from a run of the job on its built-in sample:

    precis run deep_image_prior --task inpaint --out half && python tools/deep_image_prior_pictures.py half
"""

import sys
from pathlib import Path

import numpy as np
from card import SIZE, save_card
from PIL import Image, ImageDraw


def main(run: Path) -> None:
    """The damaged picture on the left of a slanted line, the restored one on the right."""
    restored = Image.open(run / "restored.png").convert("RGB")
    strip = Image.open(run / "overview.png").convert("RGB")
    tile = strip.height - 34  # the first tile of the strip, without its caption
    damaged = strip.crop((10, 10, tile + 10, tile + 10)).resize(restored.size, Image.Resampling.NEAREST)
    width, height = SIZE
    scale = max(width / restored.width, height / restored.height)
    size = (round(restored.width * scale), round(restored.height * scale))
    top = (size[1] - height) // 2
    box = (0, top, width, top + height)
    left = np.asarray(damaged.resize(size, Image.Resampling.NEAREST).crop(box))
    right = np.asarray(restored.resize(size, Image.Resampling.LANCZOS).crop(box))
    y, x = np.mgrid[:height, :width]
    card = Image.fromarray(np.where((x - 0.3 * (y - height / 2) < width / 2)[..., None], left, right).astype(np.uint8))
    bottom, above = width / 2 + 0.15 * height, width / 2 - 0.15 * height
    ImageDraw.Draw(card).line([(above, 0), (bottom, height)], fill="white", width=3)
    save_card("deep_image_prior", card, quality=82)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
