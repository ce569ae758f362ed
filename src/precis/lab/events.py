"""What a check tells whoever listens: trials that start, move and end, and how long the rest may take."""

import time
from collections.abc import Callable
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


class Meter:
    """Counts trials and estimates the time left, from what trials of the same kind took."""

    def __init__(self, listen: Callable[[Event], None] | None) -> None:
        self.listen = listen
        self.workers = 1
        self.done = 0
        self.waiting: dict[str, int] = {}
        self._took: dict[str, tuple[float, int]] = {}
        self._running: dict[tuple[str, str, int], tuple[float, float]] = {}

    def plan(self, kind: str, count: int) -> None:
        """`count` more trials of a kind (one group of claims) are to come."""
        self.waiting[kind] = self.waiting.get(kind, 0) + count

    def begin(self, kind: str, arm: str, seed: int) -> None:
        self._running[kind, arm, seed] = (time.monotonic(), 0.0)

    def moved(self, kind: str, arm: str, seed: int, step: int, total: int) -> None:
        began = self._running.get((kind, arm, seed), (time.monotonic(), 0.0))[0]
        self._running[kind, arm, seed] = (began, min(1.0, step / total) if total else 0.0)

    def end(self, kind: str, arm: str, seed: int, seconds: float | None) -> None:
        """A trial ended, or (`seconds` None) was found in the ledger, or will not be run after all."""
        self._running.pop((kind, arm, seed), None)
        self.waiting[kind] -= 1
        self.done += 1
        if seconds is not None:
            total, count = self._took.get(kind, (0.0, 0))
            self._took[kind] = (total + seconds, count + 1)

    def left(self) -> float | None:
        """Seconds, as if every worker were busy to the end; None while nothing has been timed."""
        means = {kind: total / count for kind, (total, count) in self._took.items()}
        now = time.monotonic()
        for (kind, _, _), (began, share) in self._running.items():
            if kind not in means and share > 0.02:
                means[kind] = (now - began) / share
        if not means:
            return None
        usual = sum(means.values()) / len(means)
        total = sum(count * means.get(kind, usual) for kind, count in self.waiting.items())
        ran = sum(min(now - began, means.get(kind, usual)) for (kind, _, _), (began, _) in self._running.items())
        return max(0.0, total - ran) / self.workers

    def tell(self, kind: Kind, claim: str, **what: Any) -> None:
        if self.listen is not None:
            planned = self.done + sum(self.waiting.values())
            self.listen(Event(kind, claim, done=self.done, planned=planned, left=self.left(), **what))
