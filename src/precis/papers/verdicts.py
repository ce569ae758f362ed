"""How a paper's claims stand: the user's own latest verdict, else the one shipped in `assets/recorded.json`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from precis.errors import InputError
from precis.papers.catalogue import Paper


@dataclass(frozen=True)
class Shown:
    """What `list`, `show` and the site say of a claim.  `own` and `recorded` are reports of `check`, or None."""

    own: dict[str, Any] | None
    recorded: dict[str, Any] | None
    older: bool = False  # what computes it has changed since; only where that was asked (`compared`)

    @property
    def report(self) -> dict[str, Any]:
        return self.own or self.recorded or {}

    @property
    def verdict(self) -> str | None:
        return self.report.get("verdict")

    @property
    def reason(self) -> str:
        return self.report.get("reason") or ""

    @property
    def where(self) -> str:
        """'at quick (48×48, 5 seeds)', marked where it is not the user's own."""
        report = self.report
        scale = ", ".join(filter(None, (report.get("scale"), f"n = {report['n']}" if report.get("n") else "")))
        place = f"at {report.get('profile')}" + (f" ({scale})" if scale else "")
        if self.own is None and self.recorded is not None:
            place += ", recorded"
        return place + (", older source" if self.older else "")


def shown(papers: Iterable[Paper], problems: list[str]) -> dict[str, Shown]:
    """{claim id: Shown} of all claims; what cannot be read is a line in `problems`, and counts as not there."""
    own = own_verdicts(problems)
    found = {}
    for paper in papers:
        recorded = recorded_verdicts(paper, problems)
        for name in paper.claims:
            found[f"{paper.id}/{name}"] = Shown(own.get(f"{paper.id}/{name}"), recorded.get(name))
    return found


def compared(paper: Paper, found: dict[str, Shown]) -> dict[str, Shown]:
    """The same with `older` filled in.  Slow: it imports the paper's claims; what does not import is not compared."""
    from precis.lab.recorded import source_of_today

    if not any(one.verdict for one in found.values()):
        return found
    try:
        now = source_of_today(paper.source)
    except InputError:
        return found
    return {claim: replace(one, older=is_older(one.report, now.get(claim.partition("/")[2])))
            for claim, one in found.items()}  # fmt: skip


def is_older(report: Mapping[str, Any], now: str | None) -> bool:
    """Whether the verdict was measured with another source than that of fingerprint `now` (None: not known)."""
    return bool(now and report.get("source") and report["source"] != now)


def own_verdicts(problems: list[str]) -> dict[str, dict[str, Any]]:
    """The latest verdict of each claim on this machine, whatever its profile; smoke and *not run* say nothing."""
    from precis.errors import RunFailed
    from precis.lab.ledger import Ledger, home

    try:
        ledger = Ledger(home(), read_only=True)
        try:
            rows = ledger.verdicts()
        finally:
            ledger.close()
    except (InputError, RunFailed) as error:
        problems.append(str(error))
        return {}
    return latest_of(rows)


def latest_of(rows: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The latest verdict of each claim, of a ledger's `verdicts`."""
    latest: dict[str, dict[str, Any]] = {}
    for (claim, _), report in rows.items():
        if report.get("verdict") and report.get("finished", "") >= latest.get(claim, {}).get("finished", ""):
            latest[claim] = report
    return latest


def recorded_verdicts(paper: Paper, problems: list[str]) -> dict[str, dict[str, Any]]:
    """The shipped verdict of each claim by name: of the largest profile that has one."""
    try:
        entries = paper.recorded
    except InputError as error:
        problems.append(str(error))
        return {}
    found = {}
    for name, profiles in entries.items():
        for profile in ("paper", "full", "quick"):
            if profiles.get(profile, {}).get("verdict"):
                found[name] = profiles[profile]
                break
    return found

