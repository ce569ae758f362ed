"""Which photographs share an appearance code, by the capture's metadata.json.

A capture by one camera has a code of 8 numbers for each `appearance_id`; the paper's validation rig, whose training
photographs come from several cameras, one of 2 numbers for each `camera_id` (§5 and the released settings).  Without
metadata every instant has a code of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from precis.data.captures_json import read_json
from precis.errors import InputError

from .opening import Opened

CODE, CAMERA_CODE = 8, 2


@dataclass(frozen=True)
class Looks:
    """The appearance code of each photograph, how many there are, their length; `rig`: they tell cameras apart."""

    of: list[int]
    count: int
    dim: int
    rig: bool


def looks_of(job: Any, opened: Opened, work: Any) -> Looks:
    """The codes; a photograph that is kept back and whose own code nothing teaches borrows from the training photograph
    of its instant."""
    path = Path(job.input) / "metadata.json"
    data = read_json(path) if path.is_file() and not job.per_frame else {}
    listed = [data.get(name, {}) for name in opened.names]
    cameras = [_number(entry, "camera_id", name, path) for entry, name in zip(listed, opened.names)]
    shown = [_number(entry, "appearance_id", name, path) for entry, name in zip(listed, opened.names)]
    frames = opened.frame.tolist()
    train = opened.train
    rig = all(cameras[v] is not None for v in train) and len({cameras[v] for v in train}) > 1
    keys: list[int | None] = cameras if rig else shown if all(shown[v] is not None for v in train) else frames
    known = {key: i for i, key in enumerate(sorted({keys[v] for v in train}, key=_order))}
    of_instant = {frames[v]: known[keys[v]] for v in reversed(train)}
    found = [known.get(key, of_instant[frame]) for key, frame in zip(keys, frames)]
    if rig:
        work.note(f"the training photographs come from {len(known)} cameras: each has an appearance code of "
                  f"{CAMERA_CODE} numbers, as on the paper's rig")  # fmt: skip
    elif len(known) != opened.frames:
        work.note(f"metadata.json has {len(known)} appearances for {opened.frames} instants: a code for each of both")
    return Looks(found, len(known), CAMERA_CODE if rig else CODE, rig)


def _order(key: int | None) -> int:
    return -1 if key is None else key


def _number(entry: Any, key: str, name: str, path: Path) -> int | None:
    found = entry.get(key) if isinstance(entry, dict) else None
    if found is not None and (isinstance(found, bool) or not isinstance(found, int) or found < 0):
        raise InputError(f"the {key} of {name} must be a whole number from 0 on, and is {found!r}", file=path)
    return found
