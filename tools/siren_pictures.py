"""The pictures of the library's card and of the README, from a run of the job:

    precis run siren --out coffee-run && python tools/siren_pictures.py coffee-run
"""

import sys
from pathlib import Path

import numpy as np
from card import SIZE, save_card
from PIL import Image

from precis.data.embedded import photo
from precis.data.images import resize
from precis.lab.figures import strip

ROOT = Path(__file__).parents[1]


def main(run: Path) -> None:
    fitted, gradient, laplacian = (Image.open(run / f"{name}.png").convert("RGB")
                                   for name in ("reconstruction", "gradient", "laplacian"))  # fmt: skip
    width, height = fitted.size
    truth = resize(photo("coffee"), (height, width))
    tiles = [truth, *(np.moveaxis(np.asarray(x), -1, 0) for x in (fitted, gradient, laplacian))]
    page = ROOT / "docs" / "siren.png"
    page.parent.mkdir(exist_ok=True)
    labels = ["photograph", "SIREN", "its gradient", "its Laplacian"]
    page.write_bytes(strip(tiles, labels, size=height))
    Image.open(page).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(page, optimize=True)
    save_card("siren", _card(fitted, gradient, laplacian), quality=82)


def _card(*pictures: Image.Image) -> Image.Image:
    """Three slanted bands of one scene: the fit, its gradient, its Laplacian."""
    width, height = SIZE
    scale = max(width / pictures[0].width, height / pictures[0].height)
    wide = [p.resize((round(p.width * scale), round(p.height * scale)), Image.Resampling.LANCZOS) for p in pictures]
    left, top = (wide[0].width - width) // 2, (wide[0].height - height) // 2
    layers = [np.asarray(p.crop((left, top, left + width, top + height))) for p in wide]
    y, x = np.mgrid[:height, :width]
    band = np.clip((x - 0.3 * (y - height / 2)) * 3 / width, 0, 2.999).astype(int)
    return Image.fromarray(np.choose(band[..., None], layers).astype(np.uint8))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
