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
