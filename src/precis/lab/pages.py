"""Entries of `check` as web pages: an index, a page a paper, a page a claim.  Pure functions: data in, HTML out.

`Links` says where pages and files are, so that the same pages serve a folder of files and a live site; whoever wants
more on a page extends the templates (`environment` takes a folder of them that comes first).  Everything that users
wrote is escaped by the templates; formulas and Markdown go through `precis.lab.markdown`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from precis.lab import charts as drawn
from precis.lab import words
from precis.lab.svg import Drawing, colour_of

Entry = Mapping[str, Any]
Number = int | float

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 4  # charts of a kind before the rest is folded away
TABLE_ROWS = 200


@dataclass(frozen=True)
class Picture:
    """A picture that a trial left: `file` is where the page finds it, `size` (width, height)."""

    name: str
    step: int | None
    arm: str
    seed: int
    file: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Evidence:
    """What the trials of a claim left beside their metrics."""

    curves: Mapping[str, Mapping[str, Mapping[int, drawn.Line]]] = field(default_factory=dict)  # of name, arm, seed
    pictures: Sequence[Picture] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    notes: Sequence[tuple[str, str, int]] = ()  # text, arm, seed
    settings: Mapping[str, Any] = field(default_factory=dict)
    trials: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Links:
    """Addresses as seen from one page; `root` leads from it to the site's top ("", "../", …).

    `top` is what the first page is called, `templates` a folder whose templates come before ours.
    """

    root: str = ""
    suffix: str = ".html"
    top: str = "Results"
    templates: Path | None = None

    @property
    def index(self) -> str:
        return f"{self.root}index{self.suffix}" if self.suffix else self.root or "./"

    @property
    def style(self) -> str:
        return f"{self.root}style.css"

    def paper(self, paper: str) -> str:
        return f"{self.root}papers/{_safe(paper)}{self.suffix}"

    def claim(self, entry: Entry) -> str:
        name = f"{_safe(words.claim_of(entry))}-{_safe(entry.get('profile') or 'quick')}"
        return f"{self.root}papers/{_safe(words.paper_of(entry))}/{name}{self.suffix}"

    def file(self, name: str) -> str:
        return f"{self.root}files/{name}"


def _safe(name: Any) -> str:
    """An id as part of an address; ids are snake_case, and what is not becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_]", "_", str(name)) or "_"


def render_index(
    entries: Sequence[Entry], papers: Mapping[str, Any] | None = None, *, links: Links = Links(), version: str = ""
) -> str:
    """All papers and the verdicts of their claims.  `papers`: id -> title, authors, year, venue, … (what is known)."""
    groups = by_paper(entries)
    verdicts = [words.verdict_of(e) for e in entries]
    return _page(
        "index.html", links, version, entries=entries, groups=list(groups.items()), verdicts=words.VERDICTS,
        counts={v: verdicts.count(v) for v in words.VERDICTS},
        words={paper: (papers or {}).get(paper) or {} for paper in groups},
    )


def render_paper(
    paper: str, entries: Sequence[Entry], about: Any = None, *, links: Links = Links("../"), version: str = ""
) -> str:
    """One paper: its claims with their verdicts, those that were not checked, and its summary.

    `about`: title, authors, year, venue, arxiv, code, claims (name -> statement) and summary, as attributes or items,
    whichever are known.
    """
    checked = {words.claim_of(e) for e in entries}
    known = dict(_get(about, "claims") or {})
    return _page(
        "paper.html", links, version, paper=paper, entries=entries, words=about or {},
        unchecked=[(name, statement) for name, statement in known.items() if name not in checked],
    )


def render_claim(
    entry: Entry, evidence: Evidence | None = None, about: Any = None, *, links: Links = Links("../../"),
    version: str = "", charts: "Charts | None" = None,
) -> str:
    """One claim at one profile: verdict, hypotheses, every paired point, what the trials left, and how it was run.

    `charts`: those of `draw(entry, evidence)`, if they are drawn already.
    """
    evidence = evidence or Evidence()
    charts = charts or draw(entry, evidence)
    return _page(
        "claim.html", links, version, entry=entry, paper=words.paper_of(entry), claim=words.claim_of(entry),
        words=about or {}, shown=SHOWN,
        rows=[
            {**row, "chart": _markup(chart.svg if chart else "")}
            for row, chart in zip(entry.get("hypotheses") or [], charts.intervals)
        ],
        legend=_legend([chart for chart in charts.intervals if chart]), preconditions=preconditions(entry),
        points=[_markup(chart.svg) for chart in charts.points],
        numbers=number_rows(entry),
        curves=[_markup(chart.svg) for chart in charts.curves],
        pictures=picture_groups(evidence.pictures),
        tables=[(name, rows[:TABLE_ROWS], max(0, len(rows) - TABLE_ROWS)) for name, rows in evidence.tables.items()],
        notes=note_lines(evidence.notes), failures=failure_rows(entry), arms=_arms(entry), facts=facts(entry),
        settings=[{"setting": k, "value": v} for k, v in evidence.settings.items()], trials=list(evidence.trials),
        tiles_of=lambda tiles: _tiles(tiles, links),
    )


