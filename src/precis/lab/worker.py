"""One process in which trials run, one task after the other: it imports the paper by itself and sends rows back.

Tasks come as JSON lines on stdin, messages go as JSON lines to what was stdout; whatever a trial prints goes to a log
that is quoted when it fails.  When stdin closes, the process that sent tasks is gone, and so is this one.
"""

import contextlib
import errno
import json
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from precis.errors import InputError
from precis.lab.claim import Claim, Metrics
from precis.lab.loading import PaperSource, claims_of
from precis.lab.recorder import TrialRecord
from precis.lab.shared import SharedPlace

Send = Callable[[dict[str, Any]], None]
Ask = Callable[[str, str], None]


@dataclass(frozen=True)
class Task:
    """Trials to run in one go, all JSON: one (arm, seed), or all of `arms` × `seeds` where `batch`.

    `cuda` chooses the profile's settings for a GPU; `source` and `contents` are the fingerprints of code and data that
    the trials' keys were made with, `common` that of the paper's code without the claims' own methods.  `gpus` is a
    trial's share of one; `apart`: other machines have shared trainings too, so the receiver is asked for each.
    """

    paper: PaperSource
    claim: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    profile: str
    batch: bool = False
    cuda: bool = False
    data: str | None = None
    device: str = "cpu"
    tuned: Mapping[str, Mapping[str, Any]] | None = None
    threads: int = 1
    scratch: str = ""
    home: str = ""
    source: str = ""
    contents: str = ""
    common: str = ""
    gpus: float = 0.0
    apart: bool = False

    def to_json(self) -> dict[str, Any]:
        paper = {"id": self.paper.id, "folder": str(self.paper.folder), "package": self.paper.package}
        return {**self.__dict__, "paper": paper}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Task":
        paper = values["paper"]
        source = PaperSource(paper["id"], Path(paper["folder"]), paper["package"])
        return Task(**{**values, "paper": source, "arms": tuple(values["arms"]), "seeds": tuple(values["seeds"])})

    def rows(self) -> list[tuple[str, int]]:
        return [(arm, seed) for arm in self.arms for seed in self.seeds]


class Changed(Exception):
    """The code read here is not the code the check was started with."""


class Bench:
    """Runs tasks; keeps the data of the last paper's claims loaded."""

    def __init__(self) -> None:
        self._paper: PaperSource | None = None
        self._data: dict[str, Any] = {}         # by fingerprint: claims that load the same share it
        self._checked: set[tuple[str, str]] = set()

    def run(self, task: Task, send: Send, ask: Ask | None = None) -> None:
        """Send `row` or `failed` for the task's trials as they end, then `end`.

        A trial without either (a batch that stopped early) is for the receiver to miss.
        """
        try:
            self._run(task, send, ask if task.apart else None)
        except InputError as error:
            place = {"file": None if error.file is None else str(error.file), "line": error.line, "row": error.row}
            send({"kind": "failed", "cause": "input", "error": error.message, **place})
        except Exception as error:
            self._data.clear()              # it may have been left half changed
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            cause = "changed" if isinstance(error, Changed) else "disk" if full else "trial"
            text = str(error) if cause == "changed" else _traceback(error)
            send({"kind": "failed", "cause": cause, "error": text})
        if task.device == "cuda":
            import torch

            torch.cuda.empty_cache()
        send({"kind": "end"})

    def _run(self, task: Task, send: Send, ask: Ask | None) -> None:
        from precis.lab.fingerprint import data_fingerprint
        from precis.lab.trial import make_repeatable, seed_globals

        make_repeatable(task.threads)
        claim = self._claim(task)
        settings = settings_of(claim, task.profile, task.cuda)
        data = self._load(task, claim, settings)
        place = SharedPlace(Path(task.home) / "shared", task.common, task.contents, task.device, type(claim), ask)
        records = {
            (arm, seed): TrialRecord(
                Path(task.scratch) / uuid.uuid4().hex, seed, device=task.device, tuned=(task.tuned or {}).get(arm),
                emit=_paced(send, arm, seed), shared=place)
            for arm, seed in task.rows()
        }
        reset_peak(task.device)
        start = time.perf_counter()

        def unchanged() -> None:
            if data_fingerprint(data) != task.contents:
                raise ValueError("the trial changed the data that it was given: other trials read them too")

        def row(arm: str, seed: int, returned: Any) -> None:
            if not task.batch or len(left) == len(records) - 1:
                unchanged()
            record = records[arm, seed]
            metrics, notes = metrics_of(returned)
            for note in notes:
                record.note(note)
            send({"kind": "row", "arm": arm, "seed": seed, "metrics": metrics, "record": record.summary(),
                  "folder": str(record.folder) if record.folder.is_dir() else None,
                  "elapsed": time.perf_counter() - start, "peak_memory_mb": peak(task.device)})

        left = set(records)
        if task.batch:
            seed_globals(task.seeds[0])
            for arm, seed, returned in claim.batch(task.arms, task.seeds, settings, data, records):
                if (arm, int(seed)) not in left:
                    raise ValueError(f"batch gave a row for ({arm!r}, {seed}), which was not asked for or came twice")
                left.discard((arm, int(seed)))
                row(arm, int(seed), returned)
            unchanged()
        else:
            for arm, seed in records:
                seed_globals(seed)
                row(arm, seed, claim.trial(arm, seed, settings, data, records[arm, seed]))

    def _claim(self, task: Task) -> Claim:
        from precis.lab.fingerprint import source_fingerprint

        if task.paper != self._paper:
            self._paper, self._checked = task.paper, set()
            self._data.clear()
        found = claims_of(task.paper)[task.claim]
        if (task.claim, task.source) not in self._checked:
            if source_fingerprint(found) != task.source:
                raise Changed(f"the code of {task.paper.id}/{task.claim} changed while it was being checked, or is "
                              "another one on the machine that runs it: check it again")
            self._checked.add((task.claim, task.source))
        return found()

    def _load(self, task: Task, claim: Claim, settings: Any) -> Any:
        if task.contents not in self._data:
            from precis.lab.fingerprint import data_fingerprint

            data = claim.load(settings, None if task.data is None else Path(task.data))
            if data_fingerprint(data) != task.contents:
                raise ValueError("load gave other data than when the check started: it must give the same each time")
            self._data[task.contents] = data
        return self._data[task.contents]


