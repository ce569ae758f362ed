"""Where trials run: worker processes of this machine.

An engine has `workers`, `run(tasks)` and `close()`.  `run` takes tasks from the iterable when it can start one, and
gives back progress and results as they come; a trial that fails is a `Result` with an error, never an exception.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from precis.errors import InputError, RunFailed
from precis.lab.claim import Metrics
from precis.lab.worker import Task, resolve_device

BURST = 0.5     # seconds: rows of a batch that come closer together share their time equally


@dataclass(frozen=True)
class Result:
    """One trial that ended: with metrics, or with an error (a traceback, what killed it).

    `more`: another one has ended too and follows at once, so that both can be kept in one go.
    """

    task: Task
    arm: str
    seed: int
    metrics: Metrics | None = None
    error: str | None = None
    folder: Path | None = None
    record: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    host: str = ""
    more: bool = False


@dataclass(frozen=True)
class Progress:
    """A trial that logged, or (`began`) a task that was handed out, under its first arm and seed."""

    task: Task
    arm: str
    seed: int
    began: bool = False
    step: int = 0
    total: int = 0
    scalars: dict[str, float | None] = field(default_factory=dict)


@runtime_checkable
class Engine(Protocol):
    """What `check` asks of an engine; it raises InputError, or RunFailed, for what ends the whole check."""

    @property
    def workers(self) -> int: ...
    def device(self, asked: str) -> str: ...
    def run(self, tasks: Iterable[Task]) -> Generator[Result | Progress, None, None]: ...
    def close(self) -> None: ...


class LocalEngine:
    """`workers` processes of `threads` threads each, started when there is work and kept until `close`.

    `gpus` is the share of a GPU that a worker gets (0: it is given none in particular).  `answer(what, digest)` is
    called where a task is `apart`: before a shared training ("wanted") and after one ("made").
    """

    def __init__(
        self, workers: int, threads: int = 1, gpus: float = 0.0, answer: Callable[[str, str], None] | None = None
    ) -> None:
        self.workers, self.threads, self.gpus, self.answer = workers, threads, gpus, answer
        self._inbox: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._alive: list[_Worker] = []
        self._busy = False

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and whatever they started."""
        for worker in self._alive:
            worker.kill()
        self._alive.clear()

    def device(self, asked: str) -> str:
        """The device that a check asked for, on this machine."""
        return resolve_device(asked)

    def run(self, tasks: Iterable[Task]) -> Generator[Result | Progress, None, None]:
        """One run at a time; close it if you leave it early, and the workers that are busy end."""
        if self._busy:
            raise RuntimeError("this engine is running already: close the generator that an earlier run gave")
        self._busy = True
        waiting = iter(tasks)
        more = True
        try:
            while True:
                while more and (worker := self._free()) is not None:
                    task = next(waiting, None)
                    if task is None:
                        more = False
                        break
                    worker.begin(task)
                    yield Progress(task, task.arms[0], task.seeds[0], began=True)
                if not any(w.task for w in self._alive):
                    return
                with contextlib.suppress(queue.Empty):
                    worker, message = self._inbox.get(timeout=BURST / 2)
                    if worker in self._alive:
                        yield from self._received(worker, message)
                for worker in self._alive:
                    yield from worker.settled()
        finally:                                        # left early: what still runs is nobody's
            for worker in [w for w in self._alive if w.task]:
                worker.kill()
                self._alive.remove(worker)
            self._busy = False

    def _free(self) -> "_Worker | None":
        for worker in self._alive:
            if worker.task is None:
                return worker
        if len(self._alive) < self.workers:
            slot = next(i for i in range(self.workers) if i not in {w.slot for w in self._alive})
            self._alive.append(_Worker(slot, self))
            return self._alive[-1]
        return None

    def _received(self, worker: "_Worker", message: dict[str, Any] | None) -> Iterator[Result | Progress]:
        if message is not None:
            yield from worker.received(message)
            return
        self._alive.remove(worker)
        reason = worker.death()
        worker.close_files()
        if not worker.ready:
            raise RunFailed(f"a worker process could not start: {reason}")
        if worker.task is not None:
            yield from worker.ended(reason)


