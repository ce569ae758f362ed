"""Depth maps as files."""

import io

import numpy as np
from jaxtyping import Float


def depth_bytes(depth: Float[np.ndarray, "h w"]) -> tuple[bytes, bytes]:
    """A .npy of float32 in the units of the depth, and a 16-bit PNG whose 65535 is the largest."""
    from PIL import Image as Pillow

    array, picture = io.BytesIO(), io.BytesIO()
    np.save(array, depth.astype(np.float32))
    values = np.rint(depth / max(float(depth.max()), 1e-9) * 65535).astype(np.uint16)
    Pillow.fromarray(values).save(picture, "PNG")
    return array.getvalue(), picture.getvalue()
