"""What the claims train, and how it is scored.

se3             template, SE(3) field, appearance codes, elastic and background terms, bands opened one by one
nerf            the template alone          nerf_code     the template with an appearance code a frame
no_elastic      λ = 0                       no_background no static points
all_bands       α = m throughout            one_band      α = 1 throughout
translation     a field of shifts

permuted        broken on purpose: deformation codes are dealt anew among the frames at every step
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from precis.data.scenes3d import Capture
from precis.fields.nerf import TINY, NerfMLP
from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerfies import Codes, DeformableNerf, SE3Field, TranslationField, render_many, render_views
from precis.fields.nerfies_fit import all_pixels, annealed, fit_deformable
from precis.fields.nerfies_losses import log_singular_values
from precis.fields.nerfies_planes import PlaneTemplate, rates
from precis.lab.claim import Metrics, Recorder
from precis.train.schedule import exponential, warmup

from .places import Moving, Scored, scene_of

PICTURED = 1  # seeds whose pictures are kept
LEAST = 1e-6  # below which shares, drifts and stretches are not told apart
DENSE, CELLS, MARGIN = 10.0, 4, 2  # a blob: density above, in more cells than; cells around matter that are not free
WORST_OF = 5  # frames
NET_LR, TV = 1e-3, 1e-3  # beside planes: of their small network; the weight of their variation, which falls to 0
RATES = warmup(0.1, exponential(0.1))  # with no rise, all units of a field may die in the first steps


class PermutedCodes(DeformableNerf):
    """The broken arm: while it learns, a frame gets the deformation code of a frame at random."""

    shuffler: torch.Generator

    def codes(self, frame: Tensor) -> Codes:
        found = super().codes(frame)
        if not self.training or self.warp is None:
            return found
        order = torch.randperm(self.num_codes, generator=self.shuffler).to(frame.device)
        return found._replace(deformation=self.warp.codes[order[frame]])


def build(arm: str, s: Moving, scene: Scored, init: torch.Generator, noise: torch.Generator) -> DeformableNerf:
    """The model of an arm; the template is drawn first, so that it starts alike in all."""
    appearance = 0 if arm == "nerf" else 8
    template: nn.Module
    if s.template == "planes":
        step = (scene.train.far - scene.train.near) / s.samples
        box = torch.from_numpy(scene.train.aabb)
        template = PlaneTemplate(box, step=step, appearance_dim=appearance, generator=init)
    elif s.template == "vanilla":
        template = NerfMLP(density="softplus", code_dim=appearance, generator=init)
    else:
        template = NerfMLP(**TINY, code_dim=appearance, unit=s.unit, generator=init)
    frames, shape = int(instants_of(scene.train).max()) + 1, (8, s.bands, s.depth, s.width)
    warp: SE3Field | TranslationField | None = None
    if arm == "translation":
        warp = TranslationField(frames, *shape, generator=init)
    elif not arm.startswith("nerf"):
        warp = SE3Field(frames, *shape, generator=init)
    kind = PermutedCodes if arm == "permuted" else DeformableNerf
    model = kind(template, warp, appearance, num_codes=frames, generator=init)
    if isinstance(model, PermutedCodes):
        model.shuffler = noise
    return model


def instants_of(views: Capture) -> Tensor:
    """The code of each view."""
    assert views.frame is not None
    return torch.from_numpy(np.asarray(views.frame, np.int64))


def schedule_of(arm: str, bands: int) -> Callable[[float], float]:
    """α as a function of progress."""
    opening = annealed(bands)
    if arm == "all_bands":
        return lambda progress: float(bands)
    if arm == "one_band":
        return lambda progress: 1.0
    return opening


def train_and_score(arm: str, seed: int, s: Moving, data: Scored | None, record: Recorder) -> Metrics:
    """One arm under one seed."""
    scene = scene_of(seed, s, data)
    device, streams = record.device, record.streams
    model = build(arm, s, scene, streams["init"], streams["noise"]).to(device)
    cameras = cameras_of(scene.train).to(device)
    points = scene.train.static_points
    still = None if points is None or arm == "no_background" else torch.from_numpy(points[::2].copy()).to(device)
    alpha = schedule_of(arm, s.bands)
    planes = model.template if isinstance(model.template, PlaneTemplate) else None
    groups = rates(model, planes=s.lr, rest=s.lr if planes is None else NET_LR, warp=s.warp_lr, codes=s.code_lr)
    run = fit_deformable(
        model, cameras, all_pixels(cameras, torch.from_numpy(scene.train.images[..., :3]).to(device)), scene.train.near,
        scene.train.far, frame=instants_of(scene.train).to(device), rays=s.rays, samples=s.samples, fine_samples=0,
        background=scene.background, alpha=alpha,
        elastic=0.0 if arm == "no_elastic" else s.elastic, static_points=still, background_points=s.background_points,
        groups=groups, schedule=RATES, extra=None if planes is None else planes.fading(TV), steps=s.steps,
        generator=streams["data"], noise=streams["noise"], log=record.log,
    )  # fmt: skip
    record.curve("mse", *run.curves["mse"])
    model.eval()
    return score(model, arm, seed, s, scene, alpha(1.0), record)


@torch.no_grad()
def score(
    model: DeformableNerf, arm: str, seed: int, s: Moving, scene: Scored, alpha: float, record: Recorder
) -> Metrics:
    """Pictures of the second camera, its depth, what the field does to what stands still, and matter in free space."""
    test, device = scene.test, record.device
    rgb, depth = pictures(model, s, scene, alpha, device)
    truth = torch.from_numpy(test.rgb())
    error = (rgb - truth).square().mean(-1)
    everywhere = torch.ones_like(error, dtype=torch.bool)
    moving = everywhere if test.masks is None else torch.from_numpy(test.masks)
    metrics: Metrics = {  # where nobody knows what moves, all pixels count for both
        "psnr": psnr(error, everywhere), "psnr_moving": psnr(error, moving),
        "psnr_static": psnr(error, everywhere if test.masks is None else ~moving),
    }  # fmt: skip
    if test.depth is not None:
        true_depth = torch.from_numpy(test.depth)
        known = moving & true_depth.isfinite()
        metrics["log_depth_error"] = math.log(float((depth - true_depth).abs()[known].mean()))
        metrics["log_stretch"] = log_of(stretch(model, scene, known, true_depth, alpha, device))
    if test.static_points is not None:
        held_out = torch.from_numpy(test.static_points[1::2].copy()).to(device)
        metrics["log_drift"] = log_of(drift(model, held_out, alpha))
    if scene.occupied is not None:
        share, blobs = free_matter(model, s, scene, alpha, device)
        metrics |= {"log_free_share": log_of(share), "log_blobs": math.log1p(blobs)}
    if seed < PICTURED:
        record.image("truth", sheet(truth))
        record.image(arm, sheet(rgb))
    return metrics


def pictures(model: DeformableNerf, s: Moving, scene: Scored, alpha: float, device: str) -> tuple[Tensor, Tensor]:
    """Colour [V,H,W,3] and depth [V,H,W] of the test views, each under its instant's codes."""
    cameras, found = cameras_of(scene.test).to(device), []

    def draw(rays: Rays, codes: Codes) -> Any:
        return render_views(
            model, rays, codes, alpha, scene.test.near, scene.test.far, s.test_samples, 0, background=scene.background
        ).best  # fmt: skip

    instants = instants_of(scene.test).to(device)
    for v in range(len(cameras)):
        codes = model.codes(instants[v])
        rgb, opacity, depth = render_many(draw, cameras.all_rays(v, unit=True), codes)
        found.append((rgb.cpu(), (depth / opacity.clamp(min=LEAST)).cpu()))
    rgb, depth = (torch.stack(part) for part in zip(*found, strict=True))
    return rgb, depth


