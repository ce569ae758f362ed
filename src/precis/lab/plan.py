"""What a check has to run: each claim's settings, device and seeds, and which claims read the same trials."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from precis.errors import InputError
from precis.lab.claim import Claim, Profile, Tuning, asked_at
from precis.lab.fingerprint import canonical, data_fingerprint, source_fingerprint, trial_key
from precis.lab.loading import PaperSource, claims_of
from precis.lab.reach import source_digests
from precis.lab.reading import arms_read
from precis.lab.recorder import plain
from precis.lab.worker import Task, resolve_device, settings_of

TUNING_SEED = 10_000
LEAST_SEEDS = 3


@dataclass(frozen=True, eq=False)
class Group:
    """Trials that one or several claims read: same `runs`, settings, code and data."""

    paper: PaperSource
    claim: Claim
    arms: tuple[str, ...]
    profile: str
    settings: Any
    cuda: bool
    device: str
    data: Path | None
    contents: str
    source: str
    common: str
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def runs(self) -> str:
        return self.claim.runs or self.claim.name

    @property
    def shape(self) -> Profile:
        return self.claim.profiles[self.profile]

    @property
    def gpus(self) -> float:
        """A trial's share of a GPU; where the profile names none, a trial has one to itself."""
        return float(self.shape.gpus or 1.0) if self.device == "cuda" else 0.0

    @property
    def name(self) -> str:
        return f"{self.paper.id}/{self.claim.name}"

    @property
    def batch(self) -> bool:
        return type(self.claim).batch is not Claim.batch

    def key(self, arm: str, seed: int, tuned: dict[str, Any]) -> str:
        return trial_key(
            paper=self.paper.id, runs=self.runs, arm=arm, seed=seed, settings=self.settings, tuned=tuned,
            device=self.device, data=self.contents, source=self.source)

    def task(self, arms: tuple[str, ...], seeds: tuple[int, ...], tuned: dict[str, dict[str, Any]], scratch: Path,
             home: Path) -> Task:
        return Task(
            self.paper, self.claim.name, arms, seeds, self.profile, self.batch, self.cuda,
            None if self.data is None else str(self.data), self.device, tuned, self.shape.threads, str(scratch),
            str(home), self.source, self.contents, self.common, self.gpus)

    def candidates(self) -> list[dict[str, Any]]:
        """What tuning tries, the same for every arm; none without tuning."""
        tuning: Tuning | None = self.claim.tuning
        if tuning is None:
            return []
        found = [dict(zip(tuning.grid, values)) for values in product(*tuning.grid.values())]
        return found[:2] if self.profile == "smoke" else found


@dataclass(eq=False)
class Plan:
    """One claim that was asked for: the group it reads, or why it is not run."""

    paper: PaperSource
    claim: Claim
    data: Path | None = None
    group: Group | None = None
    seeds: int = 0
    most: int = 0
    why_not: str = ""
    arms: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.paper.id}/{self.claim.name}"


def make_plans(
    claims: Sequence[tuple[PaperSource, type[Claim]]], profile: str, data: Path | None, kinds: set[str] | None,
    seeds: int | None, device: str, until_verdict: bool, max_seeds: int,
    resolve: Callable[[str], str] = resolve_device,
) -> list[Plan]:
    """Resolve what was asked for; InputError if it cannot be, or if no claim would be left to run."""
    plans = [Plan(paper, found(), data, arms=arms_at(found, profile)) for paper, found in claims]
    for plan in plans:
        plan.why_not = _no_profile(plan.claim, profile) or ("" if data is None else _no_data(plan.claim, kinds))
    running = [p for p in plans if not p.why_not]
    if plans and not running:
        if all(_no_profile(p.claim, profile) for p in plans):
            known = sorted({name for p in plans for name in p.claim.profiles})
            raise InputError(f"no claim named has a profile {profile!r}: they have {', '.join(known)}")
        takes = sorted({kind for p in plans for kind in p.claim.takes})
        is_a = f" ({', '.join(sorted(kinds))})" if kinds else ""
        would = f"they take {', '.join(takes)}" if takes else "they take no data of yours"
        raise InputError(f"no claim named can be checked on this{is_a}: {would}", file=data)
    for plan in running:
        _set_seeds(plan, profile, seeds, until_verdict, max_seeds)
    where = resolve(device) if running else "cpu"
    _group(running, profile, data, where)
    return plans


