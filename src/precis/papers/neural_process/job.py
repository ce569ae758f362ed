"""What one can do with a neural process: learn from many functions, complete pictures, tell classes apart from one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro
from typing_extensions import Doc

from precis.papers import Job, Range, Work
from precis.papers.job import Colour

from .numbers import NUMBERS

Task = Literal["functions", "complete", "few_shot"]


@dataclass(kw_only=True)
class Predict(Job):
    """Learn from many functions (curves, pictures, classes) to predict a new one from a few observations.

    Without --task: a table is a set of functions; pictures are completed, or with --ways told apart.  A table is long
    (columns id, x or x1, x2, …, y or y1, …) or wide (first column x, then one column a function, blanks missing).
    """

    kinds = ("table", "images")
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("table of functions, folder of pictures, or folder of classes (class/… or alphabet/character/…)"),
    ] = None
    task: Annotated[Task | None, Doc("what to do; None: by the kind of INPUT and --ways")] = None

    # How to train.
    steps: Annotated[int | None, Doc("steps of Adam: functions 4000; complete 5000; few_shot 1200"), Range(1)] = None
    minutes: Annotated[float | None, Doc("stop after so many minutes; the rate falls in time"), Range(0.001)] = None
    lr: Annotated[float | None, Doc("Adam's rate at the start: 3e-3; few_shot 2e-3"), Range(1e-8, 1.0)] = None
    batch: Annotated[int | None, Doc("functions, pictures or episodes a step: 32; few_shot 16"), Range(1, 4096)] = None
    width: Annotated[int | None, Doc("units a layer, 128; few_shot: channels of a convolution, 16"), Range(4, 4096)] = (
        None
    )

    # Functions and pictures.
    min_sigma: Annotated[
        float | None, Doc("least standard deviation, in those of the data: 0.05; pictures 0.05"), Range(1e-4, 0.9)
    ] = None
    recalibrate: Annotated[
        bool, Doc("multiply σ by the likeliest factor on held-out data that are then not scored; bands get wider or "
                  "narrower, predictions stay")
    ] = False  # fmt: skip
    latent: Annotated[bool, Doc("with a latent variable: draws are whole functions")] = False

    # Functions.
    grid: Annotated[
        int | None, Doc("predict at so many places over the range of x; without it at the rows of empty y, or at 100"),
        Range(2, 100_000),
    ] = None

    # Pictures.
    size: Annotated[int | None, Doc("side of the pictures in pixels: 32; few_shot 28"), Range(4, 256)] = None
    image: Annotated[Path | None, Doc("complete: the picture to complete; else held-out ones")] = None
    context: Annotated[
        str | None, Doc("complete: pixels shown: a number, ordered (upper half), half (left one), or a mask; 100")
    ] = None
    background: Annotated[str | None, Doc("colour to lay transparent pixels on; white"), Colour()] = None
    keep_going: Annotated[bool, Doc("go on if more than one picture in twenty cannot be read")] = False

    # Classes.
    ways: Annotated[int | None, Doc("few_shot: classes in an episode; 5"), Range(2, 100)] = None
    shots: Annotated[int | None, Doc("few_shot: examples of each class; 1"), Range(1, 100)] = None

    def sample(self, folder: Path) -> str:
        from .options import settle
        from .samples import SIDE, make_sample

        task = settle(self)
        if task == "complete" and self.size is None:
            self.size = SIDE
        return make_sample(task, folder)

    def run(self, work: Work) -> dict[str, float | None]:
        from importlib import import_module

        from .options import TASKS, settle

        task = settle(self)
        self.task = cast(Task, task)
        module = import_module(f"{__package__}.{TASKS[task].module}")
        metrics: dict[str, Any] = getattr(module, f"run_{task}")(self, work)
        return {name: None if value is None else float(value) for name, value in metrics.items()}
