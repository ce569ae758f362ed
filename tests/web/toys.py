"""Papers for tests of the site: a job with every type of option, viewers, hostile words wherever they can stand."""

from pathlib import Path

from tests.papers.toys import CLAIMS

HOSTILE = "<script>alert(1)</script>"

SUMMARY = f"""---
title: "Painting {HOSTILE}"
authors: [A. One, "B. {HOSTILE}"]
year: 2021
venue: Nowhere
family: vision
claims:
  up_beats_down: Counting up with $\\omega_0$ ends higher than counting down.
---
# The problem {HOSTILE}

<img src=x onerror=alert(1)> and [a link](javascript:alert(1)), with $\\text{{<script>alert(2)</script>}}$.

$$
\\mathcal{{L}} = \\frac{{a+b}}{{2}}
$$
"""

JOB = '''
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from typing_extensions import Doc

from precis.errors import InputError, Stopped
from precis.papers import Job, Range
from precis.papers.job import OfFile, OfRun

HOSTILE = "<script>alert(1)</script>"


@dataclass(kw_only=True)
class Paint(Job):
    """Paint a picture again, step by step."""

    kinds = ("image",)
    views = ("zoom", "orbit")

    task: Annotated[Literal["again", "never"] | None, Doc("what to do")] = None

    # How to paint.
    steps: Annotated[int, Doc("strokes"), Range(1, 10_000)] = 4
    pause: Annotated[float, Doc("seconds a stroke"), Range(0)] = 0.0

    # Colours.
    size: Annotated[tuple[int, int] | None, Doc("width and height"), Range(1)] = None
    weights: Annotated[tuple[float, ...], Doc("any number of weights")] = ()
    names: Annotated[tuple[str, ...], Doc("words")] = ("a", "b")
    over: Annotated[Path | None, Doc("a second picture")] = None
    marks: Annotated[str, Doc("auto, or a CSV of marks"), OfFile(("auto",))] = "auto"
    before: Annotated[Path | None, Doc("folder of a run to go on from"), OfRun("painted.png")] = None
    brush: Annotated[str, Doc("fine, coarse, or the folder of a run"), OfRun("painted.png")] = "fine"
    flip: Annotated[bool, Doc("upside down")] = False
    keep: Annotated[bool, Doc("keep the edge")] = True
    tint: Annotated[bool | None, Doc("tint it")] = None
    title: Annotated[str, Doc("words below it")] = "plain"
    from_: Annotated[Literal["left", "right"] | None, tyro.conf.arg(name="from"), Doc("where to begin")] = None
    level: Annotated[Literal[1, 2, 3], Doc("one of three")] = 2
    hue: Annotated[float | None, Doc("none is grey"), Range(0, 1)] = None

    def sample(self, folder: Path) -> str:
        from PIL import Image

        Image.new("RGB", (8, 8), "teal").save(folder / "teal.png")
        return str(folder / "teal.png")

    def run(self, work):
        import numpy as np
        from PIL import Image

        if self.title == "late":
            raise InputError("the row is empty", file=self.input, row=3)
        pixels = np.asarray(Image.open(self.input).convert("RGB")) / 255.0
        work.note(f"a note of {HOSTILE}")
        for i in range(self.steps):
            time.sleep(self.pause)
            work.image("painted", pixels.transpose(2, 0, 1) * (i + 1) / self.steps, step=i)
            work.log(i + 1, self.steps, loss=1.0 / (i + 1), odd=float("nan"))
        (work.folder / "<b>bold<b>.txt").write_text(HOSTILE)
        (work.folder / "page.html").write_text(HOSTILE)
        (work.folder / "drawn.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg">{HOSTILE}</svg>')
        (work.folder / "table.csv").write_text("a,a,b\\n1,2,<i>3</i>\\n")
        (work.folder / "deep").mkdir()
        (work.folder / "deep" / "weights.bin").write_bytes(bytes(range(256)) * 40)
        work.show("painted.png")
        return {"loss": 1.0 / self.steps, "strokes": float(self.steps)}

    def view(self, folder: Path, kind: str, at: dict, size: tuple) -> Any:
        import numpy as np

        if kind == "orbit":
            raise InputError("this run made no shape")
        return np.tile(np.linspace(at["x0"], at["x1"], size[0]), (size[1], 1))
'''


def write_paint(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "summary.md").write_text(SUMMARY, encoding="utf-8")
    (folder / "job.py").write_text(JOB, encoding="utf-8")
    (folder / "claims.py").write_text(CLAIMS.replace("LEVEL", "1.0").replace("FAILING", "none"), encoding="utf-8")
    return folder


def picture(size: tuple[int, int] = (16, 12), kind: str = "PNG") -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, kind)
    return out.getvalue()