def stretch(
    model: DeformableNerf, scene: Scored, known: Tensor, depth: Tensor, alpha: float, device: str
) -> float:
    """Mean |log Σ| at the true surface of what moves, as the test views see it."""
    view, row, column = known.nonzero(as_tuple=True)
    rays = cameras_of(scene.test).rays(view, torch.stack([column, row], -1), unit=True)
    x = (rays.o + depth[known][:, None] * rays.d).to(device)
    codes = model.codes(instants_of(scene.test)[view].to(device))
    _, jacobian = model.canonical(x, codes, alpha, jacobian=True)
    assert jacobian is not None
    return float(log_singular_values(jacobian.detach().cpu()).abs().mean())


def drift(model: DeformableNerf, points: Tensor, alpha: float) -> float:
    """Mean ‖T(x) − x‖ at points that stand still, over all frames."""
    total = 0.0
    for f in range(model.num_codes):
        codes = model.codes(torch.full((len(points),), f, device=points.device))
        total += float((model.canonical(points, codes, alpha)[0] - points).norm(dim=-1).mean().detach())
    return total / model.num_codes


def free_matter(model: DeformableNerf, s: Moving, scene: Scored, alpha: float, device: str) -> tuple[float, int]:
    """The share of ∫σ in free space that some photograph looks through, and blobs there; the worst of five frames."""
    from scipy.ndimage import binary_dilation, label

    assert scene.occupied is not None
    low, high = scene.train.aabb.astype(np.float64)
    shape = (s.grid, s.grid, 1) if s.scene == "flatland" else (s.grid // 2,) * 3
    axes = [a + (np.arange(n) + 0.5) / n * (b - a) for a, b, n in zip(low, high, shape, strict=True)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    matter = scene.occupied(x).any(0).reshape(shape)
    free = ~binary_dilation(matter, iterations=MARGIN) & looked_through(scene.train, x).reshape(shape)
    at = torch.from_numpy(x).float().to(device)
    shares, blobs = [], []
    frames = np.linspace(0, model.num_codes - 1, WORST_OF if model.warp is not None else 1).round().astype(int)
    for f in frames:
        codes = model.codes(torch.tensor([int(f)], device=device))
        parts = [model.density(part, codes, alpha).cpu() for part in at.split(1 << 15)]
        sigma = torch.cat(parts).numpy().reshape(shape)
        shares.append(float(sigma[free].sum()) / max(float(sigma.sum()), LEAST))
        numbered, n = label((sigma > DENSE) & free)
        blobs.append(sum(int((numbered == i).sum()) > CELLS for i in range(1, n + 1)))
    return max(shares), max(blobs)


def looked_through(views: Capture, x: np.ndarray) -> np.ndarray:
    """Whether a camera sees the points [P,3] before any surface, so that a photograph says that nothing is there."""
    cameras, found = cameras_of(views), torch.zeros(len(x), dtype=torch.bool)
    points = torch.from_numpy(x).float()
    width, height = views.size
    assert views.depth is not None
    for v in range(len(cameras)):
        pix, depth = cameras.project(torch.full((len(x),), v), points)
        column, row = pix.round().long().unbind(-1)
        inside = (depth > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        surface = torch.from_numpy(views.depth[v])[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        distance = (points - cameras.c2w[v, :, 3]).norm(dim=-1)
        found |= inside & (surface.isnan() | (distance < surface))
    return found.numpy()


def cameras_of(views: Capture) -> Cameras:
    return Cameras(torch.from_numpy(views.c2w), torch.from_numpy(views.K), views.size)


def psnr(error: Tensor, where: Tensor) -> float:
    """The mean over views of the PSNR of those of their pixels that are marked; views without any are left out."""
    each = [error[v][where[v]].mean() for v in range(len(error)) if where[v].any()]
    return float(torch.stack(each).clamp(min=1e-10).log10().mean() * -10) if each else float("nan")


def log_of(x: float) -> float:
    return math.log(max(x, LEAST))


def sheet(rgb: Tensor) -> Tensor:
    """[V,H,W,3] as one picture [3,h,w]: of pictures one pixel high, a row an instant; else up to eight in a row."""
    if rgb.shape[1] == 1:
        return rgb[:, 0].permute(2, 0, 1).repeat_interleave(8, 1).repeat_interleave(8, 2)
    some = rgb[torch.linspace(0, len(rgb) - 1, min(8, len(rgb))).round().long()]
    return torch.cat(list(some.permute(0, 3, 1, 2)), -1)
