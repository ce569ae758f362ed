"""What a run leaves: every frame drawn again, clips, depths, meshes, what the deformation does, and how good it is."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.data.animation import write_animation
from precis.data.captures_names import file_names
from precis.data.images import write_image
from precis.fields.nerf_cameras import Cameras
from precis.fields.nerfies import Codes, render_many
from precis.lab.figures import contact_sheet
from precis.papers.depth_maps import DepthMaps, in_colour
from precis.papers.job import Work
from precis.papers.valid_pixels import psnr_of, ssim_of
from precis.papers.work import write_json, writing

from .counted import counted
from .deformation import Maps, moved, stretching
from .meshes import instants_of, write_meshes
from .opening import Opened, poses_of
from .training import Portrait
from .views import PLACE, remember, swing

SHOWN = 4  # photographs in the overview
FPS = 12
LEAST = 1e-6


class Drawer:
    """Draws with one model at its last α, and tells how far it is."""

    def __init__(self, model: Portrait, alpha: float, work: Work, total: int) -> None:
        self.model, self.alpha, self.work, self.total, self.done = model, alpha, work, total, 0

    def __call__(self, cameras: Cameras, view: int, codes: Codes) -> tuple[Tensor, Tensor]:
        """Colour [3,H,W] and depth [H,W] (far where nothing is)."""
        rays = cameras.all_rays(view, unit=True)
        rgb, opacity, depth = render_many(lambda r, c: self.model.render(r, c, self.alpha), rays, codes)
        there = depth / opacity.clamp(min=LEAST)
        self.tick()
        return rgb.clamp(0, 1).permute(2, 0, 1).cpu(), torch.where(opacity < 0.5, self.model.far, there).cpu()

    def tick(self) -> None:
        """One more is done."""
        self.done += 1
        self.work.log(self.done, self.total, pictures=float(self.done))


class Moments(NamedTuple):
    """Numbers of photographs: whose instant is frozen, and between whose codes a clip of `pictures` goes."""

    frozen: int
    first: int
    last: int
    pictures: int


def plan(job: Any, opened: Opened) -> Moments:
    """What the options name, before any work."""
    if job.render_poses is not None:
        poses_of(job.render_poses, opened)
    place = opened.cameras.c2w[opened.train, :, 3]
    frozen = opened.train[int((place - place.mean(0)).norm(dim=1).argmin())]  # the camera in the middle
    if job.freeze_time:
        frozen = opened.number(job.freeze_time, "--freeze-time")
    if job.interpolate is None:
        return Moments(frozen, opened.train[0], opened.train[-1], 8)
    *ends, pictures = job.interpolate.split(":")
    first, last = (opened.number(name, "--interpolate") for name in ends)
    return Moments(frozen, first, last, int(pictures))


def write_outputs(
    job: Any, opened: Opened, moments: Moments, model: Portrait, alpha: float, steps: int, work: Work
) -> dict[str, Any]:
    """All files of a run; the metrics, validation first."""
    frozen = moments.frozen
    asked = [] if job.render_poses is None else [poses_of(job.render_poses, opened)]
    total = len(opened.train) + len(opened.test) + 2 * job.orbit + moments.pictures + sum(map(len, asked))
    total += len(instants_of(opened)) if job.meshes == "all" else 0
    draw = Drawer(model, alpha, work, total)
    names = {v: name for views in (opened.train, opened.test) for v, name in zip(
        views, file_names([opened.names[v] for v in views]), strict=True)}  # fmt: skip
    depths = DepthMaps(work)
    metrics, rows, header = _photographs(opened, model, draw, work, names, counted(job, opened), depths)
    _clips(job, opened, moments, model, draw, work)
    for cameras in asked:
        (work.folder / "renders").mkdir(exist_ok=True)
        for i in range(len(cameras)):
            rgb, depth = draw(cameras, i, model.of(frozen))
            write_image(work.folder / "renders" / f"{i:03d}.png", rgb.numpy())
            depths.add(f"renders/{i:03d}", (depth / opened.scale).numpy())
    metrics |= {"steps": steps, "depth_units_per_step": depths.finish()}
    metrics |= stretching(opened, model, alpha, work, names)
    write_meshes(job, opened, model, alpha, work, frozen, draw.tick)
    write_json(work.folder / PLACE, remember(opened.cameras, frozen, model.of(frozen), alpha))
    labels = [names[v] for v in rows]
    tiles = [tile for v in rows for tile in rows[v]]
    with writing(work.folder / "overview.png") as beside:
        beside.write_bytes(contact_sheet(tiles, columns=len(header), header=header, rows=labels, size=160))
    for name in ("interpolation.webp", "playback.webp", "orbit.webp", "overview.png"):
        work.show(name)
    work.note(f"the orbit shows the instant of {Path(opened.names[frozen]).stem}")
    if work.device == "cpu":
        work.note("made on a processor, in minutes and from small pictures: a preview")
    work.note("LPIPS, which the paper reports, is not computed")
    return metrics


def _photographs(
    opened: Opened, model: Portrait, draw: Drawer, work: Work, names: dict[int, str], valid: list[np.ndarray] | None,
    depths: DepthMaps,
) -> tuple[dict[str, Any], dict[int, list[Any]], list[str]]:  # fmt: skip
    """Every photograph drawn with its instant's code and its camera; scores, and rows and head of the overview."""
    scores: dict[str, list[tuple[float | None, float | None]]] = {"train": [], "val": []}
    chosen = opened.test or opened.train
    chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(SHOWN, len(chosen))).round().astype(int)]
    rows: dict[int, list[Any]] = {}
    maps, shown = Maps(work), dict[int, np.ndarray]()
    for folder, views in (("train", opened.train), ("val", opened.test)):
        for v in views:
            stem = names[v]
            rgb, depth = draw(opened.cameras, v, model.of(v))
            truth = opened.images[v].permute(2, 0, 1)
            a, b = (x.permute(1, 2, 0).numpy() for x in (rgb, truth))
            count = None if valid is None else valid[v]
            scores[folder].append((psnr_of(a, b, count), ssim_of(a, b, count)))
            if folder == "train":
                _write_picture(work.folder / "frames" / f"{stem}.png", rgb)
                depths.add(f"depth/{stem}", (depth / opened.scale).numpy())
            else:
                error = (rgb - truth).abs().mean(0, keepdim=True).expand(3, -1, -1)
                error = error if count is None else error * torch.from_numpy(count)
                _write_picture(work.folder / "validation" / f"{stem}.png", torch.cat([rgb, truth, error], 2))
            if v in chosen:
                rows[v] = [truth, rgb, in_colour(depth.numpy(), model.far)]
            if model.warp is not None and (folder == "train" or v in chosen):
                shown[v] = moved(opened, model, v, depth, draw.alpha)
                maps.add(stem if folder == "train" else None, shown[v])
                shown = {k: found for k, found in shown.items() if k in chosen}
    header = ["photograph", "rendered", "depth"]
    if model.warp is not None:
        maps.finish()
        rows = {v: [*tiles, maps.picture(shown[v])] for v, tiles in rows.items()}
        header.append(f"deformation, 0 to {maps.top:g}")
    means = {k: [_mean([pair[i] for pair in s]) for i in range(2)] for k, s in scores.items()}
    return {
        "psnr_validation": means["val"][0], "ssim_validation": means["val"][1], "psnr_train": means["train"][0],
        "ssim_train": means["train"][1], "validation_photographs": len(opened.test), "codes": opened.frames,
    }, rows, header  # fmt: skip


