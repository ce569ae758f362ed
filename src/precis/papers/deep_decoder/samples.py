"""Something to work on where no INPUT is named, for every task: nothing is fetched."""

from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np

ASSETS = Path(__file__).parent / "assets"
NOISE = 25  # of 255


def make_sample(task: str, job: Any, folder: Path) -> Path:
    """Put the sample of a task into `folder`, and with it what its options would name; what INPUT would be."""
    from precis.data.embedded import photo
    from precis.data.images import as_float, resize, write_image

    if task == "decompress":
        return Path(copy(ASSETS / "coffee.pdd", folder))
    picture = as_float(resize(photo("coffee"), (170, 256)))
    if task == "compress":
        return write_image(folder / "coffee.png", picture)
    if job.reference is None:
        job.reference = write_image(folder / "clean.png", picture)
    if task == "superres":
        job.factor = job.factor or 4
        h, w = (n // job.factor for n in picture.shape[1:])
        job.reference = write_image(folder / "large.png", picture[:, : h * job.factor, : w * job.factor])
        return write_image(folder / "small.png", resize(picture[:, : h * job.factor, : w * job.factor], (h, w)))
    rng = np.random.default_rng(0)
    if task == "denoise":
        return write_image(folder / "noisy.tif", picture + NOISE / 255 * rng.standard_normal(picture.shape))
    if job.mask is None:
        job.mask = write_image(folder / "known.png", (rng.random(picture.shape[1:]) < 0.5).astype(np.float32))
    return write_image(folder / "coffee.png", picture)
