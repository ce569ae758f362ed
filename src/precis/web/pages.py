"""The site's own pages, beside those of claims and results, which `precis.lab.pages` draws with the same templates."""

import math
import time
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from precis.lab import words
from precis.lab.ledger import Ledger
from precis.lab.pages import Entry, Links, environment, render_claim
from precis.lab.report import evidence_of
from precis.papers.catalogue import Paper
from precis.papers.running import number
from precis.papers.verdicts import is_older
from precis.web.forms import groups_of
from precis.web.results import files_of, table_of
from precis.web.runs import Run, fits
from precis.web.shelf import STATES, Card, View

HERE = Path(__file__).parent
LINKS = Links("/", "", "Library", HERE / "templates")
MARKS = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "not checked": "○"}
TABLES = 3
LATELY, OFFERED = 6, 100  # runs of a paper shown on its page, and offered where an option wants one


def render(template: str, **values: Any) -> str:
    return str(environment(LINKS.templates).get_template(template).render(
        links=LINKS, states=STATES, state_marks=MARKS, when=when, size_words=size_words, number=number,
        duration=words.duration, plate=plate, **values,
    ))


def library(view: View, family: str, query: str, active: list[Run]) -> str:
    cards = [card for card in view.cards if _fits(card, family, query)]
    totals = {state: sum(card.counts[state] for card in view.cards) for state in STATES}
    return render(
        "site_library.html", cards=cards, all=len(view.cards), families=view.families, family=family, query=query,
        problems=view.problems, active=active, totals=totals,
    )


def warm(view: View) -> None:
    """Draw the first page and read the other templates, so that the first visitor does not wait for it."""
    library(view, "", "", [])
    made = environment(LINKS.templates)
    for template in made.list_templates(extensions=["html"]):
        made.get_template(template)


def plate(about: Paper) -> list[tuple[str, str]]:
    return _waves(about.id, about.family)


@lru_cache(1000)
def _waves(*names: str) -> list[tuple[str, str]]:
    """What a card shows in place of a picture that is not there: waves of its name's frequencies, (path, colour) each,
    in a colour of its family's."""
    name, family = (sha256(text.encode()).digest() for text in names)
    hue, lines = family[0] * 360 // 256, []
    for i in range(4):
        waves, phase, height = 1.2 + name[i] / 64, name[i + 4] / 40, 18 + name[i + 8] / 6
        points = (f"{x},{95 + height * math.sin(waves * x / 51 + phase):.1f}" for x in range(0, 321, 5))
        lines.append(("M" + " L".join(points), f"hsl({(hue + 16 * i) % 360}, 55%, 50%)"))
    return lines


def _fits(card: Card, family: str, query: str) -> bool:
    return (not family or card.paper.family == family) and all(word in card.words for word in query.lower().split())


def paper(
    view: View, about: Paper, job: Any, claims: dict[str, Any] | None, runs: list[Run], *,
    error: str = "", filled: dict[str, str] | None = None, asked: str = "",
) -> str:
    """`job`: the Job class or the words why there is none; `claims`: what the check form knows, None if not asked yet;
    `runs`: all, latest first; `error`, `filled`, `asked` ("run" or "check"): a form that came back."""
    entries = [marked(entry, claims) for entry in entries_of(view, about)]
    checked = {words.claim_of(entry) for entry in entries}
    problem = job if isinstance(job, str) else ""
    groups = [] if problem else groups_of(job)
    wanted = {f.name: f.run for group in groups for f in group.fields if f.run is not None}
    fitting = {name: list(islice((r for r in runs if fits(r, run, about.id)), OFFERED)) for name, run in wanted.items()}
    return render(
        "site_paper.html", paper=about.id, words=about, about=about, entries=entries,
        unchecked=[(name, statement) for name, statement in about.claims.items() if name not in checked],
        picture=(about.assets / "card.webp").is_file(),
        job=None if problem else job, job_problem=problem, groups=groups, fitting=fitting, claims=claims,
        summary_of_job="" if problem else (job.__doc__ or "").strip().split("\n")[0], error=error,
        runs=[run for run in runs if run.paper == about.id][:LATELY],
        filled=filled or {}, asked=asked, file_kinds=[] if problem else [k for k in job.kinds if k != "name"],
        named=not problem and ("name" in job.kinds or not job.kinds),
    )


