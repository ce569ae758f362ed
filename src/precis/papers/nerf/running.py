"""A run: read, learn, render, write."""

from collections.abc import Callable
from typing import Any

from precis.errors import InputError
from precis.papers.job import Work

from .learning import Learned, learn_fast, learn_proposed
from .learning_dense import learn_dense
from .loading import Place, load, poses_of
from .outputs import Metrics, write_everything


def run_scene(job: Any, work: Work) -> Metrics:
    """The whole work; metrics with the PSNR first."""
    settle(job, work)
    place = load(job, work)
    if job.render_poses is not None:
        poses_of(job.render_poses, place)  # what is wrong with it is said before the training
    learned = way_of(job, place)(job, work, place)
    metrics = write_everything(job, work, place, learned)
    return metrics


def settle(job: Any, work: Work) -> None:
    """Options that do not go together."""
    wants = {"fast": ("auto", "planes", "hash"), "vanilla": ("auto", "frequency"), "tiny": ("auto", "frequency")}
    if job.encoding not in wants[job.model]:
        raise InputError(f"--encoding {job.encoding} is not for --model {job.model}: {' or '.join(wants[job.model])}")
    if job.sampling != "auto" and job.model != "fast":
        raise InputError(f"--sampling {job.sampling} is not for --model {job.model}, which has its own way")
    for name, asked in (("--ndc", job.ndc), ("--density-noise", job.density_noise)):
        if asked and job.model == "fast":
            raise InputError(f"{name} is for --model vanilla or tiny")
    if job.parity and job.model != "vanilla":
        raise InputError("--parity belongs to --model vanilla")
    if job.model == "vanilla" and work.device == "cpu" and not job.force:
        raise InputError(
            "the paper's two networks need about a minute a step on a CPU; use --model fast or tiny, or --force"
        )


def way_of(job: Any, place: Place) -> Callable[[Any, Work, Place], Learned]:
    """How the scene is learned; InputError if a proposal network is asked for where it has no place."""
    if job.sampling == "proposal" and not place.open:
        raise InputError(
            "--sampling proposal is for photographs of a world without border: no opacity, no --masks, no --aabb",
            file=job.input,
        )
    if job.model != "fast":
        return learn_dense
    return learn_proposed if place.open and job.sampling != "grid" else learn_fast
