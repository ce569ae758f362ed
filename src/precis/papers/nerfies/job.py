"""What one can do with a deformable radiance field: bring a capture of something that moves to life."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from typing_extensions import Doc

from precis.errors import InputError
from precis.papers import Job, Range, Work
from precis.papers.job import Colour

from .numbers import NUMBERS


@dataclass(kw_only=True)
class Reconstruct(Job):
    """Learn a scene that moves from posed photographs, and look at any instant from anywhere.

    On a processor it is a preview: photographs of at most 100 pixels, four minutes.  The same command on a GPU takes
    larger ones and, with --template vanilla, the paper's network.
    """

    kinds = ("scene",)
    views = ("orbit",)
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("capture in the Nerfies layout (dataset.json, camera/, rgb/), or with --per-frame any scene of `nerf`"),
    ] = None
    per_frame: Annotated[bool, Doc("any posed photographs: a code each, or one a `time` where they have it")] = False
    downscale: Annotated[int | None, Doc("use photographs of 1/N size (rgb/Nx); else as --size asks"), Range(1)] = None
    size: Annotated[int | None, Doc("longest side that is worked at, at most: 100, CUDA 400"), Range(8, 4096)] = None
    near: Annotated[float | None, Doc("where rays begin; else as the capture says"), Range(1e-6)] = None
    far: Annotated[float | None, Doc("where rays end; else as the capture says"), Range(1e-6)] = None

    aabb: Annotated[
        str | None, Doc("box of the scene: x0,y0,z0,x1,y1,z1 in the units of INPUT; else from what cameras see")
    ] = None
    background: Annotated[str, Doc("colour behind transparent pixels: a name, or #rrggbb"), Colour()] = "white"
    masks: Annotated[Path | None, Doc("folder of masks named as the photographs: dark is made transparent")] = None
    carve: Annotated[
        Literal["auto", "off"], Doc("with --masks: learn only in the space that some instant's silhouettes leave")
    ] = "auto"

    # How to fit.
    steps: Annotated[int | None, Doc("steps of Adam; else as many as --minutes allow"), Range(1)] = None
    minutes: Annotated[float | None, Doc("stop after so many minutes: 4, CUDA 10"), Range(0.001)] = None
    template: Annotated[Literal["fast", "vanilla"], Doc("canonical scene: planes, or the paper's network")] = "fast"
    warp: Annotated[Literal["se3", "translation", "none"], Doc("deformation field; none: a static scene")] = "se3"
    bands: Annotated[int | None, Doc("frequency bands of the field, opened one by one: 4, vanilla 8"),
                     Range(0, 16)] = None  # fmt: skip
    elastic: Annotated[
        float | None, Doc("weight λ of the elastic term: 0.01, for a rig of several cameras 0.001"), Range(0)
    ] = None
    elastic_schedule: Annotated[
        Literal["auto", "constant", "cosine"],
        Doc("cosine: λ is held for a fifth of the run, and 1e-8 after three fifths; auto: cosine, for a rig constant"),
    ] = "auto"
    background_weight: Annotated[float, Doc("weight μ of the term for static points"), Range(0)] = 1.0
    rays: Annotated[int | None, Doc("pixels a step: 512, CUDA 4,096"), Range(16)] = None

    # What to make.
    freeze_time: Annotated[
        str | None, Doc("id of the photograph whose instant the orbit shows; that of the middlemost camera")
    ] = None
    orbit: Annotated[int, Doc("pictures of the orbit and of the playback"), Range(2, 1000)] = 16
    interpolate: Annotated[
        str | None, Doc("A:B:N: N pictures between the instants of photographs A and B; the two ends of the capture")
    ] = None
    render_poses: Annotated[
        Path | None, Doc("the frozen instant from the cameras of a transforms JSON or .npy [n,3|4,4]")
    ] = None
    meshes: Annotated[
        Literal["frozen", "all"], Doc("surfaces of the canonical scene and the frozen instant, or of every instant too")
    ] = "frozen"
    mesh_resolution: Annotated[int | None, Doc("cells a side of the meshes: 64, CUDA 192"), Range(8, 1024)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = None if self.interpolate is None else self.interpolate.split(":")
        if parts is not None and (len(parts) != 3 or not parts[2].isdecimal() or int(parts[2]) < 2):
            raise InputError(f"--interpolate must be A:B:N, two ids and a number from 2, got {self.interpolate!r}")

    def sample(self, folder: Path) -> str:
        from precis.data.captures_nerfies import write_nerfies
        from precis.data.scenes3d import capture

        return str(write_nerfies(folder / "bust", capture("moving", 24, 56, seed=0)))

    def run(self, work: Work) -> dict[str, float | None]:
        from precis.data.captures_names import share_stems

        from .covering import tell_of_the_box
        from .opening import open_capture
        from .outputs import plan, write_outputs
        from .training import train

        opened = open_capture(self, work)
        tell_of_the_box(opened, work)
        if self.masks is not None and share_stems(opened.names):
            raise InputError("photographs share names, by which masks are found: give them names of their own",
                             file=self.input)  # fmt: skip
        moments = plan(self, opened)  # what is wrong with the options is said before the training
        portrait, alpha, steps = train(self, opened, work)
        metrics: dict[str, Any] = write_outputs(self, opened, moments, portrait, alpha, steps, work)
        return {name: None if value is None else float(value) for name, value in metrics.items()}

    def view(self, folder: Path, kind: str, at: dict[str, float], size: tuple[int, int]) -> Any:
        """Pixels [3, size[1], size[0]] in 0…1 at the frozen instant; size is (width, height).

        Azimuth 30, elevation 20 (degrees), distance 3, where a viewer begins, is the place of that instant's
        photograph: others are turned from there about what the cameras look at, so many thirds of its distance away.
        """
        from .views import orbit

        return orbit(folder, at, size)