def check_form(about: Paper, claims: dict[str, Any], problem: str = "") -> str:
    return render("site_check.html", about=about, claims=claims, problem=problem, filled={})


def entries_of(view: View, about: Paper) -> list[Entry]:
    """How the claims stand; `recorded` marks what was shipped, `beside` is the other verdict, where that differs."""
    found: list[Entry] = []
    for name in about.claims:
        shown = view.verdicts[f"{about.id}/{name}"]
        id, recorded = {"id": f"{about.id}/{name}"}, shown.leads_recorded
        if shown.report:
            beside = {**shown.beside, **id, "recorded": not recorded} if shown.beside else None
            found.append({**shown.report, **id, "recorded": recorded, "beside": beside})
    return found


def marked(entry: Entry, claims: dict[str, Any] | None) -> Entry:
    """The entry, told as of an older source if the claims are known by now and say another."""
    now = (claims or {}).get(words.claim_of(entry), {}).get("source")
    if entry.get("beside"):
        entry = {**entry, "beside": {**entry["beside"], "older_source": is_older(entry["beside"], now)}}
    return {**entry, "older_source": True} if is_older(entry, now) else entry


def claim_entry(view: View, about: Paper, name: str, profile: str) -> dict[str, Any] | None:
    own = view.own.get((f"{about.id}/{name}", profile))
    if own is not None:
        return own
    recorded = about.recorded.get(name, {}).get(profile)
    return None if recorded is None else {**recorded, "id": f"{about.id}/{name}", "recorded": True}


def claim(entry: Entry, about: Paper, home: Path) -> str:
    """The report's page of a claim, with this ledger's evidence."""
    with Ledger(home, read_only=True) as ledger:
        evidence = evidence_of(entry, ledger, lambda path, name: f"{path.name}.png")
    return render_claim(entry, evidence, about, links=LINKS)


def runs(found: list[Run], page: int, pages: int) -> str:
    return render("site_runs.html", runs=found, page=page, pages=pages)


def run(one: Run, title: str, command: str, views: tuple[str, ...]) -> str:
    """A run while it lasts and when it has ended."""
    result = one.result
    files = files_of(one.folder, result.get("files")) if one.folder.is_dir() else []
    output = [file for file in files if file.name not in ("run.json", "events.jsonl")]
    tables = [(f.name, table_of(one.folder / f.name)) for f in output if f.kind == "table"][:TABLES]
    pictures: dict[str, list[Any]] = {"": []}  # by the folder that they lie in
    for file in output:
        if file.kind == "picture":
            pictures.setdefault(file.name.rpartition("/")[0], []).append(file)
    return render(
        "site_run.html", run=one, title=title, result=result, command=command, views=views if not one.active else (),
        files=output, total=sum(f.size for f in output), pictures=pictures.pop(""),
        folders=pictures,
        media=[f for f in output if f.kind in ("sound", "clip")], tables=[(n, t) for n, t in tables if t],
        settings=[{"setting": k, "value": v} for k, v in result.get("settings", {}).items() if v is not None],
        facts=_facts(one),
    )


def _facts(one: Run) -> list[tuple[str, str]]:
    about = one.about
    told = [
        ("input", one.title), ("seed", about.get("seed")), ("device", about.get("device")),
        ("time", words.duration(about["seconds"]) if about.get("seconds") is not None else None),
        ("peak memory", f"{about['peak_memory_mb']:,.0f} MB" if about.get("peak_memory_mb") else None),
        ("repeatable", {True: "yes", False: "no"}.get(about.get("repeatable", ""))),
        ("versions", ", ".join(f"{k} {v}" for k, v in about.get("versions", {}).items())),
        ("begun", when(one.created) if one.created else None),
    ]
    return [(name, str(value)) for name, value in told if value not in (None, "")]


def error(code: int, told: str) -> str:
    titles = {400: "That cannot be done", 404: "There is no such page", 413: "Too large", 500: "Something broke"}
    return render("site_error.html", code=code, title=titles.get(code, "That cannot be done"), told=told)


def when(stamp: float) -> str:
    """ "3 min ago", else the day and the hour."""
    age = time.time() - stamp
    if age < 3600:
        return "just now" if age < 60 else f"{age // 60:.0f} min ago"
    made = datetime.fromtimestamp(stamp)
    return made.strftime("today %H:%M" if age < 86400 and made.day == datetime.now().day else "%Y-%m-%d %H:%M")


def size_words(size: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.1f} GB"