class _Worker:
    """One process, the task it has, and the rows of it that came."""

    def __init__(self, slot: int, engine: LocalEngine) -> None:
        self.slot, self.ready = slot, False
        self.task: Task | None = None
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.about: dict[str, Any] = {}
        self.answer = engine.answer
        code = ("import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
                "from precis.lab.worker import main; main()")
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps([os.path.abspath(p) for p in sys.path])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, encoding="utf-8",
            env=_environment(slot, engine.threads, engine.gpus), start_new_session=True)
        threading.Thread(target=self._read, args=(engine._inbox,), daemon=True).start()

    def _read(self, inbox: "queue.Queue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):           # half a line of one that was killed
            for line in self.process.stdout:
                inbox.put((self, json.loads(line)))
        inbox.put((self, None))

    def begin(self, task: Task) -> None:
        assert self.process.stdin is not None
        self.task, self.left, self.burst = task, task.rows(), []
        self.counted = self.arrived = 0.0
        self.reason = "the batch ended without giving this row"
        with contextlib.suppress(OSError):              # it died just now: its end is on the way
            self.process.stdin.write(json.dumps(task.to_json()) + "\n")
            self.process.stdin.flush()

    left: list[tuple[str, int]]
    burst: list[dict[str, Any]]

    def received(self, message: dict[str, Any]) -> Iterator[Result | Progress]:
        kind, task = message.pop("kind"), self.task
        if kind == "ready":
            self.ready = True
        elif kind == "about":
            self.about = message
        elif task is None:
            raise RuntimeError(f"a worker without a task sent {kind!r}")
        elif kind == "asks":
            self._reply(message["what"], message["digest"])
        elif kind == "log":
            yield Progress(task, **message)
        elif kind == "row":
            self.left.remove((message["arm"], message["seed"]))
            self.burst.append(message)
            self.arrived = time.monotonic()
            if not task.batch:
                yield from self._flush()
        elif kind == "failed":
            yield from self._flush()
            _raise_if_for_all(message)
            self.reason = message["error"]
        elif kind == "end":
            yield from self.ended(self.reason)

    def _reply(self, what: str, digest: str) -> None:
        assert self.answer is not None and self.process.stdin is not None
        self.answer(what, digest)
        with contextlib.suppress(OSError):              # it died while it waited
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def settled(self) -> Iterator[Result]:
        """The rows of a batch that are waiting for others of the same moment, when none came."""
        if self.task and self.burst and time.monotonic() - self.arrived > BURST:
            yield from self._flush()

    def ended(self, reason: str) -> Iterator[Result]:
        """The task is over: rows that came, then a failure for each that did not."""
        assert self.task is not None
        yield from self._flush()
        task, left, self.task = self.task, self.left, None
        for arm, seed in left:
            yield Result(task, arm, seed, error=reason, **self.about)

    def _flush(self) -> Iterator[Result]:
        assert self.task is not None
        rows, self.burst = self.burst, []
        if rows:
            seconds = (rows[-1]["elapsed"] - self.counted) / len(rows)
            self.counted = rows[-1]["elapsed"]
        for row in rows:
            folder = Path(row["folder"]) if row["folder"] else None
            yield Result(self.task, row["arm"], row["seed"], row["metrics"], None, folder, row["record"], seconds,
                         row["peak_memory_mb"], **self.about)

    def death(self) -> str:
        code = self.process.wait()
        text = f"the worker process ended with exit code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            text = f"the worker process was killed by {name}"
            text += " (as the system does when memory runs out)" if name == "SIGKILL" else ""
        self.log.seek(0)
        return f"{text}\n{self.log.read().decode(errors='replace')[-2000:]}".strip()

    def kill(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.close_files()

    def close_files(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.log.close()


def _raise_if_for_all(message: dict[str, Any]) -> None:
    """Raise what no other trial of the check would escape."""
    if message["cause"] == "input":
        raise InputError(message["error"], file=message["file"], line=message["line"], row=message["row"])
    if message["cause"] == "changed":
        raise RunFailed(message["error"])
    if message["cause"] == "disk":
        raise RunFailed("the disk is full: what was finished is kept, go on when there is room")


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(slot: int, threads: int, gpus: float) -> dict[str, str]:
    found = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                 "VECLIB_MAXIMUM_THREADS"):
        found[name] = str(threads)
    found |= {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONUNBUFFERED": "1"}
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(_cards(slot, gpus, visible_gpus()))
    return found


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as names for CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [n.strip() for n in named.split(",") if n.strip()]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def _cards(slot: int, share: float, cards: list[str]) -> list[str]:
    """The cards of worker `slot`: `share` = 0.25 puts four on one card, 2 gives each two."""
    if share < 1:
        return [cards[int(slot * share + 1e-9) % len(cards)]] if cards else []
    width = round(share)
    return cards[slot * width:(slot + 1) * width]
