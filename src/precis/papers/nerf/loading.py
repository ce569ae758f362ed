"""The scene of a run: photographs read, poses brought to working units, box, near and far, silhouettes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from precis.data.captures import SceneFiles, read_scene
from precis.data.captures_json import read_box, read_poses
from precis.data.captures_names import cut_out_each
from precis.data.images import SUFFIXES, colour_of
from precis.errors import InputError
from precis.fields.nerf_cameras import Cameras, focus
from precis.papers.job import Work

DISTANCE = 3.0  # mean distance of the cameras from what they look at, in working units
OPEN_DISTANCE, OPEN_FAR = 1.0, 200.0  # the same where photographs show a world without border; and how far it reaches


@dataclass
class Place:
    """A scene in working units: x_working = scale (x_file + shift).

    `box` bounds what is to be learned; `open`: photographs without opacity show a world beyond it, which the fast
    model learns in contracted space, unless --aabb says where the scene ends.
    """

    files: SceneFiles
    cameras: Cameras
    train: list[int]
    test: list[int]
    box: Tensor
    near: float
    far: float
    shift: Tensor
    scale: float
    open: bool
    silhouettes: Tensor | None
    background: np.ndarray

    def back(self, x: Tensor) -> Tensor:
        """Points in the units of the file."""
        return x / self.scale - self.shift


def load(job: Any, work: Work) -> Place:
    """Read INPUT; InputError for what cannot be, notes for what was repaired or guessed."""
    if job.near is not None and job.far is not None and not job.near < job.far:
        raise InputError(f"--near ({job.near:g}) must be below --far ({job.far:g})")
    box = None if job.aabb is None else read_box(job.aabb)
    background = colour_of(job.background)
    files = read_scene(job.input, downscale=job.downscale, premultiplied=job.premultiplied, test_every=job.test_every)
    if job.masks is not None:
        files = cut_out_each(files, job.masks)
    files = replace(files, forward=files.forward or job.ndc)
    for note in files.notes:
        work.note(note)
    if left := without_camera(Path(job.input), files):
        they = "picture beside those that were read has no camera and is" if len(left) == 1 else (
            "pictures beside those that were read have no camera and are")  # fmt: skip
        work.note(f"{len(left)} {they} left out: "
                  f"{', '.join(left[:3])}{', …' if len(left) > 3 else ''}")  # fmt: skip
    train, test = files.views("train"), files.views("test")
    if len(train) < 3:
        raise InputError(f"{len(train)} photographs to learn from; at least 3 are needed", file=job.input)
    c2w = torch.from_numpy(files.c2w).float()
    cameras = Cameras(
        c2w, torch.from_numpy(files.K).float(), torch.from_numpy(files.size),
        distortion=torch.from_numpy(files.distortion).float(), model="fisheye" if files.fisheye else "perspective",
        pixel_center=0.0 if job.parity else 0.5,
    )  # fmt: skip
    place = settled(job, work, files, cameras, train, test, box, background)
    if job.carve == "auto":
        place.silhouettes = silhouettes(files, train, work)
    if not job.ndc:  # its cube takes the place of the box
        looking(work, place)
    return place


def without_camera(source: Path, files: SceneFiles) -> list[str]:
    """Pictures of the scene's folders, below `source`, that no camera names.  Blender's test folders hold depths and
    normals as well, LLFF and Nerfies have a camera for each."""
    if files.format not in ("nerfstudio", "COLMAP"):
        return []
    root, known = source if source.is_dir() else source.parent, {Path(name).stem for name in files.names}
    folders = {(root / "images" / name).parent for name in files.names}
    folders |= {(root / name).parent for name in files.names if len(Path(name).parts) > 1}
    found = [f for folder in folders if folder.is_dir() for f in folder.iterdir() if f.suffix.lower() in SUFFIXES]
    return sorted({f"{f.parent.name}/{f.name}" for f in found if f.stem not in known})


def settled(
    job: Any, work: Work, files: SceneFiles, cameras: Cameras, train: list[int], test: list[int], box: Any,
    background: np.ndarray,
) -> Place:  # fmt: skip
    """Working units, box, near and far."""
    shift, scale = torch.zeros(3), 1.0
    opaque = not files.has_alpha and job.model == "fast" and box is None
    if files.format != "Blender" or opaque:
        shift = -focus(cameras)
        away = float((cameras.c2w[:, :, 3] + shift).norm(dim=1).mean())
        scale = (OPEN_DISTANCE if opaque else DISTANCE) / max(away, 1e-9)
    working = cameras.moved(torch.eye(3), shift, scale)
    given = box if box is not None else files.aabb
    if given is not None:
        found = scale * (torch.as_tensor(np.asarray(given), dtype=torch.float32) + shift)
    else:
        found = torch.tensor([[-1.0] * 3, [1.0] * 3]) * (0.5 * (OPEN_DISTANCE if opaque else DISTANCE))
    if given is None and not opaque and not job.ndc:
        work.note("no box is known: half the cameras' distance around the point that they look at (--aabb says better)")
    reach = (0.05, OPEN_FAR) if opaque else span(working, found)
    near = job.near if job.near is not None else files.near
    far = job.far if job.far is not None else None if opaque else files.far
    low = reach[0] if near is None else near * scale
    high = reach[1] if far is None else far * scale
    if not low < high:
        raise InputError(f"near ({low / scale:g}) must be below far ({high / scale:g})", file=job.input)
    return Place(files, working, train, test, found, low, high, shift, scale, opaque, None, background)


def span(cameras: Cameras, box: Tensor) -> tuple[float, float]:
    """Distances between which all cameras see the box."""
    place = cameras.c2w[:, :, 3]
    outside = (torch.maximum(box[0] - place, place - box[1])).clamp(min=0).norm(dim=1)
    corners = torch.cartesian_prod(*box.T)
    farthest = (corners[None] - place[:, None]).norm(dim=-1).amax(1)
    return max(0.9 * float(outside.min()), 0.02), float(farthest.max())


def silhouettes(files: SceneFiles, train: list[int], work: Work) -> Tensor | None:
    """Where photographs with opacity are not clear; None where they have none or, with a note, differ in size."""
    if not files.has_alpha:
        return None
    if len({files.images[v].shape for v in train}) > 1:
        work.note("the photographs differ in size: no visual hull is made of their silhouettes, and learning begins in "
                  "the whole box")  # fmt: skip
        return None
    return torch.from_numpy(np.stack([files.images[v][..., 3] > 0 for v in train]))


def looking(work: Work, place: Place) -> None:
    """Whether the optical axes meet the box, as they do unless axes were taken for others."""
    from precis.fields.nerf_cameras import Rays
    from precis.fields.nerf_grid import box_span

    c2w = place.cameras.c2w
    first, last = box_span(Rays(c2w[:, :, 3], F.normalize(-c2w[:, :, 2], dim=-1)), place.box)
    share = float((first < last).float().mean())
    if share < 0.9:
        work.note(f"only {share:.0%} of the cameras look at the box: are the poses camera to world, with axes right, "
                  "up, backwards?")  # fmt: skip


def poses_of(path: Path, place: Place) -> Cameras:
    """--render-poses: cameras in working units, with INPUT's first lens."""
    like, matrices = place.cameras, read_poses(path)
    n = len(matrices)
    bent = None if like.distortion is None else like.distortion[:1].expand(n, -1)
    cameras = Cameras(
        torch.from_numpy(matrices).float(), like.K[:1].expand(n, -1), like.size[:1].expand(n, -1),
        distortion=bent, model=like.model, pixel_center=like.pixel_center,
    )  # fmt: skip
    return cameras.moved(torch.eye(3), place.shift, place.scale)
