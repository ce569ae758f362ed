"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from precis.errors import InputError


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` when the block ends well, removed when it does not."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def contents(path: str | Path, what: str, limit: int = 1 << 30) -> bytes:
    """All bytes of a file of at most `limit`, or InputError; `what` is what would be right."""
    path = existing(path, what)
    if path.stat().st_size > limit:
        raise InputError(f"the file is larger than {limit >> 20} MiB; {what} is wanted", file=path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", file=path) from error


def existing(path: str | Path, what: str) -> Path:
    """The path of a file that is there and holds something, or InputError; `what` is what would be right."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"no such file; {what} is wanted", file=path)
    if path.is_dir():
        raise InputError(f"this is a folder; {what} is wanted", file=path)
    if not path.is_file():
        raise InputError(f"this is no ordinary file; {what} is wanted", file=path)
    if path.stat().st_size == 0:
        raise InputError(f"the file is empty; {what} is wanted", file=path)
    return path
