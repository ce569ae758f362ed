"""Depth maps as pictures."""

import io

import numpy as np
from jaxtyping import Float

STEPS = 65535
KEY = "units_per_step"  # of the text that a picture carries


def depth_picture(depth: Float[np.ndarray, "h w"], step: float) -> bytes:
    """A 16-bit PNG of depth/step, at most 65535; its text `units_per_step` says what a step is worth."""
    from PIL import Image as Pillow
    from PIL.PngImagePlugin import PngInfo

    said, picture = PngInfo(), io.BytesIO()
    said.add_text(KEY, repr(float(step)))
    values = np.rint(depth / step).clip(0, STEPS).astype(np.uint16)
    Pillow.fromarray(values).save(picture, "PNG", pnginfo=said)
    return picture.getvalue()


def depth_bytes(depth: Float[np.ndarray, "h w"]) -> tuple[bytes, bytes]:
    """A .npy of float32 in the units of the depth, and a 16-bit PNG whose 65535 is the largest."""
    array = io.BytesIO()
    np.save(array, depth.astype(np.float32))
    return array.getvalue(), depth_picture(depth, max(float(depth.max()), 1e-9) / STEPS)
