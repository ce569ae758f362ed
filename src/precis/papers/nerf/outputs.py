"""What a run leaves: test views beside their truth, an orbit, depth, pictures from asked-for cameras, the model."""

import csv
import io
import json
import math
from typing import Any

import numpy as np
import torch

from precis.data.animation import write_animation
from precis.data.captures_names import file_names
from precis.data.images import write_image
from precis.fields.nerf_cameras import Cameras, focus, orbit, spiral
from precis.fields.nerf_fit import render_view
from precis.lab.figures import contact_sheet, curves
from precis.papers.depth_maps import DepthMaps, in_colour
from precis.papers.job import Work
from precis.papers.valid_pixels import psnr_of, ssim_of
from precis.papers.work import save
from precis.train.checkpoint import save_model

from .loading import Place, poses_of
from .sizes import sizes_of, told
from .watching import counted, laid, truth_of

Metrics = dict[str, float | None]
SHOWN = 3
UNEVEN, ONE_SIDED = 0.3, 0.8  # length of the mean of the ways to the cameras; 0: all around, 1: from one place


def write_everything(job: Any, work: Work, place: Place, learned: Any) -> Metrics:
    """All files; the metrics."""
    depths = DepthMaps(work)
    metrics, seen = write_tests(work, place, learned, depths)
    away = subject(place, seen)
    if job.orbit:
        cameras = place.cameras
        path = spiral(cameras, job.orbit, away) if place.files.forward else orbit(cameras, job.orbit)
        turning(work, place, learned, path)
    if job.render_poses is not None:
        cameras = poses_of(job.render_poses, place).to(work.device)
        for i in range(len(cameras)):
            rgb, _, depth = look(learned, cameras, i, place)
            picture(work, f"renders/{i:03d}.png", rgb)
            depths.add(f"renders/{i:03d}", depth / place.scale)
        metrics["renders"] = float(len(cameras))
    metrics["depth_units_per_step"] = depths.finish()
    if job.mesh:
        from .meshing import write_mesh

        metrics |= write_mesh(work, place, learned)
    if len(learned.seconds) > 1:
        chart = curves({"test views": (learned.seconds, learned.psnr)}, x_label="seconds of training",
                       y_label="PSNR (dB)")  # fmt: skip
        save(work.folder / "psnr.png", chart.png())
    keep_model(job, work, place, learned, away)
    sizes = sizes_of(work.folder, place, away)
    work.note(told(sizes, len(place.train)))
    count = sum(p.numel() for p in learned.field.parameters()) * (2 if job.model == "vanilla" else 1)
    if learned.proposed is not None:
        count += sum(p.numel() for p in learned.proposed.proposal.parameters())
    for name in ("orbit_depth.webp", "psnr.png", "orbit.webp", "overview.png"):
        if (work.folder / name).exists():
            work.show(name)
    return metrics | {
        "steps": float(learned.steps), "parameters": float(count), "model_bytes": float(sizes.model),
        "grid_bytes": float(sizes.grid), "planes_bytes": float(sizes.planes),
    }  # fmt: skip


def subject(place: Place, seen: float | None) -> float:
    """How far before the cameras lies what they look at: the distance to `focus`; where they all look one way, what
    `seen` says, the median distance that was rendered, or else the mean of the inverse bounds of the file."""
    if not place.files.forward:
        return float((place.cameras.c2w[:, :, 3] - focus(place.cameras)).norm(dim=1).mean())
    near, far = (place.near if x is None else x * place.scale for x in (place.files.near, place.files.far))
    return 2 / (1 / near + 1 / far) if seen is None else min(max(seen, near), far)


