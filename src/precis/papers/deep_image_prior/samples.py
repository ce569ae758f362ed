"""Something to restore where no INPUT is named, for every task: nothing is fetched."""

from pathlib import Path
from typing import Any

import numpy as np

SIDE = 128


def make_sample(job: Any, task: str, folder: Path) -> str:
    """Put a damaged piece of a photograph into `folder`; what INPUT would be.  The clean piece is the reference."""
    from PIL import Image

    from precis.data.embedded import photo
    from precis.data.images import as_float, resize, to_pillow, write_image

    coffee = resize(photo("coffee"), (200, 300))[:, 36 : 36 + SIDE, 92 : 92 + SIDE]
    clean, rng = as_float(coffee), np.random.default_rng(0)
    if task in ("invert", "curves"):
        return str(write_image(folder / "coffee.png", resize(coffee, (64, 64))))
    job.clean = write_image(folder / "clean.png", clean)
    if task == "jpeg":
        to_pillow(clean).save(folder / "blocks.jpg", quality=12)
        return str(folder / "blocks.jpg")
    if task == "superres":
        factor = job.factor or 4
        small = Image.fromarray(np.moveaxis(coffee, 0, -1)).resize((SIDE // factor,) * 2, Image.Resampling.LANCZOS)
        small.save(folder / "small.png")
        return str(folder / "small.png")
    if task == "inpaint":
        known = rng.random((1, SIDE, SIDE)) > 0.5
        if job.mask is not None:
            return str(write_image(folder / "coffee.png", clean))
        return str(write_image(folder / "half_missing.png", clean, known.astype(np.float32)))
    if task == "flash":
        cold = np.array([0.95, 1.0, 1.05])[:, None, None]
        bright = (0.25 + 0.9 * clean.mean(0, keepdims=True) ** 0.8) * cold
        job.companion = write_image(folder / "with_flash.png", np.clip(bright, 0, 1))
    noisy = clean + 25 / 255 * rng.standard_normal(clean.shape)
    return str(write_image(folder / "noisy.png", np.clip(noisy, 0, 1)))
