"""A skeleton in Acclaim's format (.asf): bones laid end to end from one root, as CMU and HDM05 give them.

A bone has a direction and a length in the rest pose, and axes of its own, turned by C from the world's.  A frame's
angles M turn it about those axes, so that to its parent it is turned by C M C⁻¹ (`data.poses_acclaim`).
Rotations follow one another in the order in which their axes are named, about axes that stay where they are.
After M. Schafer, *Acclaim Skeleton File Definition V1.10*, 1995.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from precis.data.files import contents
from precis.errors import InputError

MAX_BYTES, MAX_BONES = 8 << 20, 2000
TURNS, SHIFTS = ("rx", "ry", "rz"), ("tx", "ty", "tz")

Line = tuple[int, list[str]]


@dataclass(eq=False)
class Bone:
    """line: where it begins in the file; step [3]: from its start to its end at rest; frame [3,3]: C; dof: its angles
    in the order in which they are given and applied."""

    line: int
    name: str = ""
    step: np.ndarray = field(default_factory=lambda: np.zeros(3))
    frame: np.ndarray = field(default_factory=lambda: np.eye(3))
    dof: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Bones in an order in which parents come first; the first is the root, whose `step` is where it stands at rest.

    parents: of each bone, −1 for the root; unit: by which lengths are to be divided; degrees: whether angles are.
    """

    bones: tuple[Bone, ...]
    parents: tuple[int, ...]
    unit: float
    degrees: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(bone.name for bone in self.bones)


def read_asf(path: str | Path) -> Skeleton:
    """Read a skeleton; InputError says in which line what is wrong."""
    path = Path(path)
    parts = _sections(path)
    unit, degrees = _units(parts.get("units", []), path)
    root = _root(parts["root"], degrees, path)
    bones: dict[str, Bone] = {}
    for number, lines in _blocks(parts["bonedata"], path):
        bone = _bone(number, lines, degrees, path)
        if bone.name in bones or bone.name == "root":
            raise InputError(f"bone '{bone.name}' is there already", file=path, line=number)
        bones[bone.name] = bone
    if len(bones) > MAX_BONES:
        raise InputError(f"more than {MAX_BONES} bones", file=path)
    parent = _parents(parts["hierarchy"], bones, path)
    children: dict[str, list[str]] = {}
    for child, above in parent.items():
        children.setdefault(above, []).append(child)
    order = ["root"]
    for name in order:
        order.extend(children.get(name, []))
    if loose := [bone for name, bone in bones.items() if name not in order]:
        raise InputError(f"bone '{loose[0].name}' does not hang from the root: the hierarchy is to name its parent",
                         file=path, line=loose[0].line)  # fmt: skip
    chain = (root, *(bones[name] for name in order[1:]))
    return Skeleton(chain, (-1, *(order.index(parent[name]) for name in order[1:])), unit, degrees)


def words_of(path: Path, what: str, limit: int) -> Iterator[Line]:
    """Numbered lines as words, without comments and empty lines; brackets and commas are blanks."""
    for number, line in enumerate(contents(path, what, limit).decode("utf-8", "replace").splitlines(), 1):
        if words := re.sub(r"[(),]", " ", line.partition("#")[0]).split():
            yield number, words


