"""What one can do with CLAE: learn an embedding of one's own pictures on pairs that an attack makes harder."""

from dataclasses import dataclass
from typing import Annotated, Literal

from typing_extensions import Doc

from precis.papers import Range, Work
from precis.papers.contrastive_job import ContrastiveJob


@dataclass(kw_only=True)
class HarderPairs(ContrastiveJob):
    """Learn an embedding of your pictures without labels, on adversarial pairs as well, and look at it.

    A step takes more than twice as long as without them.  Features are meant to be better, not robust: with classes,
    the accuracy under an attack is reported, so that nobody takes them for that.  --task embed --model DIR embeds other
    pictures with the encoder that a run in DIR has trained.
    """

    eps: Annotated[
        str, Doc("size of the adversary's step in each value: 4/255, 0.02, or 4 (above 1: in 255ths)")
    ] = "4/255"
    weight: Annotated[float, Doc("of the loss of adversarial pairs; 0 is the base method"), Range(0, 100)] = 1.0
    source: Annotated[
        Literal["same", "other"], Doc("which view is attacked: the anchor's own, as in the paper's code, or the other")
    ] = "same"
    base: Annotated[
        Literal["nt_xent", "plain", "uel"],
        Doc("the loss: SimCLR's; a one-directional cross-entropy; or with every wrong identity pushed down"),
    ] = "nt_xent"

    def run(self, work: Work) -> dict[str, float | None]:
        from .hardness import run_clae

        return run_clae(self, work)
