"""Trainings that several trials share: made once for each (paper's source, name, seed, settings, data, device)."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import types
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from precis.lab.claim import Claim


@dataclass(frozen=True)
class SharedPlace:
    """Where shared trainings lie, and what beside name, seed and settings tells one from another.

    `ask("wanted", digest)` may bring a training that another machine made, `ask("made", digest)` tells of one.
    """

    folder: Path
    source: str
    data: str
    device: str
    claim: type[Claim] | None = None
    ask: Callable[[str, str], None] | None = None


def make_once(place: SharedPlace, digest: str, make: Callable[[Path], None]) -> Path:
    """The folder of `digest`, filled by `make` if it is not there yet.

    It appears whole or not at all: one process makes, under a lock that the system takes from a dead one, in a
    folder beside it that is renamed when full; the others wait.
    """
    folder = place.folder / digest
    if folder.is_dir():
        return folder
    place.folder.mkdir(parents=True, exist_ok=True)
    with locked(place.folder / f"{digest}.lock"):
        for left in place.folder.glob(f"{digest}.making-*"):
            shutil.rmtree(left, ignore_errors=True)
        if not folder.is_dir() and place.ask is not None:
            place.ask("wanted", digest)
        if not folder.is_dir():
            making = place.folder / f"{digest}.making-{uuid.uuid4().hex}"
            making.mkdir()
            try:
                make(making)
                making.rename(folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
            if place.ask is not None:
                place.ask("made", digest)
    return folder


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold `file` alone; the system lets go of it if this process dies."""
    import fcntl

    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def code_digest(make: Callable[..., Any], claim: type[Claim] | None) -> str:
    """Hash of the code of `make` and of the claim's own methods that it calls.

    A claim's methods are outside the fingerprint that claims of one paper have in common, so the ones that a shared
    training goes through are told apart here, by their compiled code (the names in it, without line numbers).
    """
    seen: dict[str, str] = {}

    def visit(function: Any) -> None:
        while isinstance(function, functools.partial):
            function = function.func
        function = getattr(function, "__func__", function)
        code = getattr(function, "__code__", None)
        if code is not None and function.__qualname__ not in seen:
            seen[function.__qualname__] = ""
            parts: list[str] = []
            names = _code_parts(code, parts)
            seen[function.__qualname__] = hashlib.sha256("\n".join(parts).encode()).hexdigest()
            for cell in function.__closure__ or ():
                with contextlib.suppress(ValueError):       # a cell that is not filled yet
                    if callable(cell.cell_contents) and not isinstance(cell.cell_contents, type):
                        visit(cell.cell_contents)
            for name in sorted(names):
                for owner in claim.__mro__[: claim.__mro__.index(Claim)] if claim else ():
                    if name in vars(owner):
                        visit(vars(owner)[name])
                        break

    visit(make)
    return hashlib.sha256(json.dumps(sorted(seen.values())).encode()).hexdigest()


def _code_parts(code: types.CodeType, parts: list[str]) -> set[str]:
    names = set(code.co_names)
    parts += [code.co_code.hex(), *code.co_names, *code.co_varnames]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _code_parts(constant, parts)
        else:
            parts.append(repr(sorted(constant, key=repr)) if isinstance(constant, frozenset) else repr(constant))
    return names