def numbers(words: list[str], count: int, what: str, path: Path, line: int) -> np.ndarray:
    """`count` finite numbers, or InputError."""
    try:
        values = np.array(words, float)
    except ValueError:
        values = np.zeros(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        wanted = {0: "no numbers", 1: "a number"}.get(count, f"{count} numbers")
        raise InputError(f"{what}: {wanted} wanted, got '{' '.join(words)[:60]}'", file=path, line=line)
    return values


def turned(angles: np.ndarray, order: str) -> np.ndarray:
    """Rotation matrices [*,3,3] of radians [*,k] about fixed axes, one after another as in `order` ("xyz")."""
    turn = Rotation.from_euler(order, angles.reshape(-1, len(order))).as_matrix()
    return np.asarray(turn.reshape(*angles.shape[:-1], 3, 3))


def _sections(path: Path) -> dict[str, list[Line]]:
    parts: dict[str, list[Line]] = {}
    now: list[Line] = []
    for number, words in words_of(path, "an Acclaim skeleton (.asf)", MAX_BYTES):
        if words[0].startswith(":"):
            now = parts[words[0][1:].lower()] = [(number, words[1:])] if words[1:] else []
        else:
            now.append((number, words))
    if missing := [name for name in ("root", "bonedata", "hierarchy") if name not in parts]:
        raise InputError(f"an Acclaim skeleton (.asf) has a section :{missing[0]}, and here is none", file=path)
    return parts


def _units(lines: list[Line], path: Path) -> tuple[float, bool]:
    unit, degrees = 1.0, True
    for number, (key, *rest) in lines:
        if key == "length":
            unit = float(numbers(rest, 1, "length", path, number)[0])
            if unit <= 0:
                raise InputError(f"the unit of length is to be above 0, got {rest[0]}", file=path, line=number)
        elif key == "angle":
            if rest not in (["deg"], ["rad"]):
                raise InputError(f"angle: deg or rad wanted, got '{' '.join(rest)}'", file=path, line=number)
            degrees = rest == ["deg"]
    return unit, degrees


def _root(lines: list[Line], degrees: bool, path: Path) -> Bone:
    root, given = Bone(0, "root"), {words[0].lower(): (number, words[1:]) for number, words in lines}
    if "order" not in given:
        raise InputError("section :root has no line 'order TX TY TZ RX RY RZ'", file=path)
    number, order = given["order"]
    root.dof = tuple(word.lower() for word in order)
    if len(set(root.dof)) < len(root.dof) or not set(TURNS) <= set(root.dof) <= set(TURNS + SHIFTS):
        raise InputError(f"order: RX, RY, RZ and, if the root moves, TX, TY, TZ wanted, each once, got "
                         f"'{' '.join(order)}'", file=path, line=number)  # fmt: skip
    if "position" in given:
        root.step = numbers(given["position"][1], 3, "position", path, given["position"][0])
    if "orientation" in given:
        number, words = given["orientation"]
        at, axes = given.get("axis", (number, ["XYZ"]))
        root.frame = _frame(numbers(words, 3, "orientation", path, number), axes, degrees, path, at)
    return root


def _blocks(lines: list[Line], path: Path) -> Iterator[tuple[int, list[Line]]]:
    """What stands between `begin` and `end`, with the line of `begin`."""
    block: list[Line] | None = None
    start = 0
    for number, words in lines:
        if words == ["begin"]:
            if block is not None:
                raise InputError(f"the block of line {start} has no 'end'", file=path, line=number)
            start, block = number, []
        elif block is None:
            raise InputError(f"'begin' wanted, got '{' '.join(words)[:60]}'", file=path, line=number)
        elif words == ["end"]:
            yield start, block
            block = None
        else:
            block.append((number, words))
    if block is not None:
        raise InputError("this block has no 'end'", file=path, line=start)


def _bone(start: int, lines: list[Line], degrees: bool, path: Path) -> Bone:
    bone, key, at = Bone(start), "", 0
    given: dict[str, tuple[int, list[str]]] = {}
    for number, words in lines:
        if key == "limits" and re.match(r"[-+.\d]|inf", words[0]):
            given[key][1].extend(words)  # a pair of limits a line
            continue
        key = words[0].lower()
        given[key] = (number, words[1:])
    for key in ("name", "direction", "length"):
        if key not in given:
            raise InputError(f"the bone that begins here has no line '{key}'", file=path, line=start)
    at, words = given["name"]
    if len(words) != 1:
        raise InputError("name: one word wanted", file=path, line=at)
    bone.name = words[0]
    at, words = given["direction"]
    way = numbers(words, 3, "direction", path, at)
    at, words = given["length"]
    length = float(numbers(words, 1, "length", path, at)[0])
    norm = float(np.linalg.norm(way))
    if length < 0 or (norm == 0 and length > 0):
        raise InputError(f"bone '{bone.name}' needs a direction and a length of 0 or more", file=path, line=at)
    bone.step = way / max(norm, 1e-300) * length  # directions are written with few digits
    if "axis" in given:
        at, words = given["axis"]
        bone.frame = _frame(numbers(words[:3], 3, "axis", path, at), words[3:], degrees, path, at)
    if "dof" in given:
        at, words = given["dof"]
        bone.dof = tuple(word.lower() for word in words)
        if len(set(bone.dof)) < len(bone.dof) or not set(bone.dof) <= set(TURNS):
            raise InputError(f"dof: rx, ry and rz are read, each once, got '{' '.join(words)}'", file=path, line=at)
    if "limits" in given:  # of no use here, but a wrong count means that the dof are not what they seem
        at, words = given["limits"]
        if len(words) != 2 * len(bone.dof):
            raise InputError(f"bone '{bone.name}' has {len(bone.dof)} dof and {len(words)} limits; two for each are "
                             "wanted", file=path, line=at)  # fmt: skip
    return bone


def _frame(angles: np.ndarray, order: list[str], degrees: bool, path: Path, line: int) -> np.ndarray:
    axes = "".join(order).lower()
    if sorted(axes) != ["x", "y", "z"]:
        raise InputError(f"axis: the order of three angles wanted, such as XYZ, got '{' '.join(order)}'", file=path,
                         line=line)  # fmt: skip
    by_axis = np.array([angles["xyz".index(axis)] for axis in axes])
    return turned(np.radians(by_axis) if degrees else by_axis, axes)


def _parents(lines: list[Line], bones: dict[str, Bone], path: Path) -> dict[str, str]:
    parent: dict[str, str] = {}
    for _, block in _blocks(lines, path):
        for number, (above, *below) in block:
            for name in (above, *below):
                if name not in bones and (name != "root" or name in below):
                    known = "the root is nobody's child" if name == "root" else "no bone has that name"
                    raise InputError(f"'{name}': {known}", file=path, line=number)
            for name in below:
                if name in parent:
                    raise InputError(f"bone '{name}' hangs from '{parent[name]}' already", file=path, line=number)
                parent[name] = above
    return parent
