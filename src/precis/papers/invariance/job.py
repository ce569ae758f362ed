"""What one can do: learn from clips which changes do not matter, and measure which changes an encoder ignores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from typing_extensions import Doc

from precis.errors import InputError
from precis.papers import Range, Work
from precis.papers.contrastive_job import ContrastiveJob

from .numbers import NUMBERS


@dataclass(kw_only=True)
class Invariance(ContrastiveJob):
    """Learn an embedding from clips, or measure which changes of a picture an encoder ignores (--measure ENCODER).

    Without --measure, INPUT is a folder of clips (a sub-folder of numbered frames each, or animated files), or one
    clip; the partner of a frame is the frame --gap later, or, with --boxes, the same region there.  With it, INPUT is a
    folder target/base/pictures (or change/target/base/pictures), or a CSV of file, target, base and transform.
    """

    kinds = ("images", "frames", "table")  # type: ignore[assignment]
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("folder of clips, or a clip; with --measure: folder target/base/pictures, or a CSV of them"),
    ] = None

    # Measure.
    measure: Annotated[
        tuple[str, ...],
        Doc("encoders to score: folders of contrastive runs, pkg.module:build, file.py:build, TorchScript or .pt2"),
    ] = ()
    synthetic: Annotated[bool, Doc("measure: on rendered objects, six changes, in place of INPUT")] = False
    units: Annotated[int, Doc("measure: how many of the best units are averaged"), Range(1)] = 10
    select: Annotated[
        Literal["split", "same"],
        Doc("measure: rank units on half of the base pictures and score on the others, or on all, as in the paper"),
    ] = "split"
    two_sided: Annotated[bool, Doc("measure: units may also fire by being low (features that can be negative)")] = False

    # Learn from clips.
    gap: Annotated[
        str | None, Doc("frames between partners, or seconds as 0.5s; None: a third of the median uncut piece")
    ] = None
    boxes: Annotated[
        str | None,
        Doc("pairs of regions: auto (segments, followed), a CSV of clip, frame, track, x0, y0, x1, y1 (frames from 0), "
            "or a MOT file for one clip"),
    ] = None  # fmt: skip
    cuts: Annotated[
        float | None,
        Doc("share of pixels that change their colour by which a cut is told; 1: none is; None: by how far a change "
            "stands out among those around it"),
        Range(0.05, 1),
    ] = None  # fmt: skip
    augment: Annotated[
        Literal["auto", "simclr", "mocov2", "supcon", "glyph"],
        Doc("how views are made; supcon: MoCo v2's, without blur"),
    ] = "supcon"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input is None and not self.synthetic and len(self.measure) > 1 and _is_set(Path(self.measure[-1])):
            self.measure, self.input = self.measure[:-1], self.measure[-1]  # --measure ENCODER … INPUT
        if self.synthetic and (not self.measure or self.input is not None):
            raise InputError("--synthetic takes the place of INPUT, and goes with --measure ENCODER")
        if self.measure and (self.gap is not None or self.boxes is not None):
            raise InputError("--gap and --boxes are for learning from clips, not for --measure")
        if self.group is not None:
            raise InputError("--group: the frames of a clip are kept together already, and a set to measure has none")
        if self.gap is not None and not _is_gap(self.gap):
            raise InputError(f"--gap is a number of frames such as 8, or of seconds such as 0.5s, not {self.gap!r}")

    def sample(self, folder: Path) -> str:
        """Clips of rendered objects, two dozen frames each, in a folder a shape; to --measure: all six changes."""
        if self.measure:
            return "toy_objects"
        from .samples import write_clips

        return write_clips(folder / "clips")

    def run(self, work: Work) -> dict[str, float | None]:
        if self.measure:
            from .measuring import measure

            return measure(self, work)
        from precis.papers.contrastive_run import run_contrastive

        from .clip_pictures import ClipTraining

        training = ClipTraining()
        return run_contrastive(self, work, training.make, read=training.read)


def _is_set(path: Path) -> bool:
    """Whether it is pictures to measure on, and no encoder: a CSV, or a folder that no run has left."""
    return path.suffix.lower() == ".csv" or path.is_dir() and not (path / "config.json").exists()


def _is_gap(text: str) -> bool:
    seconds = text.endswith("s")
    try:
        value = float(text[:-1]) if seconds else int(text)
    except ValueError:
        return False
    return 0 < value < 1e6 if seconds else value >= 1