def _no_profile(claim: Claim, profile: str) -> str:
    known = ", ".join(claim.profiles)
    return "" if profile in claim.profiles else f"not run: it has no profile {profile!r}, only {known}"


def _no_data(claim: Claim, kinds: set[str] | None) -> str:
    if not claim.takes:
        return "not run: it takes no data of yours"
    if kinds is not None and not kinds & set(claim.takes):
        return f"not run: as data it takes {', '.join(claim.takes)}"
    return ""


def arms_at(claim: type[Claim], profile: str) -> tuple[str, ...]:
    """The claim's arms and broken arms, but for arms that only hypotheses of other profiles read.

    So a costly baseline can stand in `arms` and be trained at `full` alone: `Greater(…, profiles=("full",))`.
    """
    conditions = {condition.arm for condition in claim.preconditions if asked_at(condition, profile)}
    here: set[str] = conditions | set(claim.sabotaged.values())
    elsewhere: set[str] = set()
    for hypothesis in claim.hypotheses:
        read = arms_read(hypothesis)
        if asked_at(hypothesis, profile):
            here |= set(claim.arms) if read is None else read
        else:
            elsewhere |= read or set()
    kept = [arm for arm in claim.arms if arm in here or arm not in elsewhere]
    return (*kept, *(arm for arm in claim.sabotaged if arm not in claim.arms))


def _set_seeds(plan: Plan, profile: str, seeds: int | None, until_verdict: bool, max_seeds: int) -> None:
    from precis.lab.hypotheses import Exact

    read = [h for h in plan.claim.hypotheses if asked_at(h, profile)]
    if read and all(isinstance(h, Exact) for h in read):
        plan.seeds = plan.most = 1
        return
    if seeds is not None and seeds < LEAST_SEEDS:
        raise InputError(f"--seeds {seeds}: an interval needs at least {LEAST_SEEDS} seeds")
    plan.seeds = plan.most = seeds or plan.claim.profiles[profile].seeds
    if until_verdict and profile != "smoke":
        if max_seeds < plan.seeds:
            raise InputError(f"--max-seeds {max_seeds}: the first look at {plan.id} is at {plan.seeds} seeds already")
        plan.most = max_seeds


def _group(plans: list[Plan], profile: str, data: Path | None, device: str) -> None:
    """Give each plan its group; claims whose trials have the same keys get the same one."""
    loaded: dict[tuple[Any, ...], str] = {}
    alike: dict[tuple[Any, ...], list[tuple[Plan, Any, str, str]]] = {}
    for plan in plans:
        claim = plan.claim
        runs = claim.runs or claim.name
        settings = settings_of(claim, profile, device == "cuda")
        one = (plan.paper, runs, repr(plain(settings)))
        if one not in loaded:
            loaded[one] = data_fingerprint(claim.load(settings, data))
        source, contents = source_fingerprint(type(claim)), loaded[one]
        shape = claim.profiles[profile]
        alike.setdefault((*one, source, repr(claim.tuning), shape.threads, shape.gpus), []).append(
            (plan, settings, source, contents))
    common = {paper: _common(paper) for paper in dict.fromkeys(plan.paper for plan in plans)}
    for members in alike.values():
        plan, settings, source, contents = members[0]
        arms = tuple(dict.fromkeys(arm for member, *_ in members for arm in member.arms))
        group = Group(
            plan.paper, plan.claim, arms, profile, settings,
            device == "cuda" and plan.claim.profiles[profile].cuda is not None, device, data, contents, source,
            common[plan.paper])
        for member, *_ in members:
            member.group = group


def _common(paper: PaperSource) -> str:
    """Fingerprint of all modules that any claim of the paper reaches: what shared trainings may compute with."""
    modules: dict[str, object] = {}
    for found in claims_of(paper).values():
        reached = source_digests(found)["modules"]
        assert isinstance(reached, dict)
        modules |= reached
    return hashlib.sha256(canonical(modules).encode()).hexdigest()


def papers_of(plans: Sequence[Plan]) -> Iterator[list[Plan]]:
    """The plans that run, paper by paper in the order asked for."""
    found: dict[PaperSource, list[Plan]] = {}
    for plan in plans:
        if plan.group is not None:
            found.setdefault(plan.paper, []).append(plan)
    yield from found.values()
