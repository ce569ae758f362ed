"""Check claims: run the trials that the ledger lacks, read the table, give a verdict.

    tune every arm alike → every missing (arm, seed) → judge → (`until_verdict`: more seeds, judge again) → save

What is finished is in the ledger at once, so a check that was interrupted goes on where it stopped.
"""

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from precis.errors import InputError
from precis.lab.claim import Claim, Metrics, Table
from precis.lab.engine import Engine
from precis.lab.events import Event, Meter
from precis.lab.judge import judge
from precis.lab.ledger import Ledger, Trial
from precis.lab.ledger import home as default_home
from precis.lab.loading import PaperSource
from precis.lab.plan import TUNING_SEED, Plan, make_plans, papers_of
from precis.lab.recorder import plain
from precis.lab.running import Running
from precis.lab.scratch import scratch_folder
from precis.lab.statistics import look_alpha, looks
from precis.lab.worker import host, resolve_device, versions

BUDGET = {"quick": 360.0, "full": 3600.0}       # seconds a paper; beyond twice that no seed after the third starts


@dataclass(frozen=True)
class _Options:
    """What the user asked for, as the command that repeats it needs it."""

    profile: str
    seeds: int | None
    device: str
    until_verdict: bool
    max_seeds: int
    budget: float

    def command(self, claim_id: str, device: str, data: Path | None) -> str:
        words = ["precis", "check", claim_id, "--profile", self.profile, "--device", device]
        words += ["--data", str(data)] if data is not None else []
        words += ["--seeds", str(self.seeds)] if self.seeds is not None else []
        words += ["--until-verdict", "--max-seeds", str(self.max_seeds)] if self.until_verdict else []
        return shlex.join(words)


def check(
    claims: Sequence[tuple[PaperSource, type[Claim]]], *, profile: str = "quick", data: Path | None = None,
    kinds: set[str] | None = None, seeds: int | None = None, device: str = "auto", until_verdict: bool = False,
    max_seeds: int = 20, workers: int | None = None, home: Path | None = None, engine: Engine | None = None,
    listen: Callable[[Event], None] | None = None,
) -> list[dict[str, Any]]:
    """One report a claim, in the order given; finite numbers or None only.

    `kinds` is what `data` can be (`precis.data.kinds_of`); a claim that takes none of them, or has no such profile,
    is not run: its `ran` is false and `reason` says why.  An `engine` that is given is left open.  `listen` is told
    of every trial; what it raises (Stopped) ends the check, with the finished trials kept.
    """
    budget = 2 * BUDGET.get(profile, math.inf)
    options = _Options(profile, seeds, device, until_verdict, max_seeds, budget)
    return _checked(claims, [(data, kinds)], options, workers, home, engine, listen)


def sweep(
    claims: Sequence[tuple[PaperSource, type[Claim]]], over: Sequence[tuple[Path | None, set[str] | None]], *,
    profile: str = "quick", seeds: int | None = None, device: str = "auto", workers: int | None = None,
    home: Path | None = None, engine: Engine | None = None, listen: Callable[[Event], None] | None = None,
) -> list[dict[str, Any]]:
    """Check every claim on every data set (path and kinds; None: what the claim brings), the trials of all at once.

    As `check`, but nothing is dropped for being late; the reports come data set by data set.
    """
    return _checked(claims, over, _Options(profile, seeds, device, False, 20, math.inf), workers, home, engine, listen)


def _checked(
    claims: Sequence[tuple[PaperSource, type[Claim]]], over: Sequence[tuple[Path | None, set[str] | None]],
    options: _Options, workers: int | None, home: Path | None, engine: Engine | None,
    listen: Callable[[Event], None] | None,
) -> list[dict[str, Any]]:
    if workers is not None and workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}")
    home = (home or default_home()).absolute()
    resolve = resolve_device if engine is None else engine.device
    plans = [plan for data, kinds in over for plan in make_plans(
        claims, options.profile, None if data is None else data.absolute(), kinds, options.seeds, options.device,
        options.until_verdict, options.max_seeds, resolve)]
    entries = {id(plan): _not_run(plan, options) for plan in plans if plan.group is None}
    with Ledger(home) as ledger, scratch_folder(home) as scratch:
        running = Running(ledger, home, scratch, Meter(listen), workers, engine)
        try:
            for some in papers_of(plans):
                for plan, entry in _check_paper(running, some, options):
                    entries[id(plan)] = entry
        finally:
            running.close()
    return [entries[id(plan)] for plan in plans]


