"""What the tests of the contrastive jobs share: runs of a paper in this process, and pictures of two kinds."""

from pathlib import Path
from typing import Any

import numpy as np

from precis.papers.catalogue import find
from precis.papers.opening import make_job
from precis.papers.running import Finished, run_job


def run_paper(
    name: str, out: Path, given: Any = None, resume: bool = False, listen: Any = None, **options: Any
) -> Finished:
    paper = find()[name]
    return run_job(paper, make_job(paper, given, device="cpu", **options), out=out, resume=resume, listen=listen)


def halves(n: int = 90, seed: int = 0, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [n,1,8,8] of two kinds, bright at the top or at the bottom, and which they are (drawn, if not given)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n) if labels is None else labels
    images = rng.integers(0, 100, (n, 1, 8, 8))
    for image, label in zip(images, labels):
        image[:, 4 * label : 4 * label + 4] += 150
    return images.astype(np.uint8), labels


def saved(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    np.savez(path, images=images, labels=labels)
    return path
