"""A sweep in the terminal: one line a claim and data set, then how many came out how."""

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from precis.lab import words
from precis.papers.terminal import STYLES


def sweep_table(entries: list[dict[str, Any]]) -> RenderableType:
    """Claim by claim; the effect is that of the first hypothesis that counts, with its interval."""
    rows = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("claim", "data", "verdict", "n", "effect", "interval", "what for"):
        rows.add_column(name, no_wrap=name != "what for", overflow="fold", justify="right" if name == "n" else "left")
    last = ""
    for entry in sorted(entries, key=lambda e: e["id"]):        # sorted keeps the order of the data sets
        verdict = words.verdict_of(entry)
        first = next((row for row in entry["hypotheses"] if row["counts"] and not row["sabotaged"]), None)
        effect, interval, why = "–", "", first["text"] if first else ""
        if first is not None and first["effect"] is not None:
            effect, interval = words.number(first["effect"]), words.interval_words(first["interval"])
        rows.add_row(
            Text(entry["id"] if entry["id"] != last else "", "bold"),
            Path(entry["data"]).name if entry["data"] else "built-in",
            Text(f"{words.MARKS[verdict]} {verdict}", STYLES.get(verdict, "dim")), str(entry["n"] or "–"), effect,
            interval, Text(why if verdict == "supported" or not entry["reason"] else entry["reason"], "dim"))
        last = entry["id"]
    counts = Counter(map(words.verdict_of, entries))
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in words.VERDICTS if counts[verdict])
    seconds = sum(entry["seconds"] for entry in entries)
    failed = sum(len(entry["failures"]) for entry in entries)
    end = f"\n{told}; {words.duration(seconds)} of trials" + (f", {failed} failed" if failed else "") + "."
    return Group(rows, Text(end))
