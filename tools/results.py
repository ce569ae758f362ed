"""`make results`: run claims, record their verdicts in each paper's assets, and rewrite RESULTS.md.

    python tools/results.py [PAPER | PAPER/CLAIM …] [--profile quick] [--only-write]

Without names: all built-in papers.  What the ledger holds already is not run again; a claim that has no such profile is
passed over.  The exit code is 0 whatever the verdicts are; a paper that fails is told and the others go on (1).
"""

import argparse
import sys
import time
from pathlib import Path

from precis.errors import InputError, RunFailed
from precis.lab import words
from precis.lab.check import check
from precis.lab.events import Event
from precis.lab.loading import claims_of
from precis.lab.recorded import record, results_markdown, write_whole
from precis.papers.catalogue import BUILT_IN, Library, Paper, find

RESULTS = Path(__file__).parent.parent / "RESULTS.md"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("papers", nargs="*", metavar="PAPER[/CLAIM]")
    parser.add_argument("--profile", default="quick", choices=("quick", "full", "paper"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only-write", action="store_true", help="run nothing: RESULTS.md from what is recorded")
    options = parser.parse_args(arguments)
    library = find()
    built_in = [p for p in library if p.source.folder.parent == BUILT_IN]
    try:
        wanted = _wanted(options.papers, library) or [(paper, None) for paper in built_in]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    failed = [] if options.only_write else [paper.id for paper, names in wanted if not measure(paper, names, options)]
    write_whole(RESULTS, results_markdown(built_in))
    print(f"{RESULTS.name} is written" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _wanted(asked: list[str], library: Library) -> list[tuple[Paper, set[str] | None]]:
    """Papers with the claims that were named (None: all of them), in the order asked for."""
    found: dict[str, set[str] | None] = {}
    for name in asked:
        paper, _, claim = name.partition("/")
        id = library[paper].id
        before = found.get(id, set())
        found[id] = None if before is None or not claim else before | {claim.replace("-", "_")}
    return [(library[id], names) for id, names in found.items()]


def measure(paper: Paper, names: set[str] | None, options: argparse.Namespace) -> bool:
    """Check and record one paper, or some of its claims; False if it could not be done."""
    began = time.monotonic()
    try:
        known = claims_of(paper.source)
        if unknown := sorted((names or set()) - set(known)):
            raise InputError(f"no claim {', '.join(unknown)}: it has {', '.join(known)}")
        claims = [c for name, c in known.items() if options.profile in c.profiles and (names is None or name in names)]
        sources = [(paper.source, claim) for claim in claims]
        entries = check(sources, profile=options.profile, device=options.device, listen=tell) if claims else []
        record(paper.source.folder, entries)
    except (ImportError, InputError, RunFailed) as error:
        print(f"{paper.id}: {error}", file=sys.stderr)
        return False
    print(f"{paper.id}: {len(entries)} claims in {words.duration(time.monotonic() - began)}", flush=True)
    return True


def tell(event: Event) -> None:
    if event.kind == "failed":
        print(f"  {event.claim}, {event.arm}, seed {event.seed}: {event.error.splitlines()[-1]}", file=sys.stderr)
    if event.kind == "verdict" and event.entry is not None:
        print(f"  {event.claim}: {words.verdict_of(event.entry)}. {words.headline(event.entry)}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
