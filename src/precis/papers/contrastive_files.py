"""Pictures and tables of a contrastive run: each appears whole or not at all."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from precis.papers.work import writing


def save(path: Path, content: bytes) -> None:
    with writing(path) as beside:
        beside.write_bytes(content)


def save_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file with a line of names."""
    with writing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(head)
        csv.writer(file).writerows(rows)
