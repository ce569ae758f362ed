"""From INPUT to cameras, pixels, codes, and a box around what moves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.captures import SceneFiles, cut_out, describe, read_scene
from precis.data.captures_json import read_box, read_poses
from precis.data.captures_nerfies import instants
from precis.data.images import colour_of
from precis.errors import InputError
from precis.fields.nerf_cameras import Cameras, focus
from precis.fields.nerfies_fit import Pixels

FEWEST = 10
EDGE = 0.1  # of the points' extent, left free around them


@dataclass(frozen=True, eq=False)
class Opened:
    """V photographs: `frame` their codes, `train` and `test` their numbers; near and far along unit rays.

    Lengths are those of INPUT times `scale`, which gives cameras and points a diagonal of about 1.
    """

    names: list[str]
    cameras: Cameras
    images: list[Tensor]  # float [H,W,3]
    pixels: Pixels
    frame: Tensor
    train: list[int]
    test: list[int]
    near: float
    far: float
    box: Tensor
    points: Tensor | None
    background: list[float] | None
    shift: Tensor  # learning works with scale · (x + shift) of the capture's own x
    scale: float

    @property
    def frames(self) -> int:
        return int(self.frame.max()) + 1

    def number(self, name: str, option: str) -> int:
        """Of the photograph of that id."""
        stems = [Path(n).stem for n in self.names]
        for known in (self.names, stems):
            if name in known:
                return known.index(name)
        raise InputError(f"{option}: no photograph is called {name!r}; the first are {', '.join(self.names[:3])}")


def open_capture(job: Any, work: Any) -> Opened:
    """Read the capture and say what it lacks (`work.note`); bad input is an InputError."""
    path = Path(job.input)
    layout = (path / "dataset.json").is_file() and (path / "camera").is_dir()
    if not layout and not job.per_frame:
        words = "is no capture in the Nerfies layout (dataset.json, camera/, rgb/); --per-frame takes other scenes too"
        raise InputError(words, file=path)
    limit = job.size or (400 if work.device.startswith("cuda") else 100)
    given = None if job.aabb is None else read_box(job.aabb)
    colour = colour_of(job.background)
    scene = read_scene(path, downscale=job.downscale or _downscale(path, limit), fewest=FEWEST)
    if job.masks is not None:
        scene = cut_out(scene, job.masks)
    for text in scene.notes:
        work.note(text)
    train, test = scene.views("train"), scene.views("test") + scene.views("val")
    if len(train) < FEWEST:
        raise InputError(f"{len(train)} training photographs; a capture needs at least {FEWEST}", file=path)
    frame, borrowed = instants(scene.time, np.isin(np.arange(len(scene.names)), train))
    if borrowed[test].any():
        work.note(f"{int(borrowed[test].sum())} test photographs have no instant of their own in training: they are "
                  "shown under the nearest training photograph's code")  # fmt: skip
    return _assemble(job, work, path, scene, frame, train, test, given, colour)


def _assemble(
    job: Any, work: Any, path: Path, scene: SceneFiles, frame: np.ndarray, train: list[int], test: list[int],
    given: np.ndarray | None, colour: np.ndarray,
) -> Opened:  # fmt: skip
    cameras = Cameras(
        torch.from_numpy(scene.c2w).float(), torch.from_numpy(scene.K).float(), torch.from_numpy(scene.size),
        distortion=torch.from_numpy(scene.distortion).float() if scene.distortion.any() else None,
        model="fisheye" if scene.fisheye else "perspective",
    )  # fmt: skip
    near, far = job.near or scene.near, job.far or scene.far
    if near is None or far is None:
        raise InputError("the capture does not say where its scene begins and ends: give --near and --far", file=path)
    if not near < far:
        raise InputError(f"--near must be below --far, got {near:g} and {far:g}")
    far *= max(float(cameras.all_rays(v).d.norm(dim=-1).max()) for v in {0, len(cameras) - 1})  # depths to distances
    images, background = _before(scene, colour, work)
    points = None if scene.points is None else torch.from_numpy(np.asarray(scene.points, np.float32))
    shift, scale = _unit(cameras, points)
    if scale != 1 or shift.any():
        work.note(f"lengths are multiplied by {scale:.3g} while learning, and the middle of cameras and points is "
                  "moved to 0, so that they span about 1")  # fmt: skip
        cameras, near, far = cameras.moved(torch.eye(3), shift, scale), near * scale, far * scale
        points = None if points is None else scale * (points + shift)
    if points is None and job.background_weight and job.warp != "none":
        work.note("there are no static points (points.npy): nothing is told to stand still")
    box = _box(cameras, near, far, points) if given is None else scale * (torch.from_numpy(given).float() + shift)
    cameras, device = cameras.to(work.device), work.device
    return Opened(
        scene.names, cameras, images, _pixels(cameras, images, train, scene.valid), torch.from_numpy(frame).to(device),
        train, test, near, far, box.to(device), None if points is None else points.to(device), background, shift,
        scale,
    )  # fmt: skip


def _downscale(path: Path, limit: int) -> int:
    """The least whole factor that brings the first photograph to the limit; of copies that are there, the nearest."""
    from PIL import Image

    there = sorted(int(p.name[:-1]) for p in path.glob("rgb/*x") if p.name[:-1].isdigit())
    first = describe(path, there[0] if there else 1).frames[0]
    if there:
        shape = first.size or (0, 0)
    elif isinstance(first.image, np.ndarray):
        shape = first.image.shape[:2]
    elif isinstance(first.image, Path) and first.image.is_file():
        with Image.open(first.image) as picture:
            shape = picture.size
    else:
        shape = (0, 0)
    wanted = max(1, -(-max(shape) // limit))
    return wanted if not there else next((s for s in there if s >= wanted), there[-1])


def _before(scene: SceneFiles, colour: np.ndarray, work: Any) -> tuple[list[Tensor], list[float] | None]:
    """Pictures in [0, 1]; those with opacity before a colour, which is then what shows where the scene is clear."""
    images = [torch.from_numpy(x).float() / 255 for x in scene.images]
    if not scene.has_alpha:
        return images, None
    work.note("transparent pixels are put before --background")
    behind = torch.from_numpy(colour).float()
    return [x[..., :3] * x[..., 3:] + (1 - x[..., 3:]) * behind for x in images], behind.tolist()


def _unit(cameras: Cameras, points: Tensor | None) -> tuple[Tensor, float]:
    """What brings the middle of cameras and what they look at to 0 and their diagonal to 1, for which the field's bands
    and scales are made; 0 and 1 where it is about so already."""
    there = focus(cameras)[None] if points is None else points
    if points is not None and len(points) >= FEWEST:
        there = torch.quantile(points[:: max(1, len(points) // 100_000)], torch.tensor([0.01, 0.99]), dim=0)
    low, high = torch.cat([cameras.c2w[:, :, 3], there]).aminmax(dim=0)
    span = float((high - low).norm())
    middle = (low + high) / 2
    if 0.5 < span < 2 and float(middle.norm()) < span:
        return torch.zeros(3), 1.0
    return -middle.cpu(), 1.0 if 0.5 < span < 2 else 1 / max(span, 1e-9)


def _pixels(cameras: Cameras, images: list[Tensor], train: list[int], valid: list[np.ndarray] | None) -> Pixels:
    parts = []
    for v in train:
        keep = torch.ones(images[v].shape[:2], dtype=torch.bool) if valid is None else torch.from_numpy(valid[v])
        pix = cameras.pixels(v).cpu()[keep]
        rgb = (images[v][keep] * 255).round().to(torch.uint8)
        parts.append((torch.full((len(pix),), v), pix, rgb))
    view, pix, rgb = (torch.cat(part).to(cameras.c2w.device) for part in zip(*parts, strict=True))
    return Pixels(view, pix, rgb)


def _box(cameras: Cameras, near: float, far: float, points: Tensor | None) -> Tensor:
    """Where there can be matter: between near and far as any camera sees it, but not far beyond the known points."""
    corners = []
    for v in range(len(cameras)):
        w, h = (int(n) for n in cameras.size[v])
        pix = torch.tensor([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]], device=cameras.c2w.device)
        rays = cameras.rays(torch.full((4,), v, device=pix.device), pix, unit=True)
        corners += [rays.o + near * rays.d, rays.o + far * rays.d]
    seen = torch.cat(corners).cpu()
    low, high = seen.amin(0), seen.amax(0)
    if points is not None and len(points) >= FEWEST:
        inner = torch.quantile(points.cpu()[:: max(1, len(points) // 100_000)], torch.tensor([0.01, 0.99]), dim=0)
        middle = focus(cameras).cpu()
        inner = torch.stack([torch.minimum(inner[0], middle), torch.maximum(inner[1], middle)])
        margin = EDGE * (inner[1] - inner[0]).amax()
        low, high = torch.maximum(low, inner[0] - margin), torch.minimum(high, inner[1] + margin)
    return torch.stack([low, high])


def poses_of(path: Path, opened: Opened) -> Cameras:
    """--render-poses: cameras in the lengths of learning, with INPUT's first lens."""
    like, poses = opened.cameras, torch.from_numpy(read_poses(path)).float().to(opened.box.device)
    rows = [0] * len(poses)
    bent = None if like.distortion is None else like.distortion[rows]
    asked = Cameras(poses, like.K[rows], like.size[rows], distortion=bent, model=like.model)
    return asked.moved(torch.eye(3, device=poses.device), opened.shift.to(poses), opened.scale)
