"""What one can do with rewinding: train a network or take one's own, prune it, and retrain it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from typing_extensions import Doc

from precis.papers import Job, Range, Work
from precis.papers.job import Colour, OfFile

from .numbers import NUMBERS


@dataclass(kw_only=True)
class Rewinding(Job):
    """Prune a network to a density and retrain it, by the paper's recipe: rounds of 20 %, the learning rate rewound.

    Without --weights the model is trained first.  A network of your own is --model file.py:build with its --weights,
    and --epochs, --lr and --lr-schedule or --milestones of its training, which is what gets rewound.
    """

    kinds = ("images", "table", "name")
    numbers = NUMBERS

    input: Annotated[
        str | None,
        tyro.conf.Positional,
        Doc("pictures with classes, a table with a column of labels, or a set by name (mnist)"),
    ] = None

    # Model.
    model: Annotated[str, Doc("lenet300, mlp:300-100, lenet5, conv:24x3, resnet20, …, file.py:build or model.pt2")] = (
        "lenet300"
    )
    weights: Annotated[Path | None, Doc("trained weights of the model: safetensors or a bare state dict")] = None
    rewind_weights: Annotated[
        Path | None, Doc("the same model's weights of --retrain-epochs before the end, for weight_rewind")
    ] = None

    # Pruning.
    density: Annotated[float, Doc("share of the weights that is to survive; 1 keeps all"), Range(1e-4, 1)] = 0.1
    densities: Annotated[str | None, Doc("several with commas, in place of --density: 0.5,0.2,0.1")] = None
    method: Annotated[Literal["lr_rewind", "weight_rewind", "fine_tune"], Doc("how to retrain")] = "lr_rewind"
    compare: Annotated[bool, Doc("all three ways of retraining, and what each search cost")] = False
    one_shot: Annotated[bool, Doc("prune at once, instead of a fifth of what remains a round")] = False
    iterative: Annotated[bool, Doc("prune in rounds, which is what is done without --one-shot")] = False
    scope: Annotated[Literal["global", "layer"], Doc("where the smallest weights are looked for")] = "global"
    pattern: Annotated[Literal["none", "2:4"], Doc("2:4 keeps at most two of four neighbouring inputs")] = "none"
    include: Annotated[str | None, Doc("prune only weights of these names, patterns with commas: blocks.*")] = None
    exclude: Annotated[str | None, Doc("leave weights of these names alone: head.*,stem.*")] = None
    tolerance: Annotated[float, Doc("points of accuracy that the recommended network may lose"), Range(0, 100)] = 0.5

    # Training.
    epochs: Annotated[int | None, Doc("of the first training; 20"), Range(1)] = None
    retrain_epochs: Annotated[int | None, Doc("t, after each pruning; None: as many as the first training"),
                              Range(1)] = None  # fmt: skip
    lr: Annotated[float | None, Doc("learning rate at the start; 0.1"), Range(1e-6, 10)] = None
    lr_schedule: Annotated[
        Literal["steps", "cosine", "linear", "constant"], tyro.conf.arg(aliases=("--schedule",)),
        Doc("how the rate falls; cosine and linear to 0"),
    ] = "steps"  # fmt: skip
    milestones: Annotated[
        str | None, Doc("steps: epochs at which the rate falls to a tenth, with commas; half and three quarters")
    ] = None
    momentum: Annotated[float, Doc("of SGD"), Range(0, 0.999)] = 0.9
    weight_decay: Annotated[float, Doc("L2 of SGD"), Range(0, 1)] = 2e-4
    batch: Annotated[int, Doc("examples a step"), Range(1)] = 64
    augment: Annotated[Literal["none", "cifar"], Doc("cifar: shifted by up to 4 pixels, and mirrored")] = "none"

    # Data.
    size: Annotated[int | None, Doc("side of the pictures; None: 32, sets of one size up to 64 as they are"),
                    Range(8, 224)] = None  # fmt: skip
    label_column: Annotated[str | None, Doc("column of a table that holds the classes")] = None
    standardise: Annotated[bool, Doc("columns of a table to mean 0 and deviation 1")] = True
    labels: Annotated[str, Doc("of pictures: auto, or a CSV of file and label"), OfFile(("auto",))] = "auto"
    val: Annotated[float, Doc("share of the training examples that networks are chosen on"), Range(0.01, 0.5)] = 0.1
    test_share: Annotated[float, Doc("share of the examples that is only tested on"), Range(0.01, 0.8)] = 0.2
    rows: Annotated[int | None, Doc("use so many training examples at most"), Range(20)] = None
    background: Annotated[str, Doc("colour under transparent pictures"), Colour()] = "white"
    keep_going: Annotated[bool, Doc("go on when more than one picture in twenty cannot be read")] = False

    def sample(self, folder: Path) -> str:
        """Handwritten digits of 8×8 pixels."""
        from precis.papers.samples import write_digits

        return write_digits(folder)

    def run(self, work: Work) -> dict[str, float | None]:
        from .prune import run_prune

        return run_prune(self, work)
