"""The job's model and how it is trained."""

from typing import Any, Literal, cast

import torch

from precis.fields.nerf import NerfMLP
from precis.fields.nerfies import (
    Codes,
    DeformableNerf,
    Passes,
    SE3Field,
    TranslationField,
    render_resampled,
    render_views,
)
from precis.fields.nerfies_fit import fit_deformable
from precis.fields.nerfies_planes import PlaneTemplate, rates
from precis.fields.nerfies_schedule import held_then_cosine
from precis.fields.nerfies_warp import make_codes
from precis.papers.job import Work
from precis.train.checkpoint import save_model
from precis.train.schedule import Schedule, constant

from .carving import hull_of, meeting
from .looks import CODE, Looks, looks_of
from .opening import Opened

CHECKPOINT = ".checkpoint"
FAST_SAMPLES, FAST_FINE = 40, 20
VANILLA_SAMPLES = 128


class Portrait(DeformableNerf):
    """A deformable field from plain numbers, so that a saved one can be built again."""

    def __init__(
        self, frames: int, box: list[list[float]], near: float, far: float, template: Literal["fast", "vanilla"],
        warp: Literal["se3", "translation", "none"], bands: int, background: list[float] | None, seed: int = 0,
        instants: list[int] | None = None, looks: list[int] | None = None, look_dim: int = CODE, cells: int = 0,
    ) -> None:  # fmt: skip
        """instants, looks: the deformation and the appearance code of each photograph (None: its own number); cells: of
        a hull a side, beyond which observations are empty (0: none)."""
        g = torch.Generator().manual_seed(seed)
        fast = template == "fast"
        shape = (8, bands, 4, 64) if fast else (8, bands, 6, 128)
        field = None if warp == "none" else {"se3": SE3Field, "translation": TranslationField}[warp](
            frames, *shape, generator=g
        )  # fmt: skip
        step = (far - near) / (FAST_SAMPLES + FAST_FINE)
        scene: Any = None
        if fast:
            scene = PlaneTemplate(torch.tensor(box), 64, step=step, appearance_dim=look_dim, generator=g)
        fine = None
        if not fast:
            scene, fine = (NerfMLP(density="softplus", code_dim=look_dim, generator=g) for _ in range(2))
        super().__init__(scene, field, 0, fine=fine, num_codes=frames, generator=g)
        self.appearance = make_codes(frames if looks is None else max(looks) + 1, look_dim, g)
        self.near, self.far, self.fast, self.box = near, far, fast, box
        self.background: torch.Tensor | None
        self.register_buffer("background", None if background is None else torch.tensor(background), persistent=False)

        number = lambda of: torch.arange(frames) if of is None else torch.tensor(of)
        self.instants: torch.Tensor
        self.looks: torch.Tensor
        self.register_buffer("instants", number(instants), persistent=False)
        self.register_buffer("looks", number(looks), persistent=False)
        self.cells = cells
        self.hull: Any
        self.bounds: torch.Tensor
        self.register_buffer("hull", torch.ones(cells**3, dtype=torch.bool) if cells else None)
        self.register_buffer("bounds", torch.tensor(box), persistent=False)

    def codes(self, frame: torch.Tensor) -> Codes:
        """The codes of photographs, by their numbers."""
        moved = None if self.warp is None else self.warp.codes[self.instants[frame]]
        assert self.appearance is not None
        return Codes(moved, self.appearance[self.looks[frame]])

    def of(self, view: int) -> Codes:
        """The codes of one photograph."""
        return self.codes(torch.tensor(view, device=self.looks.device))

    def forward(self, x: Any, d: Any, codes: Codes, alpha: Any, *, fine: bool = False) -> tuple[Any, Any]:
        """As of `DeformableNerf`; nothing is where no instant has anything."""
        sigma, rgb = super().forward(x, d, codes, alpha, fine=fine)
        return sigma * self.filled(x), rgb

    def density(self, x: Any, codes: Codes, alpha: Any) -> Any:
        return super().density(x, codes, alpha) * self.filled(x)

    def filled(self, x: torch.Tensor) -> torch.Tensor | float:
        """1 at points of an observation where there may be something, else 0; beyond the box nobody knows."""
        if self.hull is None:
            return 1.0
        u = (x.detach() - self.bounds[0]) / (self.bounds[1] - self.bounds[0])
        n = self.cells
        at = (u * n).long().clamp(0, n - 1)
        live = self.hull[(at[..., 0] * n + at[..., 1]) * n + at[..., 2]]
        return (live | ((u < 0) | (u > 1)).any(-1)).to(x.dtype)

    def render(self, rays: Any, codes: Any, alpha: float) -> Any:
        """Rays as they are shown."""
        return self.passes(self, rays, codes, alpha, self.near, self.far, background=self.background).best

    def passes(
        self, model: DeformableNerf, rays: Any, codes: Any, alpha: Any, near: float, far: float, samples: int = 0,
        fine_samples: int = 0, **options: Any,
    ) -> Passes:  # fmt: skip
        """As `render_views`, with this model's own way and numbers of samples."""
        if self.fast:
            return render_resampled(model, rays, codes, alpha, near, far, FAST_SAMPLES, FAST_FINE, **options)
        return render_views(model, rays, codes, alpha, near, far, VANILLA_SAMPLES, VANILLA_SAMPLES, **options)


