"""Motion capture in AMASS's format: SMPL parameters of every frame in an .npz file.

`poses` [T, 72, 156 or 165] are rotation vectors of SMPL's, SMPL-H's or SMPL-X's joints, radians, the first that of the
whole body; `trans` [T,3] metres; `betas` [B] the person's shape; `mocap_framerate` in Hz.  z is up, as in all of AMASS.
The file holds no joints: those of the recorded person need an SMPL body, whose licence does not let it be shipped.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from precis.data.files import existing
from precis.data.kinematics import forward
from precis.data.poses import JOINTS16
from precis.data.poses_3d import Recorded
from precis.data.poses_smpl import NAMES, PARENTS, Body, _finite, read_body, read_some, template
from precis.errors import InputError

WANTED = "AMASS's .npz (poses, trans, betas, mocap_framerate)"
BESIDE = "smpl.npz"
WIDTHS, MAX_FRAMES = (72, 156, 165), 500_000  # 24, 52 and 55 joints; more than an hour at 120 Hz


@dataclass(frozen=True, eq=False)
class Performed(Recorded):
    """exact: the joints are the recorded person's; note: one sentence on them where they are not, or not quite."""

    exact: bool = True
    note: str = ""


def is_amass(path: str | Path) -> bool:
    """Whether it is an .npz file with SMPL parameters, by the names of its arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"poses.npy", "trans.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_amass(path: str | Path, body: str | Path | None = None, *, fps: float | int | None = None) -> Performed:
    """Joints [T,16,3] in the order of `JOINTS16`, metres, z up.

    body: an SMPL body as .npz (`data.poses_smpl.read_body`); None: `smpl.npz` beside the recording, and where there is
    none a template skeleton, which `exact` and `note` say.  The head is SMPL's joint of that name, of the template the
    nose.  fps: about so many frames a second, by leaving out frames alike; None: every frame.
    """
    path = existing(path, WANTED)
    found = read_some(path, ("poses", "trans", "betas", "mocap_framerate", "mocap_frame_rate"), WANTED)
    poses, trans, betas = (_array(found, name, path) for name in ("poses", "trans", "betas"))
    if poses.ndim != 2 or poses.shape[1] not in WIDTHS or not len(poses):
        raise InputError(f"poses are to be [T, {', '.join(map(str, WIDTHS[:-1]))} or {WIDTHS[-1]}]; got "
                         f"{list(poses.shape)}", file=path)  # fmt: skip
    if trans.shape != (len(poses), 3):
        raise InputError(f"trans is to be [{len(poses)}, 3], as poses has so many frames; got {list(trans.shape)}",
                         file=path)  # fmt: skip
    betas = betas[0] if betas.ndim == 2 and len(betas) == 1 else betas
    if betas.ndim != 1:
        raise InputError(f"betas is to be [B], one shape for all frames; got {list(betas.shape)}", file=path)
    every = 1 if fps is None else _every(found, fps, path)
    poses, trans = poses[::every], trans[::every]
    if len(poses) > MAX_FRAMES:
        raise InputError(f"{len(poses):,} frames, more than {MAX_FRAMES:,}: cut the recording", file=path)
    beside = path.with_name(BESIDE)
    if body is None and beside.is_file():
        body = beside
    shape = template() if body is None else read_body(body, betas)
    return Performed(_joints(shape, poses, trans), JOINTS16, shape.exact, shape.note)


def _joints(body: Body, poses: np.ndarray, trans: np.ndarray) -> np.ndarray:
    vectors = poses.reshape(len(poses), -1, 3)[:, : len(NAMES)].swapaxes(0, 1)
    turns = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(*vectors.shape[:2], 3, 3)
    steps = body.rest - body.rest[[0, *PARENTS[1:]]]
    place, frame = forward(PARENTS, steps, turns, body.rest[0] + trans)
    head = NAMES.index("head")
    place[head] += frame[head] @ body.nose
    return place[[NAMES.index(name) for name in JOINTS16]].swapaxes(0, 1)


def _array(found: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in found:
        raise InputError(f"no array '{name}' in it; {WANTED} is wanted", file=path)
    return _finite(found[name], path, name)


def _every(found: dict[str, np.ndarray], fps: float | int, path: Path) -> int:
    rate = next((found[name] for name in ("mocap_framerate", "mocap_frame_rate") if name in found), None)
    if rate is None or rate.size != 1 or not float(rate.item()) > 0:
        raise InputError("it says no 'mocap_framerate' above 0 Hz, from which frames would be left out", file=path)
    if not fps > 0:
        raise InputError(f"fps is to be above 0; got {fps}")
    return max(1, round(float(rate.item()) / fps))
