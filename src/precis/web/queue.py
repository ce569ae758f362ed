"""One queue for the machine: runs start in the order in which they were asked for, as its cores become free.

A run takes `threads_of_run` cores, a check all of them (it spreads its trials itself).  What runs is a process of its
own that outlives the site; which site starts processes is settled by a lock, so two on one home do no harm.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from precis.errors import InputError
from precis.lab.engine import cores
from precis.papers.work import write_json
from precis.web.helpers import child_environment
from precis.web.runs import Run, Runs, began, now

LENGTH = 100  # runs that may wait
TICK, REST = 0.25, 2.0


def threads_of_run(count: int) -> int:
    """Cores that one run gets: four where there are many."""
    return max(1, count // max(1, count // 4))


class Queue:
    """Starts what waits; `watch` is its loop."""

    def __init__(self, runs: Runs, count: int | None = None) -> None:
        self.runs, self.cores = runs, count or cores()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._wake = asyncio.Event()
        self._lock: IO[bytes] | None = None
        self._busy = False

    def submit(self, record: dict[str, Any]) -> None:
        """Put a run or check at the end: `id`, `kind`, `paper`, `title`, `argv` (the command's words)."""
        if len(self.waiting()) >= LENGTH:
            raise InputError(f"{LENGTH} runs are waiting already: stop some, or come back when they are done")
        weight = self.cores if record["kind"] == "check" else threads_of_run(self.cores)
        self.runs.save({**record, "weight": weight, "created": now(), "state": "queued", "stops": 0})
        self._wake.set()

    def waiting(self) -> list[Run]:
        return sorted((r for r in self.runs.active() if r.state == "queued"), key=lambda r: r.record["created"])

    def stop(self, run: Run) -> None:
        """What waits is withdrawn; what runs is asked to stop (SIGINT), the second time at once."""
        if not run.record:
            raise InputError("this run was started on the command line: Ctrl-C there stops it")
        if run.state == "queued":
            self.runs.save({**run.record, "state": "ended", "stops": 1})
            _write(self.runs.file(run.id, "exit"), '{"code": 130}')
        elif run.active:
            self.runs.save({**run.record, "stops": run.record.get("stops", 0) + 1})
            pid = self.runs.process(run.id)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
            elif child := self._children.get(run.id):
                child.send_signal(signal.SIGINT)
        self._wake.set()

    def resume(self, run: Run) -> None:
        """Go on with a run that was stopped, failed or was cut off; finished checks' trials are not run again."""
        if run.active or run.state == "finished" or not run.record:
            raise InputError("only a run of this site that was stopped or cut off can go on")
        record = {**run.record, "state": "queued", "stops": 0, "resumed": True}
        for suffix in ("exit", "pid"):
            self.runs.file(run.id, suffix).unlink(missing_ok=True)
        self.runs.save(record)
        self._wake.set()

    async def watch(self, rest: Any = None) -> None:
        """Until cancelled: start what can start, take note of what ended."""
        while True:
            if self._holds():
                with contextlib.suppress(OSError):  # a full disk must not end the queue
                    self._step()
            if rest is not None:
                await rest()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK if self._busy else REST)

    def _step(self) -> None:
        for name, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[name]
        active = self.runs.active()
        running = [r for r in active if r.record and r.state != "queued"]
        free = self.cores - sum(r.record.get("weight", 1) for r in running)
        waiting = sorted((r for r in active if r.state == "queued"), key=lambda r: r.record["created"])
        for run in waiting:
            weight = min(run.record["weight"], self.cores)
            if weight > free:
                break  # the first in the queue waits for its cores, and nobody overtakes it
            free -= weight
            self._start(run, weight)
        self._busy = bool(active)

    def _start(self, run: Run, weight: int) -> None:
        runs = self.runs
        runs.save({**run.record, "state": "running", "started": time.time()})
        for suffix in ("exit", "pid"):
            runs.file(run.id, suffix).unlink(missing_ok=True)
        environment = {**child_environment(weight), "PRECIS_HOME": str(runs.home)}
        with runs.file(run.id, "log").open("ab") as log:
            child = self._children[run.id] = subprocess.Popen(
                [sys.executable, "-m", "precis.web.launch", str(runs.file(run.id, "json"))], env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        # It writes the same when it has come up, which on a busy machine takes seconds in which it counts as gone.
        write_json(runs.file(run.id, "pid"), {"pid": child.pid, "began": began(child.pid)})

    def _holds(self) -> bool:
        """Whether this site is the one that starts processes."""
        if self._lock is None:
            import fcntl

            file = (self.runs.jobs.parent / "lock").open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return False
            self._lock = file
        return True

    def close(self) -> None:
        """Let go of the lock; what runs goes on."""
        for child in self._children.values():
            child.returncode = child.poll() if child.poll() is not None else 0  # it outlives us: no warning
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def words_of(argv: Sequence[str]) -> str:
    import shlex

    return shlex.join(["precis", *argv])
