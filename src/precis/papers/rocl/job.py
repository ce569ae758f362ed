"""What one can do with RoCL: learn a robust embedding of one's own pictures, and attack an encoder without labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc

from precis.errors import InputError
from precis.papers import Range, Work
from precis.papers.contrastive_job import ENCODERS, WEIGHTS, ContrastiveJob
from precis.papers.job import OfRun


@dataclass(kw_only=True)
class RobustEmbed(ContrastiveJob):
    """Learn an embedding that small changes of a picture do not move, without labels, and see how robust it is.

    With classes, a linear layer on it is attacked: accuracy over the radius, and pictures before and after.
    --attack DIR (in place of training) attacks the encoder that any contrastive run left in DIR, without labels: is a
    picture still found among the others?  --task embed --model DIR embeds other pictures.
    """

    task: Annotated[
        Literal["train", "embed", "attack"],
        Doc("train an encoder; embed INPUT with the one that --model names; or attack that one"),
    ] = "train"  # type: ignore[assignment]
    attack: Annotated[
        Path | None,
        Doc("folder of a run whose encoder to attack; short for --task attack --model DIR"),
        OfRun(WEIGHTS, ENCODERS),
    ] = None
    eps: Annotated[str, Doc("radius of the attack in each value: 8/255, 0.03, or 8 (above 1: in 255ths)")] = "8/255"
    steps: Annotated[int, Doc("steps of the attack in training; each costs two thirds of a view"), Range(1, 100)] = 7
    tested: Annotated[int, Doc("held-out pictures that are attacked; fewer where the net is large"), Range(2)] = 500

    def __post_init__(self) -> None:
        if self.attack is not None:
            if self.model != "auto" or self.task != "train":
                raise InputError("--attack DIR names the encoder and the task: leave out --task and --model")
            self.task, self.model = "attack", str(self.attack)
        super().__post_init__()
        if self.task == "attack" and self.model == "auto":
            raise InputError("--task attack needs --model DIR, the folder of a run that trained")

    def run(self, work: Work) -> dict[str, float | None]:
        from .attacking import run_rocl

        return run_rocl(self, work)
