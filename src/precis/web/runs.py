"""Runs as the disk tells them: `$PRECIS_HOME/runs/<id>` is the run's folder, `site/jobs/<id>.json` what the site asked.

    site/jobs/<id>.json   kind, paper, the command's words, when, state   (written by the site alone)
    site/jobs/<id>.pid    the process                                     (written by the site, and by it)
    site/jobs/<id>.exit   how it ended                                    (written by it)
    site/jobs/<id>.log    what it printed         site/uploads/<id>/      what the form brought

Nothing is kept in memory alone, so a restarted site knows all that the one before it knew; a run that the command line
made below `runs/` is seen too.
"""

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from precis.papers.job import OfRun
from precis.papers.work import BEGUN, EVENTS, RESULT, write_json

ACTIVE = ("queued", "running", "stopping")
WORDS = {
    "queued": "waiting for its turn", "running": "running", "stopping": "stopping after this step",
    "finished": "finished", "stopped": "stopped", "refused": "not run: the input or an option is wrong",
    "failed": "could not be completed", "interrupted": "ended early, without a word",
}
QUIET = 3.0  # seconds without an event before a foreign run is asked whether it still lives


@dataclass(frozen=True)
class Run:
    """One run or check and where it stands."""

    id: str
    folder: Path
    state: str
    record: dict[str, Any] = field(default_factory=dict)  # {} for a run of the command line
    ahead: int = 0
    error: str = ""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def kind(self) -> str:
        return str(self.record.get("kind", "run"))

    @cached_property
    def result(self) -> dict[str, Any]:
        return _json(self.folder / RESULT)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What is known of it before it ends: run.json while it lasts."""
        return self.result or _json(self.folder / BEGUN)

    @property
    def paper(self) -> str:
        return str(self.record.get("paper") or self.about.get("paper") or "")

    @property
    def title(self) -> str:
        given = self.record.get("title") or self.about.get("input")
        return Path(str(given)).name if given else "the built-in sample"

    @property
    def words(self) -> str:
        return WORDS[self.state]

    @cached_property
    def created(self) -> float:
        if made := self.record.get("created"):
            return datetime.fromisoformat(made).timestamp()
        times = [(self.folder / name).stat().st_mtime for name in (BEGUN, RESULT) if (self.folder / name).exists()]
        return min(times, default=0.0)

    @property
    def picture(self) -> str | None:
        """The picture to show for it in a list."""
        names = [n for n in self.result.get("files", []) if str(n).lower().endswith((".png", ".jpg", ".webp", ".gif"))]
        return str(names[0]) if names else None


class Runs:
    """All runs below one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder, self.jobs, self.uploads = home / "runs", home / "site" / "jobs", home / "site" / "uploads"
        self._known: dict[str, tuple[tuple[int, ...], Run]] = {}

    def prepare(self) -> None:
        for folder in (self.folder, self.jobs, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)

    def file(self, run: str, suffix: str) -> Path:
        return self.jobs / f"{run}.{suffix}"

    def new_id(self, paper: str, title: str) -> str:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(title).stem).strip("-")[:30].lower() or "run"
        while True:
            name = f"{paper}-{stem}-{secrets.token_hex(3)}"
            if not (self.folder / name).exists() and not self.file(name, "json").exists():
                return name

    def save(self, record: dict[str, Any]) -> None:
        write_json(self.file(record["id"], "json"), record)

    def ids(self) -> set[str]:
        with contextlib.suppress(OSError):
            jobs = {name[:-5] for name in os.listdir(self.jobs) if name.endswith(".json") and name[0] != "."}
            with os.scandir(self.folder) as entries:
                return jobs | {e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != "."}
        return set()

    def all(self) -> list[Run]:
        """Latest first."""
        found = [run for run in map(self.get, self.ids()) if run is not None]
        return sorted(found, key=lambda run: (run.created, run.id), reverse=True)

    def active(self) -> list[Run]:
        """Those that wait or run; what ended costs one look at its file's time."""
        found = []
        for name in self.ids():
            known = self._known.get(name)
            if known is None or known[0][3] != _stamp(self.file(name, "json")):
                run = self.get(name)
                found += [run] if run is not None and run.active else []
        return found

    def get(self, run: str) -> Run | None:
        """The run, or None if there is none of that name; what ended is remembered until its files change."""
        folder = self.folder / run
        if not is_id(run) or folder.is_symlink() or (not folder.is_dir() and not self.file(run, "json").exists()):
            return None
        stamp = tuple(map(_stamp, (folder / RESULT, folder / BEGUN, folder / EVENTS, self.file(run, "json"),
                                   self.file(run, "exit"))))
        known = self._known.get(run)
        if known and known[0] == stamp:
            return known[1]
        record = _json(self.file(run, "json"))
        if not record and not (folder / BEGUN).exists() and not (folder / RESULT).exists():
            return None
        state = self._state(run, folder, record)
        ahead = self._ahead(record) if state == "queued" else 0
        found = Run(run, folder, state, record, ahead, self._error(run, state))
        if not found.active:
            self._known[run] = (stamp, found)
        return found

    def _state(self, run: str, folder: Path, record: dict[str, Any]) -> str:
        if (folder / RESULT).exists() and record.get("state") != "queued":
            return "finished"
        if not record:
            return "running" if _is_written(folder) else "interrupted"
        if record["state"] == "queued":
            return "queued"
        ended = _json(self.file(run, "exit"))
        if record["state"] == "running" and not ended:
            if self.process(run) is not None or time.time() - record.get("started", 0) < 1.0:
                return "stopping" if record.get("stops") else "running"
            return "stopped" if record.get("stops") else "interrupted"
        return {130: "stopped", 2: "refused"}.get(ended.get("code", 1), "failed")

    def _ahead(self, record: dict[str, Any]) -> int:
        others = (_json(self.jobs / name) for name in os.listdir(self.jobs) if name.endswith(".json"))
        return sum(o.get("state") == "queued" and o["created"] < record["created"] for o in others)

    def process(self, run: str) -> int | None:
        """The run's process, if it lives; a number that another process has by now is not it."""
        told = _json(self.file(run, "pid"))
        pid = told.get("pid")
        return pid if pid and told.get("began") == began(pid) else None

    def _error(self, run: str, state: str) -> str:
        """The command line's own words for how it ended."""
        if state not in ("refused", "failed", "stopped", "interrupted"):
            return ""
        try:
            with self.file(run, "log").open("rb") as log:
                log.seek(max(0, self.file(run, "log").stat().st_size - 8192))
                lines = log.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        said = [line.removeprefix("precis: ") for line in lines if line.startswith("precis: ")]
        told = said[-1] if said else lines[-1].strip() if lines and state == "failed" else ""
        uploads = str(self.uploads / run)
        return told.replace(uploads + os.sep, "").replace(str(self.folder) + os.sep, "")


def fits(run: Run, wanted: OfRun, paper: str) -> bool:
    """Whether an option of `paper` that wants such a run may take this one."""
    if run.kind != "run" or run.state != "finished" or run.paper not in (wanted.papers or (paper,)):
        return False
    file = run.folder / wanted.holds
    return file.is_file() and not file.is_symlink()


def is_id(run: str) -> bool:
    """A run's name is one folder's name, and nothing that could lead elsewhere."""
    return 0 < len(run) <= 200 and run[0] != "." and not re.search(r"[/\\\x00-\x1f]", run)


def began(pid: int) -> str | None:
    """When the process started, as the system tells it; None if there is none of that number, or it is dead."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return told.stdout.strip() or None
    except OSError:
        return None


def now() -> str:
    return datetime.now(UTC).isoformat()


def _is_written(folder: Path) -> bool:
    """Whether a process holds the lock on the run's events.  Asked only of runs that were quiet for a while, so that
    the question never meets one that is just taking the lock."""
    import fcntl

    try:
        with (folder / EVENTS).open("rb") as events:
            if time.time() - os.fstat(events.fileno()).st_mtime < QUIET:
                return True
            fcntl.flock(events, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
