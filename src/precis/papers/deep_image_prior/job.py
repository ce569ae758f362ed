"""What one can do with a deep image prior: restore one picture, with nothing but that picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro
from typing_extensions import Doc

from precis.papers import Job, Range, Work

from .numbers import NUMBERS

Task = Literal["denoise", "jpeg", "superres", "inpaint", "flash", "invert", "curves"]


@dataclass(kw_only=True)
class Restore(Job):
    """Restore a picture with an untrained network: noise, JPEG, low resolution, holes, flash; or invert features.

    Without --task: --mask means inpaint, --factor superres, --flash flash, --model or --layer invert; else denoise.
    """

    kinds = ("image",)
    numbers = NUMBERS
    companion = clean = None  # beside a built-in sample: the picture with flash, the reference

    input: Annotated[str | None, tyro.conf.Positional, Doc("the picture to restore")] = None
    task: Annotated[Task | None, Doc("what is wrong with it; None: by the options, else denoise")] = None

    # What was measured.
    sigma: Annotated[str, Doc("denoise: the noise's deviation on the scale 0…255, or auto: estimated; where to stop, "
                               "how many steps there are, and the noise on the input follow it")] = "auto"  # fmt: skip
    factor: Annotated[int | None, Doc("superres: how many times larger: 2, 4 or 8; 4")] = None
    mask: Annotated[Path | None, Doc("inpaint: grey picture, white known; None: transparent pixels are unknown")] = None
    invert_mask: Annotated[bool, Doc("inpaint: white is unknown")] = False
    hole: Annotated[
        Literal["auto", "pixels", "text", "large"],
        Doc("inpaint: single pixels, text and scratches, or large regions; auto: by the mask"),
    ] = "auto"
    flash: Annotated[Path | None, Doc("flash: the picture with flash; INPUT is the one without")] = None
    model: Annotated[
        str | None, Doc("invert: the network, as file.py:build, pkg.mod:build, TorchScript or exported program; "
                        "naming a function runs its code; None: a small random one")
    ] = None  # fmt: skip
    weights: Annotated[Path | None, Doc("invert: weights for --model")] = None
    layer: Annotated[str | None, Doc("invert: the layer; None: the one in the middle")] = None
    reference: Annotated[Path | None, Doc("the clean picture, to score all results against")] = None

    # How to fit.
    size: Annotated[
        Literal["small", "middle", "paper"] | None,
        Doc("network: small 4 scales × 32 channels, middle 5 × 64, paper 5 × 128; None: small on a CPU, else paper"),
    ] = None
    steps: Annotated[
        int | None, Doc("steps of Adam at the most; None: the paper's for --size paper, else fewer"), Range(1)
    ] = None
    minutes: Annotated[float | None, Doc("stop after so many minutes"), Range(0.001)] = None
    lr: Annotated[float | None, Doc("Adam's rate; 0.01, flash 0.1, invert and (--size paper) single pixels 0.001"),
                  Range(1e-8, 1.0)] = None  # fmt: skip
    stop: Annotated[
        Literal["noise", "variance", "steps"] | None,
        Doc("noise: where the misfit is as large as --sigma (denoise); variance: where the outputs vary least; "
            "steps: after all steps (the others)"),
    ] = None
    linear: Annotated[
        bool, Doc("fit linear light in place of the stored sRGB values (not invert, curves); --sigma then refers to it")
    ] = False
    runs: Annotated[int, Doc("fits from other initial weights whose results are averaged"), Range(1, 16)] = 1
    tile: Annotated[
        int | None,
        Doc("side of the squares that a larger picture is cut into; None: 256 on a CPU, 1024 on a GPU (up to twice as "
            "much where a hole is so large); 0: none"),
        Range(0, 8192),
    ] = None  # fmt: skip

    def sample(self, folder: Path) -> str:
        from .options import settle
        from .samples import make_sample

        return make_sample(self, settle(self), folder)

    def run(self, work: Work) -> dict[str, float | None]:
        from importlib import import_module

        from .options import TASKS, settle

        task = settle(self)
        self.task = cast(Task, task)
        module = import_module(f"{__package__}.{TASKS[task].module}")
        metrics: dict[str, Any] = getattr(module, f"run_{task}")(self, work)
        return {name: None if value is None else float(value) for name, value in metrics.items()}
