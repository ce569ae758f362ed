"""What people see in a terminal: the library, a summary with its formulas, the bar of a run, metrics."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from precis.papers.catalogue import Paper
from precis.papers.verdicts import Shown
from precis.papers.work import of_batches

STYLES = {"supported": "green", "contradicted": "red", "inconclusive": "yellow"}
MARKS = {"supported": "✓", "contradicted": "✗", "inconclusive": "?"}


def console(file: TextIO | None = None, *, stderr: bool = False) -> Console:
    """A console as wide as the terminal, 100 columns where output is piped; no colour there."""
    made = Console(file=file, stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(file=file, stderr=stderr, highlight=False, width=100)


def show(renderable: RenderableType, file: TextIO | None = None) -> None:
    """Print it; without the blanks that fill a terminal's lines where output is piped."""
    out = console(file)
    if out.is_terminal:
        out.print(renderable, crop=False)
        return
    with out.capture() as caught:
        out.print(renderable, crop=False)
    (file or sys.stdout).write("".join(f"{line.rstrip()}\n" for line in caught.get().splitlines()))


def listing(papers: Iterable[Paper], shown: dict[str, Shown]) -> RenderableType:
    """One row a paper: id, title, year, and how its claims stand."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("paper", "family", "year", "claims", "title"):
        table.add_column(name, no_wrap=name != "title")
    told = ""
    for paper in papers:
        verdicts = [shown[f"{paper.id}/{name}"] for name in paper.claims]
        counts = _counted([one.verdict for one in verdicts])
        if smaller := [one.beside.get("verdict") for one in verdicts if one.beside and one.leads_recorded]:
            counts = Text.assemble(counts, (" (yours ", "dim"), _counted(smaller), (")", "dim"))
            told = "  (yours …) of your own, at a smaller profile"
        table.add_row(Text(paper.id, "bold"), paper.family, str(paper.year), counts, paper.title)
    return Group(table, Text(f"\n✓ supported  ✗ contradicted  ? inconclusive  · not checked{told}", "dim"))


def _counted(verdicts: list[str | None]) -> Text:
    """ "2✓ 1✗ 3·"."""
    signs = [*((verdict, mark, STYLES[verdict]) for verdict, mark in MARKS.items()), (None, "·", "dim")]
    parts = [(f"{verdicts.count(of)}{mark}", style) for of, mark, style in signs if of in verdicts]
    return Text(" ").join(Text(*part) for part in parts)


def page(paper: Paper, shown: dict[str, Shown], missing: dict[str, str]) -> RenderableType:
    """A paper's summary, its claims with their verdicts, and the commands to try."""
    head = Text.assemble((paper.title, "bold"), "\n", ", ".join(paper.authors), f"\n{paper.venue} {paper.year}")
    if paper.arxiv:
        head.append(f"  ·  https://arxiv.org/abs/{paper.arxiv}")
    if paper.code:
        head.append(f"  ·  {paper.code if '://' in paper.code else 'https://github.com/' + paper.code}")
    for extra, line in missing.items():
        head.append(f"\nneeds the extra {extra}: {line}", "yellow")
    titled = Group(Text("\nClaims", "bold"), claims(paper, shown))
    return Group(head, Text(""), markdown(paper.summary), titled, commands(paper))


