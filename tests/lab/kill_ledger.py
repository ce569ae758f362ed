"""A program of test_ledger.py: a writer of a ledger that dies at its n-th write, for every n, and then starts again.

The writes counted are SQLite's own (system calls replaced through its VFS) and those of Python's `os`; the process
ends by `os._exit`, which like SIGKILL cleans nothing up, before the call, or (counting the calls that write bytes)
after half of the bytes.
Prints one JSON object: how many writes there were, and what was found wrong.
"""

import _sqlite3
import ctypes
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from precis.lab.ledger import Ledger, Trial

KILLED = 77
KEYS = [f"{i:064x}" for i in range(3)]


def trial(key: str, run: int) -> Trial:
    return Trial(
        key=key, paper="siren", runs="fit", claim="siren/fit", arm="siren", seed=int(key, 16), profile="quick",
        settings={"width": 64}, data="d", source="s", device="cpu", metrics={"psnr": 30.5}, record={"notes": []},
        seconds=float(run), peak_memory_mb=1.0, versions={}, host="here", finished=f"2030-01-0{run}T00:00:00+00:00",
    )  # fmt: skip


def work(home: Path, scratch: Path, run: int, tell: Callable[[str], None]) -> None:
    """What a check does: whatever is not there yet is made and added."""
    ledger = Ledger(home)
    ledger.fail("f" * 64, "diverged")
    tell("failed")
    for key in KEYS:
        if ledger.trial(key) is None:
            folder = scratch / f"{run}-{int(key, 16)}"
            folder.mkdir(parents=True)
            (folder / "curve.json").write_text(f"[{int(key, 16)}]" * 50)
            (folder / "same.txt").write_text("the same in all")
            ledger.add(trial(key, run), folder)
        tell(key)
    ledger.save_verdict("siren/fit", "quick", {"verdict": "supported", "n": 3}, "s")
    tell("verdict")


_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_ssize_t
_WRITE = ctypes.CFUNCTYPE(_SIZE, _INT, _POINTER, ctypes.c_size_t)
_PWRITE = ctypes.CFUNCTYPE(_SIZE, _INT, _POINTER, ctypes.c_size_t, ctypes.c_int64)
_UNLINK = ctypes.CFUNCTYPE(_INT, ctypes.c_char_p)
_TRUNCATE = ctypes.CFUNCTYPE(_INT, _INT, ctypes.c_int64)
_CALLS = {"write": _WRITE, "pwrite": _PWRITE, "pwrite64": _PWRITE, "unlink": _UNLINK, "ftruncate": _TRUNCATE}
_kept: list[Any] = []  # callbacks that C still points to


class _VFS(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = [
        ("version", _INT), ("os_file", _INT), ("path", _INT), ("next", _POINTER), ("name", ctypes.c_char_p),
        ("data", _POINTER), *((f"call{i}", _POINTER) for i in range(12)), ("time64", _POINTER),
        ("set_call", _POINTER), ("get_call", _POINTER),
    ]  # fmt: skip


class Killer:
    def __init__(self, n: int, half: bool) -> None:
        self.n, self.half, self.count = n, half, 0

    def due(self, name: str) -> bool:
        self.count += not self.half or "write" in name
        return self.count == self.n and (not self.half or "write" in name)

    def into_sqlite(self) -> set[str]:
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_VFS)
        vfs = library.sqlite3_vfs_find(None)
        get = ctypes.CFUNCTYPE(_POINTER, _POINTER, ctypes.c_char_p)(vfs.contents.get_call)
        put = ctypes.CFUNCTYPE(_INT, _POINTER, ctypes.c_char_p, _POINTER)(vfs.contents.set_call)
        replaced = set()
        for name, kind in _CALLS.items():
            if address := get(vfs, name.encode()):
                _kept.append(kind(self._replacement(name, kind(address))))
                put(vfs, name.encode(), ctypes.cast(_kept[-1], _POINTER))
                replaced.add(name)
        return replaced

    def _replacement(self, name: str, original: Any) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            if self.due(name):
                if self.half:
                    original(arguments[0], arguments[1], arguments[2] // 2, *arguments[3:])
                os._exit(KILLED)
            return int(original(*arguments))

        return call

    def into_os(self) -> None:
        for name in ("write", "fsync", "replace", "mkdir", "unlink", "open"):
            setattr(os, name, self._patched(name, getattr(os, name)))

    def _patched(self, name: str, original: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.due(name):
                if self.half:
                    original(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os._exit(KILLED)
            return original(*arguments, **named)

        return call


def child(home: Path, scratch: Path, run: int, n: int, half: bool) -> tuple[int, list[str]]:
    """Work in a process that dies at its n-th write (never for n = 0): its exit status, and what it had finished."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            say = os.write
            killer = Killer(n, half)
            assert {"unlink", "ftruncate"} < killer.into_sqlite()
            killer.into_os()
            work(home, scratch, run, lambda what: say(writing, f"{what}\n".encode()) and None)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read().split()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told


def examine(home: Path, scratch: Path, n: int, half: bool) -> tuple[bool, list[str]]:
    """Kill at n, look, start again, look: whether it was killed at all, and what is wrong."""
    status, told = child(home, scratch, 1, n, half)
    if status not in (0, KILLED):
        return False, [f"ended with {status}"]
    wrong = []
    with Ledger(home, read_only=True) as ledger:
        first = ledger.trials(KEYS)
        wrong += [f"after the kill: {line}" for line in ledger.verify()]
        wrong += [f"lost {key}" for key in told if key in KEYS and key not in first]
        wrong += ["lost a failure"] * ("failed" in told and not ledger.failures(["f" * 64]))
        wrong += ["lost a verdict"] * ("verdict" in told and not ledger.verdicts())
    again, told = child(home, scratch, 2, 0, half)
    with Ledger(home, read_only=True) as ledger:
        rows = ledger.trials(KEYS)
        wrong += [f"after the restart: {line}" for line in ledger.verify()]
        wrong += ["the restart failed"] * (again != 0 or "verdict" not in told)
        wrong += ["not the same keys"] * (list(rows) != KEYS)
        wrong += [f"{key} was added again" for key in first if rows.get(key) != first[key]]
        for key, row in rows.items():
            text = ledger.artefact(row.record["files"]["curve.json"]).read_text()
            wrong += [f"artefact of {key}"] * (text != f"[{int(key, 16)}]" * 50)
        wrong += ["verdict"] * (ledger.verdicts()[("siren/fit", "quick")]["n"] != 3)
    return status == KILLED, wrong


def main(base: Path) -> None:
    signal.alarm(120)
    wrong: list[str] = []
    writes = {}
    for half in (False, True):
        n, killed = 0, True
        while killed:
            n += 1
            killed, found = examine(base / "home", base / "scratch", n, half)
            wrong += [f"write {n}{' (half)' if half else ''}: {line}" for line in found]
            shutil.rmtree(base / "home")
            shutil.rmtree(base / "scratch", ignore_errors=True)
        writes["half" if half else "before"] = n - 1
    print(json.dumps({"writes": writes, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
