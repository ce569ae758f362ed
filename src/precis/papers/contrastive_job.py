"""The job that the contrastive papers share: learn an embedding of a folder of pictures, and look at it.

A paper's `job.py` subclasses `ContrastiveJob` and hands `run_contrastive` (`precis.papers.contrastive_run`) what is its
own: the model and its loss.  Nothing heavy is imported here, so that `--help` and the form come at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from typing_extensions import Doc

from precis.errors import InputError
from precis.papers.contrastive_numbers import NUMBERS
from precis.papers.job import Colour, Job, OfFile, OfRun, Range

ENCODERS = ("ntxent", "debiased", "supcon", "rocl", "clae", "invariance")  # papers whose runs leave an encoder
WEIGHTS = "model.safetensors"


@dataclass(kw_only=True)
class ContrastiveJob(Job):
    """Learn an embedding of your pictures; with classes (sub-folders or --labels), also see how well it tells them."""

    kinds = ("images",)
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("folder (class = sub-folder), archive, array file, Parquet or CSV of pictures"),
    ] = None
    task: Annotated[
        Literal["train", "embed"], Doc("train an encoder, or embed INPUT with the one that --model names")
    ] = "train"

    # What to learn from.
    size: Annotated[
        int | Literal["auto"] | None,
        Doc("side of the pictures; auto: the largest of 32, 64, 96, 128, 224 that the median picture fills; array "
            "files of up to 64 pixels as they are"),
        Range(8, 224),
    ] = "auto"  # fmt: skip
    labels: Annotated[
        str,
        Doc("auto (sub-folders, or a column), or a CSV of file, label and group; without label or row there is none"),
        OfFile(("auto",)),
    ] = "auto"
    group: Annotated[str | None, Doc("column whose equal values (a patient, a product) stay on one side")] = None
    val_fraction: Annotated[float, Doc("share of labelled pictures held out of training to judge it"),
                            Range(0.05, 0.8)] = 0.2  # fmt: skip
    background: Annotated[str, Doc("colour under transparent pictures"), Colour()] = "white"
    keep_going: Annotated[bool, Doc("go on if more than one picture in twenty cannot be read")] = False

    # How.
    model: Annotated[
        str,
        Doc("auto (conv up to 32 pixels on a CPU, else resnet18), conv, resnet18, resnet50, any backbone such as "
            "conv:32x4; with --task embed: the folder of a run"),
        OfRun(WEIGHTS, ENCODERS),
    ] = "auto"  # fmt: skip
    augment: Annotated[
        Literal["auto", "simclr", "mocov2", "supcon", "glyph"],
        Doc("how views are made; auto: glyph (no flips) for grey pictures up to 32 pixels, else simclr"),
    ] = "auto"
    epochs: Annotated[
        float | None, Doc("passes; None: what takes ten minutes or so on two cores, from 2 to 100"), Range(0.01)
    ] = None
    minutes: Annotated[float | None, Doc("stop after so many minutes, in place of --epochs; not repeatable"),
                       Range(0.01)] = None  # fmt: skip
    batch: Annotated[int | None, Doc("pictures a step; None: up to 256, at most half of them"), Range(2)] = None
    lr: Annotated[float, Doc("AdamW's rate after warm-up"), Range(1e-7, 1.0)] = 1e-3
    temperature: Annotated[float | None, Doc("of the loss; None: the method's own"), Range(1e-3, 10)] = None
    init: Annotated[
        Path | None, Doc("folder of a run whose encoder to start from"), OfRun(WEIGHTS, ENCODERS)
    ] = None
    save_every: Annotated[float, Doc("seconds between checkpoints"), Range(1)] = 60.0

    # What to see.
    k: Annotated[int, Doc("neighbours listed for every picture, and that vote"), Range(1, 1000)] = 20
    query: Annotated[
        Path | None, Doc("a picture, or a folder of them: the neighbours of all in queries.csv, of 24 as pictures")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size == "auto":
            self.size = None
        if self.epochs is not None and self.minutes is not None:
            raise InputError("--epochs and --minutes: name one of them")
        if self.task == "embed" and self.model == "auto":
            raise InputError("--task embed needs --model DIR, the folder of a run that trained")

    def sample(self, folder: Path) -> str:
        """The 1,797 handwritten digits of 8×8 pixels, with their labels."""
        from precis.papers.samples import write_digits

        return write_digits(folder)
