"""What one can do with supervised contrastive learning: an embedding and a classifier of one's own classes."""

from dataclasses import dataclass
from typing import Annotated, Literal

from typing_extensions import Doc

from precis.errors import InputError
from precis.papers import Range, Work
from precis.papers.contrastive_job import ContrastiveJob


@dataclass(kw_only=True)
class Classify(ContrastiveJob):
    """Learn an embedding in which your classes lie apart, and a classifier on it; see which classes are confused.

    Classes are sub-folders, or a column of --labels; pictures without one take part by their own views.  --compare ce
    also trains the same network by cross-entropy, afterwards, on the same views and for as long.  --task embed --model
    DIR embeds and classifies other pictures with the networks that a run in DIR has trained.
    """

    compare: Annotated[
        Literal["none", "ce"], Doc("ce: also train a network by cross-entropy, and say which one classifies better")
    ] = "none"
    form: Annotated[
        Literal["out", "in"], Doc("of the loss: the mean over positives outside the logarithm, or inside it")
    ] = "out"
    balanced: Annotated[
        Literal["auto", "yes", "no"],
        Doc("batches of a few classes with several pictures each; auto: where a batch would have less than two of a "
            "class on average"),
    ] = "auto"  # fmt: skip
    unlabelled: Annotated[
        Literal["simclr", "ignore"],
        Doc("pictures without a label: their own views are positives, or they are left out"),
    ] = "simclr"
    n_views: Annotated[
        int, Doc("views of a picture a step; each above 2 costs half as much time again"), Range(2, 16)
    ] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compare == "ce" and self.task == "embed":
            raise InputError("--compare ce is for training, and --task embed trains nothing")

    def run(self, work: Work) -> dict[str, float | None]:
        from .classifying import run_supcon

        return run_supcon(self, work)
