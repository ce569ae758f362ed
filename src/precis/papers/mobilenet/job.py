"""What one can do with MobileNetV2: train it on a folder of pictures, and take it away as a program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from typing_extensions import Doc

from precis.papers import Job, Range, Work
from precis.papers.job import Colour, OfFile

from .numbers import NUMBERS


@dataclass(kw_only=True)
class MobileNetJob(Job):
    """Train or fine-tune a small classifier on your pictures, and export it: torch.export, ONNX.

    Writes the weights, model.pt2 and model.onnx as asked for (each loaded back and compared before it is kept), what
    was predicted, and how long one picture takes on this machine.
    """

    kinds = ("images",)
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("folder (class = sub-folder), archive, array file, Parquet or CSV of pictures"),
    ] = None

    width: Annotated[
        float | None, Doc("multiplier of all channels; None: 0.35, or that of --weights"), Range(0.05, 4)
    ] = None  # fmt: skip
    size: Annotated[
        int | None,
        Doc("side of the pictures; None: 96, but small ones as they are, from 32 to 64 pixels (of an array file, or a "
            "folder's first picture)"),
        Range(32, 512),
    ] = None  # fmt: skip
    weights: Annotated[
        Path | None,
        Doc("start from: weights of an earlier run, or published ones of torchvision or Hugging Face (a file)"),
    ] = None
    epochs: Annotated[int, Doc("passes over the training pictures"), Range(1)] = 15
    minutes: Annotated[float | None, Doc("stop after so many minutes, if that is sooner"), Range(0.01)] = None
    batch: Annotated[int, Doc("pictures a step"), Range(2, 1024)] = 32
    lr: Annotated[float | None, Doc("learning rate; None: 0.05, or 0.01 with --weights"), Range(1e-6, 10)] = None
    augment: Annotated[
        Literal["auto", "photo", "shift", "none"],
        Doc("photo: random cuts and mirror images; shift: small shifts, for characters; auto: photo above 64 pixels"),
    ] = "auto"
    val: Annotated[float, Doc("share of each class that accuracy is measured on"), Range(0.05, 0.5)] = 0.2
    expansion_chunks: Annotated[
        int, Doc("parts in which the exported net computes its wide tensors: less memory, more time"),
        Range(1, 16),
    ] = 1  # fmt: skip
    export: Annotated[str, Doc("pt2 (torch.export), onnx, with commas, or none")] = "pt2"
    predict: Annotated[Path | None, Doc("set of other pictures to classify with the trained net")] = None
    labels: Annotated[str, Doc("auto, or a CSV of file and label"), OfFile(("auto",))] = "auto"
    background: Annotated[str, Doc("colour under transparent pictures"), Colour()] = "white"
    keep_going: Annotated[bool, Doc("go on when more than 5 % of the pictures cannot be read")] = False

    def sample(self, folder: Path) -> str:
        """Tiles of eight photographs, a folder each: which photograph is a tile of?"""
        from .samples import write_tiles

        return str(write_tiles(folder / "tiles"))

    def run(self, work: Work) -> dict[str, float | None]:
        from .running import run_classifier

        return run_classifier(self, work)
