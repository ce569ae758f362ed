"""How a paper's claims stand: the user's own verdicts, and those shipped in `assets/recorded.json`.

The larger profile leads (paper before full before quick); within a profile the user's own verdict comes first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from precis.errors import InputError
from precis.papers.catalogue import Paper

PROFILES = ("paper", "full", "quick")  # those of which a verdict is read, the largest first
Report = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """What `list`, `show` and the site say of a claim.  `own` and `recorded` are reports of `check`, or None: of the
    largest profile that has a verdict; `latest` is the user's latest, whatever its profile."""

    own: Report | None
    recorded: Report | None
    latest: Report | None = None
    source: str | None = None  # fingerprint of what computes it now; only where that was asked (`compared`)

    @property
    def report(self) -> Report:
        """The verdict that leads."""
        own, recorded = self.own or {}, self.recorded or {}
        return recorded if recorded and (not own or _place(recorded) < _place(own)) else own

    @property
    def beside(self) -> Report:
        """The other one, where it says another thing or is of another profile; {} if it does not."""
        lead, other = self.report, (self.own if self.leads_recorded else self.recorded) or {}
        differs = any(other.get(name) != lead.get(name) for name in ("verdict", "profile"))
        return other if differs else {}

    @property
    def leads_recorded(self) -> bool:
        return self.recorded is not None and self.report is self.recorded

    @property
    def verdict(self) -> str | None:
        return self.report.get("verdict")

    @property
    def reason(self) -> str:
        return self.report.get("reason") or ""

    @property
    def where(self) -> str:
        """'at quick (48×48, 5 seeds)', marked where it is not the user's own."""
        whose = "recorded" if self.leads_recorded else "yours" if self.beside else ""
        return self._where(self.report, whose)

    @property
    def where_beside(self) -> str:
        return self._where(self.beside, "yours" if self.leads_recorded else "recorded")

    def _where(self, report: Report, whose: str) -> str:
        scale = ", ".join(filter(None, (report.get("scale"), f"n = {report['n']}" if report.get("n") else "")))
        place = f"at {report.get('profile')}" + (f" ({scale})" if scale else "")
        return ", ".join(filter(None, (place, whose, "older source" if is_older(report, self.source) else "")))


def _place(report: Mapping[str, Any]) -> int:
    profile = report.get("profile")
    return PROFILES.index(profile) if profile in PROFILES else len(PROFILES)


def shown(papers: Iterable[Paper], problems: list[str]) -> dict[str, Shown]:
    """{claim id: Shown} of all claims; what cannot be read is a line in `problems`, and counts as not there."""
    rows = own_verdicts(problems)
    return {claim: one for paper in papers for claim, one in standing(paper, rows, problems).items()}


def standing(paper: Paper, rows: Mapping[tuple[str, str], Report], problems: list[str]) -> dict[str, Shown]:
    """The same of one paper; `rows`: a ledger's `verdicts`, of which smoke and *not run* say nothing."""
    recorded = recorded_verdicts(paper, problems)
    found = {}
    for name in paper.claims:
        claim = f"{paper.id}/{name}"
        own = [report for (of, _), report in rows.items() if of == claim and report.get("verdict")]
        latest = max(own, key=lambda report: report.get("finished") or "", default=None)
        found[claim] = Shown(min(own, key=_place, default=None), recorded.get(name), latest)
    return found


def compared(paper: Paper, found: dict[str, Shown]) -> dict[str, Shown]:
    """The same with `source` filled in.  Slow: it imports the paper's claims; what does not import is not compared."""
    from precis.lab.recorded import source_of_today

    if not any(one.verdict for one in found.values()):
        return found
    try:
        now = source_of_today(paper.source)
    except InputError:
        return found
    return {claim: replace(one, source=now.get(claim.partition("/")[2])) for claim, one in found.items()}


def is_older(report: Mapping[str, Any], now: str | None) -> bool:
    """Whether the verdict was measured with another source than that of fingerprint `now` (None: not known)."""
    return bool(now and report.get("source") and report["source"] != now)


def own_verdicts(problems: list[str]) -> dict[tuple[str, str], Report]:
    """{(claim, profile): report} of this machine's ledger."""
    from precis.errors import RunFailed
    from precis.lab.ledger import Ledger, home

    try:
        ledger = Ledger(home(), read_only=True)
        try:
            return ledger.verdicts()
        finally:
            ledger.close()
    except (InputError, RunFailed) as error:
        problems.append(str(error))
        return {}


def recorded_verdicts(paper: Paper, problems: list[str]) -> dict[str, Report]:
    """The shipped verdict of each claim by name: of the largest profile that has one."""
    try:
        entries = paper.recorded
    except InputError as error:
        problems.append(str(error))
        return {}
    found = {}
    for name, profiles in entries.items():
        for profile in PROFILES:
            if profiles.get(profile, {}).get("verdict"):
                found[name] = profiles[profile]
                break
    return found

