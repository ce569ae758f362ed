"""What one can do with SimCLR and MoCo: learn an embedding of one's own pictures without labels."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from typing_extensions import Doc

from precis.errors import InputError
from precis.papers import Work
from precis.papers.contrastive_job import ContrastiveJob


@dataclass(kw_only=True)
class Embed(ContrastiveJob):
    """Learn an embedding of your pictures without labels, and look at it: neighbours, a map, and a search by picture.

    With classes (sub-folders, or --labels) a fifth of the pictures is held out to say how well classes can be told.
    --task embed --model DIR embeds other pictures with the encoder that a run in DIR has trained.
    """

    task: Annotated[
        Literal["train", "embed", "moco"],
        Doc("train an encoder, by a queue (moco: as --method moco), or embed INPUT with the one that --model names"),
    ] = "train"  # type: ignore[assignment]
    method: Annotated[
        Literal["simclr", "moco"], Doc("negatives from the batch, or from a queue (for small batches)")
    ] = "simclr"
    queue: Annotated[int | None, Doc("moco: keys in the queue; None: half of the pictures, up to 4096")] = None
    momentum: Annotated[float, Doc("moco: of the copy that makes the keys")] = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "moco":
            self.task, self.method = "train", "moco"
        if not 0 <= self.momentum <= 1:
            raise InputError(f"--momentum must lie between 0 and 1, got {self.momentum:g}")
        if self.queue is not None and (self.queue < 1 or self.method != "moco"):
            raise InputError("--queue is the number of keys of --method moco, at least 1")

    def run(self, work: Work) -> dict[str, float | None]:
        from precis.papers.contrastive_run import run_contrastive

        return run_contrastive(self, work, _make)


def _make(job: Any, pictures: Any, encoder: Any, head: Any, batch: int, generator: Any) -> Any:
    from precis.contrastive.ntxent import MoCo, SimCLR
    from precis.papers.contrastive_run import Recipe, queue_size

    if job.method == "moco":
        size = queue_size(len(pictures.trained), batch, job.queue)
        model: Any = MoCo(encoder, head, size, job.momentum, job.temperature or 0.2, generator=generator)
        return Recipe(model, lambda views, chosen: model.loss(*views), settled=-(-size // batch))
    model = SimCLR(encoder, head, job.temperature or 0.5)
    return Recipe(model, lambda views, chosen: model.loss(*views))
