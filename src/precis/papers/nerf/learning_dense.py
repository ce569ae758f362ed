"""The paper's networks learned, in the world or, of forward-facing scenes, in normalised device coordinates."""

from typing import Any

import torch

from precis.errors import InputError
from precis.fields.nerf import NerfMLP, tiny_nerf
from precis.fields.nerf_fit import dense_renderer, fit_dense, photographs
from precis.fields.nerf_ndc import Frustum, NdcCameras, NdcField, frustum, ndc_renderer
from precis.papers.job import Work
from precis.train.checkpoint import save_model

from .backdrop import Against, backed
from .learning import Learned, budget, training_pictures
from .loading import Place
from .noise import Noisy
from .watching import watch

LLFF_NEAR = 0.9  # of the nearest depth: what the reader gives as near


def learn_dense(job: Any, work: Work, place: Place) -> Learned:
    """The paper's two networks, or the tiny one that serves both passes."""
    draw = torch.Generator().manual_seed(2 * job.seed)
    cameras = place.cameras[place.train].to(work.device)
    behind = torch.from_numpy(place.background).float().to(work.device)
    pixels, (near, far) = photographs(cameras, *training_pictures(place)), (place.near, place.far)
    view = cube_of(job, place) if job.ndc else None
    if view is not None:
        pixels, near, far = pixels._replace(cameras=NdcCameras(cameras, view)), 0.0, 1.0
    photos = backed(pixels, behind)
    if job.model == "tiny":
        net, fine, samples, rays, lr = tiny_nerf(generator=draw).to(work.device), None, (24, 24), 256, 2e-3
    else:
        net, fine = (NerfMLP(generator=draw).to(work.device) for _ in range(2))
        samples, rays, lr = (64, 128), 1024, 5e-4
    seen, seen_fine = (n if n is None or view is None else NdcField(n, view) for n in (net, fine))
    plain = dense_renderer(seen, near, far, *samples, fine=seen_fine, background=None)
    plain = plain if view is None else ndc_renderer(plain, view, place.far)
    measure, seconds, psnr = watch(work, place, plain)
    chance = torch.Generator().manual_seed(2 * job.seed + 1)

    def learning(field: Any) -> Any:
        return Against(Noisy(field, job.density_noise, chance) if job.density_noise else field, behind)

    run = fit_dense(
        learning(seen), photos, near, far, background=0.0, fine=None if seen_fine is None else learning(seen_fine),
        samples=samples[0], fine_samples=samples[1], rays=rays, lr=lr,
        crop_steps=500 if job.model == "vanilla" and place.files.format == "Blender" else 0,
        generator=chance, measure=measure, every=100, log=work.log, **budget(job, work),
    )  # fmt: skip
    if fine is not None:
        save_model(work.folder, fine, {}, name="fine")
    return Learned(plain, net, None, seconds, psnr, run.steps, view=view)


def cube_of(job: Any, place: Place) -> Frustum:
    """--ndc: the near plane is --near, or lies at three quarters of the nearest depth of the file, as in the paper."""
    stated = place.near * (0.75 / LLFF_NEAR if job.near is None and place.files.format == "LLFF" else 1.0)
    try:
        return frustum(place.cameras, stated)
    except ValueError as error:
        raise InputError(f"--ndc is for forward-facing scenes: {error}", file=job.input) from None
