"""The library: which papers there are, found without importing any of them.

A paper is a folder with a `summary.md`: inside `precis.papers`, in a package named by an entry point `precis.papers`,
or in `$PRECIS_PAPERS` (folders separated as in `$PATH`, each a paper or a folder of papers).  What cannot be read is a
line in `Library.problems` and hides nothing else.
"""

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from precis.errors import InputError
from precis.lab.loading import PaperSource
from precis.lab.recorded import read_recorded
from precis.papers.frontmatter import read_front_matter

BUILT_IN = Path(__file__).parent


@dataclass(frozen=True, eq=False)
class Paper:
    """One paper as its front matter tells it; text and recorded results are read when asked for."""

    id: str
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    family: str
    claims: dict[str, str]
    arxiv: str | None
    code: str | None
    extras: tuple[str, ...]
    aliases: tuple[str, ...]
    source: PaperSource
    body: int = field(repr=False)

    @cached_property
    def summary(self) -> str:
        """The Markdown below the front matter."""
        return (self.source.folder / "summary.md").read_text(encoding="utf-8-sig")[self.body :].lstrip("\r\n")

    @property
    def assets(self) -> Path:
        """The folder of card, samples, shipped weights and recorded verdicts; it may be absent."""
        return self.source.folder / "assets"

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """`claims` of `assets/recorded.json`, name → profile → report; {} if there is no such file."""
        claims: dict[str, Any] = read_recorded(self.source.folder)["claims"]
        for profiles in claims.values():
            if not isinstance(profiles, dict) or not all(isinstance(report, dict) for report in profiles.values()):
                file = self.assets / "recorded.json"
                raise InputError("must hold claims: name → profile → report, as `make results` writes it", file=file)
        return claims


class Library:
    """All papers, in the order of their ids; `library["siren"]` takes ids and aliases, `-` read as `_`."""

    def __init__(self, papers: list[Paper], problems: list[str]) -> None:
        self.papers = sorted(papers, key=lambda p: (p.id, str(p.source.folder)))
        self.by_name: dict[str, list[Paper]] = {}
        for paper in self.papers:
            for name in dict.fromkeys((paper.id, *paper.aliases)):
                self.by_name.setdefault(name, []).append(paper)
        self.problems = problems + [_collision(n, found) for n, found in self.by_name.items() if len(found) > 1]

    def __iter__(self) -> Iterator[Paper]:
        return iter(self.papers)

    def __len__(self) -> int:
        return len(self.papers)

    def __getitem__(self, name: str) -> Paper:
        found = self.by_name.get(name.replace("-", "_"), [])
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(_collision(name, found))
        broken = [line for line in self.problems if f"{os.sep}{name.replace('-', '_')}{os.sep}" in line]
        if broken:
            raise InputError(broken[0])
        raise InputError(f"no paper is called {name!r}{nearest(name, self.by_name)}")


def nearest(name: str, known: Any, otherwise: str = "`precis list` shows all") -> str:
    """'; did you mean …?', or `otherwise`."""
    close = difflib.get_close_matches(name.replace("-", "_").lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; {otherwise}"


def find() -> Library:
    """Look through all places; never raises for what lies in them."""
    papers: list[Paper] = []
    problems: list[str] = []
    seen: set[Path] = set()
    for source in _sources(problems):
        place = source.folder.resolve()
        if place in seen:
            continue
        seen.add(place)
        try:
            papers.append(_open(source))
        except InputError as error:
            problems.append(str(error))
    return Library(papers, problems)


def _open(source: PaperSource) -> Paper:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", source.id):
        raise InputError(f"a paper's folder is named in snake_case, not {source.folder.name!r}", file=source.folder)
    file = source.folder / "summary.md"
    if not file.exists():
        raise InputError("is missing: a paper's folder holds summary.md, job.py and claims.py", file=file)
    return Paper(id=source.id, source=source, **read_front_matter(file)._asdict())


def _sources(problems: list[str]) -> Iterator[PaperSource]:
    yield from _within(BUILT_IN, "precis.papers")
    yield from _installed(problems)
    for entry in filter(None, os.environ.get("PRECIS_PAPERS", "").split(os.pathsep)):
        folder = Path(entry).expanduser()
        if not folder.is_dir():
            problems.append(f"$PRECIS_PAPERS names {entry}, which is not a folder")
        elif _is_paper(folder):
            yield PaperSource(_id(folder.resolve()), folder.resolve())
        else:
            yield from _within(folder.resolve(), None)


def _installed(problems: list[str]) -> Iterator[PaperSource]:
    from importlib.metadata import entry_points

    for point in entry_points(group="precis.papers"):
        try:
            spec = find_spec(point.value)
        except (ImportError, ValueError) as error:
            problems.append(f"the entry point {point.name!r} names {point.value}: {error}")
            continue
        places = list(spec.submodule_search_locations or ()) if spec else []
        if not places:
            problems.append(f"the entry point {point.name!r} names {point.value}, which is not a package")
        for place in map(Path, places):
            if _is_paper(place):
                yield PaperSource(place.name, place, point.value)
            else:
                yield from _within(place, point.value)


def _within(folder: Path, package: str | None) -> Iterator[PaperSource]:
    try:
        inside = sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] not in "._")
    except OSError:
        return
    for paper in inside:
        if _is_paper(paper):
            yield PaperSource(_id(paper), paper, f"{package}.{paper.name}" if package else None)


def _id(folder: Path) -> str:
    return folder.name.replace("-", "_")


def _is_paper(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("summary.md", "job.py", "claims.py"))


def _collision(name: str, found: list[Paper]) -> str:
    places = " and ".join(str(paper.source.folder) for paper in found)
    return f"{name!r} is the id or alias of {len(found)} papers: {places}; rename one"