def resolve_device(device: str) -> str:
    """"auto" is a CUDA GPU if there is one, else the processor; InputError for one that is not there."""
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA GPU here; use --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: torch finds no Apple GPU here; use --device cpu")
    if device not in ("cuda", "mps"):
        raise InputError(f"--device {device}: choose auto, cpu, cuda or mps")
    return device


def settings_of(claim: Claim | type[Claim], profile: str, cuda: bool) -> Any:
    """The settings that run: the profile's own for a GPU where `cuda` and there are any."""
    found = claim.profiles[profile]
    return found.cuda if cuda and found.cuda is not None else found.settings


def metrics_of(returned: Any) -> tuple[Metrics, list[str]]:
    """What a trial returned as floats; one that is not finite stays so, with a note."""
    if not isinstance(returned, Mapping) or not returned:
        raise TypeError(f"a trial returns its metrics as a dict that is not empty, got {returned!r}")
    notes: list[str] = []

    def number(name: str, value: Any) -> float:
        found = float(value)
        if not math.isfinite(found):
            notes.append(f"{name} is not finite ({found})")
        return found

    metrics: dict[str, Any] = {}
    for name, value in returned.items():
        if isinstance(value, Mapping):
            metrics[str(name)] = {str(task): number(f"{name} of {task}", v) for task, v in value.items()}
        else:
            metrics[str(name)] = number(str(name), value)
    return metrics, notes


def reset_peak(device: str) -> None:
    """Start measuring peak memory anew, as far as the system lets us."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> float:
    """MiB: on a GPU the most that was allocated there, else the most that this process had resident."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def versions() -> dict[str, str]:
    """Versions of what numbers may depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("precis-papers", "torch", "numpy", "scipy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def host(device: str) -> str:
    """The machine in words: name, processors and, where it computes, the GPU."""
    import platform

    text = f"{platform.node()}: {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if device == "cuda":
        import torch

        text += f", {torch.cuda.get_device_name()}"
    return text


def _paced(send: Send, arm: str, seed: int) -> Callable[[int, int, dict[str, float]], None]:
    """Send what a trial logs, at most ten times a second, and its last step."""
    last = -math.inf

    def emit(step: int, total: int, scalars: dict[str, float]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 0.1 or step >= total:
            last = now
            finite = {k: v if math.isfinite(v) else None for k, v in scalars.items()}
            send({"kind": "log", "arm": arm, "seed": seed, "step": step, "total": total, "scalars": finite})

    return emit


def _traceback(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    return text if len(text) < 8000 else text[:2000] + "\n…\n" + text[-6000:]


def main() -> None:
    """Read tasks from stdin until it closes; stderr is the log, begun anew for each task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C is for the process that the user started
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    def ask(what: str, digest: str) -> None:
        send({"kind": "asks", "what": what, "digest": digest})
        tasks.get()             # while a task runs, the next line is the answer

    def listen() -> None:
        for line in sys.stdin:
            tasks.put(line)
        os.killpg(os.getpgid(0), signal.SIGKILL)        # with whatever a trial has started

    import torch

    torch.set_num_interop_threads(1)
    threading.Thread(target=listen, daemon=True).start()
    bench = Bench()
    send({"kind": "ready"})
    told = False
    while True:
        task = Task.from_json(json.loads(tasks.get()))
        if not told:
            send({"kind": "about", "versions": versions(), "host": host(task.device)})
            told = True
        os.lseek(2, 0, os.SEEK_SET)
        os.ftruncate(2, 0)
        bench.run(task, send, ask)
