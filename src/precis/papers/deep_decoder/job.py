"""What one can do with a Deep Decoder: keep a picture as its weights, and restore pictures."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro
from typing_extensions import Doc

from precis.papers import Job, Range, Work
from precis.papers.job import Colour

from .numbers import NUMBERS

Task = Literal["compress", "decompress", "denoise", "superres", "inpaint"]


@dataclass(kw_only=True)
class Decode(Job):
    """Keep a picture as the weights of a small untrained network (.pdd), bring it back, or restore a damaged one.

    Without --task: a .pdd file is decompressed; a picture is inpainted if there is a --mask, enlarged if there is a
    --factor, denoised if there is a --sigma, else compressed.
    """

    kinds = ("image", "name")  # a .pdd code is of no kind that the data readers know
    numbers = NUMBERS

    input: Annotated[str | None, tyro.conf.Positional, Doc("a picture, or a .pdd file (decompress)")] = None
    task: Annotated[Task | None, Doc("what to do; None: by INPUT and the options")] = None

    # How to fit.
    steps: Annotated[
        int | None, Doc("steps of Adam; CPU: compress, superres, inpaint 1,500, denoise 1,000; CUDA: the paper's"),
        Range(1),
    ] = None
    minutes: Annotated[float | None, Doc("stop after so many minutes"), Range(0.001)] = None
    lr: Annotated[float | None, Doc("Adam's rate: 0.01; CUDA: compress 0.005, inpaint 0.0025"), Range(1e-8, 1)] = None
    width: Annotated[int | None, Doc("channels k of the decoder; else by --ratio, --bytes, or the task"),
                     Range(4, 4096)] = None  # fmt: skip
    order: Annotated[Literal["code", "paper", "upsample_last"], Doc("order of the operations in a layer")] = "code"
    size: Annotated[
        int | None, Doc("reduce larger pictures, so that the longest side of what is made is this; "
                        "None: compress 256, CUDA 512; the others reduce nothing"),
        Range(8, 8192),
    ] = None  # fmt: skip
    background: Annotated[str, Doc("colour to lay transparent pixels on"), Colour()] = "white"
    reference: Annotated[Path | None, Doc("denoise, superres, inpaint: the clean picture, to measure against")] = None

    linear: Annotated[
        bool, Doc("denoise, superres, inpaint: fit linear light in place of the stored sRGB values; --sigma then is of "
                  "linear values"),
    ] = False  # fmt: skip
    tile: Annotated[
        int | None,
        Doc("denoise, superres, inpaint: side of the squares that a larger picture is cut into, each with a decoder of "
            "its own; None: 256 on a CPU, 512 on a GPU (up to twice as much where a hole is so large); 0: none"),
        Range(0, 8192),
    ] = None  # fmt: skip

    # Compression.
    ratio: Annotated[float | None, Doc("compress: weights a value of the picture; 0.031"), Range(1e-6, 10)] = None
    rates: Annotated[
        str | None, Doc("compress: several ratios, as in 0.01,0.031,0.125, or auto: a code for each, and PSNR against "
                        "bytes beside JPEG, JPEG 2000 and WebP (rate.png, rate.csv)"),
    ] = None  # fmt: skip
    bytes: Annotated[int | None, Doc("compress: the most bytes of the .pdd file"), Range(1)] = None
    bits: Annotated[Literal[8, 12, 16] | None, Doc("compress: bits a weight; 8")] = None

    # Restoration.
    sigma: Annotated[str | None, Doc("denoise: standard deviation of the noise, of 255, or auto")] = None
    factor: Annotated[Literal[2, 4, 8] | None, Doc("superres: how many times larger; 4")] = None
    mask: Annotated[Path | None, Doc("inpaint: grey picture, white where INPUT is known; else its alpha")] = None
    invert_mask: Annotated[bool, Doc("inpaint: white is unknown in the mask")] = False

    def sample(self, folder: Path) -> str:
        from .options import settle
        from .samples import make_sample

        return str(make_sample(settle(self), self, folder))

    def stem(self, metric: str) -> str:
        """Those of the codes of --rates begin with a width: k12_psnr."""
        return re.sub(r"^k\d+_", "", metric)

    def run(self, work: Work) -> dict[str, float | None]:
        from importlib import import_module

        from .options import MODULES, settle

        task = settle(self)
        self.task = cast(Task, task)
        metrics: dict[str, Any] = getattr(import_module(f"{__package__}.{MODULES[task]}"), f"run_{task}")(self, work)
        return {name: None if value is None else float(value) for name, value in metrics.items()}
