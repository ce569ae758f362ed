"""What the tests of papers share: runs of a job in this process, pictures of two kinds, and records."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precis.errors import Stopped
from precis.lab.recorder import TrialRecord
from precis.papers.catalogue import find
from precis.papers.opening import make_job
from precis.papers.running import Finished, run_job


def run_paper(
    name: str, out: Path, given: Any = None, resume: bool = False, listen: Any = None, **options: Any
) -> Finished:
    paper = find()[name]
    return run_job(paper, make_job(paper, given, device="cpu", **options), out=out, resume=resume, listen=listen)


def stopped_and_resumed(run: Any, folder: Path, given: Any, **options: Any) -> None:
    """A run that is stopped after its first step and resumed ends as one that was not, to the bit."""

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "log" and event["step"] >= 1:
            raise Stopped("enough")

    whole = run(folder / "whole", given, **options)
    with pytest.raises(Stopped):
        run(folder / "part", given, listen=stop, **options)
    assert (folder / "part" / ".training").is_dir() and not (folder / "part" / "result.json").exists()
    resumed = run(folder / "part", given, resume=True, **options)
    a, b = (np.load(done.folder / "embeddings.npz")["h"] for done in (whole, resumed))
    assert np.array_equal(a, b) and whole.metrics == resumed.metrics


def record(folder: Path, arm: str = "arm", seed: int = 0, **tuned: Any) -> TrialRecord:
    return TrialRecord(folder / "record" / f"{arm}{seed}", seed, tuned=tuned)


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


class Heard:
    """A `Work` without a run: keeps the notes."""

    device, resume = "cpu", False

    def __init__(self, folder: Path = Path()) -> None:
        self.folder = folder
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def table(self, name: str, rows: Any) -> None: ...

    def show(self, file: str) -> None: ...

    def curve(self, name: str, steps: Any, values: Any) -> None: ...

    def log(self, step: int, total: int, **scalars: float) -> None: ...

    def image(self, name: str, pixels: Any, step: int | None = None) -> None: ...
