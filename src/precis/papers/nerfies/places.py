"""The scenes of the claims: made ones that move, and a user's capture."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np

from precis.data.scenes3d import Capture, capture, capture_occupied, flatland, flatland_occupied, flatland_world
from precis.errors import InputError

from .opening import Opened, open_capture


@dataclass(frozen=True)
class Moving:
    """A scene that moves and how long it is learned; `turn` in degrees (None: the scene's own)."""

    scene: Literal["flatland", "bust"]
    frames: int
    size: int
    steps: int
    rays: int
    samples: int
    test_samples: int
    lr: float
    warp_lr: float
    code_lr: float
    template: Literal["tiny", "planes", "vanilla"] = "tiny"
    unit: float = 5.0  # of the tiny template: scenes of diagonal 1 are to it what NeRF's of 5 are
    bands: int = 4
    depth: int = 4
    width: int = 64
    elastic: float = 0.01
    background_points: int = 256
    grid: int = 128
    turn: float | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """Views to learn from, views to score; occupied(x [P,3]) -> bool [frames, P], None where nobody knows."""

    train: Capture
    test: Capture
    occupied: Callable[[np.ndarray], np.ndarray] | None
    background: float | None


def scene_of(seed: int, s: Moving, data: Scored | None) -> Scored:
    """The scene of a seed: the user's, or a made one."""
    return made_scene(seed, s) if data is None else data


def made_scene(seed: int, s: Moving) -> Scored:
    """The made scene of a seed."""
    if s.scene == "flatland":
        turn = 12.0 if s.turn is None else s.turn
        world = flatland_world(seed, s.frames, True, turn=turn)
        views = flatland(seed, s.frames, True, s.size, turn=turn)
        return Scored(*views, lambda x: flatland_occupied(world, x, s.frames), 1.0)
    turn = 14.0 if s.turn is None else s.turn
    views = capture("moving", s.frames, s.size, seed, turn=turn)
    return Scored(*views, lambda x: capture_occupied("moving", s.frames, seed, x, turn=turn), None)


def read_moving(source: Path, size: int) -> Scored:
    """A capture as the job reads it; InputError where the claims cannot use it."""
    layout = (source / "dataset.json").is_file()
    job = SimpleNamespace(input=str(source), per_frame=not layout, downscale=None, size=size, near=None, far=None,
                          aabb=None, background="white", masks=None, background_weight=0.0, warp="se3")  # fmt: skip
    opened = open_capture(job, SimpleNamespace(device="cpu", note=lambda text: None))
    if opened.cameras.distortion is not None or not opened.cameras.uniform:
        raise InputError("these claims want photographs of one size, without lens distortion", file=source)
    if not opened.test:
        raise InputError("there are no photographs that are kept back (val_ids)", file=source)
    return Scored(_views(opened, opened.train), _views(opened, opened.test), None, 1.0 if opened.background else None)


def _views(opened: Opened, rows: list[int]) -> Capture:
    cameras = opened.cameras
    images = np.stack([np.rint(opened.images[v].numpy() * 255).astype(np.uint8) for v in rows])
    width, height = (int(n) for n in cameras.size[0])
    points = None if opened.points is None else opened.points.numpy()
    return Capture(
        images, cameras.c2w[rows].numpy(), cameras.K[rows].numpy(), (width, height), opened.near, opened.far,
        opened.box.numpy(), frame=opened.frame[rows].numpy(), static_points=points,
    )  # fmt: skip
