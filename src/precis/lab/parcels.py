"""Files on their way to another machine: pieces of at most 64 MiB, each a list of (name, bytes).

A file larger than a piece goes on in the next one under the same name, so that memory is bounded by a piece.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from precis.lab.fingerprint import files_under

PIECE = 64 << 20
Piece = list[tuple[str, bytes]]


def packed(root: Path, base: Path) -> Iterator[Piece]:
    """A file, or the files of a folder (not caches, nothing hidden), by names relative to `base`."""
    piece: Piece = []
    room = PIECE
    for file in [root] if root.is_file() else sorted(files_under(root, set())):
        inside = file.relative_to(root).parts
        if any(part == "__pycache__" or part.startswith(".") for part in inside):
            continue
        name = file.relative_to(base).as_posix()
        with file.open("rb") as handle:
            data = handle.read(room)
            piece.append((name, data))
            room -= len(data)
            while not room:
                yield piece
                piece, room = [], PIECE
                if data := handle.read(room):
                    piece.append((name, data))
                    room -= len(data)
    if piece:
        yield piece


def unpack(pieces: Iterable[Piece], folder: Path) -> None:
    """Write the files below `folder`, which holds none of them yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for piece in pieces:
        for name, data in piece:
            file = folder / name
            if not file.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"a parcel names a file outside its folder: {name!r}")
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab") as handle:
                handle.write(data)


def digest_of(pieces: Iterable[Piece]) -> str:
    """SHA-256 over names and bytes."""
    digest = hashlib.sha256()
    for piece in pieces:
        for name, data in piece:
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(data)
    return digest.hexdigest()
