"""Files kept by their content: `artefacts/ab/abcd…` is the file whose SHA-256 is abcd….

A file is copied beside, hashed on the way, synced and then renamed, so that a name never stands for less than the
whole; a file that is there already is kept, or put right if it no longer is what its name says.
"""

import contextlib
import errno
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from precis.errors import InputError, RunFailed

CHUNK = 1 << 20
_DAY = 86_400.0


@dataclass(frozen=True)
class Artefacts:
    folder: Path

    def path(self, digest: str) -> Path:
        """Where the file of that SHA-256 lies, whether or not it is there."""
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise InputError(f"{digest!r} names no artefact: 64 hexadecimal digits do")
        return self.folder / digest[:2] / digest

    def prepare(self) -> None:
        """Make the folder, see that it can be written, and remove copies that killed writers left a day ago."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder.parent, self.folder):
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        for left in self.folder.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):  # another process was first
                if time.time() - left.stat().st_mtime > _DAY:
                    left.unlink()

    def store(self, source: Path) -> str:
        """Keep a copy of `source`; returns its SHA-256."""
        beside = self.folder / f"{uuid.uuid4().hex}.part"
        try:
            digest = _copy(source, beside)
            target = self.path(digest)
            if not target.parent.exists():
                target.parent.mkdir(exist_ok=True)
                _sync(self.folder)
            if not target.exists() or digest_of(target) != digest:
                os.replace(beside, target)
            _sync(target.parent)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
        return digest


def _copy(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
    try:
        with open(source, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(out, rest) :]
        os.fsync(out)
    finally:
        os.close(out)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Put a folder's entries on the disk; Windows opens no folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def told(home: Path) -> Iterator[None]:
    """The system's errors while writing under `home` as one line: RunFailed for a full disk, InputError for what the
    user must mend."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or home, error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFailed(
                f"{home}: the disk is full ({why}); what was finished is kept: make room, then start again"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise InputError(f"cannot be written ({why}): set PRECIS_HOME to a folder of yours", file=where) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise InputError(
                f"cannot be written ({why}): PRECIS_HOME must be a folder, not a file", file=where
            ) from error
        raise RunFailed(f"{where}: {why}") from error
