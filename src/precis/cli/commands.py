"""The short commands: show, report, serve, new, data, doctor."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc
from tyro.conf import Positional, arg

from precis.cli.listing import warn
from precis.errors import InputError, install_line, missing
from precis.papers.catalogue import find, nearest


@dataclass(kw_only=True)
class Show:
    """A paper's summary, its claims with their verdicts, and what to try."""

    id: Annotated[Positional[str], arg(metavar="ID"), Doc("a paper's id or alias")]

    def __call__(self) -> int:
        from precis.papers.terminal import page, show
        from precis.papers.verdicts import compared, shown

        paper = find()[self.id]
        problems: list[str] = []
        verdicts = compared(paper, shown([paper], problems))
        warn(problems)
        show(page(paper, verdicts, {extra: install_line(extra) for extra in paper.extras if missing(extra)}))
        return 0


@dataclass(kw_only=True)
class Report:
    """All results of this machine as a static site, and as Markdown."""

    out: Annotated[Path, Doc("folder to write; it must be empty, new, or a report")] = Path("precis-report")

    def __call__(self) -> int:
        from precis.papers.publishing import publish

        print(publish(find(), self.out))
        return 0


@dataclass(kw_only=True)
class Serve:
    """The site on this machine: library, papers, live runs, results."""

    port: Annotated[int, Doc("port to listen on; 0 takes a free one")] = 8321
    host: Annotated[str, Doc("address to listen on; any but this machine's own goes with a token")] = "127.0.0.1"
    token: Annotated[str | None, Doc("asked of every visitor; else $PRECIS_TOKEN; made up where --host needs one")] = (
        None
    )

    def __call__(self) -> int:
        if not 0 <= self.port <= 65535:
            raise InputError(f"--port must lie in 0 … 65535, got {self.port}")
        from precis.web import serve

        return serve(port=self.port, host=self.host, token=self.token)


@dataclass(kw_only=True)
class New:
    """A folder for a paper of your own: summary.md, method.py, job.py and claims.py that work as written."""

    id: Annotated[Positional[str], arg(metavar="ID"), Doc("its id, in snake_case")]
    into: Annotated[Path, Doc("the folder to make it in")] = Path(".")

    def __call__(self) -> int:
        from precis.papers.new import write_paper

        folder = write_paper(self.id, self.into)
        made = ", ".join(sorted(file.name for file in folder.iterdir()))
        print(f"{folder}: {made}.  So that it is found, and next:\n")
        print(f"  export PRECIS_PAPERS={shlex.quote(str(folder.parent.resolve()))}")
        print(f"  precis show {folder.name}")
        print(f"  precis run {folder.name}")
        print(f"  precis check {folder.name} --profile smoke")
        return 0


@dataclass(kw_only=True)
class Data:
    """Standard data sets: `list` shows which are here, `get NAME` fetches one."""

    action: Annotated[Positional[Literal["list", "get"]], Doc("what to do")]
    name: Annotated[Positional[str | None], Doc("the set's name, for get")] = None

    def __call__(self) -> int:
        from precis.data.standard import catalogue, get

        sets = catalogue()
        known = [one.name for one in sets]
        if self.action == "list":
            if self.name is not None:
                raise InputError("data list takes no name; `precis data get NAME` fetches a set")
            for one in sets:
                absent = f"not here; get fetches {one.megabytes} MB" if one.megabytes else "not here, never fetched"
                print(f"{one.name:<18}{one.what}\n{'':<18}{one.found or absent}")
            return 0
        if self.name is None:
            raise InputError(f"name the set to get: {', '.join(known)}")
        if self.name.replace("-", "_") not in known:
            hint = nearest(self.name, known, f"there are {', '.join(known)}")
            raise InputError(f"no data set is called {self.name!r}{hint}")
        print(get(self.name.replace("-", "_")))
        return 0


@dataclass(kw_only=True)
class Doctor:
    """Is everything sound: the installation, the ledger, every paper's folder."""

    def __call__(self) -> int:
        from precis.papers.doctor import examine
        from precis.papers.terminal import console

        marks = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}
        out, broken = console(), 0
        for finding in examine(find()):
            mark, style = marks[finding.sound]
            out.print(f"{mark} ", style=style, end="")
            out.print(finding.text, markup=False, soft_wrap=True)
            broken += finding.sound is False
        out.print(f"\n{broken} broken" if broken else "\nall sound", style="red" if broken else "green")
        return 1 if broken else 0


