"""What runs on the nodes of a Ray cluster: tasks in this machine's own worker processes, and who makes what is shared.

A Ray task holds one seat: a `LocalEngine` of one worker, kept between tasks.  So a trial has the environment that it
has on one machine, its death is its own and never Ray's, and it ends with the Ray process above it.  What comes back
is a stream of messages, files among them; nodes need no disk in common.

    trial ⇄ pipe ⇄ seat → Ray's object store → driver → ledger
                   seat ⇄ Keeper (beside the driver): shared trainings
"""

import hashlib
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from precis.errors import InputError, RunFailed
from precis.lab.engine import LocalEngine, Progress, Result
from precis.lab.fingerprint import data_fingerprint
from precis.lab.loading import PaperSource
from precis.lab.parcels import packed, unpack
from precis.lab.shared import SharedPlace, locked, make_once
from precis.lab.worker import Task

POLL = 0.2      # seconds between two looks at a training that another node makes
Message = dict[str, Any]


@dataclass(frozen=True)
class Parcel:
    """A file or folder of the driver's: its digest, its path there, and its pieces in the object store once shipped."""

    digest: str
    path: str
    pieces: tuple[Any, ...] | None


@dataclass(frozen=True)
class Order:
    """What goes along with a task: `name` of the engine, `token` of this attempt, seconds between two logs, and
    the driver's `home`."""

    name: str
    token: str
    pace: float
    keeper: Any
    home: str
    environment: Mapping[str, str]
    paper: Parcel | None = None
    data: Parcel | None = None


class Keeper:
    """Shared trainings of all nodes, in a home of the driver's, beside which this actor lives.

    The first who wants one makes it; the others look again.  The right to make is taken from an attempt that ended.
    """

    def __init__(self) -> None:
        self.makers: dict[tuple[str, str], str] = {}

    def wanted(self, home: str, digest: str, token: str) -> list[Any] | str:
        """Its pieces, or whether to "make" it or to "wait"."""
        import ray

        folder = Path(home) / "shared" / digest
        if folder.is_dir():
            return [ray.put(piece) for piece in packed(folder, folder)]
        return "make" if self.makers.setdefault((home, digest), token) == token else "wait"

    def made(self, home: str, digest: str, pieces: list[Any]) -> None:
        import ray

        place = SharedPlace(Path(home) / "shared", "", "", "")
        make_once(place, digest, lambda folder: unpack(map(ray.get, pieces), folder))
        self.makers.pop((home, digest), None)

    def ended(self, token: str) -> None:
        """An attempt is over: what it has not made yet is for another."""
        self.makers = {what: maker for what, maker in self.makers.items() if maker != token}


def serve(values: dict[str, Any], order: Order) -> Iterator[list[Message]]:
    """Run one task; messages of kind `log`, `files`, `row`, and `lacks` or `raised` where the task could not be run."""
    task = Task.from_json(values)
    for name, value in order.environment.items():
        if name not in os.environ and Path(value).exists():
            os.environ[name] = value
    seat = _taken(order.name, task)
    seat.order = order
    try:
        there = seat.laid_out(task)
        if there is None:
            yield [{"kind": "lacks"}]
            return
        with closing(seat.engine.run([there])) as coming:
            last = 0.0
            for got in coming:
                if isinstance(got, Result):
                    yield from _row(got)
                elif not got.began and (time.monotonic() - last > order.pace or got.step >= got.total):
                    last = time.monotonic()
                    yield [_log(got)]
    except (InputError, RunFailed) as error:
        yield [_raised(error)]
    finally:
        seat.clear()


def clear(name: str) -> None:
    """Remove what an engine left on this node."""
    base = _base()
    with locked(base / "all.lock"):
        _remove(base / f"{name}.owner")


