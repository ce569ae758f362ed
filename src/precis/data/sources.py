"""Where the pictures of a set lie: a folder, an archive, a Parquet file or a list in a CSV.

Each source is an iterator of (name, bytes or the InputError that says why they cannot be had), in a fixed order.
"""

import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from precis.data.decode import WANTED
from precis.data.files import contents
from precis.data.images import SUFFIXES
from precis.data.kinds import is_image
from precis.errors import InputError

MAX_MEMBERS = 2_000_000
MAX_MEMBER_BYTES = 256 << 20

Picture = tuple[str, bytes | InputError]


def natural(name: str) -> tuple[Any, ...]:
    """Sort key under which frame2 comes before frame10."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name))


def from_folder(root: Path) -> Iterator[Picture]:
    """The pictures below a folder, by suffix; if no file has one, by their first bytes."""
    found = sorted((p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()), key=natural)
    found = [name for name in found if _visible(name)]
    chosen = [name for name in found if name.lower().endswith(SUFFIXES)] or [n for n in found if _looks(root / n)]
    for name in chosen:
        yield name, _read(root / name)


def from_list(root: Path, names: list[str]) -> Iterator[Picture]:
    """The files that a table names, relative to `root`; missing ones are an InputError with up to ten of them."""
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise InputError(f"{len(missing)} of {len(names)} files are not there: {', '.join(missing[:10])}", file=root)
    for name in names:
        yield name, _read(root / name)


def from_zip(path: Path) -> Iterator[Picture]:
    """The pictures in a zip file, read one by one and never unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            _check_members([info.filename for info in members], path)
            for info in sorted(members, key=lambda i: natural(i.filename)):
                if (info.external_attr >> 16) & 0o170000 == 0o120000:
                    raise InputError(f"member {info.filename} is a link; pack the files themselves", file=path)
                if not (_visible(info.filename) and info.filename.lower().endswith(SUFFIXES)):
                    continue
                try:
                    with archive.open(info) as file:
                        yield info.filename, _bounded(file.read(MAX_MEMBER_BYTES + 1), info.filename)
                except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
                    yield info.filename, InputError(f"the member cannot be unpacked ({error})", file=info.filename)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(f"this is no whole zip file ({error})", file=path) from error


def from_tar(path: Path) -> Iterator[Picture]:
    """The pictures in a tar file (plain, gz, bz2 or xz), in its own order, read one by one and never unpacked."""
    total = 0
    try:
        with tarfile.open(path) as archive:
            for count, member in enumerate(archive):
                _check_members([member.name], path, count)
                if member.issym() or member.islnk():
                    raise InputError(f"member {member.name} is a link; pack the files themselves", file=path)
                total += member.size
                if total > MAX_MEMBERS * 1024 * 64:
                    raise InputError("the archive unpacks to more than 128 GiB", file=path)
                if not (member.isfile() and _visible(member.name) and member.name.lower().endswith(SUFFIXES)):
                    continue
                file = archive.extractfile(member)
                assert file is not None
                yield member.name, _bounded(file.read(MAX_MEMBER_BYTES + 1), member.name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"this is no whole tar file ({error})", file=path) from error


def from_parquet(path: Path, file: Any, column: str) -> Iterator[Picture]:
    """A column of pictures of an open Parquet file: structs {bytes, path} or plain bytes."""
    row = 0
    for batch in file.iter_batches(batch_size=256, columns=[column]):
        for cell in batch.column(0).to_pylist():
            body, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
            name, row = name or str(row), row + 1
            if body:
                yield name, _bounded(body, name)
            elif name and isinstance(cell, dict) and (path.parent / name).is_file():
                yield name, _read(path.parent / name)
            else:
                yield name, InputError("the cell holds no bytes", file=path, row=row)


def strip_common(names: list[str]) -> list[str]:
    """Names without the folder that wraps them all, if there is one."""
    tops = {PurePosixPath(name).parts[0] for name in names}
    if len(tops) == 1 and all("/" in name for name in names):
        return strip_common([name.split("/", 1)[1] for name in names])
    return names


def _visible(name: str) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _looks(path: Path) -> bool:
    with path.open("rb") as file:
        return is_image(file.read(200))


def _read(path: Path) -> bytes | InputError:
    try:
        return contents(path, WANTED, MAX_MEMBER_BYTES)
    except InputError as error:
        return error


def _bounded(body: bytes, name: str) -> bytes | InputError:
    if len(body) > MAX_MEMBER_BYTES:
        return InputError(f"the picture's file is larger than {MAX_MEMBER_BYTES >> 20} MiB", file=name)
    return body or InputError("the file is empty", file=name)


def _check_members(names: list[str], path: Path, count: int = 0) -> None:
    if len(names) + count > MAX_MEMBERS:
        raise InputError(f"the archive has more than {MAX_MEMBERS:,} members", file=path)
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
            raise InputError(f"member {name!r} points outside of the archive; pack it with relative names", file=path)
