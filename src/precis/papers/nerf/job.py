"""What one can do with a radiance field: learn a scene from photographs with cameras, and look at it from anywhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from typing_extensions import Doc

from precis.papers import Job, Range, Work
from precis.papers.job import Colour

from .numbers import NUMBERS


@dataclass(kw_only=True)
class Reconstruct(Job):
    """Learn a scene from photographs with known cameras; render new views, depth, an orbit, a mesh.

    INPUT: Blender (transforms_train.json), nerfstudio or instant-ngp (transforms.json), LLFF (poses_bounds.npy), COLMAP
    (sparse/0), tiny-nerf (.npz) or Nerfies (dataset.json).
    """

    kinds = ("scene",)
    views = ("orbit",)
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("folder with photographs and cameras: Blender, nerfstudio, instant-ngp, LLFF, COLMAP, Nerfies; or .npz"),
    ] = None

    # How to learn.
    model: Annotated[
        Literal["fast", "vanilla", "tiny"],
        Doc("fast: occupancy grid and feature planes; vanilla: the paper's two networks; tiny: one small network"),
    ] = "fast"
    encoding: Annotated[
        Literal["auto", "planes", "hash", "frequency"], Doc("fast: planes (CPU) or hash (CUDA); else frequency")
    ] = "auto"
    sampling: Annotated[
        Literal["auto", "grid", "proposal"],
        Doc("fast, where photographs show a world without border: a proposal network (auto) or an occupancy grid says "
            "where to look; else a grid"),
    ] = "auto"  # fmt: skip
    steps: Annotated[int | None, Doc("optimiser steps, in place of --minutes; repeatable"), Range(1)] = None
    minutes: Annotated[float | None, Doc("train for so long: 3 on a CPU, 1 on CUDA"), Range(0.001)] = None
    force: Annotated[bool, Doc("vanilla on a CPU, about a minute a step")] = False
    ndc: Annotated[
        bool, Doc("vanilla, tiny: cameras that all look one way (LLFF) in normalised device coordinates")
    ] = False
    density_noise: Annotated[
        float, Doc("vanilla, tiny: standard deviation of noise on raw densities in training; the paper's LLFF: 1"),
        Range(0),
    ] = 0.0
    parity: Annotated[bool, Doc("vanilla: rays through pixel corners, as the released code has them")] = False

    # What is in the photographs.
    downscale: Annotated[int, Doc("average so many pixels a side into one"), Range(1, 64)] = 1
    aabb: Annotated[
        str | None, Doc("box of the scene: x0,y0,z0,x1,y1,z1 in the units of the file's cameras; else known or guessed")
    ] = None
    near: Annotated[float | None, Doc("nearest depth, in the units of the cameras"), Range(0)] = None
    far: Annotated[float | None, Doc("farthest depth"), Range(0)] = None
    background: Annotated[str, Doc("colour behind the scene: a name, or #rrggbb"), Colour()] = "white"
    premultiplied: Annotated[bool, Doc("colours of transparent pixels are multiplied by opacity already")] = False
    masks: Annotated[
        Path | None, Doc("folder of silhouettes named as the photographs, in sub-folders as theirs if names repeat: "
                         "bright is subject")
    ] = None  # fmt: skip
    carve: Annotated[Literal["auto", "off"], Doc("start from the visual hull of silhouettes or opacity")] = "auto"
    test_every: Annotated[int, Doc("keep back every so many-th photograph, where no split is given"), Range(2)] = 8

    # What to make.
    orbit: Annotated[int, Doc("frames of a turn around the scene; 0: none"), Range(0, 1000)] = 60
    render_poses: Annotated[
        Path | None, Doc("render from the cameras of a transforms JSON (no pictures needed) or .npy [n,3|4,4]")
    ] = None
    mesh: Annotated[bool, Doc("write mesh.ply with colours")] = False

    def sample(self, folder: Path) -> str:
        from .samples import make_sample

        return str(make_sample(folder))

    def run(self, work: Work) -> dict[str, float | None]:
        from .running import run_scene

        return run_scene(self, work)

    def view(self, folder: Path, kind: str, at: dict[str, float], size: tuple[int, int]) -> Any:
        """Pixels [3, size[1], size[0]] in 0…1 of the learned scene; size is (width, height).

        "orbit": azimuth and elevation in degrees about the cameras' upward axis; at distance 3 the cameras' own.
        Azimuth 30, elevation 20, where a viewer begins, is on the cameras' side if they have one.
        """
        from .views import orbit

        return orbit(folder, at, size)