class Seat:
    """One worker process of this node, for one engine and one shape of trial."""

    order: Order

    def __init__(self, name: str, threads: int, gpus: float) -> None:
        self.folder, self._owner = _owned(name)
        self.scratch = self.folder / "scratch" / uuid.uuid4().hex
        self.engine = LocalEngine(1, threads, gpus, self.answer)
        self._same: dict[tuple[str, str], bool] = {}
        self._makes: set[str] = set()

    def close(self) -> None:
        self.engine.close()
        os.close(self._owner)

    def laid_out(self, task: Task) -> Task | None:
        """The task with the paths of this node; None if it lacks data that were not shipped."""
        paper, data = self.order.paper, self.order.data
        here = replace(task, home=str(self._home()), scratch=str(self.scratch), apart=True)
        if paper is not None:
            here = replace(here, paper=PaperSource(task.paper.id, self._unpacked(paper)))
        if data is not None and not self._has(data):
            if data.pieces is None:
                return None
            here = replace(here, data=str(self._unpacked(data)))
        return here

    def answer(self, what: str, digest: str) -> None:
        """A trial wants a shared training, or has made one."""
        import ray

        order, folder = self.order, self._home() / "shared" / digest
        if what == "made":
            pieces = [ray.put(piece) for piece in packed(folder, folder)]
            ray.get(order.keeper.made.remote(order.home, digest, pieces))
            self._makes.discard(digest)
            return
        while (found := ray.get(order.keeper.wanted.remote(order.home, digest, order.token))) == "wait":
            time.sleep(POLL)
        if found == "make":
            self._makes.add(digest)
            return
        beside = folder.with_name(f"{digest}.making-{uuid.uuid4().hex}")
        unpack(map(ray.get, found), beside)
        beside.rename(folder)

    def clear(self) -> None:
        """After a task: give back what it was to make and did not, and what it wrote."""
        if self._makes:
            self.order.keeper.ended.remote(self.order.token)
            self._makes.clear()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _home(self) -> Path:
        """What stands for the driver's home here."""
        return self.folder / f"home-{hashlib.sha256(self.order.home.encode()).hexdigest()[:16]}"

    def _has(self, data: Parcel) -> bool:
        """Whether the same data lie at the same path here."""
        key = data.path, data.digest
        if key not in self._same:
            there = Path(data.path)
            self._same[key] = there.exists() and data_fingerprint(there) == data.digest
        return self._same[key]

    def _unpacked(self, parcel: Parcel) -> Path:
        import ray

        assert parcel.pieces is not None
        place, pieces = SharedPlace(self.folder / "parcels", "", "", ""), parcel.pieces
        folder = make_once(place, parcel.digest, lambda folder: unpack(map(ray.get, pieces), folder))
        return folder / Path(parcel.path).name


_seat: tuple[tuple[Any, ...], Seat] | None = None


def _taken(name: str, task: Task) -> Seat:
    """This process's seat; another engine, shape or GPU than the last one's gets a new one."""
    global _seat
    key = name, task.threads, task.gpus, os.environ.get("CUDA_VISIBLE_DEVICES") if task.gpus else None
    if _seat is not None and _seat[0] != key:
        _seat[1].close()
        _seat = None
    if _seat is None:
        _seat = key, Seat(name, task.threads, task.gpus)
    return _seat[1]


def _row(got: Result) -> Iterator[list[Message]]:
    """Its files, the last of them in one message with the rest."""
    where = {"arm": got.arm, "seed": got.seed}
    row = {"kind": "row", **where, "metrics": got.metrics, "error": got.error, "record": got.record,
           "seconds": got.seconds, "peak_memory_mb": got.peak_memory_mb, "versions": got.versions, "host": got.host}
    before: list[Message] = []
    if got.folder is not None:
        for piece in packed(got.folder, got.folder):
            if before:
                yield before
            before = [{"kind": "files", **where, "piece": piece}]
        shutil.rmtree(got.folder, ignore_errors=True)
    yield [*before, row]


def _log(got: Progress) -> Message:
    return {"kind": "log", "arm": got.arm, "seed": got.seed, "step": got.step, "total": got.total,
            "scalars": got.scalars}


def _raised(error: InputError | RunFailed) -> Message:
    if isinstance(error, RunFailed):
        return {"kind": "raised", "input": False, "error": f"{error} (on the node {platform.node()})"}
    file = None if error.file is None else str(error.file)
    return {"kind": "raised", "input": True, "error": f"{error.message} (on the node {platform.node()})",
            "file": file, "line": error.line, "row": error.row}


def _base() -> Path:
    """Where this user's engines have their folders on this node."""
    base = Path(tempfile.gettempdir()) / f"precis-ray-{os.getuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if base.stat().st_uid != os.getuid():
        raise RunFailed(f"{base} belongs to another user")
    return base


def _owned(name: str) -> tuple[Path, int]:
    """An engine's folder on this node, and a handle that keeps it; folders that nobody keeps any more are removed."""
    import fcntl

    base = _base()
    with locked(base / "all.lock"):
        for file in base.glob("*.owner"):
            if file.stem != name:
                with suppress(OSError), file.open() as handle:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(file)
        folder, owner = base / name, base / f"{name}.owner"
        folder.mkdir(exist_ok=True)
        kept = os.open(owner, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(kept, fcntl.LOCK_SH)
    return folder, kept


def _remove(owner: Path) -> None:
    shutil.rmtree(owner.with_suffix(""), ignore_errors=True)
    owner.unlink(missing_ok=True)
