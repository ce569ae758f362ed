"""The fast model learned, on planes or hash tables: sampled by a grid or, without border, by a proposal network."""

from typing import Any, NamedTuple

import torch

from precis.fields.nerf_cameras import Cameras
from precis.fields.nerf_fast import FastModel, fast_model, fast_renderer, fit_fast
from precis.fields.nerf_fit import Renderer, photographs
from precis.fields.nerf_ndc import Frustum
from precis.fields.nerf_proposal import ProposalField, ProposalModel, fit_proposals, proposal_renderer
from precis.papers.job import Work

from .loading import Place
from .watching import watch

CHECKPOINT = ".checkpoint"


class Learned(NamedTuple):
    """A scene that can be rendered: before the background, and the fast model, or the one with a proposal network, that
    is behind it, if there is one."""

    render: Renderer
    field: Any
    fast: FastModel | None
    seconds: list[float]
    psnr: list[float]
    steps: int
    proposed: ProposalModel | None = None
    view: Frustum | None = None  # of --ndc


def budget(job: Any, work: Work) -> dict[str, Any]:
    minutes = job.minutes
    if job.steps is None and minutes is None:
        minutes = 3.0 if work.device == "cpu" else 1.0
    return {"steps": job.steps, "minutes": minutes, "folder": work.folder / CHECKPOINT, "resume": work.resume}


def training_pictures(place: Place) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
    """Photographs to learn from, and which of their pixels take part."""
    files = place.files
    images = [torch.from_numpy(files.images[v]) for v in place.train]
    valid = None if files.valid is None else [torch.from_numpy(files.valid[v]) for v in place.train]
    return images, valid


def learn_fast(job: Any, work: Work, place: Place) -> Learned:
    """Occupancy grid, and planes or hash tables."""
    cameras, model = fast_start(job, work, place)
    if place.silhouettes is not None and not model.carved:
        work.note("silhouettes and cameras disagree: nothing is left of the visual hull; learning in the whole box")
    photos = photographs(cameras, *training_pictures(place))
    plain = fast_renderer(model, near=place.near, far=place.far, background=None)
    measure, seconds, psnr = watch(work, place, plain)
    behind = None if place.files.has_alpha else torch.from_numpy(place.background).to(work.device)
    run = fit_fast(
        model, photos, near=place.near, far=place.far, background=behind,
        generator=torch.Generator().manual_seed(2 * job.seed + 1), measure=measure, every=100, log=work.log,
        **rates(job, work), **budget(job, work),
    )  # fmt: skip
    return Learned(plain, model.field, model, seconds, psnr, run.steps)


def learn_proposed(job: Any, work: Work, place: Place) -> Learned:
    """All of space, with a proposal network in place of the grid."""
    cameras, start = fast_start(job, work, place)
    proposal = ProposalField(generator=torch.Generator().manual_seed(2 * job.seed)).to(work.device)
    model = ProposalModel(start.field, proposal)
    photos = photographs(cameras, *training_pictures(place))
    plain = proposal_renderer(model, near=place.near, far=place.far, background=None)
    measure, seconds, psnr = watch(work, place, plain)
    run = fit_proposals(
        model, photos, near=place.near, far=place.far,
        background=torch.from_numpy(place.background).float().to(work.device),
        generator=torch.Generator().manual_seed(2 * job.seed + 1), measure=measure, every=100, log=work.log,
        **rates(job, work), **budget(job, work),
    )  # fmt: skip
    return Learned(plain, model.field, None, seconds, psnr, run.steps, model)


def fast_start(job: Any, work: Work, place: Place) -> tuple[Cameras, FastModel]:
    """The cameras to learn from, and the untrained model."""
    cameras = place.cameras[place.train].to(work.device)
    model = fast_model(
        cameras, place.box, place.silhouettes, cells=128 if work.device.startswith("cuda") else 64, open=place.open,
        kind="hash" if hashed(job, work) else "planes", finest=finest_of(place),
        generator=torch.Generator().manual_seed(2 * job.seed),
    )  # fmt: skip
    return cameras, model


def finest_of(place: Place) -> int:
    """Cells a side of the finest hash table: four a pixel of the widest photograph, between 256 and 2,048."""
    return min(max(4 * int(place.cameras.size[place.train, 0].max()), 256), 2048)


def hashed(job: Any, work: Work) -> bool:
    """Whether features lie in hash tables."""
    return bool(job.encoding == "hash" or (job.encoding == "auto" and work.device.startswith("cuda")))


def rates(job: Any, work: Work) -> dict[str, Any]:
    """Learning rates of features and networks."""
    return {"lr": 1e-2, "net_lr": 1e-2} if hashed(job, work) else {"lr": 2e-2, "net_lr": 1e-3}
