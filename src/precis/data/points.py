"""Point clouds with normals from .xyz, .ply and .npy; meshes to .ply."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from precis.data.arrays import read_arrays
from precis.data.files import contents, existing, whole
from precis.errors import InputError

WANTED = "points as .xyz (x y z nx ny nz), .ply or .npy [N,6]"
_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


Element = tuple[str, int, list[tuple[str, str]]]  # name, count, (property, type)


class Points(NamedTuple):
    """`points` float64 [N,3] in the file's units; `normals` unit vectors [N,3], or None if the file has none."""

    points: Float64[np.ndarray, "n 3"]
    normals: Float64[np.ndarray, "n 3"] | None


def read_points(path: str | Path) -> Points:
    """Read a cloud; InputError names the line (.xyz, ASCII .ply) or row of a value that is wrong.

    Three columns give points without normals.  Normals are scaled to length 1; a zero normal is an error.
    """
    path = existing(path, WANTED)
    with path.open("rb") as file:
        head = file.read(6)
    if re.match(rb"ply\r?\n", head):
        columns = _read_ply(path)
    elif head == b"\x93NUMPY":
        columns = read_arrays(path, WANTED)[""]
        if columns.ndim != 2 or columns.dtype.kind not in "fiu":
            raise InputError(f"an array {list(columns.shape)} of {columns.dtype}; [N,6] numbers are wanted", file=path)
    else:
        columns = _read_xyz(path)
    return _checked(np.asarray(columns, np.float64), path)


def write_ply(
    path: str | Path, vertices: np.ndarray, faces: np.ndarray | None = None, *,
    normals: np.ndarray | None = None, colours: np.ndarray | None = None,
) -> Path:  # fmt: skip
    """A binary little-endian PLY: vertices [V,3] (float32), triangles [F,3], normals [V,3], colours uint8 [V,3]."""
    path, vertices = Path(path), np.asarray(vertices, np.float32)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"vertices are [V,3], got {list(vertices.shape)}")
    layout, header = [("p", "<f4", 3)], ["property float x", "property float y", "property float z"]
    if normals is not None:
        layout.append(("n", "<f4", 3))
        header += [f"property float n{axis}" for axis in "xyz"]
    if colours is not None:
        layout.append(("c", "u1", 3))
        header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    body = np.empty(len(vertices), layout)
    body["p"] = vertices
    for key, values in (("n", normals), ("c", colours)):
        if values is not None:
            body[key] = values
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}", *header]
    triangles = np.empty(0, [("k", "u1"), ("i", "<i4", 3)])
    if faces is not None:
        faces = np.asarray(faces)
        inside = faces.size == 0 or 0 <= faces.min() <= faces.max() < len(vertices)
        if faces.ndim != 2 or faces.shape[1] != 3 or not inside:
            raise ValueError("faces are [F,3] indices of vertices")
        triangles = np.empty(len(faces), triangles.dtype)
        triangles["k"], triangles["i"] = 3, faces
        lines += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    with whole(path) as beside, beside.open("wb") as file:
        file.write(("\n".join([*lines, "end_header"]) + "\n").encode())
        file.write(body.tobytes())
        file.write(triangles.tobytes())
    return path


def _read_xyz(path: Path) -> np.ndarray:
    try:
        lines = contents(path, WANTED).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"this is no text; {WANTED} is wanted", file=path) from error
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        cells = line.split("#", 1)[0].replace(",", " ").split()
        if not cells:
            continue
        try:
            row = [float(cell) for cell in cells]
        except ValueError as error:
            raise InputError(f"{str(error).rpartition(': ')[2]} is not a number", file=path, line=number) from error
        if rows and len(row) != len(rows[0]):
            raise InputError(f"{len(row)} numbers where the first line has {len(rows[0])}", file=path, line=number)
        rows.append(row)
    if not rows:
        raise InputError(f"there is no point in it; {WANTED} is wanted", file=path)
    return np.array(rows)


