"""What one can do with Pr-VIPE: find the same pose in other views, by 2-D keypoints alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from typing_extensions import Doc

from precis.errors import InputError
from precis.papers import Job, Range, Work
from precis.papers.job import OfRun

from .numbers import NUMBERS


@dataclass(kw_only=True)
class PoseJob(Job):
    """Find the same pose in other views, from 2-D keypoints: neighbours, a gallery, and two sequences aligned.

    The embedder is trained on the spot (about a minute) on made poses, or on your own motion capture with --train; a
    model that a run has left is taken by --model.
    """

    kinds = ("poses",)
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("2-D keypoints: COCO or OpenPose JSON, CSV (nose_x, nose_y, …, or x0, y0, …), .npz or .npy"),
    ] = None

    # What is looked for, and where.
    index: Annotated[Path | None, Doc("keypoints to search in; None: INPUT itself, or its other views")] = None
    query: Annotated[str | None, Doc("id of the row at the top of the gallery")] = None
    neighbours: Annotated[int, Doc("how many to list for every row"), Range(1, 1000)] = 8
    align: Annotated[bool, Doc("INPUT and --index are two sequences: align them in time")] = False

    # How the keypoints are read.
    layout: Annotated[
        Literal["auto", "std13", "h36m17", "coco17", "body25", "mediapipe33"],
        Doc("the points' order; auto: by their names or number; 17 are COCO's or, where poses tell, Human3.6M's"),
    ] = "auto"
    image_size: Annotated[
        tuple[int, int] | None, Doc("width and height, where coordinates are shares of the picture"), Range(1)
    ] = None  # fmt: skip

    # The embedder.
    model: Annotated[
        Path | None, Doc("folder of a run, whose embedder is taken; None: train one"), OfRun("model.safetensors")
    ] = None
    train: Annotated[
        Path | None,
        Doc("3-D motion capture to train on: .bvh, CMU's .amc or .asf, AMASS's .npz, or .npz of [N, 16 or 17, 3]; "
            "None: made poses"),
    ] = None  # fmt: skip
    smpl: Annotated[
        Path | None,
        Doc("SMPL body as .npz, for the exact joints of AMASS; None: smpl.npz beside it, else a template skeleton"),
    ] = None
    occlusion: Annotated[bool, Doc("train with missing points, so that rows may lack some")] = False
    steps: Annotated[int, Doc("training steps of 128 poses in two views"), Range(1)] = 1000
    hidden: Annotated[int, Doc("width of the network"), Range(8, 4096)] = 256
    dim: Annotated[int, Doc("dimensions of the embedding"), Range(2, 256)] = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.align and self.index is None:
            raise InputError("--align needs a second sequence: --index FILE")
        if self.model is not None and self.train is not None:
            raise InputError("--model and --train: name one, a model is trained already")
        if self.smpl is not None and self.train is None:
            raise InputError("--smpl is for a recording of AMASS: --train FILE.npz")

    def sample(self, folder: Path) -> str:
        """Made people in forty poses, by three cameras."""
        from .samples import three_views

        return str(three_views(folder / "three_views.csv"))

    def run(self, work: Work) -> dict[str, float | None]:
        from .embedding import run_embedding

        return run_embedding(self, work)
