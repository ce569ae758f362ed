"""Paper folders for tests: a job that counts and fails on demand, a claim of two arms."""

from pathlib import Path

SUMMARY = """---
title: "Counting: a toy"
authors: [A. One, B. Two]
year: 2020
venue: Nowhere
family: analysis
arxiv: 2006.10000
aliases: [ALIAS]
claims:
  up_beats_down: Counting up with $\\omega_0$ ends higher
    than counting down.
---
# The problem

A *sine* of $\\omega_0 x^2$, and $5 to $7.

$$
\\mathcal{L} = \\frac{a+b}{2}
$$

| a | b |
|---|---|
| one | $\\alpha$ |
"""

JOB = '''
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc

from precis.errors import InputError, RunFailed, Stopped
from precis.papers import Job, Range


@dataclass(kw_only=True)
class Count(Job):
    """Count to a number.

    More words, which the help leaves out.
    """

    kinds = ("image", "text")

    task: Annotated[Literal["up", "down"], Doc("which way")] = "up"
    steps: Annotated[int, Doc("how far"), Range(1, 1000)] = 3
    pause: Annotated[float, Doc("seconds a step")] = 0.0
    size: Annotated[tuple[int, int] | None, Doc("width and height")] = None
    fast: Annotated[bool, Doc("skip the picture")] = False
    fail: Annotated[str, Doc("how to fail")] = ""

    def sample(self, folder: Path) -> str:
        (folder / "words.txt").write_text("hello\\n")
        return str(folder / "words.txt")

    def run(self, work):
        import numpy as np

        checkpoint = work.folder / "checkpoint.txt"
        start = int(checkpoint.read_text()) if work.resume and checkpoint.exists() else 0
        work.note(f"began at {start}")
        for i in range(start, self.steps):
            time.sleep(self.pause)
            try:
                work.log(i + 1, self.steps, value=2.0 * i)
            except Stopped:
                checkpoint.write_text(str(i + 1))
                raise
            if i == 1 and self.fail:
                work.image("half", np.zeros((4, 4)))
                raise {
                    "input": InputError("the row is empty", file=self.input, row=3),
                    "memory": MemoryError(),
                    "torch memory": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
                    "disk": OSError(28, "No space left on device"),
                    "diverged": RunFailed("the loss is not finite at step 2"),
                    "bug": ZeroDivisionError("a bug"),
                }[self.fail]
        work.image("count", np.linspace(0, 1, 64).reshape(8, 8))
        (work.folder / "table.csv").write_text("a\\n1\\n")
        work.show("count.png")
        checkpoint.unlink(missing_ok=True)
        return {"count": float(self.steps), "psnr": float("inf"), "began": float(start)}
'''

CLAIMS = '''
from dataclasses import dataclass

from precis.lab import Claim, Greater, Profile


@dataclass(frozen=True)
class Settings:
    level: float = LEVEL


class UpBeatsDown(Claim):
    name = "up_beats_down"
    statement = "Counting up with $\\\\omega_0$ ends higher than counting down."
    arms = ("up", "down")
    profiles = {"smoke": Profile(Settings(), seeds=3, scale="tiny"), "quick": Profile(Settings(), seeds=3)}
    hypotheses = (Greater("height", "up", "down", by=0.5),)

    def trial(self, arm, seed, settings, data, record):
        record.log(1, 1, height=1.0)
        if seed == 1 and arm == "FAILING":
            raise ValueError("this arm breaks")
        return {"height": settings.level + seed / 1000 if arm == "up" else 0.0}
'''


def write_toy(root: Path, name: str = "toy_run", *, alias: str = "", level: float = 1.0, failing: str = "") -> Path:
    """A whole paper folder under `root`; a level below 0.5 contradicts the claim."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "summary.md").write_text(SUMMARY.replace("ALIAS", alias), encoding="utf-8")
    (folder / "job.py").write_text(JOB, encoding="utf-8")
    claims = CLAIMS.replace("LEVEL", str(level)).replace("FAILING", failing or "none")
    (folder / "claims.py").write_text(claims, encoding="utf-8")
    return folder
