"""A user's recorded 3-D poses, as the 16 points that training wants."""

import warnings
from pathlib import Path

import numpy as np
import torch

from precis.contrastive.prvipe_keypoints import H36M17, STD16_3D, KeypointProfile
from precis.data.poses_3d import Recorded
from precis.data.poses_amass import Performed
from precis.data.poses_mocap import read_mocap
from precis.errors import InputError


def read_recorded(path: Path, frames: int = 1, most: int = 0) -> np.ndarray:
    """`as_clips` of a file; a warning says where its joints are not the recorded person's."""
    found = read_mocap(path)
    if isinstance(found, Performed) and found.note:
        warnings.warn(f"{path}: {found.note}", stacklevel=2)
    return as_clips(found, path, frames, most)


def as_clips(found: Recorded, path: Path, frames: int = 1, most: int = 0) -> np.ndarray:
    """Poses [N, frames, 16, 3] in the order of the recording, evenly thinned to `most`; clips do not overlap."""
    names = found.names or (H36M17.names if found.points.shape[1] == 17 else None)
    if names is None:
        raise InputError(f"{found.points.shape[1]} points without names; 16 or 17 (Human3.6M's) are known, or add an "
                         "array 'names'", file=path)  # fmt: skip
    try:
        points = KeypointProfile(names).pick(torch.from_numpy(found.points), STD16_3D).numpy()
    except ValueError as error:
        raise InputError(str(error), file=path) from None
    clips = points[: len(points) // frames * frames].reshape(-1, frames, 16, 3)
    if len(clips) < 50:
        raise InputError(f"{len(points)} poses; 50 {'poses' if frames == 1 else f'clips of {frames}'} or more are "
                         "wanted", file=path)  # fmt: skip
    if most and len(clips) > most:
        clips = clips[np.linspace(0, len(clips) - 1, most).astype(int)]
    return np.asarray(clips, np.float32)
