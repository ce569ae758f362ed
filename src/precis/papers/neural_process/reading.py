"""Tables of functions, long or wide, to arrays: what was observed, and where a prediction is asked for.

long   columns id, x (or t; x1, x2, … for several), y (or y1, y2, …): a row a point, an empty y asks for a prediction
wide   first column x, then one column a function: an empty cell asks for a prediction there
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from precis.data.tables import Table, read_table
from precis.errors import InputError

IDS = ("id", "function", "curve", "series", "task")


@dataclass
class Function:
    """`x` [n,dx] and `y` [n,dy] observed, sorted by x; `ask` [k,dx] where the table leaves y empty."""

    name: str
    x: np.ndarray
    y: np.ndarray
    ask: np.ndarray


@dataclass
class Functions:
    """All functions of a table; `notes` say what was repaired."""

    items: list[Function]
    x_names: list[str]
    y_names: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return sum(len(f.ask) for f in self.items)


def read_functions(path: str | Path) -> Functions:
    """Read a table; InputError names what is wrong with it."""
    table = read_table(path)
    id_column = table.first(*IDS)
    found = _wide(table) if id_column is None else _long(table, id_column)
    items, unsorted = [], 0
    empty = [f.name for f in found.items if not len(f.x)]
    for f in found.items:
        if not len(f.x) and not len(f.ask):
            continue
        order = np.lexsort(f.x.T[::-1])
        unsorted += bool((np.diff(order) < 0).any())
        items.append(Function(f.name, f.x[order], f.y[order], f.ask))
    found.items = items
    if empty:
        found.notes.append(f"{_functions(len(empty))} without a single observation: {_some(empty)}")
    observed = [f for f in items if len(f.x)]
    if not observed:
        raise InputError("no function has an observed y", file=table.file)
    if unsorted and len(found.x_names) == 1:  # points of a plane have no order that anybody would miss
        found.notes.append(f"{_functions(unsorted)} sorted by x")
    twice = sum(len(f.x) - len(np.unique(f.x, axis=0)) for f in observed)
    if twice:
        found.notes.append(f"{twice} observations at an x that the same function has already: kept, as noise")
    if ones := [f.name for f in observed if len(f.x) == 1]:
        found.notes.append(f"{_functions(len(ones))} with one point, to learn from but not to score: {_some(ones)}")
    return found


def _long(table: Table, id_column: str) -> Functions:
    x_names = _numbered(table, "x") or _numbered(table, "t")
    y_names = _numbered(table, "y")
    if not x_names or not y_names:
        raise InputError(
            f"a long table has columns id, x (or x1, x2, …) and y (or y1, …); there are {', '.join(table.columns)}",
            file=table.file,
        )  # fmt: skip
    x, y = table.numbers(x_names, missing=True), table.numbers(y_names, missing=True)
    names = table.columns[id_column].astype(str)
    notes = []
    nowhere = np.isnan(x).any(1)
    if nowhere.any():
        rows = np.flatnonzero(nowhere) + 1
        notes.append(_dropped(rows))
    blank, nameless = np.isnan(y), np.char.strip(names) == ""
    if nameless.any():
        raise InputError(f"the column '{id_column}' is empty", file=table.file, row=int(np.argmax(nameless)) + 1)
    part = blank.any(1) & ~blank.all(1)
    if part.any():
        row = int(np.argmax(part)) + 1
        raise InputError(f"some of {', '.join(y_names)} are empty: give all of them or none", file=table.file, row=row)
    items = []
    for name in dict.fromkeys(names[~nowhere].tolist()):
        mine = (names == name) & ~nowhere
        seen = mine & ~blank.any(1)
        items.append(Function(name, x[seen], y[seen], x[mine & blank.all(1)]))
    return Functions(items, x_names, y_names, notes)


def _wide(table: Table) -> Functions:
    names = list(table.columns)
    if len(names) < 2:
        raise InputError("a wide table has x in its first column and one column a function; there is one column",
                         file=table.file)  # fmt: skip
    numbers = table.numbers(missing=True)
    if numbers.shape[1] != len(names):
        raise InputError("columns of more than one axis are no table of functions", file=table.file)
    x, notes = numbers[:, :1], []
    nowhere = np.isnan(x[:, 0])
    if nowhere.any():
        notes.append(_dropped(np.flatnonzero(nowhere) + 1))
    items = []
    for i, name in enumerate(names[1:], 1):
        y = numbers[:, i : i + 1]
        seen = ~nowhere & ~np.isnan(y[:, 0])
        items.append(Function(name, x[seen], y[seen], x[~nowhere & np.isnan(y[:, 0])]))
    return Functions(items, [names[0]], ["y"], notes)


def _numbered(table: Table, letter: str) -> list[str]:
    """The column called by the letter, or those called letter1, letter2, … in the order of their numbers."""
    single = table.first(letter, *(("time",) if letter == "t" else ()))
    if single is not None:
        return [single]
    pattern = re.compile(rf"\s*{letter}_?(\d+)\s*", re.IGNORECASE)
    found = [(int(m[1]), name) for name in table.columns if (m := pattern.fullmatch(name))]
    return [name for _, name in sorted(found)]


def _dropped(rows: np.ndarray) -> str:
    were = "row without an x was" if len(rows) == 1 else "rows without an x were"
    return f"{len(rows)} {were} dropped (first: row {rows[0]})"


def _functions(n: int) -> str:
    return "one function" if n == 1 else f"{n} functions"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
