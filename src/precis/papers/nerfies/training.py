"""The job's model and how it is trained."""

from typing import Any, Literal, cast

import torch

from precis.fields.nerf import NerfMLP
from precis.fields.nerfies import DeformableNerf, Passes, SE3Field, TranslationField, render_resampled, render_views
from precis.fields.nerfies_fit import fit_deformable
from precis.fields.nerfies_planes import PlaneTemplate
from precis.papers.job import Work
from precis.train.checkpoint import save_model

from .opening import Opened

CHECKPOINT = ".checkpoint"
FAST_SAMPLES, FAST_FINE = 40, 20
VANILLA_SAMPLES = 128


class Portrait(DeformableNerf):
    """A deformable field from plain numbers, so that a saved one can be built again."""

    def __init__(
        self, frames: int, box: list[list[float]], near: float, far: float, template: Literal["fast", "vanilla"],
        warp: Literal["se3", "translation", "none"], bands: int, background: list[float] | None, seed: int = 0,
    ) -> None:  # fmt: skip
        g = torch.Generator().manual_seed(seed)
        fast = template == "fast"
        shape = (8, bands, 4, 64) if fast else (8, bands, 6, 128)
        field = None if warp == "none" else {"se3": SE3Field, "translation": TranslationField}[warp](
            frames, *shape, generator=g
        )  # fmt: skip
        step = (far - near) / (FAST_SAMPLES + FAST_FINE)
        scene: Any = PlaneTemplate(torch.tensor(box), 64, step=step, appearance_dim=8, generator=g) if fast else None
        fine = None
        if not fast:
            scene, fine = (NerfMLP(density="softplus", code_dim=8, generator=g) for _ in range(2))
        super().__init__(scene, field, 8, fine=fine, num_codes=frames, generator=g)
        self.near, self.far, self.fast, self.box = near, far, fast, box
        self.background: torch.Tensor | None
        self.register_buffer("background", None if background is None else torch.tensor(background), persistent=False)

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


def train(job: Any, opened: Opened, work: Work) -> tuple[Portrait, float]:
    """The fitted model and its last α; saved in the run's folder."""
    gpu = work.device.startswith("cuda")
    arguments = {
        "frames": opened.frames, "box": opened.box.tolist(), "near": opened.near, "far": opened.far,
        "template": job.template, "warp": job.warp, "bands": bands_of(job), "background": opened.background,
        "seed": job.seed,
    }  # fmt: skip
    model = Portrait(**arguments).to(work.device)
    minutes = job.minutes or (None if job.steps else 10.0 if gpu else 4.0)
    groups, template = None, cast(Any, model.template)
    if job.template == "fast":
        planes = template.factors()
        others = [p for p in model.parameters() if all(p is not q for q in planes)]
        groups = [{"params": planes, "lr": 2e-2}, {"params": others, "lr": 1e-3}]
    if job.template == "vanilla" and not gpu:
        work.note("the paper's network takes minutes a step on a processor: --template fast is meant for one")

    def smooth(progress: float) -> Any:
        return 1e-3 * (1 - progress) * template.variation()

    last: dict[str, float] = {}

    def log(step: int, total: int, **scalars: float) -> None:
        last.update(scalars)
        shown = {"psnr": -10 * torch.tensor(max(last.get("mse", 1.0), 1e-10)).log10().item(), "loss": last["loss"]}
        work.log(step, total, **shown)

    fit_deformable(
        model, opened.cameras, opened.pixels, opened.near, opened.far, rays=job.rays or (4096 if gpu else 512),
        samples=0, fine_samples=0, background=model.background, frame=opened.frame, elastic=job.elastic,
        static_points=opened.points, background_weight=job.background_weight, render=model.passes,
        extra=smooth if job.template == "fast" else None, groups=groups, steps=job.steps, minutes=minutes,
        generator=torch.Generator().manual_seed(job.seed), noise=torch.Generator().manual_seed(job.seed + 1), log=log,
        folder=work.folder / CHECKPOINT, resume=work.resume,
    )  # fmt: skip
    model.eval().requires_grad_(False)
    save_model(work.folder, model, arguments)
    return model, float(bands_of(job))


def bands_of(job: Any) -> int:
    return int((4 if job.template == "fast" else 8) if job.bands is None else job.bands)
