"""What one can do with the debiased loss: embed pictures of few kinds, of which random pairs are often of one kind."""

import math
from dataclasses import dataclass
from typing import Annotated

from typing_extensions import Doc

from precis.errors import InputError
from precis.papers import Range, Work
from precis.papers.contrastive_job import ContrastiveJob

MOST = 10  # values that a sweep tries


@dataclass(kw_only=True)
class Debias(ContrastiveJob):
    """Learn an embedding of pictures of few kinds: of random negatives, those of the same kind are corrected for.

    --tau-plus is the chance that two random pictures are of one kind, 1/(number of kinds) if they are alike frequent.
    --sweep-tau 0,0.05,0.1 finds it by the neighbours of held-out pictures, where some have classes.
    --task embed --model DIR embeds other pictures with the encoder that a run in DIR has trained.
    """

    tau_plus: Annotated[
        str,
        Doc("chance that two pictures are of one kind: a number, labels (from the classes), unknown (0.1), or auto: "
            "labels where there are classes, else unknown"),
    ] = "auto"  # fmt: skip
    positives: Annotated[
        int, Doc("views of a picture in the correction; each above 1 costs half as much time again"), Range(1, 16)
    ] = 1
    sweep_tau: Annotated[
        str | None,
        Doc("values for --tau-plus, as 0,0.05,0.1: each is trained for a fifth of the time, and the one whose held-out "
            "pictures are told best by their neighbours is taken; needs classes"),
    ] = None  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau_plus not in ("auto", "labels", "unknown"):
            _chance(self.tau_plus, "--tau-plus", " or auto, labels, unknown")
        if self.sweep_tau is not None:
            if self.tau_plus != "auto":
                raise InputError("--tau-plus and --sweep-tau: name one of them")
            if self.task == "embed":
                raise InputError("--sweep-tau is for training, and --task embed trains nothing")
            values = self.swept()
            if not 2 <= len(set(values)) <= MOST:
                raise InputError(f"--sweep-tau: 2 to {MOST} different values are wanted, as 0,0.05,0.1; "
                                 f"got {self.sweep_tau}")  # fmt: skip

    def swept(self) -> tuple[float, ...]:
        """The values of --sweep-tau, each once, from the least on."""
        return tuple(sorted({_chance(word, "--sweep-tau", "") for word in (self.sweep_tau or "").split(",")}))

    def run(self, work: Work) -> dict[str, float | None]:
        from .debiasing import run_debiased

        return run_debiased(self, work)


def _chance(word: str, option: str, others: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise InputError(f"{option}: a number from 0 to below 1{others} is wanted, got '{word.strip()}'")
    return value
