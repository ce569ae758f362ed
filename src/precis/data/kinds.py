"""What a path can be used as, by its content: image, images, frames, audio, points, scene, table, text, molecules, cnf,
transitions, poses, program.

A file may be of several kinds (a CSV of SMILES is a table and molecules).  Only beginnings and directories of files are
read, so the answer comes at once and promises no more than that the right reader will be asked; an empty set means that
nothing here is known.
"""

import ast
import csv
import io
import itertools
import json
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from precis.errors import InputError

HEAD = 1 << 16
MEMBERS = 2000
_SCENE_FILES = ("transforms.json", "transforms_train.json", "poses_bounds.npy", "sparse", "colmap/sparse")
_PROGRAM_MEMBERS = ("/constants.pkl", "/archive_format", "serialized_exported_program.json")
_FILE_COLUMNS, _TEXT_COLUMNS = {"file", "path", "image"}, {"text", "sentence", "review", "document", "content"}
_IMAGE_MAGIC = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM",
    b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\1\0",
)  # fmt: skip


def kinds_of(path: str | Path) -> set[str]:
    """The kinds that the file or folder can be; InputError if there is none of that name, or it may not be read."""
    path = Path(path)
    try:
        if not path.exists():
            raise InputError("there is no such file or folder", file=path)
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            return set()
        with path.open("rb") as file:
            head = file.read(HEAD)
        return _file(path, head) if head else set()
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", file=path) from error


def is_image(head: bytes) -> bool:
    """Whether these first bytes open a picture of a format that `read_image` knows."""
    if head.startswith(b"BM"):
        return len(head) >= 18 and struct.unpack("<I", head[14:18])[0] in (12, 40, 52, 56, 64, 108, 124)
    if head.startswith(b"\0\0\1\0"):
        return len(head) >= 6 and 0 < struct.unpack("<H", head[4:6])[0] < 256
    if head.startswith(_IMAGE_MAGIC):
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" or head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return True
    return re.match(rb"P[1-6]\s+(#.*\n\s*)*\d+\s+\d+|P[fF]\s+\d+\s+\d+", head[:200]) is not None


def _folder(path: Path) -> set[str]:
    kinds: set[str] = set()
    scene = any((path / name).exists() for name in _SCENE_FILES)
    scene = scene or (path / "dataset.json").exists() and (path / "camera").is_dir()
    if scene:
        kinds.add("scene")
    if (path / "main_data.hdf5").exists() or (path / "data" / "main_data.hdf5").exists():
        kinds.add("transitions")
    flat = nested = cnf = keypoints = 0
    for file in itertools.islice(_walk(path, depth=4), MEMBERS):
        with file.open("rb") as stream:
            head = stream.read(512)
        if is_image(head):
            flat, nested = flat + (file.parent == path), nested + (file.parent != path)
        elif file.suffix == ".cnf":
            cnf += bool(_DIMACS.search(head))
        elif file.suffix == ".json" and b'"people"' in head:
            keypoints += 1
    if flat or nested:
        kinds.add("images")
    if flat >= 2 and not nested:
        kinds.add("frames")
    return kinds | ({"cnf"} if cnf else set()) | ({"poses"} if keypoints else set())


