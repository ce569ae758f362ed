"""The scenes of the claims: flatland, the lego scene, a user's own; as views to learn from and views kept back."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from precis.data.captures import SceneFiles, read_scene, subset
from precis.data.scenes3d import Capture, Scene, flatland
from precis.errors import InputError
from precis.fields.nerf_cameras import Cameras
from precis.fields.nerf_fit import Photographs, photographs
from precis.lab.claim import Recorder

WANTED = 100  # pixels a side to which a user's photographs are reduced


def load_place(name: str, size: int, source: Path | None) -> Scene | None:
    """The scene that all seeds share, or None: flatland has one for each seed."""
    if source is not None:
        first = read_scene(source)
        if first.fisheye or first.distortion.any():
            raise InputError("these claims want photographs without lens distortion", file=source)
        factor = max(round(int(first.size.max()) / min(size, WANTED)), 1)
        return scene_of(read_scene(source, downscale=factor), source)
    if name == "flatland":
        return None
    if name == "lego":
        from precis.data.standard import get

        folder = get("lego")
        whole = read_scene(folder)
        return scene_of(read_scene(folder, downscale=max(int(whole.size.max()) // size, 1)), folder)
    raise ValueError(f"there is no scene called {name}")


def scene_of(files: SceneFiles, source: Path) -> Scene:
    """Train and test views as plain arrays; InputError where claims cannot use them."""
    if len({tuple(s) for s in files.size.tolist()}) > 1:
        raise InputError("these claims want photographs of one size", file=source)
    if files.near is None or files.far is None or files.aabb is None:
        raise InputError("near, far and a box are needed: a Blender scene or a COLMAP model with points", file=source)
    if not files.views("test"):
        raise InputError("there are no test views", file=source)

    def part(split: str) -> Capture:
        some = subset(files, files.views(split))
        size = (int(some.size[0, 0]), int(some.size[0, 1]))
        assert some.near is not None and some.far is not None and some.aabb is not None
        return Capture(
            np.stack(some.images), some.c2w.astype(np.float32), some.K.astype(np.float32), size, some.near, some.far,
            some.aabb.astype(np.float32),
        )  # fmt: skip

    return Scene(part("train"), part("test"))


def place_of(seed: int, name: str, size: int, data: Scene | None) -> Scene:
    """The scene of a seed."""
    return data if data is not None else _flatland(seed, size)


@lru_cache(maxsize=4)
def _flatland(seed: int, size: int) -> Scene:
    """Near and far are those of the disc of radius 1.3 in which everything lies, seen from a distance of 4."""
    return Scene(*(replace(views, near=2.7, far=5.3) for views in flatland(seed, size=size)))


def cameras_of(views: Capture, record: Recorder) -> Cameras:
    return Cameras(torch.from_numpy(views.c2w), torch.from_numpy(views.K), views.size).to(record.device)


def photos_of(views: Capture, record: Recorder, order: np.ndarray | None = None) -> Photographs:
    """All pixels; with an `order`, photograph v gets the camera of photograph order[v]."""
    cameras = cameras_of(views, record)
    cameras = cameras if order is None else cameras[order.tolist()]
    return photographs(cameras, torch.from_numpy(views.images))


def specular_share(seed: int, size: int) -> float:
    """The share of flatland's test pixels that its highlight changes by more than 0.02."""
    with_it, without = (flatland(seed, size=size, specular=s).test.rgb() for s in (True, False))
    return float((np.abs(with_it - without).max(-1) > 0.02).mean())
