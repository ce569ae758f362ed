"""What one can do with a SIREN: fit signals, blend pictures, find surfaces, solve equations, learn a prior."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro
from typing_extensions import Doc

from precis.papers import Job, Range, Work
from precis.papers.job import Colour

from .numbers import NUMBERS

Task = Literal["fit", "resample", "poisson", "blend", "sdf", "audio", "video", "helmholtz", "wave", "prior"]


@dataclass(kw_only=True)
class Represent(Job):
    """Fit a SIREN to a picture, sound, clip, shape or wave equation, and use the function that it has become.

    Without --task: a picture is fitted (--blend: blended, --scale: resampled, --from: rebuilt from its derivatives), a
    WAV file is audio, a GIF or a folder of frames video, oriented points sdf.  A folder of pictures needs --task prior.
    """

    companion = None  # the second picture of a built-in pair
    kinds = ("image", "images", "frames", "audio", "points")
    views = ("zoom", "orbit")
    numbers = NUMBERS

    input: Annotated[
        str | None, tyro.conf.Positional,
        Doc("picture, WAV, frames, oriented points (.xyz, .ply, .npy), grey map (helmholtz, wave) or folder (prior)"),
    ] = None
    task: Annotated[Task | None, Doc("what to do; None: by the kind of INPUT")] = None

    # How to fit.
    steps: Annotated[
        int | None,
        Doc("steps of Adam: 1,000; sdf 1,500; resample, video 2,000; helmholtz, wave 3,000; prior 4,000"), Range(1),
    ] = None
    minutes: Annotated[float | None, Doc("stop after so many minutes; rates fall in time"), Range(0.001)] = None
    lr: Annotated[
        float | None,
        Doc("Adam's rate at the start: 1e-3; prior 5e-4; poisson, blend, audio, helmholtz, wave 2e-4; sdf 1e-4"),
        Range(1e-8, 1.0),
    ] = None
    batch: Annotated[
        int | None,
        Doc("coordinates a step: 4096; sdf: points on the surface, 1400; wave, helmholtz 2048; prior: pictures, 32"),
        Range(1),
    ] = None
    width: Annotated[int | None, Doc("units a layer: 256; CPU: wave, helmholtz 128, prior 64"), Range(1, 8192)] = None
    omega: Annotated[
        float | None, Doc("ω of the first layer, the band of the signal: 30; sdf 10, helmholtz 15, audio 3,000"),
        Range(0.01, 1e6),
    ] = None

    # Pictures.
    size: Annotated[
        str | None,
        Doc("N: longest side to work at, larger pictures are reduced (256 on a CPU, 1024 on CUDA; resample twice that; "
            "video 64, 256); prior: side of the pictures, 32; helmholtz, wave: side of what is drawn, 256; "
            "WxH: resample to W×H pixels"),
    ] = None  # fmt: skip
    scale: Annotated[float | None, Doc("resample: factor to the working size, such as 2.5"), Range(0.01, 64)] = None
    align_corners: Annotated[bool, Doc("outermost pixels at ±1, as the released code; else pixel centres inside")] = (
        False
    )
    linear: Annotated[bool, Doc("fit linear light in place of the stored sRGB values")] = False
    background: Annotated[
        str | None, Doc("colour to lay transparent pixels on; else alpha is one more output"), Colour()
    ] = None
    from_: Annotated[
        Literal["gradient", "laplacian"] | None, tyro.conf.arg(name="from"), Doc("poisson: what is known; gradient")
    ] = None
    blend: Annotated[Path | None, Doc("blend: the second picture")] = None
    alpha: Annotated[float | None, Doc("blend: weight of INPUT's gradient, 0.5"), Range(0, 1)] = None
    rule: Annotated[Literal["mean", "max"] | None, Doc("blend: mean of the gradients, or the longer; mean")] = None
    mask: Annotated[Path | None, Doc("blend: grey picture, white where to blend; black keeps INPUT")] = None
    resize: Annotated[bool, Doc("blend: bring the second picture to the size of INPUT")] = False

    # Sound and clips.
    rate: Annotated[int | None, Doc("audio: write the sound at this rate too"), Range(100, 768_000)] = None
    fps: Annotated[float | None, Doc("video: frames a second of the result; as INPUT, or 25"), Range(0.1, 1000)] = None

    # Shapes.
    estimate_normals: Annotated[bool, Doc("sdf: normals from 16 neighbours, signs along a spanning tree")] = False
    mesh_resolution: Annotated[int | None, Doc("sdf: cells a side for the mesh, 96; CUDA 256"), Range(8, 1024)] = None

    # Equations.
    velocity: Annotated[Path | None, Doc("helmholtz: grey map of the speed, in place of INPUT")] = None
    speeds: Annotated[str | None, Doc("speeds of black,white: wave 0.5,2 half-widths a second; helmholtz 0.5,1")] = None
    wavenumber: Annotated[float | None, Doc("helmholtz: k where the speed is 1; 20"), Range(0.1, 200)] = None
    initial: Annotated[Path | None, Doc("wave: grey picture of the first displacement, black 0")] = None
    source: Annotated[str | None, Doc("helmholtz, wave: centre X,Y of the source in -1…1, x right, y down; 0,0")] = None
    source_width: Annotated[
        float | None, Doc("standard deviation of the source: helmholtz 0.06 (paper 0.01: many more steps), wave 0.1"),
        Range(0.003, 0.5),
    ] = None
    until: Annotated[float | None, Doc("wave: seconds to solve for; 0.4"), Range(1e-3, 100)] = None

    # Prior.
    complete: Annotated[Path | None, Doc("prior: picture to complete; else held-out ones")] = None
    context: Annotated[str | None, Doc("prior: pixels to complete from, a number or a mask picture; 100")] = None
    samples: Annotated[int | None, tyro.conf.arg(name="sample"), Doc("prior: functions to draw; 16"),
                       Range(1, 400)] = None  # fmt: skip
    interpolate: Annotated[str | None, Doc("prior: pictures A,B to go between; else two held-out ones")] = None
    render: Annotated[int | None, Doc("prior: drawn functions on a grid so many times finer; 3"), Range(1, 32)] = None

    def sample(self, folder: Path) -> str:
        from .options import settle
        from .samples import make_sample, second_picture

        task = settle(self)
        if task == "blend" and self.blend is None:
            self.companion = second_picture(folder)  # type: ignore[assignment]
        return str(self.velocity or make_sample(task, folder))

    def run(self, work: Work) -> dict[str, float | None]:
        from importlib import import_module

        from .options import TASKS, settle

        task = settle(self)
        self.task = cast(Task, task)
        module = import_module(f"{__package__}.{TASKS[task].module}")
        metrics: dict[str, Any] = getattr(module, f"run_{task}")(self, work)
        return {name: None if value is None else float(value) for name, value in metrics.items()}

    def stem(self, metric: str) -> str:
        """A prior's errors hold how many pixels were shown: mse_100, mse_100_knn."""
        return re.sub(r"^mse_\d+", "mse_n", metric)

    def view(self, folder: Path, kind: str, at: dict[str, float], size: tuple[int, int]) -> Any:
        """Pixels [C, size[1], size[0]] in 0…1 of the saved function; size is (width, height).

        "zoom" (pictures): the window x0 … x1, y0 … y1 in shares of the width and height.  "orbit" (sdf): from azimuth
        and elevation in degrees, at a distance in half-widths of the box that holds the shape.
        """
        from .views import orbit, zoom

        return {"zoom": zoom, "orbit": orbit}[kind](folder, at, size)
