"""The trials of one check: what the ledger lacks goes to an engine, what comes back goes to the ledger."""

import math
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from precis.lab.engine import Engine, LocalEngine, Progress, Result, cores, visible_gpus
from precis.lab.events import Meter
from precis.lab.ledger import Ledger, Trial
from precis.lab.plan import LEAST_SEEDS, TUNING_SEED, Group
from precis.lab.recorder import plain
from precis.lab.worker import Task


class Wanted(NamedTuple):
    """One trial that somebody asks for."""

    group: Group
    arm: str
    seed: int
    tuned: dict[str, Any]

    @property
    def key(self) -> str:
        return self.group.key(self.arm, self.seed, self.tuned)

    @property
    def tuning(self) -> bool:
        return self.seed >= TUNING_SEED


class Running:
    """Runs trials for `check`; a failed one is not tried twice by one check."""

    def __init__(
        self, ledger: Ledger, home: Path, scratch: Path, meter: Meter, workers: int | None, engine: Engine | None
    ) -> None:
        self.ledger, self.home, self.scratch, self.meter = ledger, home, scratch, meter
        self.dropped: set[tuple[Group, int]] = set()
        self._failed: set[str] = set()
        self._ended: list[tuple[Wanted, Trial, Path | None]] = []
        self._workers, self._given = workers, engine
        self._own: tuple[tuple[int, float], LocalEngine] | None = None
        self._late_at = float("inf")

    def close(self) -> None:
        if self._own is not None:
            self._own[1].close()
            self._own = None

    def start_clock(self, seconds: float) -> None:
        """From `seconds` after now on, no seed after the third starts."""
        self._late_at = time.monotonic() + seconds

    def tune(self, groups: Iterable[Group]) -> None:
        """Fill `tuned` of each group: for each arm the candidate with the best mean; a tie goes to the first.

        An arm all of whose candidates failed stays without, and none of its trials is run.
        """
        tuned = [(g, g.claim.tuning) for g in groups if g.claim.tuning is not None]
        self.run([Wanted(g, arm, TUNING_SEED + i, candidate) for g, tuning in tuned for candidate in g.candidates()
                  for i in range(tuning.seeds) for arm in g.arms])
        for group, tuning in tuned:
            for arm in group.arms:
                best = None
                for candidate in group.candidates():
                    keys = [group.key(arm, TUNING_SEED + i, candidate) for i in range(tuning.seeds)]
                    found = [t.metrics.get(tuning.metric) for t in self.ledger.trials(keys).values()]
                    values = [float(v) for v in found if isinstance(v, int | float) and math.isfinite(v)]
                    if len(values) < tuning.seeds:
                        continue
                    score = sum(values) / len(values) * (1 if tuning.maximise else -1)
                    if best is None or score > best:
                        best, group.tuned[arm] = score, candidate

    def wanted(self, group: Group, arms: Iterable[str], seeds: Iterable[int]) -> list[Wanted]:
        """These trials as tuned, by seed; those of arms that could not be tuned are left out."""
        able = [arm for arm in arms if group.claim.tuning is None or arm in group.tuned]
        return [Wanted(group, arm, seed, group.tuned.get(arm, {})) for seed in seeds for arm in able]

    def run(self, wanted: Iterable[Wanted]) -> None:
        """Have all of them in the ledger, but for those that fail or come too late."""
        asked = {one.key: one for one in wanted}
        if not asked:
            return
        known = self.ledger.trials(asked)
        for one in asked.values():
            self.meter.plan(one.group.name, 1)
        self.meter.tell("plan", next(iter(asked.values())).group.name)
        missing: dict[str, Wanted] = {}
        for key, one in asked.items():
            if key in known or key in self._failed:
                self.meter.end(one.group.name, None)
            else:
                missing[key] = one
            if key in known:
                self.meter.tell("done", one.group.name, arm=one.arm, seed=one.seed, tuning=one.tuning, cached=True,
                                seconds=known[key].seconds)
        for shape in sorted({_shape(one.group) for one in missing.values()}):
            self._execute({k: one for k, one in missing.items() if _shape(one.group) == shape}, self._engine(*shape))

    def _execute(self, missing: dict[str, Wanted], engine: Engine) -> None:
        groups = {_place(one.group): one.group for one in missing.values()}
        left = set(missing)
        with closing(engine.run(self._tasks(missing))) as coming:
            try:
                for got in coming:
                    self.meter.workers = engine.workers
                    self._take(got, groups, left)
            finally:
                self._keep_ended()
        for key in left:                # too late, or finished meanwhile by another check on this ledger
            one = missing[key]
            self.meter.end(one.group.name, None)
            if self.ledger.trial(key) is None:
                self.dropped.add((one.group, one.seed))

    def _take(self, got: Result | Progress, groups: dict[tuple[Any, ...], Group], left: set[str]) -> None:
        group = groups[got.task.paper, got.task.claim, got.task.data, got.task.contents]
        one = Wanted(group, got.arm, got.seed, dict((got.task.tuned or {}).get(got.arm, {})))
        about = {"arm": one.arm, "seed": one.seed, "tuning": one.tuning}
        if isinstance(got, Result):
            left.discard(one.key)
            self.meter.row_of(_token(got.task))
            self._keep(one, got)
        elif got.began:
            self.meter.begin(group.name, _token(got.task), len(got.task.rows()))
            self.meter.tell("start", group.name, **about)
        else:
            self.meter.moved(_token(got.task), got.step, got.total)
            self.meter.tell("log", group.name, step=got.step, total=got.total, scalars=got.scalars, **about)

    def _keep(self, one: Wanted, got: Result) -> None:
        group = one.group
        if got.metrics is not None:
            record = {**got.record, "tuned": plain(one.tuned)} if one.tuned else got.record
            self._ended.append((one, Trial(
                key=one.key, paper=group.paper.id, runs=group.runs, claim=group.claim.name, arm=one.arm, seed=one.seed,
                profile=group.profile, settings=plain(group.settings), data=group.contents, source=group.source,
                device=group.device, metrics=got.metrics, record=record, seconds=got.seconds,
                peak_memory_mb=got.peak_memory_mb, versions=got.versions, host=got.host,
                finished=datetime.now(UTC).isoformat(timespec="seconds")), got.folder))
        if not got.more:
            self._keep_ended()
        if got.metrics is None:
            error = got.error or "no metrics came"
            self._failed.add(one.key)
            self.ledger.fail(one.key, error)
            self.meter.end(group.name, None)
            self.meter.tell("failed", group.name, error=error, arm=one.arm, seed=one.seed, tuning=one.tuning)

    def _keep_ended(self) -> None:
        """Trials that ended together, in one go: nothing is told before it is kept."""
        ended, self._ended = self._ended, []
        if ended:
            self.ledger.add_all((trial, folder) for _, trial, folder in ended)
        for one, trial, folder in ended:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            self.meter.end(one.group.name, trial.seconds)
            self.meter.tell("done", one.group.name, seconds=trial.seconds, arm=one.arm, seed=one.seed,
                            tuning=one.tuning)

    def _tasks(self, missing: dict[str, Wanted]) -> Iterator[Task]:
        """Tasks by their first seed; each is looked at again just before it starts."""
        def place(unit: list[str]) -> tuple[int, bool]:         # batches first, since they take longest
            return min(missing[key].seed for key in unit), not missing[unit[0]].group.batch

        for unit in sorted(_units(missing), key=place):
            finished = self.ledger.trials(unit)
            late = time.monotonic() > self._late_at
            some = {key: missing[key] for key in unit
                    if key not in finished and not (late and LEAST_SEEDS <= missing[key].seed < TUNING_SEED)}
            for keys in _units(some):
                parts = [some[key] for key in keys]
                arms = tuple(dict.fromkeys(one.arm for one in parts))
                seeds = tuple(dict.fromkeys(one.seed for one in parts))
                yield parts[0].group.task(arms, seeds, {one.arm: one.tuned for one in parts}, self.scratch, self.home)

    def _engine(self, threads: int, share: float) -> Engine:
        if self._given is not None:
            return self._given
        if self._own is not None and self._own[0] != (threads, share):
            self.close()
        if self._own is None:
            count = self._workers or max(1, cores() // threads)
            if share:
                count = max(1, min(count, int(len(visible_gpus()) / share + 1e-9)))
            self._own = (threads, share), LocalEngine(count, threads, share)
        return self._own[1]


def _place(group: Group) -> tuple[Any, ...]:
    """What tells a group from the others by its tasks."""
    return group.paper, group.claim.name, None if group.data is None else str(group.data), group.contents


def _token(task: Task) -> tuple[Any, ...]:
    """What tells a running task from the others."""
    return task.paper.id, task.claim, task.contents, repr(task.tuned), task.arms[0], task.seeds[0]


def _shape(group: Group) -> tuple[int, float]:
    """Threads and GPUs of a trial."""
    return group.shape.threads, group.gpus


def _units(wanted: dict[str, Wanted]) -> list[list[str]]:
    """Keys that go in one task: each by itself, or, for a claim with `batch`, the fewest products arms × seeds.

    Where the claim says that its batch goes by arms, every arm is a product of its own.
    """
    by_seed: dict[tuple[Group, str, str, int], list[str]] = {}
    for key, one in wanted.items():
        if one.group.batch:
            candidate = repr(one.tuned) if one.tuning else ""
            arm = one.arm if one.group.claim.by_arm else ""
            by_seed.setdefault((one.group, arm, candidate, one.seed), []).append(key)
    products: dict[tuple[Any, ...], list[str]] = {}
    for (group, _, candidate, _), keys in by_seed.items():
        products.setdefault((group, candidate, tuple(sorted(wanted[k].arm for k in keys))), []).extend(keys)
    return [[key] for key, one in wanted.items() if not one.group.batch] + list(products.values())
