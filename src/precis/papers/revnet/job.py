"""Train a reversible classifier on pictures, within a limit of memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from typing_extensions import Doc

from precis.errors import InputError
from precis.papers import Job, Range, Work
from precis.papers.job import Colour, OfFile

from .numbers import NUMBERS


@dataclass(kw_only=True)
class RevNetJob(Job):
    """Train a reversible classifier on your pictures within a limit of memory.

    A training step's memory is what autograd keeps, what the backward pass builds again, weights, gradients and
    momentum.  With --memory alone the largest batch that fits is taken, with --batch too the greatest depth.
    """

    kinds = ("images",)
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("folder (class = sub-folder), archive, array file, Parquet or CSV of pictures with classes"),
    ] = None

    # Memory.
    memory: Annotated[str | None, Doc("limit of a training step, such as 500MiB or 2GiB")] = None
    batch: Annotated[int | None, Doc("pictures a batch; None: 64, or the most that --memory allows up to 256"),
                     Range(2)] = None  # fmt: skip
    plan: Annotated[bool, Doc("only tell what ResNet, checkpointed ResNet and RevNet need by depth and batch")] = False

    # The net.
    units: Annotated[int | None, Doc("blocks a stage; None: 3, or with --memory and --batch the most that fits"),
                     Range(1, 200)] = None  # fmt: skip
    filters: Annotated[
        tuple[int, ...],
        Doc("channels of the stem and of each stage: even numbers; with --fully-reversible only how many counts"),
    ] = (32, 32, 64, 112)
    keep_every: Annotated[int, Doc("also keep the activations after so many blocks, against rounding errors; 0: none"),
                          Range(0)] = 0  # fmt: skip
    fully_reversible: Annotated[
        bool, Doc("reversible transitions: the net runs backwards to the picture; channels grow fourfold a stage")
    ] = False

    # Training.
    epochs: Annotated[int, Doc("passes over the training pictures"), Range(1)] = 10
    minutes: Annotated[float | None, Doc("end after so many minutes at the latest"), Range(0.01)] = None
    lr: Annotated[float, Doc("learning rate at 100 pictures a batch, in proportion to it"), Range(1e-5, 10)] = 0.1
    augment: Annotated[bool, Doc("shift pictures by up to a sixteenth of their side, and mirror them")] = False
    size: Annotated[int | None, Doc("side of the pictures; None: 32, array files of up to 64 pixels as they are"),
                    Range(8, 224)] = None  # fmt: skip
    val: Annotated[float, Doc("share of the pictures that accuracy is measured on"), Range(0.05, 0.8)] = 0.2
    labels: Annotated[str, Doc("auto, or a CSV of file and label"), OfFile(("auto",))] = "auto"
    background: Annotated[str, Doc("colour under transparent pictures"), Colour()] = "white"
    keep_going: Annotated[bool, Doc("go on when more than 5 % of the pictures cannot be read")] = False

    def sample(self, folder: Path) -> str:
        """Handwritten digits."""
        from precis.papers.samples import write_digits

        return write_digits(folder)

    def run(self, work: Work) -> dict[str, float | None]:
        assert self.input is not None
        if not Path(self.input).exists():
            raise InputError("no such file or folder; pictures with classes are wanted", file=self.input)
        from .fit import run_fit, run_plan

        return run_plan(self, work) if self.plan else run_fit(self, work)