def write_tests(work: Work, place: Place, learned: Any, depths: DepthMaps) -> tuple[Metrics, float | None]:
    """test/*.png (render, truth, error), depth, a table, the overview; the median distance where there is anything.

    Pixels that the capture's own masks take out count for nothing, and show no error.
    """
    cameras = place.cameras.to(work.device)
    rows: list[dict[str, Any]] = []
    tiles: list[np.ndarray] = []
    views = place.test or place.train[:SHOWN]
    names = file_names([place.files.names[v] for v in views])
    seen: list[float] = []
    left_out = 0
    for k, (v, stem) in enumerate(zip(views, names)):
        work.log(k, len(views))
        rgb, opacity, depth = look(learned, cameras, v, place)
        truth, count = truth_of(place, v), counted(place, v)
        error = np.abs(rgb - truth).mean(-1, keepdims=True).repeat(3, -1)
        if count is not None:
            error, left_out = error * count[..., None], left_out + int((~count).sum())
        seen += [float(np.median(depth[opacity >= 0.5]))] if (opacity >= 0.5).any() else []
        picture(work, f"test/{stem}.png", np.concatenate([rgb, truth, np.clip(4 * error, 0, 1)], 1))
        depths.add(f"depth/{stem}", depth / place.scale)
        scores = {"psnr": psnr_of(rgb, truth, count), "ssim": ssim_of(rgb, truth, count)}
        rows.append({"view": place.files.names[v], **scores})
        if k % max(len(views) // SHOWN, 1) == 0 and len(tiles) < 4 * SHOWN:
            tiles += [rgb, truth, np.clip(4 * error, 0, 1), in_colour(depth, place.far)]
    table(work, "test_views.csv", rows)
    sheet = contact_sheet([np.moveaxis(t, -1, 0) for t in tiles], columns=4, size=256,
                          header=["NeRF", "photograph", "difference × 4", "depth"])  # fmt: skip
    save(work.folder / "overview.png", sheet)
    work.show(f"test/{names[0]}.png")
    if not place.test:
        work.note("there are no test views: the figures are of photographs that were learned from")
    if left_out:
        work.note(f"{left_out} pixels of these views are masked out by the capture and count neither for PSNR nor SSIM")
    found = {name: [r[name] for r in rows if r[name] is not None] for name in ("psnr", "ssim")}
    metrics: Metrics = {name: float(np.mean(values)) if values else None for name, values in found.items()}
    metrics["test_views"] = float(len(place.test))
    return metrics, float(np.median(seen)) if seen else None


def turning(work: Work, place: Place, learned: Any, path: Cameras) -> None:
    """orbit/*.png, orbit.webp, orbit_depth.webp."""
    cameras = path.to(work.device)
    frames, depths = [], []
    for i in range(len(cameras)):
        work.log(i, len(cameras))
        rgb, _, depth = look(learned, cameras, i, place)
        picture(work, f"orbit/{i:03d}.png", rgb)
        frames.append(np.moveaxis(rgb, -1, 0))
        depths.append(np.moveaxis(in_colour(depth, place.far), -1, 0))
    for name, stack in (("orbit.webp", frames), ("orbit_depth.webp", depths)):
        write_animation(work.folder / name, np.stack(stack), fps=15)


def look(learned: Any, cameras: Cameras, view: int, place: Place) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour [H,W,3] on the background, opacity, mean distance (far where it is less than half opaque)."""
    made = render_view(learned.render, cameras, view)
    opacity = made.opacity.cpu().numpy()
    depth = made.depth.cpu().numpy() / np.maximum(opacity, 1e-6)
    depth = np.where(opacity < 0.5, place.far, depth)
    return laid(made.rgb.cpu().numpy(), opacity, place), opacity, depth.astype(np.float32)


def picture(work: Work, name: str, rgb: np.ndarray) -> None:
    (work.folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_image(work.folder / name, np.moveaxis(rgb, -1, 0))


def table(work: Work, name: str, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    save(work.folder / name, text.getvalue().encode())


def keep_model(job: Any, work: Work, place: Place, learned: Any, away: float) -> None:
    """Weights, grid, and what a viewer needs to place a camera."""
    field, fast = learned.field, learned.fast
    if fast is not None:
        box = fast.grid.aabb.cpu().tolist()
        save_model(work.folder, field, field.config())
        save_model(work.folder, fast.grid, {"aabb": box, "resolution": fast.grid.resolution}, name="grid",
                   component="precis.papers.nerf.views:saved_grid")  # fmt: skip
    elif learned.proposed is not None:
        save_model(work.folder, field, field.config())
        save_model(work.folder, learned.proposed.proposal, learned.proposed.proposal.config(), name="proposal")
    elif job.model == "tiny":
        save_model(work.folder, field, {}, component="precis.fields.nerf:tiny_nerf")
    else:
        save_model(work.folder, field, {})
    c2w = place.cameras.c2w
    up = torch.nn.functional.normalize(c2w[:, :, 1].mean(0), dim=0)
    middle = focus(place.cameras)
    if place.files.forward:  # axes that are all but parallel meet nowhere, or anywhere
        middle = c2w[:, :, 3].mean(0) - away * torch.nn.functional.normalize(c2w[:, :, 2].mean(0), dim=0)
    offset = c2w[:, :, 3] - middle
    K, size = place.cameras.K[0], place.cameras.size[0]
    scene = {
        "model": job.model, "near": place.near, "far": place.far, "step": None if fast is None else fast.step,
        "open": place.open and job.model == "fast", "ndc": None if learned.view is None else learned.view.plain(),
        "sampling": None if job.model != "fast" else "grid" if learned.proposed is None else "proposal",
        "background": place.background.tolist(), "centre": middle.tolist(),
        "up": up.tolist(), **begin(offset, up), "radius": float(offset.norm(dim=1).mean()),
        "focal": float(K[0] / size.min()), "scale": place.scale,
        "shift": place.shift.tolist(), "size": size.tolist(),
    }  # fmt: skip
    save(work.folder / "scene.json", (json.dumps(scene, indent=1) + "\n").encode())


def begin(offset: torch.Tensor, up: torch.Tensor) -> dict[str, Any]:
    """Where a viewer begins, from the cameras' places [V,3] about the middle: `ahead`, level, if they stand more on one
    side than on the others, and `rise`, the degrees above the horizon at which they do if they all stand there."""
    way = torch.nn.functional.normalize(offset, dim=1).mean(0)
    level = way - (way @ up) * up
    rise = math.degrees(math.atan2(float(way @ up), float(level.norm())))
    return {
        "ahead": level.tolist() if float(level.norm()) > UNEVEN else None,
        "rise": rise if float(way.norm()) > ONE_SIDED else None,
    }  # fmt: skip