def train(job: Any, opened: Opened, work: Work) -> tuple[Portrait, float, int]:
    """The fitted model, its last α and the steps made; saved in the run's folder."""
    gpu = work.device.startswith("cuda")
    looks, cells = looks_of(job, opened, work), 128 if gpu else 64
    hull = hull_of(job, opened, work, cells)
    arguments = {
        "frames": opened.frames, "box": opened.box.tolist(), "near": opened.near, "far": opened.far,
        "template": job.template, "warp": job.warp, "bands": bands_of(job), "background": opened.background,
        "seed": job.seed, "instants": opened.frame.tolist(), "looks": looks.of, "look_dim": looks.dim,
        "cells": 0 if hull is None else cells,
    }  # fmt: skip
    model = Portrait(**arguments)
    if hull is not None:
        model.hull.copy_(hull)
    model = model.to(work.device)
    weight, fall = elastic_of(job, looks)
    pixels = opened.pixels if hull is None else meeting(opened, hull, cells)
    minutes = job.minutes or (None if job.steps else 10.0 if gpu else 4.0)
    groups, template = None, cast(Any, model.template)
    if job.template == "fast":
        groups = rates(model, planes=2e-2, rest=1e-3, warp=1e-3, codes=1e-2)
    if job.template == "vanilla" and not gpu:
        work.note("the paper's network takes minutes a step on a processor: --template fast is meant for one")

    last: dict[str, float] = {}

    def log(step: int, total: int, **scalars: float) -> None:
        last.update(scalars)
        shown = {"psnr": -10 * torch.tensor(max(last.get("mse", 1.0), 1e-10)).log10().item(), "loss": last["loss"]}
        work.log(step, total, **shown)

    run = fit_deformable(
        model, opened.cameras, pixels, opened.near, opened.far, rays=job.rays or (4096 if gpu else 512), samples=0,
        fine_samples=0, background=model.background, elastic=weight, elastic_schedule=fall,
        static_points=opened.points, background_weight=job.background_weight, render=model.passes,
        extra=template.fading(1e-3) if job.template == "fast" else None, groups=groups, steps=job.steps,
        minutes=minutes, generator=torch.Generator().manual_seed(job.seed),
        noise=torch.Generator().manual_seed(job.seed + 1), log=log, folder=work.folder / CHECKPOINT, resume=work.resume,
    )  # fmt: skip
    model.eval().requires_grad_(False)
    save_model(work.folder, model, arguments)
    return model, float(bands_of(job)), run.steps


def elastic_of(job: Any, looks: Looks) -> tuple[float, Schedule]:
    """λ, and how it falls: by the paper's settings for captures, or for its rig, where nothing else is said."""
    weight = float(job.elastic if job.elastic is not None else 1e-3 if looks.rig else 1e-2)
    falls = job.elastic_schedule == "cosine" or (job.elastic_schedule == "auto" and not looks.rig)
    return weight, held_then_cosine(weight) if falls else constant()


def bands_of(job: Any) -> int:
    return int((4 if job.template == "fast" else 8) if job.bands is None else job.bands)
