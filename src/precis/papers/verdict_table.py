"""A check in the terminal: live progress while trials run, then verdicts with the hypotheses in words."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from precis.lab import words
from precis.lab.events import Event
from precis.papers.terminal import STYLES, markdown, scalars

_HOLDS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


def table(entries: list[dict[str, Any]]) -> RenderableType:
    """One block a claim: verdict and scale, the statement, every hypothesis with effect, interval and n."""
    blocks = [block for entry in entries for block in (_claim(entry), Text(""))]
    counts = Counter(words.verdict_of(entry) for entry in entries)
    told = [f"{counts[verdict]} {verdict}" for verdict in words.VERDICTS if counts[verdict]]
    seconds = sum(e["seconds"] for e in entries)
    end = Text(f"{', '.join(told)}; {words.duration(seconds)} of trials.")
    if any(entry["verdict"] for entry in entries):
        end.append("  `precis report` shows every point, curve and picture.", "dim")
    return Group(*blocks, end)


def _claim(entry: Mapping[str, Any]) -> RenderableType:
    verdict = words.verdict_of(entry)
    head = Text.assemble((entry["id"], "bold"), "  ", (f"{words.MARKS[verdict]} {verdict}",
                                                     STYLES.get(verdict, "dim")))
    head.append(f"  at {words.scale_words(entry)}", "dim")
    lines: list[RenderableType] = [markdown(entry["statement"])]
    if entry["reason"] and verdict != "supported":
        lines.append(Text(entry["reason"], STYLES.get(verdict, "dim")))
    rows = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
    for row in entry["preconditions"]:
        rows.add_row(*_marked(row["holds"], f"first: {row['text']}", row["note"]))
    for row in entry["hypotheses"]:
        said = words.sentence(row, entry["alpha"] or 0.05)
        aside = "" if row["counts"] else "(does not count) "
        if row["sabotaged"]:
            rows.add_row(*_marked(words.is_well(row), f"broken on purpose ({words.held(row)}): {said}", row["note"]))
        else:
            rows.add_row(*_marked(row["holds"], aside + said, row["note"]))
    if rows.row_count:
        lines.append(rows)
    for failure in entry["failures"][:3]:
        seed = "" if failure["seed"] is None else f", seed {failure['seed']}"
        lines.append(Text(f"failed: {failure['arm']}{seed}: {last_line(failure['error'])}", "red"))
    if len(entry["failures"]) > 3:
        lines.append(Text(f"and {words.counted(len(entry['failures']) - 3, 'more trial')} failed", "red"))
    return Group(head, Padding(Group(*lines), (0, 0, 0, 2)))


def _marked(holds: bool | None, text: str, note: str) -> tuple[Text, Text]:
    mark, style = _HOLDS[holds]
    return Text(mark, style), Text(text + (f"; {note}" if note else ""))


def last_line(error: str) -> str:
    """What a traceback ends with."""
    return ([line for line in error.strip().splitlines() if line.strip()] or ["unknown error"])[-1].strip()


class CheckProgress:
    """Hears a check's events: a bar over all trials on a terminal, else a plain line now and then."""

    every = 2.0  # seconds between plain lines; verdicts and failures are always told

    def __init__(self, out: Console) -> None:
        self.out, self._last = out, -1e9
        self._bar: Any = None
        self._task: Any = None
        if out.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"), TextColumn("{task.description}"),
                console=out, transient=True,
            )
            self._task = self._bar.add_task("", total=None, left="")
            self._bar.start()

    def __call__(self, event: Event) -> None:
        trial = f"{event.claim} {event.arm} " + ("tuning" if event.tuning else f"seed {event.seed}")
        left = "" if event.left is None else f"{words.duration(event.left)} left"
        if event.kind == "failed":
            self.out.print(f"failed: {trial}: {last_line(event.error)}", style="red", markup=False)
        elif event.kind == "verdict" and event.entry is not None:
            verdict = words.verdict_of(event.entry)
            if event.entry["verdict"]:
                self.out.print(f"{event.claim}: {verdict}", style=STYLES.get(verdict, ""), markup=False)
        if self._bar is not None:
            self._bar.update(self._task, completed=event.done, total=event.planned or None, left=left)
            if event.kind in ("start", "log"):
                self._bar.update(self._task, description=f"{trial}  {scalars(event.scalars)}")
        elif event.kind == "done" and (monotonic() - self._last >= self.every or event.done == event.planned):
            self._last = monotonic()
            cached = "from the ledger" if event.cached else words.duration(event.seconds)
            self.out.print(f"{event.done}/{event.planned}  {trial}  {cached}  {left}".rstrip(), markup=False)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(out: Console) -> Iterator[CheckProgress]:
    shown = CheckProgress(out)
    try:
        yield shown
    finally:
        shown.stop()
