"""What a check tells whoever listens: trials that start, move and end, and how long the rest may take."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["plan", "start", "log", "done", "failed", "verdict"]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    `plan`: `planned` trials are known of now.  `start`, `log`, `done`, `failed`: of one trial (`cached`: it was in
    the ledger; `tuning`: no verdict reads it).  `verdict`: `entry` is the claim's report.  `done` and `planned` count
    the trials of the whole check, `left` is its estimated seconds, None while nothing has been timed.
    """

    kind: Kind
    claim: str
    arm: str = ""
    seed: int = -1
    tuning: bool = False
    cached: bool = False
    step: int = 0
    total: int = 0
    scalars: dict[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    entry: dict[str, Any] | None = None
    done: int = 0
    planned: int = 0
    left: float | None = None


@dataclass
class _Task:
    kind: str
    rows: int
    began: float
    share: float = 0.0


class Meter:
    """Counts trials and estimates the time left, from what trials of the same kind (one group of claims) took."""

    def __init__(self, listen: Callable[[Event], None] | None) -> None:
        self.listen = listen
        self.workers = 1
        self.done = 0
        self._waiting: dict[str, int] = {}
        self._took: dict[str, tuple[float, int]] = {}
        self._running: dict[Hashable, _Task] = {}

    def plan(self, kind: str, count: int) -> None:
        """`count` more trials of a kind are to come."""
        self._waiting[kind] = self._waiting.get(kind, 0) + count

    def begin(self, kind: str, task: Hashable, rows: int) -> None:
        self._running[task] = _Task(kind, rows, time.monotonic())

    def moved(self, task: Hashable, step: int, total: int) -> None:
        if task in self._running and total > 0:
            self._running[task].share = max(self._running[task].share, min(1.0, step / total))

    def row_of(self, task: Hashable) -> None:
        """One trial of a running task ended."""
        if task in self._running:
            self._running[task].rows -= 1
            if not self._running[task].rows:
                del self._running[task]

    def end(self, kind: str, seconds: float | None) -> None:
        """A trial ended, or (`seconds` None) failed, was found in the ledger, or will not be run after all."""
        self._waiting[kind] -= 1
        self.done += 1
        if seconds is not None:
            total, count = self._took.get(kind, (0.0, 0))
            self._took[kind] = (total + seconds, count + 1)

    def left(self) -> float | None:
        """Seconds, with every worker busy to the end but no task split; None while nothing can be told."""
        now = time.monotonic()
        means = {kind: total / count for kind, (total, count) in self._took.items()}
        for task in self._running.values():
            if task.kind not in means and task.share > 0.02:
                means[task.kind] = (now - task.began) / task.share / task.rows
        if not means:
            return 0.0 if not sum(self._waiting.values()) else None
        usual = sum(means.values()) / len(means)
        running = [(means.get(t.kind, usual) * t.rows, now - t.began) for t in self._running.values()]
        total = sum(count * means.get(kind, usual) for kind, count in self._waiting.items())
        total -= sum(min(needs, ran) for needs, ran in running)
        return max(0.0, total / self.workers, *(needs - ran for needs, ran in running))

    def tell(self, kind: Kind, claim: str, **what: Any) -> None:
        if self.listen is not None:
            planned = self.done + sum(self._waiting.values())
            self.listen(Event(kind, claim, done=self.done, planned=planned, left=self.left(), **what))
