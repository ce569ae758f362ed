"""Motion capture of any kind that is read here: BVH, arrays of joints, Acclaim's .asf and .amc, AMASS's .npz."""

from pathlib import Path

from precis.data.poses_3d import Recorded, read_3d
from precis.data.poses_acclaim import read_asf_amc
from precis.data.poses_amass import is_amass, read_amass
from precis.errors import InputError


def read_mocap(path: str | Path, body: str | Path | None = None) -> Recorded:
    """Joints of every frame, z up; body: for AMASS, an SMPL body as .npz (`data.poses_amass.read_amass`)."""
    path = Path(path)
    if is_amass(path):
        return read_amass(path, body)
    if body is not None:
        raise InputError("an SMPL body is for AMASS's .npz files, which have poses and trans", file=path)
    return read_asf_amc(path) if path.suffix.lower() in (".asf", ".amc") else read_3d(path)
