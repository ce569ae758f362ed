"""Runs of the job in this process, with few steps."""

from pathlib import Path
from typing import Any

import numpy as np

from precis.data.images import write_image
from precis.papers.catalogue import find
from precis.papers.opening import make_job
from precis.papers.running import Finished, run_job


def run(out: Path, given: Any = None, **options: Any) -> Finished:
    """`precis run deep_image_prior`, by default with three steps."""
    paper = find()["deep_image_prior"]
    more = {name: options.pop(name) for name in ("resume", "stopping") if name in options}
    return run_job(paper, make_job(paper, given, **{"steps": 3, "device": "cpu", **options}), out=out, **more)


def smooth(h: int = 20, w: int = 28, channels: int = 3) -> np.ndarray:
    """A smooth picture [C,h,w] in [0, 1], of which no part is like another."""
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    planes = [0.5 + 0.3 * np.sin(2 * x + 1.5 * y + c) + 0.15 * np.cos(3 * y - c) for c in range(channels)]
    return np.clip(np.stack(planes), 0, 1).astype(np.float32)


def saved(folder: Path, pixels: np.ndarray, name: str = "picture.png", **more: Any) -> Path:
    return write_image(folder / name, pixels, **more)