def claims(paper: Paper, shown: dict[str, Shown]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column("name", no_wrap=True)
    table.add_column("statement")
    for name, statement in paper.claims.items():
        found = shown[f"{paper.id}/{name}"]
        verdict = Text(f"{found.verdict or 'not checked'}", STYLES.get(found.verdict or "", "dim"))
        if found.verdict:
            verdict.append(f" {found.where}", "dim")
        if found.reason and found.verdict != "supported":
            verdict.append(f": {found.reason}", "dim")
        lines = [markdown(statement), verdict]
        if found.beside:
            other = str(found.beside["verdict"])
            lines.append(Text.assemble((other, STYLES.get(other, "dim")), (f" {found.where_beside}", "dim")))
        table.add_row(Text(name, "bold"), Group(*lines))
    return table


def commands(paper: Paper) -> RenderableType:
    """What one can type next."""
    lines = []
    if (paper.source.folder / "job.py").exists():
        lines += [(f"precis run {paper.id}", "the job on a built-in sample"),
                  (f"precis run {paper.id} --help", "its input and options")]
    if (paper.source.folder / "claims.py").exists():
        first = next(iter(paper.claims))
        lines += [(f"precis check {paper.id}", "all claims at the quick profile, some minutes"),
                  (f"precis check {paper.id}/{first}", "one claim")]
    grid = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for command, what in lines:
        grid.add_row(Text(command, "cyan"), Text(what, "dim"))
    return Group(Text("Try", "bold"), grid)


def markdown(source: str) -> RenderableType:
    """Markdown with rich, `$…$` and `$$…$$` as Unicode."""
    from markdown_it import MarkdownIt
    from markdown_it.token import Token
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from rich import markdown as rich_markdown

    from precis.papers.formulas import to_unicode

    class MathBlock(rich_markdown.TextElement):
        style_name = "none"

        def on_text(self, context: Any, text: Any) -> None:
            self.text.append(str(text), "italic cyan")

        def __rich_console__(self, console: Any, options: Any) -> Iterator[RenderableType]:
            yield Padding(self.text, (0, 0, 0, 4))

    class Code(rich_markdown.CodeBlock):
        """Its lines stay whole, to be copied: a terminal breaks longer ones by itself."""

        def __rich_console__(self, console: Any, options: Any) -> Iterator[RenderableType]:
            for line in str(self.text).rstrip().splitlines():
                yield Text(f"  {line}", "cyan", no_wrap=True, overflow="ignore")

    class Page(rich_markdown.Markdown):
        elements = rich_markdown.Markdown.elements | {"math_block": MathBlock, "fence": Code, "code_block": Code}

    def readable(tokens: list[Token]) -> list[Token]:
        for token in tokens:
            if token.type == "math_inline":
                token.type, token.tag, token.content = "text", "", to_unicode(token.content).replace("\n", "  ")
            elif token.type in ("math_block", "math_block_label", "math_inline_double"):
                token.type, token.content = "math_block" if token.block else "text", to_unicode(token.content)
            if token.children:
                readable(token.children)
        return tokens

    parser = MarkdownIt().enable("strikethrough").enable("table")
    parser.use(dollarmath_plugin, double_inline=True, allow_space=False)
    made = Page("", hyperlinks=False)
    made.parsed = readable(parser.parse(re.sub(r"<!--.*?-->", "", source, flags=re.DOTALL)))
    return made


class Progress:
    """Hears a run's events: a bar with the time left and the metrics on a terminal, else a plain line now and then."""

    every = 5.0  # seconds between plain lines

    def __init__(self, out: Console) -> None:
        self.out, self._last = out, -1e9
        self._first: tuple[float, int] | None = None
        self._at = 0
        self._bar: Any = None
        self._task: Any = None
        if out.is_terminal:
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"), console=out, transient=True,
            )

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "note":
            if self._task is not None:
                self._bar.update(self._task, description="")
            self.out.print(f"note: {event['text']}", style="yellow", markup=False)
        elif event["event"] == "sample":  # piped, nothing: it would stand beside what one line has to say
            self._begin("making the built-in sample", None)
        elif event["event"] == "log":
            self._step(event["step"], event["total"], scalars(event["scalars"]))

    def _step(self, step: int, total: int, metrics: str) -> None:
        anew, self._at = step < self._at, step  # another phase begins, whose pace the last one's tells nothing of
        if self._bar is not None:
            self._begin("", total)
            if anew:
                self._bar.reset(self._task)
            self._bar.update(self._task, description="", completed=step, total=total, metrics=metrics)
            return
        now = monotonic()
        self._first = (now, step) if anew or self._first is None else self._first
        if now - self._last >= self.every or step == total:
            self._last = now
            done = step - self._first[1]
            left = f"  {(now - self._first[0]) / done * (total - step):.0f} s left" if done > 0 and step < total else ""
            self.out.print(f"{step}/{total}  {metrics}{left}".rstrip(), markup=False)

    def _begin(self, what: str, total: int | None) -> None:
        """A bar, if there is a terminal and none yet; of no length where nobody knows it."""
        if self._bar is not None and self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(what, total=total, metrics="")

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(out: Console) -> Iterator[Progress]:
    shown = Progress(out)
    try:
        yield shown
    finally:
        shown.stop()


def scalars(values: dict[str, float | None]) -> str:
    """ "loss 0.25  batch accuracy 0.9"."""
    return "  ".join(f"{name} {'not finite' if value is None else format(value, '.4g')}"
                     for name, value in of_batches(values, "batch accuracy").items())
