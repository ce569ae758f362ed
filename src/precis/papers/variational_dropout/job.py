"""What one can do with variational dropout: make one's own network sparse, or train a sparse one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from typing_extensions import Doc

from precis.papers import Job, Range, Work
from precis.papers.job import Colour, OfFile

from .numbers import NUMBERS


@dataclass(kw_only=True)
class VariationalDropoutJob(Job):
    """Train a classifier whose superfluous weights show themselves by their noise, and remove them.

    The model, built in or your own with its weights, gets a noise variance for every weight, is trained on INPUT, and
    loses the weights that end as noise.  The same model trained without noise for as long (or your trained weights, as
    they are) is what the result is measured against.
    """

    kinds = ("images", "table", "name")
    numbers = NUMBERS

    input: Annotated[
        str | None,
        tyro.conf.Positional,
        Doc("pictures with classes (folder with a sub-folder a class, archive, .npz, Parquet), a table, or mnist"),
    ] = None

    # The model.
    model: Annotated[
        str, Doc("mlp:300-100, lenet300, lenet5, conv:24x3, resnet20, file.py:build or model.pt2")
    ] = "mlp:300-100"  # fmt: skip
    weights: Annotated[Path | None, Doc("trained weights of the model: safetensors or a bare state dict")] = None
    include: Annotated[str | None, Doc("only layers of these names, patterns with commas")] = None
    exclude: Annotated[str | None, Doc("no layers of these names")] = None

    # Training.
    epochs: Annotated[int, Doc("passes over the training part"), Range(1)] = 50
    batch: Annotated[int, Doc("examples a step"), Range(1)] = 100
    lr: Annotated[float | None, Doc("Adam's rate; None: 6 over the steps, from 0.001 to 0.01"), Range(1e-7, 1)] = None
    kl_weight: Annotated[float, Doc("of the KL term at the end; other than 1 is no variational bound"), Range(0)] = 1.0
    ramp: Annotated[
        tuple[float, float], Doc("shares of the training between which that weight rises from 0"), Range(0, 1)
    ] = (0.05, 0.35)
    train_clip: Annotated[bool, Doc("leave removed weights out in training too")] = True
    original: Annotated[bool, Doc("the original algorithm: multiplicative noise, log α clipped to 0")] = False

    # Removing.
    threshold: Annotated[float, Doc("of log α, from which on a weight is removed"), Range(-8, 8)] = 3.0
    threshold_sweep: Annotated[bool, Doc("validation accuracy against the threshold")] = True
    finetune_epochs: Annotated[int, Doc("further passes without noise, over the weights that are left"), Range(0)] = 0

    # The data.
    size: Annotated[int | None, Doc("side of the pictures; None: 32, arrays up to 64 as they are"),
                    Range(4, 512)] = None  # fmt: skip
    label_column: Annotated[str | None, Doc("the column of a table that holds the classes; None: label, y, …")] = None
    labels: Annotated[str, Doc("auto, or a CSV of file and label"), OfFile(("auto",))] = "auto"
    val: Annotated[float, Doc("share of the training part kept for choices"), Range(0.02, 0.5)] = 0.1
    test_share: Annotated[float, Doc("share for the test, where the data bring none"), Range(0.05, 0.5)] = 0.2
    rows: Annotated[int | None, Doc("use so many training examples at most"), Range(20)] = None
    background: Annotated[str, Doc("colour under transparent pictures"), Colour()] = "white"
    keep_going: Annotated[bool, Doc("go on when more than 5 % of the pictures cannot be read")] = False

    def sample(self, folder: Path) -> str:
        """Handwritten digits."""
        from precis.papers.samples import write_digits

        return write_digits(folder)

    def run(self, work: Work) -> dict[str, float | None]:
        from .sparsify import sparsify

        return sparsify(self, work)
