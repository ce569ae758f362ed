"""`precis report`: the results as a folder of pages that needs no network, and the same in Markdown.

    out/index.html    papers/<paper>.html    papers/<paper>/<claim>-<profile>.html    report.md    files/    style.css

A claim's entry gives verdict, numbers and trial keys; the ledger gives what those trials left: curves, pictures,
tables, notes.  The pages themselves are in `precis.lab.pages`.
"""

import shutil
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from precis.errors import InputError, RunFailed
from precis.lab import words
from precis.lab.ledger import Ledger, Trial
from precis.lab.markdown import escape_markdown
from precis.lab.outcomes import compared, read_outcomes
from precis.lab.pages import (
    TEMPLATES,
    Charts,
    Entry,
    Evidence,
    Links,
    Picture,
    by_paper,
    byline,
    columns_of,
    draw,
    facts,
    failure_rows,
    metrics_of,
    note_lines,
    picture_groups,
    preconditions,
    render_claim,
    render_index,
    render_paper,
    values_of,
)
from precis.lab.svg import Drawing

__all__ = ["evidence_of", "render_claim", "render_index", "render_paper", "write_report"]

MARK = "report.md"  # its first line tells a report of ours from any other folder
FIRST = "<!-- precis report -->"


def write_report(
    out: Path, entries: Sequence[Entry], home: Path, *, summaries: Mapping[str, Any] | None = None
) -> Path:
    """Write the report of `entries` (what `check` returned, or the ledger's verdicts) to `out`; return index.html.

    `summaries`: paper id -> what is known of it (title, authors, summary, …; a paper of the catalogue will do).
    A report that is there already is replaced as a whole; any other folder with something in it is an InputError.
    A trial or picture that the ledger lacks is left out of the page, which says so.
    """
    out = Path(out).absolute()
    if out.exists() and not _is_ours(out):
        raise InputError("is there already and is no report: name another folder with --out", file=out)
    part = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with Ledger(Path(home), read_only=True) as ledger:
            _write(part, list(entries), ledger, dict(summaries or {}))
        _put_in_place(part, out)
    except OSError as error:
        raise RunFailed(f"{out}: the report could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out / "index.html"


def evidence_of(entry: Entry, ledger: Ledger, place: Any) -> Evidence:
    """What the trials of `entry["keys"]` left.  `place(path, name)` puts a picture where pages find it, returns its
    address there."""
    keys = list(_keys(entry.get("keys") or []))
    trials = list(ledger.trials(keys).values())
    order = words.arms_of(entry)
    trials.sort(key=lambda t: (order.index(t.arm) if t.arm in order else len(order), t.seed))
    curves: dict[str, dict[str, dict[int, Any]]] = {}
    pictures: list[Picture] = []
    tables: dict[str, list[dict[str, Any]]] = {}
    notes: list[tuple[str, str, int]] = []
    for trial in trials:
        record = trial.record
        for name, line in {**record.get("scalars", {}), **record.get("curves", {})}.items():
            curves.setdefault(name, {}).setdefault(trial.arm, {})[trial.seed] = (line["x"], line["y"])
        pictures += _pictures(trial, ledger, place, notes)
        for name, rows in record.get("tables", {}).items():
            tables.setdefault(name, []).extend({"arm": trial.arm, "seed": trial.seed, **row} for row in rows)
        notes += [(str(text), trial.arm, trial.seed) for text in record.get("notes", [])]
    for name, outcomes in read_outcomes(trials, ledger).items():
        if rows := compared(outcomes, order, entry.get("alpha") or 0.05):
            tables[f"{name}, example by example"] = rows
    lost = len(keys) - len(trials)
    if lost:
        notes.append((f"{lost} of {len(keys)} trials are no longer in this ledger", "the report", 0))
    return Evidence(curves, pictures, tables, notes, trials[0].settings if trials else {}, [_row(t) for t in trials])


def _keys(keys: Any) -> Iterator[str]:
    """The trial keys, however they are grouped by arm and seed."""
    for one in keys.values() if isinstance(keys, Mapping) else keys:
        if isinstance(one, str):
            yield one
        else:
            yield from _keys(one)


def _pictures(trial: Trial, ledger: Ledger, place: Any, notes: list[tuple[str, str, int]]) -> list[Picture]:
    found = []
    for image in trial.record.get("images", []):
        digest = trial.record.get("files", {}).get(image["file"])
        try:
            path = ledger.artefact(digest) if digest else None
            head = path.open("rb").read(24) if path else b""
        except OSError:
            head = b""
        if path is None or head[:8] != b"\x89PNG\r\n\x1a\n":
            notes.append((f"the picture {image['name']} is missing or altered: `precis doctor`", trial.arm, trial.seed))
            continue
        width, height = struct.unpack(">II", head[16:24])
        address = place(path, f"{digest[:24]}.png")
        found.append(Picture(image["name"], image.get("step"), trial.arm, trial.seed, address, (width, height)))
    return found


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "arm": trial.arm,
        "seed": trial.seed,
        "time": words.duration(trial.seconds),
        "peak memory": f"{trial.peak_memory_mb:,.0f} MB",
        "device": trial.device,
        "host": trial.host,
        "finished": trial.finished[:19].replace("T", " "),
        "key": trial.key[:12],
    }


