"""The library as the site shows it, read again only when a file that it came from has changed."""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from precis.errors import InputError, RunFailed
from precis.lab.ledger import Ledger
from precis.papers import catalogue
from precis.papers.catalogue import Library, Paper
from precis.papers.verdicts import Shown, standing
from precis.web.helpers import Helpers

STATES = ("supported", "contradicted", "inconclusive", "not checked")
PAGES = 64  # pages of claims that are kept drawn
Stamp = tuple[Any, ...]


@dataclass(frozen=True)
class Card:
    """A paper as the library shows it."""

    paper: Paper
    counts: dict[str, int]
    picture: bool
    words: str  # all that the search looks through, in small letters


@dataclass
class View:
    """The library at one moment."""

    library: Library
    cards: list[Card]
    families: dict[str, int]
    verdicts: Mapping[str, Shown]
    own: Mapping[tuple[str, str], dict[str, Any]]
    problems: list[str]
    stamp: Stamp = field(default=())


class Shelf:
    """Papers, verdicts and drawn pages, each kept until what it was made from changes."""

    def __init__(self, home: Path, helpers: Helpers) -> None:
        self.home, self.helpers = home, helpers
        self._library: tuple[Stamp, Library] | None = None
        self._view: View | None = None
        self._pages: OrderedDict[Any, str] = OrderedDict()
        self._claims: dict[str, tuple[Stamp, Any]] = {}
        self._asked: dict[str, asyncio.Lock] = {}

    def view(self) -> View:
        papers = _papers_stamp(self._library[1] if self._library else None)
        if self._library is None or self._library[0] != papers:
            library = catalogue.find()
            self._library = (_papers_stamp(library), library)
        stamp = (self._library[0], _stamp(self.home / "ledger.sqlite"))
        if self._view is None or self._view.stamp != stamp:
            self._view = _look(self._library[1], self.home, stamp)
        return self._view

    def paper(self, name: str) -> Paper:
        """404 where there is none of that name."""
        try:
            return self.view().library[name]
        except InputError as error:
            raise HTTPException(404, str(error)) from None

    async def page(self, key: Any, draw: Any) -> str:
        """A page that reads the ledger's evidence, made in a thread and kept."""
        if key not in self._pages:
            self._pages[key] = await asyncio.to_thread(draw)
            while len(self._pages) > PAGES:
                self._pages.popitem(last=False)
        self._pages.move_to_end(key)
        return self._pages[key]

    def claims_known(self, paper: Paper) -> dict[str, Any] | None:
        """What the form of a check shows, if the paper's files have not changed since it was asked."""
        known = self._claims.get(paper.id)
        return known[1] if known and known[0] == _code_stamp(paper) else None

    async def claims(self, paper: Paper) -> dict[str, Any]:
        """The same, from a process that imports claims.py if need be."""
        async with self._asked.setdefault(paper.id, asyncio.Lock()):
            known = self.claims_known(paper)
            if known is None:
                stamp = _code_stamp(paper)
                known = await self.helpers.ask({"do": "claims", "paper": paper.id})
                self._claims[paper.id] = (stamp, known)
            return known


def _look(library: Library, home: Path, stamp: Stamp) -> View:
    problems = list(library.problems)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    try:
        with Ledger(home, read_only=True) as ledger:
            rows = ledger.verdicts()
    except (InputError, RunFailed) as error:
        problems.append(str(error))
    verdicts: dict[str, Shown] = {}
    cards = []
    for paper in library:
        stand = standing(paper, rows, problems)
        verdicts |= stand
        counts = dict.fromkeys(STATES, 0)
        for one in stand.values():
            counts[one.verdict if one.verdict in STATES else "not checked"] += 1
        words = [paper.id, paper.title, *paper.authors, paper.venue, str(paper.year), paper.family, *paper.aliases,
                 *paper.claims.values(), paper.arxiv or ""]
        picture = (paper.assets / "card.webp").is_file()
        cards.append(Card(paper, counts, picture, " ".join(words).lower()))
    families: dict[str, int] = {}
    for paper in library:
        families[paper.family] = families.get(paper.family, 0) + 1
    return View(library, cards, dict(sorted(families.items())), verdicts, rows, problems, stamp)


def _papers_stamp(library: Library | None) -> Stamp:
    """Times of every file that the catalogue is made from, and of the folders where a new paper would appear."""
    tops = {catalogue.BUILT_IN, *map(Path, filter(None, os.environ.get("PRECIS_PAPERS", "").split(os.pathsep)))}
    tops |= {paper.source.folder.parent for paper in library or ()}
    found: list[Any] = [os.environ.get("PRECIS_PAPERS", "")]
    for top in sorted(tops):
        found.append((str(top), _stamp(top), _stamp(top / "summary.md")))
        try:
            with os.scandir(top) as entries:
                folders = sorted(e.path for e in entries if e.name[0] not in "._" and e.is_dir())
        except OSError:
            continue
        for folder in folders:
            names = ("", "summary.md", "job.py", "claims.py", "assets", "assets/recorded.json", "assets/card.webp")
            found += [(folder, *(_stamp(os.path.join(folder, name)) for name in names))]
    return tuple(found)


def _code_stamp(paper: Paper) -> Stamp:
    return tuple((str(p), _stamp(p)) for p in sorted(paper.source.folder.glob("*.py")))


def _stamp(path: str | Path) -> tuple[int, int]:
    try:
        told = os.stat(path)
        return told.st_mtime_ns, told.st_size
    except OSError:
        return 0, -1
