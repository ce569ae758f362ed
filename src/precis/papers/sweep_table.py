"""A sweep in the terminal: for each claim one line a data set, then how many came out how."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from precis.lab import words
from precis.papers.terminal import STYLES


def sweep_table(entries: list[dict[str, Any]]) -> RenderableType:
    """Claim by claim; the effect is that of the first hypothesis that counts, with its interval."""
    blocks: list[RenderableType] = []
    for name, some in groupby(sorted(entries, key=lambda e: str(e["id"])), key=lambda e: str(e["id"])):
        blocks += [*_claim(name, list(some)), Text("")]
    counts = Counter(map(words.verdict_of, entries))
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in words.VERDICTS if counts[verdict])
    seconds = sum(entry["seconds"] for entry in entries)
    failed = sum(len(entry["failures"]) for entry in entries)
    end = f"{told}; {words.duration(seconds)} of trials" + (f", {failed} failed" if failed else "") + "."
    return Group(*blocks, Text(end))


def _claim(name: str, entries: list[dict[str, Any]]) -> Iterator[RenderableType]:
    """The data sets in the order asked for; below them what kept a claim from being supported."""
    firsts = [_first(entry) for entry in entries]
    what = next((row["text"] for row in firsts if row), "")
    yield Text.assemble((name, "bold"), (f"  {what}" if what else "", "dim"))
    rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    reasons: dict[str, list[str]] = {}
    for entry, first in zip(entries, firsts):
        verdict = words.verdict_of(entry)
        data = Path(entry["data"]).name if entry["data"] else "built-in data"
        effect, between = "", ""
        if first is not None and first["effect"] is not None:
            effect = words.number(first["effect"])
            between = " to ".join(map(words.number, first["interval"] or ()))
        seeds = words.counted(entry["n"], "seed") if entry["n"] else ""
        rows.add_row(data, Text(f"{words.MARKS[verdict]} {verdict}", STYLES.get(verdict, "dim")), seeds, effect,
                     Text(between, "dim"))
        if verdict != "supported" and entry["reason"]:
            reasons.setdefault(entry["reason"], []).append(data)
    yield Padding(rows, (0, 0, 0, 2))
    for reason, sets in reasons.items():
        yield Padding(Text(f"{', '.join(sets)}: {reason}", "dim"), (0, 0, 0, 2))


def _first(entry: dict[str, Any]) -> dict[str, Any] | None:
    return next((row for row in entry["hypotheses"] if row["counts"] and not row["sabotaged"]), None)
