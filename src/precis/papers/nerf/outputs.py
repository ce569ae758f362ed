"""What a run leaves: test views beside their truth, an orbit, depth, pictures from asked-for cameras, the model."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from precis.data.animation import write_animation
from precis.data.captures_depth import depth_bytes
from precis.data.images import write_image
from precis.fields.nerf_cameras import Cameras, focus, orbit, spiral
from precis.fields.nerf_fit import render_view
from precis.lab.figures import contact_sheet, curves
from precis.papers.job import Work
from precis.papers.work import save
from precis.train.checkpoint import save_model

from .loading import Place, poses_of

Metrics = dict[str, float | None]
SHOWN = 3


def write_everything(job: Any, work: Work, place: Place, learned: Any) -> Metrics:
    """All files; the metrics."""
    metrics = write_tests(work, place, learned)
    if job.orbit:
        path = spiral(place.cameras, job.orbit, 0.5 * (place.near + place.far)) if place.files.forward else orbit(
            place.cameras, job.orbit)  # fmt: skip
        turning(work, place, learned, path)
    if job.render_poses is not None:
        cameras = poses_of(job.render_poses, place).to(work.device)
        for i in range(len(cameras)):
            rgb, _, depth = look(learned, cameras, i, place)
            picture(work, f"renders/{i:03d}.png", rgb)
            depth_files(work, f"renders/{i:03d}", depth / place.scale)
        metrics["renders"] = float(len(cameras))
    if job.mesh:
        from .meshing import write_mesh

        metrics |= write_mesh(work, place, learned)
    if len(learned.seconds) > 1:
        chart = curves({"test views": (learned.seconds, learned.psnr)}, x_label="seconds of training",
                       y_label="PSNR (dB)")  # fmt: skip
        save(work.folder / "psnr.png", chart.png())
    keep_model(job, work, place, learned)
    size = sum(f.stat().st_size for f in work.folder.glob("*.safetensors"))
    count = sum(p.numel() for p in learned.field.parameters()) * (2 if job.model == "vanilla" else 1)
    return metrics | {"steps": float(learned.steps), "parameters": float(count), "model_bytes": float(size)}


def write_tests(work: Work, place: Place, learned: Any) -> Metrics:
    """test/*.png (render, truth, error), depth, a table, the overview."""
    from precis.nn.image import ssim

    from .running import truth_of, view_psnr

    cameras = place.cameras.to(work.device)
    rows: list[dict[str, Any]] = []
    tiles: list[np.ndarray] = []
    views = place.test or place.train[:SHOWN]
    for k, v in enumerate(views):
        work.log(k, len(views))
        rgb, opacity, depth = look(learned, cameras, v, place)
        truth = truth_of(place, v)
        error = np.abs(rgb - truth).mean(-1, keepdims=True).repeat(3, -1)
        stem = Path(place.files.names[v]).stem
        picture(work, f"test/{stem}.png", np.concatenate([rgb, truth, np.clip(4 * error, 0, 1)], 1))
        depth_files(work, f"depth/{stem}", depth / place.scale)
        pair = [torch.from_numpy(np.moveaxis(x, -1, 0)[None]).float() for x in (rgb, truth)]
        alike = float(ssim(*pair)[0]) if min(rgb.shape[:2]) >= 11 else None
        rows.append({"view": place.files.names[v], "psnr": view_psnr(rgb, truth), "ssim": alike})
        if k % max(len(views) // SHOWN, 1) == 0 and len(tiles) < 4 * SHOWN:
            tiles += [rgb, truth, np.clip(4 * error, 0, 1), depth_picture(depth, place)]
    table(work, "test_views.csv", rows)
    sheet = contact_sheet([np.moveaxis(t, -1, 0) for t in tiles], columns=4, size=256,
                          header=["NeRF", "photograph", "difference × 4", "depth"])  # fmt: skip
    save(work.folder / "overview.png", sheet)
    work.show("overview.png")
    if not place.test:
        work.note("there are no test views: the figures are of photographs that were learned from")
    similar = [r["ssim"] for r in rows if r["ssim"] is not None]
    return {
        "psnr": float(np.mean([r["psnr"] for r in rows])), "ssim": float(np.mean(similar)) if similar else None,
        "test_views": float(len(place.test)),
    }  # fmt: skip


def turning(work: Work, place: Place, learned: Any, path: Cameras) -> None:
    """orbit/*.png, orbit.webp, orbit_depth.webp."""
    cameras = path.to(work.device)
    frames, depths = [], []
    for i in range(len(cameras)):
        work.log(i, len(cameras))
        rgb, _, depth = look(learned, cameras, i, place)
        picture(work, f"orbit/{i:03d}.png", rgb)
        frames.append(np.moveaxis(rgb, -1, 0))
        depths.append(np.moveaxis(depth_picture(depth, place), -1, 0))
    for name, stack in (("orbit.webp", frames), ("orbit_depth.webp", depths)):
        write_animation(work.folder / name, np.stack(stack), fps=15)


def look(learned: Any, cameras: Cameras, view: int, place: Place) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour [H,W,3] on the background, opacity, mean distance (far where it is less than half opaque)."""
    from .running import laid

    made = render_view(learned.render, cameras, view)
    opacity = made.opacity.cpu().numpy()
    depth = made.depth.cpu().numpy() / np.maximum(opacity, 1e-6)
    depth = np.where(opacity < 0.5, place.far, depth)
    return laid(made.rgb.cpu().numpy(), opacity, place), opacity, depth.astype(np.float32)


def depth_picture(depth: np.ndarray, place: Place) -> np.ndarray:
    """Near warm and bright, far dark; nothing white."""
    import matplotlib

    there = depth < 0.999 * place.far
    low, high = (np.percentile(depth[there], [1, 99]) if there.any() else (0.0, 1.0))
    share = 1 - ((depth - low) / max(high - low, 1e-6)).clip(0, 1)
    colours = matplotlib.colormaps["inferno"](0.1 + 0.85 * share)[..., :3]
    return np.asarray(np.where(there[..., None], colours, 1.0))


def depth_files(work: Work, name: str, depth: np.ndarray) -> None:
    """name.npy in the units of INPUT, and name_depth.png."""
    for suffix, content in zip((".npy", "_depth.png"), depth_bytes(depth)):
        save(work.folder / (name + suffix), content)


def picture(work: Work, name: str, rgb: np.ndarray) -> None:
    (work.folder / name).parent.mkdir(parents=True, exist_ok=True)
    write_image(work.folder / name, np.moveaxis(rgb, -1, 0))


def table(work: Work, name: str, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    save(work.folder / name, text.getvalue().encode())


def keep_model(job: Any, work: Work, place: Place, learned: Any) -> None:
    """Weights, grid, and what a viewer needs to place a camera."""
    field, fast = learned.field, learned.fast
    if fast is not None:
        box = fast.grid.aabb.cpu().tolist()
        save_model(work.folder, field, field.config())
        save_model(work.folder, fast.grid, {"aabb": box, "resolution": fast.grid.resolution}, name="grid",
                   component="precis.papers.nerf.views:saved_grid")  # fmt: skip
    elif job.model == "tiny":
        save_model(work.folder, field, {}, component="precis.fields.nerf:tiny_nerf")
    else:
        save_model(work.folder, field, {})
    middle = focus(place.cameras)
    offset = place.cameras.c2w[:, :, 3] - middle
    K, size = place.cameras.K[0], place.cameras.size[0]
    scene = {
        "model": job.model, "near": place.near, "far": place.far, "step": None if fast is None else fast.step,
        "open": place.open and fast is not None,
        "background": place.background.tolist(), "centre": middle.tolist(),
        "up": torch.nn.functional.normalize(place.cameras.c2w[:, :, 1].mean(0), dim=0).tolist(),
        "radius": float(offset.norm(dim=1).mean()), "focal": float(K[0] / size.min()), "scale": place.scale,
        "shift": place.shift.tolist(), "size": size.tolist(),
    }  # fmt: skip
    save(work.folder / "scene.json", (json.dumps(scene, indent=1) + "\n").encode())