def _clips(job: Any, opened: Opened, moments: Moments, model: Portrait, draw: Drawer, work: Work) -> None:
    """The frozen instant from a swinging camera, all instants from one camera, and from one code to another."""
    frozen, n = moments.frozen, job.orbit
    codes = model.of(frozen)
    path = swing(opened.cameras, frozen, n)
    pictures = [draw(path, i, codes) for i in range(n)]
    orbit = np.stack([rgb.numpy() for rgb, _ in pictures])
    write_animation(work.folder / "orbit", orbit)
    write_animation(work.folder / "orbit.webp", orbit, FPS)
    depths = np.stack([np.moveaxis(in_colour(depth.numpy(), model.far), -1, 0) for _, depth in pictures])
    write_animation(work.folder / "orbit_depth.webp", depths, FPS)
    first = instants_of(opened)
    shown = [first[int(f)] for f in torch.linspace(0, opened.frames - 1, n).round()]
    # One place and one look; what changes is the deformation.
    play = [draw(opened.cameras, frozen, codes._replace(deformation=model.of(v).deformation))[0].numpy() for v in shown]
    write_animation(work.folder / "playback.webp", np.stack(play), FPS)
    a, b = (model.of(v) for v in (moments.first, moments.last))
    shares = torch.linspace(0, 1, moments.pictures).tolist()
    mixed = [draw(opened.cameras, frozen, a.mixed(b, share))[0].numpy() for share in shares]
    write_animation(work.folder / "interpolation.webp", np.stack(mixed), FPS)


def _mean(values: list[float | None]) -> float | None:
    """Of those that there are."""
    there = [x for x in values if x is not None]
    return float(np.mean(there)) if there else None


def _write_picture(file: Path, rgb: Tensor) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_image(file, rgb.numpy())
