"""What one can do with group normalisation: find the norm for one's batch size, or convert a trained net."""

import re
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
class GroupNormJob(Job):
    """Find the normalisation for your pictures and batch size, or convert a net's batch norms to group norms.

    Pictures with classes: a small residual net is trained with every norm at every batch size.  With --convert NAME,
    INPUT is a function that builds a net, file.py:build or pkg.module:build, and the converted weights are written;
    labelled pictures for --calibrate show what they do, and with --epochs how both nets fare when tuned.
    """

    kinds = ("images", "program")
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("folder (class = sub-folder), archive, array file, Parquet or CSV of pictures; or file.py:build"),
    ] = None

    # Comparing norms.
    norms: Annotated[str, Doc("which to compare: bn (batch), gn (group), ln (layer), in (instance)")] = "bn,gn,ln"
    batch_sizes: Annotated[str, Doc("batch sizes, with commas")] = "2,4,8,32"
    epochs: Annotated[
        int | None,
        Doc("passes over the training pictures, at every batch size; None: 2, and none of a converted net"), Range(1),
    ] = None  # fmt: skip
    repeats: Annotated[int, Doc("trainings of each kind, from other weights and splits"), Range(1, 20)] = 3
    lr: Annotated[
        float, Doc("learning rate at 32 pictures a batch, in proportion to it; a tenth for a converted net"),
        Range(1e-5, 10),
    ] = 0.15  # fmt: skip
    width: Annotated[int, Doc("channels of the first convolution and stage; the others have twice as many"),
                     Range(8, 512)] = 32  # fmt: skip
    size: Annotated[int | None, Doc("side of the pictures; None: 32, array files of up to 64 pixels as they are"),
                    Range(8, 224)] = None  # fmt: skip
    val: Annotated[float, Doc("share of the pictures that errors are measured on"), Range(0.05, 0.8)] = 0.25
    pictures: Annotated[int, Doc("use so many pictures at most, drawn at random"), Range(20)] = 2000
    labels: Annotated[str, Doc("auto, or a CSV of file and label"), OfFile(("auto",))] = "auto"
    background: Annotated[str, Doc("colour under transparent pictures"), Colour()] = "white"
    keep_going: Annotated[bool, Doc("go on when more than 5 % of the pictures cannot be read")] = False

    # Both.
    groups: Annotated[int | None, Doc("groups of group norm; None: by --channels-per-group"), Range(1)] = None
    channels_per_group: Annotated[
        int | None, Doc("channels of a group, or the next number that divides the layer's; None: 8"), Range(1)
    ] = None

    # Converting.
    convert: Annotated[str | None, Doc("convert INPUT; the name of the weights' file, such as net.safetensors")] = None
    weights: Annotated[Path | None, Doc("trained weights of INPUT's net: safetensors or a bare state dict")] = None
    calibrate: Annotated[
        Path | None,
        Doc("pictures on which each channel keeps its mean and variance; --size is their side, --val held out"),
    ] = None

    def sample(self, folder: Path) -> str:
        """Handwritten digits; with --convert, a file with a small net."""
        if self.convert is not None:
            (folder / "net.py").write_text(SAMPLE_NET, encoding="utf-8")
            return f"{folder / 'net.py'}:build"
        from precis.papers.samples import write_digits

        return write_digits(folder)

    def stem(self, metric: str) -> str:
        """Those of a training end with its batch size: error_gn_4."""
        return re.sub(r"_\d+$", "", metric)

    def run(self, work: Work) -> dict[str, float | None]:
        assert self.input is not None
        if self.groups is not None and self.channels_per_group is not None:
            raise InputError("--groups or --channels-per-group, not both")
        if self.convert is not None:
            from .convert import run_convert

            return run_convert(self, work)
        if not Path(self.input).exists() and ":" not in self.input:
            raise InputError("no such file or folder; pictures with classes are wanted", file=self.input)
        from precis.data import kinds_of

        if not Path(self.input).exists() or "images" not in (found := kinds_of(self.input)) and "program" in found:
            raise InputError("this is a model: --convert net.safetensors converts it; norms are compared on pictures",
                             file=self.input)  # fmt: skip
        for option, given in (("--weights", self.weights), ("--calibrate", self.calibrate)):
            if given is not None:
                raise InputError(f"{option} belongs to --convert")
        from .sweep import run_sweep

        return run_sweep(self, work)


SAMPLE_NET = '''"""A residual net with batch norms, as an example of what --convert takes."""

from precis.nn.backbones import backbone


def build():
    return backbone("resnet20", (3, 32, 32), 10)
'''
