"""What a claim is: arms, settings per profile, trials, and the hypotheses that judge them.

A paper's `claims.py` holds subclasses of `Claim`.  A class without a `name` is a base that several claims share.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

Number = int | float  # annotations are enforced in tests, where 5 is no float
Metrics = dict[str, Number | dict[str, Number]]


@dataclass(frozen=True)
class Profile:
    """One scale at which a claim is checked.  `settings` is a frozen dataclass of JSON values."""

    settings: Any
    seeds: int = 5
    scale: str = ""
    threads: int = 1
    gpus: Number = 0.0
    cuda: Any = None


class Outcome(NamedTuple):
    """What one hypothesis says of a table: `holds` is None where nothing could be said."""

    text: str
    effect: float | None
    interval: tuple[float, float] | None
    holds: bool | None
    n: int
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Metrics of the finished trials, as hypotheses read them.

    `alpha` is the two-sided error of this look: 0.05, or less when the check may look again (`--until-verdict`).
    `unit="task"`: a metric with one number a task is averaged over seeds, and tasks are the replications.
    `stands_in` maps an arm to the (sabotaged) arm whose rows are read in its place.
    """

    rows: Mapping[str, Mapping[int, Metrics]]
    seeds: tuple[int, ...]
    alpha: float = 0.05
    unit: str = "seed"
    stands_in: Mapping[str, str] = field(default_factory=dict)

    def values(self, metric: str, arm: str) -> dict[int | str, float]:
        """{seed or task: value}; a missing trial or a value that is not a number is left out by nobody: it is NaN."""
        rows = self.rows.get(self.stands_in.get(arm, arm), {})
        found = {seed: rows.get(seed, {}).get(metric) for seed in self.seeds}
        if self.unit == "seed":
            return {s: float(v) if isinstance(v, int | float) else float("nan") for s, v in found.items()}
        per_task: dict[int | str, list[float]] = {}
        for value in found.values():
            for task, number in (value if isinstance(value, dict) else {}).items():
                per_task.setdefault(task, []).append(float(number) if isinstance(number, int | float) else float("nan"))
        complete = len(self.seeds)
        return {t: sum(v) / len(v) if len(v) == complete else float("nan") for t, v in per_task.items()}


@runtime_checkable
class Hypothesis(Protocol):
    """A frozen dataclass that judges a table; a paper may bring its own."""

    @property
    def counts(self) -> bool: ...
    @property
    def profiles(self) -> tuple[str, ...] | None: ...
    @property
    def unit(self) -> str: ...
    def outcome(self, table: Table) -> Outcome: ...


@dataclass(frozen=True)
class Precondition:
    """What must hold for every seed before the hypotheses mean anything; one seed failing: inconclusive, with `why`.

    profiles: the only ones at which it is asked; None: all.
    """

    metric: str
    arm: str
    at_least: Number | None = None
    at_most: Number | None = None
    why: str = ""
    profiles: tuple[str, ...] | None = None


def asked_at(condition: Hypothesis | Precondition, profile: str) -> bool:
    """Whether it is asked at this profile."""
    return condition.profiles is None or profile in condition.profiles


@dataclass(frozen=True)
class Tuning:
    """The same grid and number of runs for every arm, on seeds (10_000 upward) that no verdict uses.

    `grid` maps an option to its candidates (their product is tried); the best mean of `metric` is chosen for each arm
    and reaches its trials as `record.tuned`.  The smoke profile tries the first two candidates only.
    """

    grid: Mapping[str, tuple[Any, ...]]
    metric: str
    seeds: int = 1
    maximise: bool = True


@runtime_checkable
class Recorder(Protocol):
    """What a trial writes to.  `streams`: generators init, data, noise and eval, the same for every arm of a seed."""

    device: str
    tuned: dict[str, Any]
    streams: "Mapping[str, torch.Generator]"

    def log(self, step: int, total: int, **scalars: float) -> None: ...
    def image(self, name: str, pixels: Any, step: int | None = None) -> None: ...
    def note(self, text: str) -> None: ...
    def curve(self, name: str, x: Any, y: Any) -> None: ...
    def table(self, name: str, rows: list[dict[str, Any]]) -> None: ...
    def examples(self, name: str, ids: Any, outcomes: Any) -> None: ...
    def shared(self, name: str, make: Callable[[Path], None], settings: Any) -> Path: ...


class Claim:
    """One statement of a paper as an experiment: class attributes, `load`, and `trial` or `batch`."""

    name: ClassVar[str] = ""
    statement: ClassVar[str] = ""
    arms: ClassVar[tuple[str, ...]] = ()
    sabotaged: ClassVar[dict[str, str]] = {}
    profiles: ClassVar[dict[str, Profile]] = {}
    hypotheses: ClassVar[tuple[Hypothesis, ...]] = ()
    preconditions: ClassVar[tuple[Precondition, ...]] = ()
    tuning: ClassVar[Tuning | None] = None
    runs: ClassVar[str] = ""
    takes: ClassVar[tuple[str, ...]] = ()
    untried: ClassVar[str] = ""
    by_arm: ClassVar[bool] = False  # `batch` trains one arm after the other: workers may share the arms out

    def load(self, settings: Any, source: Path | None) -> Any:
        """The data, once a worker; `source` is the user's `--data`."""
        return None

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        """Train and measure one arm under one seed."""
        raise NotImplementedError(f"{type(self).__name__} gives neither trial nor batch")

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:
        """All of `arms` × `seeds` in one pass; yields (arm, seed, metrics) as soon as known."""
        for arm in arms:
            for seed in seeds:
                yield arm, seed, self.trial(arm, seed, settings, data, records[arm, seed])
