"""`precis report`: what the ledger holds, as pages; `lab.report` draws them, the catalogue gives the papers' words."""

from pathlib import Path

from precis.errors import InputError
from precis.lab.ledger import Ledger, home
from precis.papers.catalogue import Library


def publish(library: Library, out: Path) -> Path:
    """Write the site of all verdicts in the ledger (smoke has none) to `out`; return its first page."""
    from precis.lab.report import write_report

    place = home()
    ledger = Ledger(place, read_only=True)
    try:
        found = ledger.verdicts()
    finally:
        ledger.close()
    entries = [report for (_, profile), report in sorted(found.items()) if profile != "smoke"]
    if not entries:
        words = "there are smoke results alone, which have no verdict" if found else "there are no results yet"
        raise InputError(f"{words}: `precis check ID` makes some", file=place)
    known = {paper.id: paper for paper in library if len(library.by_name[paper.id]) == 1}
    return write_report(out, entries, place, summaries=known)