def _write(folder: Path, entries: list[Entry], ledger: Ledger, papers: dict[str, Any]) -> None:
    files = folder / "files"
    files.mkdir(parents=True)

    def place(path: Path, name: str) -> str:
        if not (files / name).exists():
            shutil.copyfile(path, files / name)
        return name

    version = _version()
    shutil.copyfile(TEMPLATES / "style.css", folder / "style.css")
    (folder / "index.html").write_text(render_index(entries, papers, version=version), encoding="utf-8")
    parts = []
    top = Links("")
    for paper, its in by_paper(entries).items():
        about = papers.get(paper)
        page = folder / top.paper(paper)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render_paper(paper, its, about, version=version), encoding="utf-8")
        parts.append(_markdown_paper(paper, about))
        for entry in its:
            evidence = evidence_of(entry, ledger, place)
            page = folder / top.claim(entry)
            page.parent.mkdir(parents=True, exist_ok=True)
            charts = draw(entry, evidence)
            page.write_text(render_claim(entry, evidence, about, version=version, charts=charts), encoding="utf-8")
            parts.append(_markdown_claim(entry, evidence, charts, files))
    (folder / MARK).write_text(f"{FIRST}\n\n# Results\n\n" + "\n".join(parts), encoding="utf-8")


def _is_ours(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        with (folder / MARK).open(encoding="utf-8") as file:
            return file.readline().strip() == FIRST
    except (OSError, UnicodeDecodeError):
        return not any(folder.iterdir())


def _put_in_place(part: Path, out: Path) -> None:
    """Rename; an older report steps aside first and comes back if the renaming fails."""
    if not out.exists():
        part.rename(out)
        return
    aside = out.with_name(f"{part.name}.old")
    out.rename(aside)
    try:
        part.rename(out)
    except OSError:
        aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("precis-papers")
    except PackageNotFoundError:
        return ""


# Markdown.


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    columns = columns_of(rows)

    def cell(value: Any) -> str:
        return escape_markdown(words.number(value, 4) if isinstance(value, float) or value is None else value)

    lines = ["| " + " | ".join(map(escape_markdown, columns)) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _markdown_paper(paper: str, about: Any) -> str:
    title = (about.get("title") if isinstance(about, Mapping) else getattr(about, "title", None)) or paper
    return f"## {escape_markdown(title)}\n\n{escape_markdown(byline(about))}\n"


def _markdown_claim(entry: Entry, evidence: Evidence, charts: Charts, files: Path) -> str:
    """One claim; its charts are written to `files` as SVG."""
    name = Path(Links("").claim(entry)).stem
    stem = f"{words.paper_of(entry)}-{name}"
    alpha = entry.get("alpha") or 0.05

    def drawn(kind: str, i: int, chart: Drawing) -> str:
        file = f"{stem}-{kind}-{i}.svg"
        (files / file).write_text(chart.standalone(), encoding="utf-8")
        return f"![{escape_markdown(chart.alt)}](files/{file})\n"

    lines = [
        f"### {escape_markdown(entry.get('statement') or entry['id'])}\n",
        f"`{entry['id']}`: **{words.verdict_of(entry)}** at {escape_markdown(words.scale_words(entry))}\n",
    ]
    if words.headline(entry):
        lines.append(escape_markdown(words.headline(entry)) + "\n")
    if entry.get("reason") and entry["reason"] != words.headline(entry):
        lines.append(escape_markdown(entry["reason"]) + "\n")
    tests = []
    for row in entry.get("hypotheses") or []:
        role = (
            f"broken on purpose: {words.sabotage_words(row)}"
            if row.get("sabotaged")
            else ("" if row.get("counts", True) else "shown, not counted")
        )
        tests.append(
            {
                "hypothesis": row.get("text"),
                "outcome": words.held(row),
                "measured": words.sentence(row, alpha),
                "role": role,
                "note": row.get("note") or "",
            }
        )
    lines.append(_table(tests))
    lines += [drawn("interval", i, chart) for i, chart in enumerate(charts.intervals) if chart is not None]
    if entry.get("preconditions"):
        lines += ["What had to hold first:\n", _table(preconditions(entry))]
    lines += [drawn("points", i, chart) for i, chart in enumerate(charts.points)]
    for metric in metrics_of(entry):
        values = values_of(entry, metric)
        lines += [
            f"{escape_markdown(metric)}:\n",
            _table([{"arm": arm, **{str(s): v for s, v in row.items()}} for arm, row in values.items()]),
        ]
    lines += [drawn("curve", i, chart) for i, chart in enumerate(charts.curves)]
    for group in picture_groups(evidence.pictures):
        seed, tiles = group.seeds[0]
        shown = [f"![{escape_markdown(caption)}](files/{picture.file})" for caption, picture in tiles]
        lines.append(
            f"{escape_markdown(group.title)}, seed {seed}: {' · '.join(escape_markdown(c) for c, _ in tiles)}\n\n"
            + " ".join(shown)
            + "\n"
        )
    for title, its in evidence.tables.items():
        lines += [
            f"{escape_markdown(title)}:\n",
            _table(its[:40]),
            f"({len(its) - 40} more rows)\n" if len(its) > 40 else "",
        ]
    lines += [f"- {escape_markdown(text)} ({escape_markdown(where)})" for text, where in note_lines(evidence.notes)] + [
        ""
    ]
    if failure_rows(entry):
        lines += ["Trials that failed:\n", _table(failure_rows(entry))]
    lines.append(f"Not tried: {escape_markdown(entry.get('untried') or 'the author names nothing beyond the scale')}\n")
    lines.append(_table([{"how it was run": k, "": v} for k, v in facts(entry)]))
    if evidence.settings:
        lines.append(_table([{"setting": k, "value": v} for k, v in evidence.settings.items()]))
    if entry.get("command"):
        lines.append(f"```\n{entry['command']}\n```\n")
    return "\n".join(line for line in lines if line)