def _check_paper(running: Running, plans: list[Plan], options: _Options) -> Iterator[tuple[Plan, dict[str, Any]]]:
    """Tune, run and judge the claims of one paper, all with as many seeds as their next look needs."""
    running.start_clock(options.budget)
    running.tune(dict.fromkeys(p.group for p in plans if p.group))
    looks_of = {id(p): looks(p.seeds, p.most) if p.most > p.seeds else [p.seeds] for p in plans}
    unsettled = list(plans)
    for look in range(max(map(len, looks_of.values()))):
        running.run([one for p in unsettled if p.group
                     for one in running.wanted(p.group, p.arms, range(looks_of[id(p)][look]))])
        for plan in list(unsettled):
            counts = looks_of[id(plan)]
            entry = _entry(running, plan, counts[look], look_alpha(look + 1) if len(counts) > 1 else 0.05, options)
            more = look + 1 < len(counts) and len(entry["seeds"]) == counts[look]
            if entry["verdict"] == "inconclusive" and more and not _beyond_help(entry):
                continue
            unsettled.remove(plan)
            running.ledger.save_verdict(plan.id, options.profile, entry, entry["source"])
            running.meter.tell("verdict", plan.id, entry=entry)
            yield plan, entry


def _beyond_help(entry: dict[str, Any]) -> bool:
    """A precondition that one seed failed is failed with any greater number of seeds."""
    return any(row.get("holds") is False for row in entry["preconditions"])


def _entry(running: Running, plan: Plan, count: int, alpha: float, options: _Options) -> dict[str, Any]:
    """The claim's report over its first `count` seeds, judged anew from the ledger's rows."""
    group, claim = plan.group, plan.claim
    assert group is not None
    seeds = tuple(s for s in range(count) if (group, s) not in running.dropped)
    keys = {one.key: one for one in running.wanted(group, plan.arms, seeds)}
    found = running.ledger.trials(keys)
    rows: dict[str, dict[int, Metrics]] = {arm: {} for arm in plan.arms}
    for key, trial in found.items():
        rows[keys[key].arm][keys[key].seed] = trial.metrics
    judgement = judge(type(claim), Table(rows, seeds, alpha), options.profile)
    reason = judgement.reason
    if len(seeds) < count:
        late = f"stopped after {len(seeds)} of {count} seeds: beyond twice the time that {options.profile} is meant for"
        reason = f"{reason}; {late}" if reason else late
    failures = [{"arm": keys[key].arm, "seed": keys[key].seed, "error": error}
                for key, error in running.ledger.failures([k for k in keys if k not in found]).items()]
    if claim.tuning is not None:
        failures += [{"arm": arm, "seed": None, "error": f"not tuned: no candidate gave {claim.tuning.metric!r}"}
                     for arm in plan.arms if arm not in group.tuned]
    tuning = _tuning_trials(running, plan)
    trials = list(found.values())
    return {
        "id": plan.id, "statement": claim.statement, "verdict": judgement.verdict, "reason": reason, "ran": True,
        "profile": options.profile, "scale": claim.profiles[options.profile].scale, "n": len(seeds),
        "hypotheses": judgement.rows, "preconditions": judgement.preconditions,
        "seconds": sum(t.seconds for t in (*trials, *tuning)),
        "arms": [arm for arm in claim.arms if arm in plan.arms], "sabotaged": dict(claim.sabotaged),
        "seeds": list(seeds), "alpha": alpha,
        "metrics": {arm: {str(seed): plain(of_arm[seed]) for seed in sorted(of_arm)} for arm, of_arm in rows.items()},
        "tuned": {arm: plain(group.tuned[arm]) for arm in plan.arms if arm in group.tuned},
        "tuning": {} if claim.tuning is None else plain(claim.tuning.grid),
        "settings": plain(group.settings), "cuda_settings": group.cuda,
        "data": None if plan.data is None else str(plan.data), "device": group.device,
        "versions": trials[-1].versions if trials else versions(),
        "host": "; ".join(dict.fromkeys(t.host for t in trials if t.host)) or host("cpu"), "untried": claim.untried,
        "keys": list(found), "tuning_keys": [t.key for t in tuning], "source": group.source, "finished": _now(),
        "command": options.command(plan.id, group.device, plan.data), "failures": failures,
    }


def _tuning_trials(running: Running, plan: Plan) -> list[Trial]:
    group, tuning = plan.group, plan.claim.tuning
    if group is None or tuning is None:
        return []
    keys = [group.key(arm, TUNING_SEED + i, candidate) for candidate in group.candidates()
            for i in range(tuning.seeds) for arm in plan.arms]
    return list(running.ledger.trials(keys).values())


def _not_run(plan: Plan, options: _Options) -> dict[str, Any]:
    claim, shape = plan.claim, plan.claim.profiles.get(options.profile)
    return {
        "id": plan.id, "statement": claim.statement, "verdict": None, "reason": plan.why_not, "ran": False,
        "profile": options.profile, "scale": shape.scale if shape else "", "n": 0, "hypotheses": [],
        "preconditions": [], "seconds": 0.0, "arms": list(claim.arms), "sabotaged": dict(claim.sabotaged),
        "seeds": [], "alpha": None, "metrics": {}, "tuned": {}, "tuning": {}, "settings": None, "cuda_settings": False,
        "data": None if plan.data is None else str(plan.data), "device": options.device,
        "versions": versions(), "host": host("cpu"), "untried": claim.untried, "keys": [], "tuning_keys": [],
        "source": "", "finished": _now(), "command": options.command(plan.id, options.device, plan.data),
        "failures": [],
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