def by_paper(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """{paper: its entries}, papers by id, entries in the order given."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(words.paper_of(entry), []).append(entry)
    return dict(sorted(groups.items()))


# What a claim's page holds; the Markdown report shows the same.


def values_of(entry: Entry, metric: str) -> dict[str, dict[Any, Number | None]]:
    """{arm: {seed: value}} in the arms' order; a metric with one number a task: {arm: {task: mean over seeds}}."""
    found: dict[str, dict[Any, Number | None]] = {}
    metrics = entry.get("metrics") or {}
    for arm in words.arms_of(entry):
        rows = {seed: row.get(metric) for seed, row in (metrics.get(arm) or {}).items() if metric in (row or {})}
        if any(isinstance(value, Mapping) for value in rows.values()):
            tasks: dict[Any, list[Number | None]] = {}
            for value in rows.values():
                for task, one in (value if isinstance(value, Mapping) else {}).items():
                    tasks.setdefault(task, []).append(one)
            found[arm] = {task: _mean(ones) for task, ones in tasks.items()}
        elif rows:
            found[arm] = rows
    return found


def _mean(values: Sequence[Number | None]) -> Number | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def metrics_of(entry: Entry) -> list[str]:
    """Names of the metrics, those that hypotheses read first."""
    read = [(row.get("hypothesis") or {}).get("metric") for row in entry.get("hypotheses") or []]
    had = [name for rows in (entry.get("metrics") or {}).values() for row in rows.values() for name in row or {}]
    return [name for name in dict.fromkeys(filter(None, read)) if name in had] + [
        name for name in dict.fromkeys(had) if name not in read
    ]


@dataclass(frozen=True)
class Charts:
    """A claim's charts: one a hypothesis (None where there is no number), one a metric, one a curve."""

    intervals: Sequence[Drawing | None] = ()
    points: Sequence[Drawing] = ()
    curves: Sequence[Drawing] = ()


def draw(entry: Entry, evidence: Evidence | None = None) -> Charts:
    """Intervals with their paired differences and claimed sides, every paired point, and the curves."""
    order = words.arms_of(entry)
    intervals = [_interval(entry, row) for row in entry.get("hypotheses") or []]
    points, curves = [], []
    for metric in metrics_of(entry):
        values = values_of(entry, metric)
        if any(v is not None for row in values.values() for v in row.values()):
            broken = list(entry.get("sabotaged") or {})
            points.append(drawn.paired_dots(values, label=metric, order=order, broken=broken))
    for name, arms in (evidence.curves if evidence else {}).items():
        lines = {arm: list(arms[arm].values()) for arm in sorted(arms, key=lambda arm: _place(arm, order))}
        ys = [y for many in lines.values() for _, line in many for y in line if y is not None]
        if ys:
            log_y = min(ys) > 0 and max(ys) > drawn.LOG_FROM * min(ys)
            curves.append(drawn.curves(lines, label=name, log_y=log_y, order=order))
    return Charts(intervals, points, curves)


def _interval(entry: Entry, row: Entry) -> Drawing | None:
    """A hypothesis's effect; None if it has none."""
    effect, kind = row.get("effect"), words.as_played(row)
    if effect is None:
        return None
    pair = words.pair_of(kind)
    label = f"{pair[0]} − {pair[1]}: {kind.get('metric')}" if pair else str(kind.get("metric") or "effect")
    interval = tuple(row["interval"]) if row.get("interval") else None
    return drawn.interval_of_difference(
        effect, interval, words.claimed_side(kind), points=_replications(entry, row), label=label,
        alt=words.sentence(row, entry.get("alpha") or 0.05),
    )


def _legend(intervals: Sequence[Drawing]) -> str:
    """What the marks of these charts mean, those alone that one of them has."""
    told = {
        'class="effect"': "Diamond: the effect.", 'class="interval"': "Bar: its 95 % interval.",
        'class="seed"': "Grey points: one a seed (or task).",
        'class="claimed"': "Green: where the claim says the interval must lie.",
    }
    return " ".join(said for mark, said in told.items() if any(mark in chart.svg for chart in intervals))


def _replications(entry: Entry, row: Entry) -> list[Number]:
    """What the effect is the mean of, one number a replication; [] if the hypothesis is no mean of one or two arms."""
    kind = words.as_played(row)
    metric, pair = kind.get("metric"), words.pair_of(kind)
    if not metric or (pair is None and kind.get("kind") not in ("AtLeast", "AtMost", "Between", "Equivalent")):
        return []
    values = values_of(entry, metric)
    arms = [arm for arm in pair or (kind.get("a"),) if isinstance(arm, str)]
    columns = [values.get(arm, {}) for arm in arms]
    if not columns or (pair is None and isinstance(kind.get("b"), str)):
        return []
    rows = [[column.get(key) for column in columns] for key in columns[0]]
    whole = [[float(v) for v in one if v is not None] for one in rows]
    return [one[0] - one[1] if len(one) == 2 else one[0] for one in whole if len(one) == len(columns)]


def _place(arm: str, order: Sequence[str]) -> int:
    return order.index(arm) if arm in order else len(order)


@dataclass(frozen=True)
class PictureGroup:
    """Pictures of one name: for each seed its tiles (caption, picture)."""

    title: str
    seeds: list[tuple[int, list[tuple[str, Picture]]]]


def picture_groups(pictures: Sequence[Picture]) -> list[PictureGroup]:
    """By name, then by seed: arms beside each other, steps in order; what is the same for all arms is shown once."""
    groups: list[PictureGroup] = []
    for name in dict.fromkeys(p.name for p in pictures):
        its = [p for p in pictures if p.name == name]
        seeds = []
        for seed in sorted({p.seed for p in its}):
            tiles: dict[tuple[str, int | None], list[Picture]] = {}
            for picture in (p for p in its if p.seed == seed):
                tiles.setdefault((picture.file, picture.step), []).append(picture)
            arms = len({p.arm for p in its if p.seed == seed})
            seeds.append((seed, [(_caption(same, arms), same[0]) for same in tiles.values()]))
        groups.append(PictureGroup(name, seeds))
    return groups


def _caption(same: list[Picture], arms: int) -> str:
    who = list(dict.fromkeys(p.arm for p in same))
    name = "all arms" if len(who) == arms > 1 else words.listed(who)
    return name + ("" if same[0].step is None else f", step {same[0].step}")


def number_rows(entry: Entry) -> list[dict[str, Any]]:
    """One row an arm and seed (or task), one column a metric."""
    rows: dict[tuple[str, Any], dict[str, Any]] = {}
    for metric in metrics_of(entry):
        for arm, its in values_of(entry, metric).items():
            for seed, value in its.items():
                rows.setdefault((arm, seed), {"arm": arm, "seed or task": seed})[metric] = value
    return list(rows.values())


def preconditions(entry: Entry) -> list[dict[str, Any]]:
    """What had to hold, in words."""
    rows = []
    for one in entry.get("preconditions") or []:
        state = {True: "✓ held", False: "✗ did not hold", None: "? not known"}[one.get("holds")]
        rows.append({"what": one.get("text"), "worst value": one.get("effect"), "": state, "otherwise": one.get("why")})
        if one.get("note"):
            rows[-1][""] += f": {one['note']}"
    return rows


def failure_rows(entry: Entry) -> list[dict[str, Any]]:
    """Trials that failed: a list of rows, or {where: error}."""
    failures = entry.get("failures") or []
    if isinstance(failures, Mapping):
        return [{"trial": where, "error": error} for where, error in failures.items()]
    return [dict(one) if isinstance(one, Mapping) else {"error": str(one)} for one in failures]


def note_lines(notes: Sequence[tuple[str, str, int]]) -> list[tuple[str, str]]:
    """(text, who said it); the same sentence of several trials once."""
    said: dict[str, list[tuple[str, int]]] = {}
    for text, arm, seed in notes:
        said.setdefault(text, []).append((arm, seed))
    lines = []
    for text, who in said.items():
        arms = list(dict.fromkeys(arm for arm, _ in who))
        seeds = sorted({seed for _, seed in who})
        lines.append((text, f"{words.listed(arms)}; seed{'' if len(seeds) == 1 else 's'} {words.listed(seeds)}"))
    return lines


def facts(entry: Entry) -> list[tuple[str, str]]:
    """How it was run: what to show in a table of two columns."""
    seeds = entry.get("seeds")
    many = seeds if isinstance(seeds, Sequence) and not isinstance(seeds, str) else None
    tuned = {arm: chosen for arm, chosen in (entry.get("tuned") or {}).items() if chosen}
    hardware = entry.get("hardware") or {}
    told = [
        ("profile", words.scale_words(entry)),
        ("seeds", ", ".join(map(str, many)) if many is not None else "" if seeds is None else str(seeds)),
        ("tuned", "; ".join(f"{arm}: {_chosen(chosen, entry.get('tuning') or {})}" for arm, chosen in tuned.items())),
        ("time", "" if entry.get("seconds") is None else f"{words.duration(entry['seconds'])} of trials"),
        ("device", str(entry.get("device") or "")),
        ("machine", _pairs(hardware) or str(entry.get("host") or "")),
        ("versions", _pairs(entry.get("versions") or {})),
        ("source", str(entry.get("source") or "")),
        ("finished", str(entry.get("finished") or "").replace("T", " ").replace("+00:00", " UTC")),
    ]
    return [(name, value) for name, value in told if value]


def _chosen(values: Mapping[str, Any], grid: Mapping[str, Any]) -> str:
    """What an arm was tuned to; a number at an end of what was tried says so, since beyond it might be better."""
    told = []
    for name, value in values.items():
        tried = [x for x in grid.get(name, ()) if isinstance(x, int | float)]
        end = {min(tried): "least", max(tried): "largest"}.get(value) if len(tried) > 1 else None
        told.append(_pairs({name: value}) + (f" (the {end} tried)" if end else ""))
    return ", ".join(told)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {f'{v:g}' if isinstance(v, float) else v}" for k, v in values.items() if v is not None)


def _arms(entry: Entry) -> list[tuple[str, str, str]]:
    """(arm, the class of its colour, the arm whose part it plays broken)."""
    broken = entry.get("sabotaged") or {}
    return [(arm, colour_of(i), broken.get(arm, "")) for i, arm in enumerate(words.arms_of(entry))]


def _get(about: Any, name: str) -> Any:
    return about.get(name) if isinstance(about, Mapping) else getattr(about, name, None)


def byline(about: Any) -> str:
    """ "Sitzmann, Martel, …. NeurIPS 2020" as far as known."""
    authors = _get(about, "authors") or ()
    names = authors if isinstance(authors, str) else ", ".join(authors)
    venue, year = str(_get(about, "venue") or ""), str(_get(about, "year") or "")
    return " · ".join(filter(None, [names, venue if year in venue else " ".join(filter(None, [venue, year]))]))


def code_address(code: Any) -> str:
    """`owner/name` is GitHub's; only https addresses are linked."""
    text = str(code or "")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        return f"https://github.com/{text}"
    return text if re.match(r"https?://[^\s\"'<>]+$", text) else ""


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return words.number(value, 4)
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    if isinstance(value, Mapping):
        return _pairs(value)
    return "–" if value is None else str(value)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _tiles(tiles: Sequence[tuple[str, Picture]], links: Links) -> Any:
    return _markup(environment().get_template("tiles.html").render(tiles=tiles, links=links))


@cache
def environment(first: Path | None = None) -> Any:
    """The jinja environment of these pages; templates in `first` are found before ours."""
    from jinja2 import Environment, FileSystemLoader

    from precis.lab.markdown import render_inline, render_markdown

    made = Environment(
        loader=FileSystemLoader([str(folder) for folder in (first, TEMPLATES) if folder]), autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )
    made.globals.update(
        inline=lambda text: _markup(render_inline(str(text or ""))),
        markdown=lambda text, **options: _markup(render_markdown(text, **options)), cell=_cell, columns_of=columns_of,
        verdict_of=words.verdict_of, marks=words.MARKS, meaning=words.MEANING, headline=words.headline,
        scale_words=words.scale_words, sentence=words.sentence, held=words.held, is_well=words.is_well,
        sabotage_words=words.sabotage_words, counted=words.counted, byline=byline, code_address=code_address,
    )
    return made


def _page(template: str, links: Links, version: str, **values: Any) -> str:
    return str(environment(links.templates).get_template(template).render(links=links, version=version, **values))
