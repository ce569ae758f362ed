"""Pixels that count when pictures are compared: all but those that a scene's own masks (`mask_path`) take out."""

from pathlib import Path
from typing import Any

import numpy as np

from precis.data.captures import describe, validity

from .opening import Opened


def counted(job: Any, opened: Opened) -> list[np.ndarray] | None:
    """[H,W] for each photograph; None where the scene has no such masks.  Only --per-frame scenes can."""
    if not job.per_frame:
        return None
    masks = {f.name: f.mask for f in describe(Path(job.input)).frames}
    if not any(masks.get(name) for name in opened.names):
        return None
    return [validity(masks.get(n), tuple(x.shape[:2])) for n, x in zip(opened.names, opened.images)]
