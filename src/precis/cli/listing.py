"""`precis list`: the one command that must answer at once, so nothing here imports tyro or torch."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from typing_extensions import Doc

from precis.errors import InputError
from precis.papers.catalogue import find


def warn(problems: list[str]) -> None:
    for line in problems:
        sys.stderr.write(f"precis: {' '.join(line.split())}\n")


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


@dataclass(kw_only=True)
class List:
    """The library: papers, their claims, and the last verdicts."""

    family: Annotated[str | None, Doc("only papers of this family")] = None
    json: Annotated[bool, Doc("JSON on stdout")] = False

    def __call__(self) -> int:
        from precis.papers.verdicts import shown

        library = find()
        papers = list(library)
        if self.family is not None:
            family = self.family.replace("-", "_")
            papers = [paper for paper in papers if paper.family == family]
            if not papers:
                families = sorted({paper.family for paper in library})
                there = ", ".join(families) or "none"
                raise InputError(f"no paper is of the family {self.family!r}; there are {there}")
        problems = list(library.problems)
        verdicts = shown(papers, problems)
        warn(problems)
        if self.json:
            print_json({"papers": [
                {
                    "id": p.id, "title": p.title, "year": p.year, "family": p.family, "authors": list(p.authors),
                    "venue": p.venue, "extras": list(p.extras), "aliases": list(p.aliases),
                    "claims": [
                        {
                            "id": f"{p.id}/{name}", "statement": statement,
                            "verdict": (verdicts[f"{p.id}/{name}"].latest or {}).get("verdict"),
                            "profile": (verdicts[f"{p.id}/{name}"].latest or {}).get("profile"),
                            "recorded": (verdicts[f"{p.id}/{name}"].recorded or {}).get("verdict"),
                            "recorded_profile": (verdicts[f"{p.id}/{name}"].recorded or {}).get("profile"),
                        }
                        for name, statement in p.claims.items()
                    ],
                }
                for p in papers
            ]})
            return 0
        from precis.papers.terminal import listing, show

        show(listing(papers, verdicts))
        return 0


def well_formed(args: Sequence[str]) -> List | None:
    """The command of plain arguments; None where tyro has something to say (--help, a mistyped option)."""
    rest, made = list(args), List()
    while rest:
        word = rest.pop(0)
        if word == "--json":
            made.json = True
        elif word == "--family" and rest and not rest[0].startswith("-"):
            made.family = rest.pop(0)
        else:
            return None
    return made
