"""The same trials on a Ray cluster: each task of a check is a Ray task with the processors and the GPU of its profile.

    for every task: hand out → messages as they come → rows; its node died: the same task again, elsewhere

The driver (this process) must run on a machine of the cluster.  Nothing but Ray's own network is shared: papers in
bare folders go along with their tasks, data where a node has not the same at the same path, shared trainings through
the `Keeper`, and rows and files come back in the tasks' streams.
"""

import atexit
import logging
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from precis.errors import InputError, RunFailed, need
from precis.lab.engine import Progress, Result
from precis.lab.fingerprint import data_fingerprint
from precis.lab.loading import PaperSource
from precis.lab.parcels import digest_of, packed, unpack
from precis.lab.ray_node import Keeper, Message, Order, Parcel, clear, serve
from precis.lab.worker import Task

LOSSES = 5          # of one task, after which it counts as failed
ANSWER = 5.0        # seconds that a cluster has to answer at its address
PATIENCE = 120.0    # seconds without any node that could run a trial
LOGS = 100.0        # a second, of all trials together
AHEAD = 8           # tasks handed out beyond twice what the nodes hold, so that none waits for the driver
LOOK = 2.0          # seconds between two looks at which nodes there are
MISSED = 3          # looks in a row at which the head did not answer, after which it counts as gone

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Flight:
    """One attempt at a task: its stream, and which rows are still to come."""

    task: Task
    left: list[tuple[str, int]]
    stream: Any
    token: str
    losses: int = 0
    began: bool = False
    folders: dict[tuple[str, int], Path] = field(default_factory=dict)


