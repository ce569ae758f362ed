"""A run: read, learn, render, write."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from precis.errors import InputError
from precis.fields.nerf import NerfMLP, tiny_nerf
from precis.fields.nerf_cameras import Cameras
from precis.fields.nerf_fast import FastModel, Kind, fast_model, fast_renderer, fit_fast
from precis.fields.nerf_fit import Renderer, dense_renderer, fit_dense, photographs, render_view
from precis.fields.nerf_proposal import ProposalField, ProposalModel, fit_proposals, proposal_renderer
from precis.papers.job import Work
from precis.train.checkpoint import save_model

from .backdrop import Against, backed
from .loading import Place, load, poses_of
from .outputs import Metrics, write_everything

CHECKPOINT = ".checkpoint"
WATCHED = 3  # test views that are rendered on the way


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


def budget(job: Any, work: Work) -> dict[str, Any]:
    minutes = job.minutes
    if job.steps is None and minutes is None:
        minutes = 3.0 if work.device == "cpu" else 1.0
    return {"steps": job.steps, "minutes": minutes, "folder": work.folder / CHECKPOINT, "resume": work.resume}


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


def hashed(job: Any, work: Work) -> bool:
    """Whether features lie in hash tables."""
    return bool(job.encoding == "hash" or (job.encoding == "auto" and work.device.startswith("cuda")))


def rates(job: Any, work: Work) -> dict[str, float]:
    """Learning rates of features and networks."""
    return {"lr": 1e-2, "net_lr": 1e-2} if hashed(job, work) else {"lr": 2e-2, "net_lr": 1e-3}


def fast_start(job: Any, work: Work, place: Place) -> tuple[Cameras, FastModel]:
    """The cameras to learn from, and the untrained model."""
    cameras = place.cameras[place.train].to(work.device)
    kind: Kind = "hash" if hashed(job, work) else "planes"
    model = fast_model(
        cameras, place.box, place.silhouettes, kind=kind, cells=128 if work.device.startswith("cuda") else 64,
        open=place.open, generator=torch.Generator().manual_seed(2 * job.seed),
    )  # fmt: skip
    return cameras, model


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


def learn_dense(job: Any, work: Work, place: Place) -> Learned:
    """The paper's two networks, or the tiny one that serves both passes."""
    draw = torch.Generator().manual_seed(2 * job.seed)
    cameras = place.cameras[place.train].to(work.device)
    behind = torch.from_numpy(place.background).float().to(work.device)
    photos = backed(photographs(cameras, *training_pictures(place)), behind)
    if job.model == "tiny":
        net, fine, samples, rays, lr = tiny_nerf(generator=draw).to(work.device), None, (24, 24), 256, 2e-3
    else:
        net, fine = (NerfMLP(generator=draw).to(work.device) for _ in range(2))
        samples, rays, lr = (64, 128), 1024, 5e-4
    plain = dense_renderer(net, place.near, place.far, *samples, fine=fine, background=None)
    measure, seconds, psnr = watch(work, place, plain)
    run = fit_dense(
        Against(net, behind), photos, place.near, place.far, background=0.0,
        fine=None if fine is None else Against(fine, behind), samples=samples[0], fine_samples=samples[1], rays=rays,
        lr=lr,
        crop_steps=500 if job.model == "vanilla" and place.files.format == "Blender" else 0,
        generator=torch.Generator().manual_seed(2 * job.seed + 1), measure=measure, every=100, log=work.log,
        **budget(job, work),
    )  # fmt: skip
    if fine is not None:
        save_model(work.folder, fine, {}, name="fine")
    return Learned(plain, net, None, seconds, psnr, run.steps)


def training_pictures(place: Place) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
    """Photographs to learn from, and which of their pixels take part."""
    files = place.files
    images = [torch.from_numpy(files.images[v]) for v in place.train]
    valid = None if files.valid is None else [torch.from_numpy(files.valid[v]) for v in place.train]
    return images, valid


def watch(work: Work, place: Place, render: Renderer) -> tuple[Callable[[int], dict[str, float]], list[float],
                                                                 list[float]]:  # fmt: skip
    """A measurement on a few test views, a picture for those who look on; seconds of training and PSNR so far."""
    seconds: list[float] = []
    values: list[float] = []
    clock = [time.perf_counter(), 0.0]  # since when, and what was spent before
    cameras = place.cameras.to(work.device)
    looks = place.test[:: max(len(place.test) // WATCHED, 1)][:WATCHED]

    def measure(step: int) -> dict[str, float]:
        clock[1] += time.perf_counter() - clock[0]
        scores = []
        for v in looks:
            made = picture(render, cameras, v, place)
            scores.append(view_psnr(made, truth_of(place, v)))
        if looks:
            work.image("latest", np.concatenate([np.moveaxis(x, -1, 0) for x in (made, truth_of(place, v))], 2))
            seconds.append(clock[1])
            values.append(float(np.mean(scores)))
        clock[0] = time.perf_counter()
        return {"psnr": values[-1]} if values else {}

    return measure, seconds, values


def picture(render: Renderer, cameras: Any, view: int, place: Place) -> np.ndarray:
    """One view [H,W,3] on the run's background."""
    made = render_view(render, cameras, view)
    return laid(made.rgb.cpu().numpy(), made.opacity.cpu().numpy(), place)


def laid(rgb: np.ndarray, opacity: np.ndarray, place: Place) -> np.ndarray:
    """Premultiplied colours on the run's background."""
    return np.asarray((rgb + (1 - opacity[..., None]) * place.background).clip(0, 1))


def truth_of(place: Place, view: int) -> np.ndarray:
    """A photograph [H,W,3] on the run's background."""
    x = place.files.images[view].astype(np.float32) / 255
    return x if x.shape[-1] == 3 else laid(x[..., :3] * x[..., 3:], x[..., 3], place)


def view_psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return float(-10 * np.log10(max(error, 1e-12)))
