"""Runs of the job in this process, with nets small enough for a test."""

from pathlib import Path
from typing import Any

import numpy as np

from precis.data.images import write_image
from precis.papers.catalogue import find
from precis.papers.opening import make_job
from precis.papers.running import Finished, run_job


def run(out: Path, given: Any = None, resume: bool = False, listen: Any = None, **options: Any) -> Finished:
    """`precis run deep_decoder`, by default for 40 steps."""
    paper = find()["deep_decoder"]
    if options.get("task") != "decompress" and Path(str(given)).suffix != ".pdd":
        options = {"steps": 40, **options}
    job = make_job(paper, given, device="cpu", **options)
    return run_job(paper, job, out=out, resume=resume, listen=listen)


def smooth(h: int = 24, w: int = 32, channels: int = 3) -> np.ndarray:
    """A smooth colour picture [C,h,w], uint8, of which no part is like another."""
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    planes = [0.5 + 0.3 * np.sin(2 * x + 1.5 * y + c) + 0.15 * np.cos(3 * y - c) for c in range(channels)]
    return np.rint(255 * np.clip(planes, 0, 1)).astype(np.uint8)


def saved(folder: Path, pixels: np.ndarray, name: str = "picture.png", **more: Any) -> Path:
    return write_image(folder / name, pixels, **more)