def _checked(columns: np.ndarray, path: Path) -> Points:
    if columns.shape[1] not in (3, 6):
        raise InputError(f"{columns.shape[1]} columns; x y z nx ny nz (6) or x y z (3) are wanted", file=path)
    if len(columns) == 0:
        raise InputError("there is no point in it", file=path)
    bad = np.argwhere(~np.isfinite(columns))
    if len(bad):
        row, name = int(bad[0][0]) + 1, ("x", "y", "z", "nx", "ny", "nz")[bad[0][1]]
        raise InputError(f"{name} is {columns[tuple(bad[0])]}; all numbers must be finite", file=path, row=row)
    if columns.shape[1] == 3:
        return Points(columns.copy(), None)
    points, normals = columns[:, :3].copy(), columns[:, 3:]
    length = np.linalg.norm(normals, axis=1)
    zero = np.flatnonzero(length < 1e-12)
    if len(zero):
        raise InputError("the normal is zero; a direction is wanted", file=path, row=int(zero[0]) + 1)
    return Points(points, normals / length[:, None])


def _read_ply(path: Path) -> np.ndarray:
    """The columns x y z (nx ny nz) of the element `vertex`."""
    data = contents(path, WANTED)
    end = re.search(rb"end_header\r?\n", data)
    if end is None:
        raise InputError("the header has no end_header; this is no whole PLY", file=path)
    kind, elements = _ply_header(data[: end.start()].decode("ascii", "replace"), path)
    body = data[end.end() :]
    if kind == "ascii":
        return _ply_ascii(body, elements, data[: end.end()].count(b"\n"), path)
    order = "<" if kind == "binary_little_endian" else ">"
    for name, count, properties in elements:
        if name == "vertex":
            layout = np.dtype([(p, order + t) for p, t in properties])
            if len(body) < count * layout.itemsize:
                words = f"{count} vertices need {count * layout.itemsize:,} bytes, the file has {len(body):,} left"
                raise InputError(f"{words}; it is cut short", file=path)
            table = np.frombuffer(body, layout, count)
            return np.stack([table[p].astype(np.float64) for p in _wanted([p for p, _ in properties], path)], 1)
        if any(t == "list" for _, t in properties):
            raise InputError(f"a list stands before the vertices (element {name}); write the vertices first", file=path)
        body = body[count * np.dtype([(p, order + t) for p, t in properties]).itemsize :]
    raise InputError("there is no element vertex in it", file=path)


def _ply_header(text: str, path: Path) -> tuple[str, list[Element]]:
    kind, elements = "", list[Element]()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words[:1] == ["format"] and len(words) == 3:
            kind = words[1]
        elif words[:1] == ["element"] and len(words) == 3 and words[2].isdigit():
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"] and elements and len(words) == 3 and words[1] in _PLY_TYPES:
            elements[-1][2].append((words[2], _PLY_TYPES[words[1]]))
        elif words[:2] == ["property", "list"] and elements and len(words) == 5:
            elements[-1][2].append((words[4], "list"))
        elif words and words[0] not in ("ply", "comment", "obj_info"):
            raise InputError(f"the header line {line!r} is not understood", file=path, line=number)
    if kind not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise InputError("the header names no format; ascii or binary_little_endian 1.0 is wanted", file=path)
    vertex = next((properties for name, _, properties in elements if name == "vertex"), list[tuple[str, str]]())
    if any(t == "list" for _, t in vertex) or len({p for p, _ in vertex}) < len(vertex):
        raise InputError("the vertices hold a list or a name twice, which is not read", file=path)
    return kind, elements


def _wanted(names: list[str], path: Path) -> list[str]:
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise InputError(f"the vertices have no {', '.join(missing)}", file=path)
    return [*"xyz", "nx", "ny", "nz"] if {"nx", "ny", "nz"} <= set(names) else [*"xyz"]


def _ply_ascii(body: bytes, elements: list[Element], line: int, path: Path) -> np.ndarray:
    lines = body.decode("ascii", "replace").splitlines()
    for name, count, properties in elements:
        if name != "vertex":
            lines, line = lines[count:], line + count
            continue
        if len(lines) < count:
            raise InputError(f"{count} vertices are announced, {len(lines)} lines follow; it is cut short", file=path)
        rows = []
        for number, text in enumerate(lines[:count], line + 1):
            cells = text.split()
            if len(cells) != len(properties):
                raise InputError(f"{len(cells)} values; a vertex has {len(properties)}", file=path, line=number)
            try:
                rows.append([float(cell) for cell in cells])
            except ValueError as error:
                raise InputError(f"{str(error).rpartition(': ')[2]} is not a number", file=path, line=number) from error
        names = [p for p, _ in properties]
        chosen = [names.index(p) for p in _wanted(names, path)]
        return np.array(rows).reshape(count, len(names))[:, chosen]
    raise InputError("there is no element vertex in it", file=path)