def _walk(path: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(path.iterdir()):
        if entry.name.startswith((".", "__MACOSX")):
            continue
        if entry.is_file():
            yield entry
        elif entry.is_dir() and depth and not entry.is_symlink():
            yield from _walk(entry, depth - 1)


def _file(path: Path, head: bytes) -> set[str]:
    if is_image(head):
        return _picture(path)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return {"audio"}
    if head[4:8] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3" or head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return {"frames"}
    if head.startswith(b"PK\3\4"):
        return _zip(path)
    if head.startswith(b"\x93NUMPY"):
        return _array(head)
    if head.startswith(b"PAR1"):
        return _parquet(path)
    if head.startswith(b"\x89HDF\r\n"):
        return {"transitions"}
    if re.match(rb"ply\r?\n", head):
        return {"points"}
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar":
        return _tar(path)
    try:
        text = head.decode("utf-8-sig") if len(head) < HEAD else head.rpartition(b"\n")[0].decode("utf-8-sig")
    except UnicodeDecodeError:
        return set()
    return _text(path, text) if "\0" not in text else set()


def _picture(path: Path) -> set[str]:
    from precis.data.decode import FORMATS

    try:
        from PIL import Image as Pillow

        with Pillow.open(path, formats=FORMATS) as picture:
            return {"image", "frames"} if getattr(picture, "n_frames", 1) > 1 else {"image"}
    except Exception:  # a broken picture is still meant as one: its reader says what is wrong
        return {"image"}


def _zip(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if names and all(name.endswith(".npy") for name in names):
                return _npz({n.removesuffix(".npy"): _shape(archive.open(n).read(256)) for n in names[:MEMBERS]})
            if any(name.endswith(_PROGRAM_MEMBERS) for name in names):
                return {"program"}  # TorchScript, or torch.export; a bare pickled checkpoint is none
            return _members(names)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError):
        return set()


def _tar(path: Path) -> set[str]:
    try:
        with tarfile.open(path) as archive:
            return _members(member.name for member in itertools.islice(archive, 200) if member.isfile())
    except (tarfile.TarError, OSError, EOFError):
        return set()


def _members(names: Iterable[str]) -> set[str]:
    from precis.data.images import SUFFIXES

    return {"images"} if any(name.lower().endswith(SUFFIXES) for name in names) else set()


def _shape(head: bytes) -> tuple[int, ...]:
    """The shape that an .npy header states; () if it is not readable."""
    found = re.search(rb"'shape':\s*\(([\d,\s]*)\)", head)
    return tuple(int(n) for n in found[1].replace(b",", b" ").split()) if found else ()


def _array(head: bytes) -> set[str]:
    shape = _shape(head)
    if len(shape) == 2:
        return {"table", "points"} if shape[1] in (3, 6) else {"table"}
    if len(shape) == 3:
        return {"images", "poses"} if shape[2] in (2, 3) else {"images"}
    return {"images"} if len(shape) == 4 else {"table"} if len(shape) == 1 else set()


def _npz(shapes: dict[str, tuple[int, ...]]) -> set[str]:
    kinds, keys = set(), {key.lower() for key in shapes}
    if any(len(shapes.get(key, ())) in (3, 4) for key in ("x", "images")):
        kinds.add("images")
    if keys & {"obs", "observations"} and keys & {"action", "actions"}:
        kinds.add("transitions")
    if {"images", "poses", "focal"} <= keys:
        kinds.add("scene")
    elif keys & {"poses", "keypoints", "positions_3d", "positions_2d"}:
        kinds.add("poses")
    if {"points", "normals"} <= keys:
        kinds.add("points")
    columns = all(len(shape) in (1, 2) for shape in shapes.values())
    if not kinds and columns and len({shape[:1] for shape in shapes.values()}) == 1:
        kinds.add("table")
    return kinds


def _parquet(path: Path) -> set[str]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        schema = parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError):
        return set()
    for column in {"image", "img"} & set(schema.names):
        kind = schema.field(column).type
        if pyarrow.types.is_struct(kind) or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            return {"images"}
    return _columns(schema.names)


def _columns(names: Iterable[str]) -> set[str]:
    lower, kinds = {name.strip().lower() for name in names}, {"table"}
    if "smiles" in lower or "canonical_smiles" in lower:
        kinds.add("molecules")
    if lower & _FILE_COLUMNS:
        kinds.add("images")
    if lower & _TEXT_COLUMNS:
        kinds.add("text")
    if sum(bool(re.fullmatch(r".*[_.]?(x|y)_?\d*", name)) for name in lower) >= 10:
        kinds.add("poses")
    return kinds


_DIMACS = re.compile(rb"(?m)^p\s+cnf\s+\d+\s+\d+")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|[-+]?inf")


def _text(path: Path, text: str) -> set[str]:
    suffix = path.suffix.lower()
    if not text.strip():
        return set()
    if _DIMACS.search(text[:HEAD].encode()) and re.match(r"\s*(c|p\s+cnf)\b", text):
        return {"cnf"}
    if text.lstrip()[:1] in "{[" and suffix in (".json", ""):
        return _json(path)
    if text.startswith("HIERARCHY") or suffix in (".asf", ".amc"):
        return {"poses"}
    if re.search(r"(?m)^M  END|V[23]000\s*$", text):
        return {"molecules"}
    if suffix in (".smi", ".smiles"):
        return {"molecules"}
    if suffix == ".py":
        return _python(text)
    lines = [line for line in text.splitlines()[:50] if line.strip() and not line.startswith("#")]
    if suffix not in (".csv", ".tsv"):
        widths = {len(line.split()) for line in lines}
        if widths in ({3}, {6}) and all(_NUMBER.fullmatch(cell) for line in lines for cell in line.split()):
            return {"points"}
    return _delimited(lines, suffix) or {"text"}


def _delimited(lines: list[str], suffix: str) -> set[str]:
    delimiter = "\t" if suffix == ".tsv" else max(",\t;", key=lines[0].count) if lines else ","
    rows: list[list[str]] = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
    if not rows:
        return set()
    if suffix in (".csv", ".tsv"):
        return _columns(rows[0])
    same = len({len(row) for row in rows}) == 1 and len(rows[0]) > 1
    return _columns(rows[0]) if same and len(rows) >= 3 else set()


def _json(path: Path) -> set[str]:
    if path.stat().st_size > 64 << 20:
        return {"text"}
    try:
        content: Any = json.loads(path.read_text("utf-8-sig"))
    except ValueError:
        return {"scene"} if path.name.startswith("transforms") else {"text"}
    if isinstance(content, dict):
        if "frames" in content and ("camera_angle_x" in content or "fl_x" in json.dumps(content)[:100_000]):
            return {"scene"}
        if "people" in content or any("keypoints" in a for a in content.get("annotations", [])[:1]):
            return {"poses"}
    if isinstance(content, list) and content and isinstance(content[0], dict) and "keypoints" in content[0]:
        return {"poses"}
    return {"text"}


def _python(text: str) -> set[str]:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return {"program", "text"} if re.search(r"(?m)^(def|class) \w+", text) else {"text"}
    callable_ = any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign) for node in body)
    return {"program"} if callable_ else {"text"}