class RayEngine:
    """Connects to the cluster when made; `address` is HOST:PORT or "auto", `workers` how many tasks go out at once."""

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        need("cluster")
        import ray

        self._ray, self._asked = ray, workers
        self._connected = not ray.is_initialized()
        if self._connected:
            _connect(address or "auto")
        self._head = str(ray.get_runtime_context().gcs_address)
        self._missed = 0
        self._name = uuid.uuid4().hex
        self._serve = ray.remote(num_returns="streaming", max_retries=0, max_calls=0)(serve)
        self._keeper: Any = None
        self._parcels: dict[Path, Parcel] = {}
        self._shape = 1, 0.0
        self._slots, self._looked = 0, 0.0

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def workers(self) -> int:
        """Trials that the cluster runs at once."""
        return max(1, min(self._room(), self._asked or self._room()))

    def device(self, asked: str) -> str:
        """A GPU of the cluster's where it has one; this machine needs none."""
        cards = sum(node["Resources"].get("GPU", 0.0) for node in self._nodes())
        if asked == "auto":
            return "cuda" if cards else "cpu"
        if asked == "cuda" and not cards:
            raise InputError("--device cuda: no node of the Ray cluster has a GPU; use --device cpu")
        if asked not in ("cpu", "cuda"):
            raise InputError(f"--device {asked}: on a Ray cluster choose auto, cpu or cuda")
        return asked

    def close(self) -> None:
        """Leave the cluster; what this engine left on its nodes is removed."""
        ray = self._ray
        if not ray.is_initialized():
            return
        if not self._answers():
            _abandon(failed=self._missed >= MISSED)
            return
        if self._keeper is not None:
            clearing = ray.remote(num_cpus=0, max_retries=0)(clear)
            ended = [clearing.options(scheduling_strategy=self._on(node["NodeID"])).remote(self._name)
                     for node in self._nodes() if node["Resources"].get("CPU")]
            ray.wait(ended, num_returns=len(ended), timeout=ANSWER)
            ray.kill(self._keeper)
            self._keeper = None
        if self._connected:
            ray.shutdown()

    def run(self, tasks: Iterable[Task]) -> Generator[Result | Progress, None, None]:
        """As `LocalEngine.run`; all tasks need the same processors and GPUs."""
        waiting = iter(tasks)
        flights: dict[Any, _Flight] = {}
        more, alone = True, time.monotonic()
        try:
            while True:
                while more and len(flights) < (self._asked or 2 * self._room() + AHEAD):
                    task = next(waiting, None)
                    if task is None:
                        more = False
                        break
                    if (task.threads, task.gpus) != self._shape:
                        self._shape, self._looked = (task.threads, task.gpus), 0.0
                    flight = self._hand_out(task)
                    flights[flight.stream] = flight
                yield from _begun(list(flights.values()), self.workers)
                if not flights:
                    return
                alone = time.monotonic() if self._room() else alone
                if time.monotonic() - alone > PATIENCE:
                    raise RunFailed(f"no node of the Ray cluster has {self._needs()}: what was finished is kept, go on "
                                    "when there is one")
                yield from _bunched(self._landed(flights))
        finally:                                        # left early: what still runs is nobody's
            if self._missed < MISSED:                   # nodes without a head end by themselves
                self._call_off(list(flights.values()))

    def _landed(self, flights: dict[Any, _Flight]) -> Iterator[Result | Progress]:
        """What came on any stream."""
        for stream in self._ready(list(flights)):
            flight = flights.pop(stream)
            yield from self._moved(flight)
            if flight.left:
                flights[flight.stream] = flight

    def _ready(self, streams: list[Any]) -> list[Any]:
        some, rest = self._ray.wait(streams, num_returns=1, timeout=0.25)
        if some and rest:
            some += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return list(some)

    def _moved(self, flight: _Flight) -> Iterator[Result | Progress]:
        """The next messages of a stream, or its end."""
        ray = self._ray
        try:
            messages = ray.get(next(flight.stream))
        except StopIteration:
            yield from _failed(flight, "the batch ended without giving this row")
        except ray.exceptions.OutOfMemoryError as error:
            yield from _failed(flight, f"out of memory on its node: {_first_line(error)}")
            self._forget(flight)
        except ray.exceptions.RayTaskError as error:
            raise RunFailed(f"a node of the Ray cluster cannot run trials (it needs the same precis as this machine): "
                            f"{_last_line(error)}") from error
        except ray.exceptions.RayError as error:
            self._forget(flight)
            if flight.losses >= LOSSES:
                yield from _failed(flight, f"lost {LOSSES + 1} times with its node: {_first_line(error)}")
                return
            _log.warning("%s %s seed %s was lost and starts again: %s", flight.task.claim, flight.task.arms[0],
                         flight.task.seeds[0], _first_line(error))
            self._again(flight, flight.losses + 1)
        else:
            for message in messages:
                yield from self._received(flight, message)

    def _received(self, flight: _Flight, message: Message) -> Iterator[Result | Progress]:
        kind = message.pop("kind")
        if kind == "raised":
            if message["input"]:
                raise InputError(message["error"], file=message["file"], line=message["line"], row=message["row"])
            raise RunFailed(message["error"])
        if kind == "lacks":
            assert flight.task.data is not None
            self._ship(Path(flight.task.data))
            self._again(flight, flight.losses)
            return
        trial = message["arm"], message["seed"]
        if kind == "log":
            yield Progress(flight.task, **message)
        elif trial in flight.left and kind == "files":
            folder = flight.folders.setdefault(trial, Path(flight.task.scratch) / uuid.uuid4().hex)
            unpack([message["piece"]], folder)
        elif trial in flight.left and kind == "row":
            flight.left.remove(trial)
            yield Result(flight.task, folder=flight.folders.pop(trial, None), **message)

    def _hand_out(self, task: Task) -> _Flight:
        return self._again(_Flight(task, task.rows(), None, ""), 0)

    def _again(self, flight: _Flight, losses: int) -> _Flight:
        """Send the whole task: a batch's rows do not depend on which are left, and none is taken twice."""
        task = flight.task
        flight.token, flight.losses = uuid.uuid4().hex, losses
        order = Order(
            self._name, flight.token, max(0.5, self._slots / LOGS), self._keeping(), task.home, _environment(),
            self._paper(task.paper), None if task.data is None else self._data(Path(task.data)))
        flight.stream = self._serve.options(num_cpus=task.threads, num_gpus=task.gpus).remote(task.to_json(), order)
        return flight

    def _forget(self, flight: _Flight) -> None:
        for folder in flight.folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        flight.folders.clear()
        self._keeper.ended.remote(flight.token)

    def _call_off(self, flights: list[_Flight]) -> None:
        """Stop these on their nodes; by force those that have not stopped soon."""
        ray, streams, end = self._ray, [flight.stream for flight in flights], time.monotonic() + ANSWER
        for stream in streams:
            ray.cancel(stream)
        while streams and time.monotonic() < end:
            for stream in self._ready(streams):
                try:
                    ray.get(next(stream))
                except (StopIteration, ray.exceptions.RayError):
                    streams.remove(stream)
        for stream in streams:
            ray.cancel(stream, force=True)
        for flight in flights:
            self._forget(flight)

    def _keeping(self) -> Any:
        if self._keeper is None:
            here = self._on(self._ray.get_runtime_context().get_node_id())
            made = self._ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Keeper)
            self._keeper = made.remote()
        return self._keeper

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node_id=node, soft=False)

    def _paper(self, paper: PaperSource) -> Parcel | None:
        """None for one in a package, which every node has for itself."""
        if paper.package is not None:
            return None
        if paper.folder not in self._parcels:
            pieces = list(packed(paper.folder, paper.folder.parent))
            self._parcels[paper.folder] = Parcel(
                digest_of(pieces), str(paper.folder), tuple(map(self._ray.put, pieces)))
        return self._parcels[paper.folder]

    def _data(self, path: Path) -> Parcel:
        if path not in self._parcels:
            self._parcels[path] = Parcel(data_fingerprint(path), str(path), None)
        return self._parcels[path]

    def _ship(self, path: Path) -> None:
        """From now on the data go along."""
        parcel = self._parcels[path]
        if parcel.pieces is None:
            pieces = tuple(self._ray.put(piece) for piece in packed(path, path.parent))
            self._parcels[path] = Parcel(parcel.digest, parcel.path, pieces)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]

    def _answers(self) -> bool:
        """Whether the head is there; Ray, if asked after it has gone, waits for a minute and then ends this process."""
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK).close()
        except OSError:
            return False
        return True

    def _room(self) -> int:
        """Trials of the present shape that the nodes hold at once.  RunFailed soon after the head has gone."""
        if time.monotonic() - self._looked > LOOK:
            self._looked, (threads, gpus) = time.monotonic(), self._shape
            self._missed = 0 if self._answers() else self._missed + 1
            if self._missed >= MISSED:
                raise RunFailed(f"the head of the Ray cluster at {self._head} is gone: what was finished is kept, and "
                                "the same command goes on when there is a cluster again")
            if self._missed:
                return self._slots
            has = [(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in self._nodes()]
            self._slots = sum(int(min(cpus / threads, cards / gpus if gpus else cpus) + 1e-9) for cpus, cards in has)
        return self._slots

    def _needs(self) -> str:
        threads, gpus = self._shape
        return f"{threads} CPU{'s' * (threads > 1)}" + (f" and {gpus:g} GPU" if gpus else "")


def _begun(flights: list[_Flight], workers: int) -> Iterator[Progress]:
    """Ray starts tasks of one shape in the order in which they came: the first `workers` of them are running."""
    for flight in flights[:workers]:
        if not flight.began:
            flight.began = True
            yield Progress(flight.task, flight.task.arms[0], flight.task.seeds[0], began=True)


def _bunched(coming: Iterator[Result | Progress]) -> Iterator[Result | Progress]:
    """The same, where each result but the last says that more follow."""
    held: Result | None = None
    try:
        for got in coming:
            if isinstance(got, Progress):
                yield got
                continue
            if held is not None:
                yield replace(held, more=True)
            held = got
    except (InputError, RunFailed):
        if held is not None:
            yield held
        raise
    if held is not None:
        yield held


def _failed(flight: _Flight, error: str) -> Iterator[Result]:
    left, flight.left = flight.left, []
    for arm, seed in left:
        yield Result(flight.task, arm, seed, error=error)


def _environment() -> dict[str, str]:
    """What nodes take from the driver if they have none of their own and the folder is there: where data sets lie."""
    return {name: os.environ[name] for name in ("PRECIS_DATA",) if os.environ.get(name)}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


def _connect(address: str) -> None:
    """InputError in one line, and soon, where no cluster answers: Ray itself would try for two minutes and exit."""
    import ray

    asked = _running() if address == "auto" else address
    if asked != "auto":
        _knock(asked)
    try:
        ray.init(address=asked, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise InputError("no Ray cluster runs on this machine: `ray start --head` starts one, `ray start "
                         "--address=HOST:PORT` joins one, or name one of this machine's by --address HOST:PORT"
                         if asked == "auto" else _unjoined(asked)) from None
    except (RuntimeError, ValueError, SystemExit) as error:
        raise InputError(f"--address {asked}: {_first_line(error)}") from error


def _abandon(failed: bool) -> None:
    """Leave a cluster whose head is gone: Ray's own shutdown would wait for it, and so may the end of this process."""
    from ray._private import worker

    atexit.unregister(worker.shutdown)
    if failed:
        atexit.register(_end)


def _end() -> None:
    """The end of a process whose check could not be completed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _running() -> str:
    """The address of the cluster that this machine is part of, "auto" if none is known."""
    if given := os.environ.get("RAY_ADDRESS"):
        return given
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address("auto") or "auto"
    except ConnectionError:
        return "auto"


def _unjoined(address: str) -> str:
    return (f"--address {address}: this machine is not part of that cluster; run `ray start --address={address} "
            "--num-cpus=0` here first, or run precis on a machine that is")


def _knock(address: str) -> None:
    """See that something at HOST:PORT greets as Ray's head does (HTTP/2: a frame of settings)."""
    host, colon, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise InputError(f"--address {address}: Ray clients cannot stream results; give HOST:PORT of the head, and run "
                         "precis on a machine of the cluster")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"--address must be auto or HOST:PORT, not {address!r}")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER) as line:
            line.settimeout(ANSWER)
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            greeting = line.recv(9)
    except OSError as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error.strerror or error})") from None
    if len(greeting) < 4 or greeting[3] != 4:
        raise InputError(f"--address {address}: what answers there is not the head of a Ray cluster")
