"""What JPEG, JPEG 2000 and WebP make of as many bytes as a code has."""

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.nn.image import psnr

FORMS = {"jpeg": "JPEG", "jpeg2000": "JPEG 2000", "webp": "WebP"}


def at_bytes(
    pixels: np.ndarray, most: int, name: str, files: list[bytes] | None = None
) -> tuple[bytes, Tensor] | None:
    """The best file of not more than `most` bytes (else the shortest), and its picture [1,C,H,W]; None: no encoder.

    pixels: uint8 [C,H,W].  name: one of `FORMS`.  files: their `ladder`, where it has been made.
    """
    if name == "jpeg2000":
        best = _jpeg2000(pixels, most)
    else:
        files = files or ladder(pixels, name)
        best = None if files is None else shortest_or_fitting(files, most)
    return None if best is None else (best, decoded(best, len(pixels)))


def ladder(pixels: np.ndarray, name: str) -> list[bytes] | None:
    """A file for every quality of JPEG (1 … 95) or WebP (0 … 100); None where Pillow has no encoder."""
    from PIL import features

    if name == "jpeg":
        return [encoded(pixels, "JPEG", quality=q, optimize=True) for q in range(1, 96)]
    if not features.check("webp"):
        return None
    return [encoded(pixels, "WEBP", quality=q, method=4) for q in range(101)]


def shortest_or_fitting(files: list[bytes], most: int) -> bytes:
    """The longest file of not more than `most` bytes; else the shortest of all."""
    fitting = [file for file in files if len(file) <= most]
    return max(fitting, key=len) if fitting else min(files, key=len)


def jpeg_bytes(pixels: np.ndarray, truth: Tensor, decibel: float | int | None) -> int | None:
    """Bytes of the shortest JPEG that is not worse; None if none is as good."""
    if decibel is None:
        return None
    files = (encoded(pixels, "JPEG", quality=q, optimize=True) for q in range(1, 101))
    good = [len(file) for file in files if float(psnr(decoded(file, len(pixels)), truth)) >= decibel]
    return min(good) if good else None


def encoded(pixels: np.ndarray, form: str, **options: Any) -> bytes:
    from precis.data.images import to_pillow

    out = io.BytesIO()
    to_pillow(pixels).save(out, form, **options)
    return out.getvalue()


def decoded(file: bytes, channels: int) -> Tensor:
    """[1,C,H,W]; of a grey picture one channel, also from WebP, which knows colour only."""
    from precis.data.images import as_float, read_image

    x = torch.from_numpy(as_float(read_image(file).pixels))[None]
    return x if x.shape[1] == channels else x.mean(1, keepdim=True)


def _jpeg2000(pixels: np.ndarray, most: int) -> bytes | None:
    from PIL import features

    if not features.check("jpg_2000"):
        return None
    best = b""
    for slack in (0, 60, 120, 200, 300):  # the rate that is asked for leaves out the headers
        rate = pixels.size / max(most - slack, 16)
        options = {"quality_mode": "rates", "quality_layers": [rate], "irreversible": True, "no_jp2": True}
        best = encoded(pixels, "JPEG2000", **options)
        if len(best) <= most:
            break
    return best
