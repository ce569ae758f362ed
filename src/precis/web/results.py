"""A run's output folder on a page: what may be opened, how each file is served, and all of it as one zip."""

import csv
import io
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from precis.papers.work import EVENTS, OWN

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg")
_INLINE = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".mp4": "video/mp4",
    ".webm": "video/webm", ".txt": "text/plain; charset=utf-8", ".csv": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8", ".json": "text/plain; charset=utf-8", ".jsonl": "text/plain; charset=utf-8",
}
IN_ONE_GO = 16_000_000  # bytes
SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
PREVIEW_BYTES, PREVIEW_ROWS, PREVIEW_COLUMNS = 64 << 10, 20, 12
MOST_FILES = 5000
CHUNK = 256 << 10


@dataclass(frozen=True)
class File:
    """One file of a run: its name below the folder and its size in bytes."""

    name: str
    size: int

    @property
    def kind(self) -> str:
        """picture, sound, clip, table, text or other: how a page shows it."""
        suffix = Path(self.name).suffix.lower()
        if suffix in PICTURES:
            return "picture"
        if suffix in (".wav", ".flac", ".mp3", ".ogg"):
            return "sound"
        if suffix in (".mp4", ".webm"):
            return "clip"
        return "table" if suffix == ".csv" else "text" if suffix in _INLINE else "other"


def files_of(folder: Path, first: list[str] | None = None) -> list[File]:
    """Every file of the run, those of `first` in front; links and hidden files are none."""
    found: dict[str, int] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if n[0] != "." and not os.path.islink(os.path.join(place, n)))
        for name in sorted(names):
            path = Path(place, name)
            if name[0] == "." or path.is_symlink() or not path.is_file():
                continue
            found[path.relative_to(folder).as_posix()] = path.stat().st_size
            if len(found) >= MOST_FILES:
                folders.clear()
                break
    front = [name for name in dict.fromkeys(map(str, first or ())) if name in found]
    own = [name for name in found if name in OWN]
    middle = [name for name in found if name not in front and name not in own]
    return [File(name, found[name]) for name in [*front, *middle, *own]]


def inside(folder: Path, name: str) -> Path:
    """The file `name` of the run; 404 for anything that is not a plain file below its folder, links included."""
    parts = name.split("/")
    plain = all(part and part[0] != "." and not re.search(r"[\\\x00-\x1f]", part) for part in parts)
    path = folder.joinpath(*parts) if plain else None
    try:
        if path is not None and path.resolve(strict=True) == folder.resolve() / name and path.is_file():
            return path
    except (OSError, ValueError, RuntimeError):
        pass
    raise HTTPException(404, "this run has no such file")


def answer(path: Path, *, download: bool = False, live: bool = False) -> Response:
    """The file, shown only if its kind cannot act; anything else, and every SVG, is a download when opened."""
    suffix = path.suffix.lower()
    kind = _INLINE.get(suffix)
    headers = {"content-security-policy": SANDBOX}
    if suffix == ".svg":  # an <img> draws it and runs nothing; opened by itself it is a download
        return FileResponse(path, media_type="image/svg+xml", filename=path.name, headers=headers)
    if kind is None or download:
        return FileResponse(path, media_type="application/octet-stream", filename=path.name, headers=headers)
    if not live or path.stat().st_size > IN_ONE_GO:
        return FileResponse(
            path, media_type=kind, filename=path.name, content_disposition_type="inline", headers=headers
        )
    # What a run is still making may be replaced at any moment: the length sent is that of what was read.
    headers["content-disposition"] = f"inline; filename*=utf-8''{quote(path.name)}"
    return Response(path.read_bytes(), media_type=kind, headers=headers)


def table_of(path: Path) -> dict[str, Any] | None:
    """The first rows of a CSV: columns, rows, whether there is more; None if it is none."""
    try:
        with path.open("rb") as file:
            head = file.read(PREVIEW_BYTES)
            more = bool(file.read(1))
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = head.decode("utf-8", "replace")
    except OSError:
        return None
    try:
        lines = list(csv.reader(io.StringIO(text)))
    except csv.Error:
        return None
    if more:
        lines = lines[:-1]
    if len(lines) < 2 or not lines[0]:
        return None
    columns = [name or "–" for name in lines[0][:PREVIEW_COLUMNS]]
    names = [f"{name} ({i + 1})" if columns.count(name) > 1 else name for i, name in enumerate(columns)]
    rows = [dict(zip(names, line)) for line in lines[1 : PREVIEW_ROWS + 1]]
    return {"columns": names, "rows": rows, "more": more or len(lines) - 1 > len(rows)}


def zipped(folder: Path, top: str) -> Iterator[bytes]:
    """The whole output as a zip, piece by piece; files that change or go while it is made are left as they were."""
    out = _Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for file in files_of(folder):
            if file.name == EVENTS:
                continue
            try:
                path = inside(folder, file.name)
                info = zipfile.ZipInfo.from_file(path, f"{top}/{file.name}", strict_timestamps=False)
                with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                    while piece := source.read(CHUNK):
                        target.write(piece)
                        yield out.take()
            except (OSError, HTTPException):
                continue
    yield out.take()


class _Pipe(io.RawIOBase):
    """What a zip writes, taken away as it comes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken
