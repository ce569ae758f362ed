"""Columns from CSV, TSV, Parquet, .npz and .npy, by pyarrow and NumPy.

Rows are counted from 1, without the header.  Numbers come as int64 or float64 (an empty cell is NaN), everything else
as text.  A CSV whose first line holds only numbers has no header: its columns are called 0, 1, 2, …
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from precis.data.files import existing
from precis.errors import InputError

WANTED = "a table (.csv, .tsv, .parquet, .npz or .npy)"


@dataclass(frozen=True, eq=False)
class Table:
    """`columns`: name → array of length n (a column of an .npz may have more axes); `file` is named in errors."""

    columns: dict[str, np.ndarray]
    file: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str) -> np.ndarray:
        """One column, or InputError that names those there are."""
        if name not in self.columns:
            near = difflib.get_close_matches(name, self.columns, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {_listed(self.columns)}"
            raise InputError(f"there is no column '{name}'; {hint}", file=self.file)
        return self.columns[name]

    def first(self, *names: str) -> str | None:
        """The first of these names that is a column, in any case of letters; None if none is."""
        lower = {column.strip().lower(): column for column in reversed(self.columns)}
        return next((lower[name.lower()] for name in names if name.lower() in lower), None)

    def numbers(self, names: Iterable[str] | None = None, *, missing: bool = False) -> np.ndarray:
        """Columns as float64 [n, k]; text that is no number, an infinity, and (unless `missing`) an empty cell are
        InputErrors that name row and column."""
        parts = [self._number(name, missing) for name in (self.columns if names is None else names)]
        if not parts:
            raise InputError("no column was asked for", file=self.file)
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def _number(self, name: str, missing: bool) -> np.ndarray:
        values = self.column(name)
        if values.dtype.kind == "U":
            converted = np.array([_parse(cell) for cell in values.ravel()]).reshape(values.shape)
            blank = np.char.strip(values) == ""
            self._refuse(name, np.isnan(converted) & ~blank, "is not a number", values)
            values = converted
        values = values.astype(np.float64)
        self._refuse(name, np.isinf(values), "is not finite", values)
        if not missing:
            self._refuse(name, np.isnan(values), "where a number is wanted: the cell is empty or NaN", values)
        return values

    def _refuse(self, name: str, bad: np.ndarray, words: str, values: np.ndarray) -> None:
        if bad.any():
            place = tuple(np.argwhere(bad)[0])
            raise InputError(f"column '{name}': {str(values[place])!r} {words}", file=self.file, row=int(place[0]) + 1)


def read_table(path: str | Path) -> Table:
    """Read a whole table; InputError names the file and, for a malformed line, the row."""
    path = existing(path, WANTED)
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PAR1"):
        return _parquet(path)
    if magic == b"\x93NUMPY" or magic.startswith(b"PK\3\4"):
        return _arrays(path)
    return _csv(path)


def _parse(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(f"'{n}'" for n in names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _csv(path: Path) -> Table:
    import pyarrow as pa
    from pyarrow import csv

    with path.open("rb") as file:
        lead = file.read(1 << 16)
    if b"\0" in lead:
        raise InputError(f"this is no text in UTF-8; {WANTED} is wanted", file=path)
    line = lead.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",\t;", key=line.count)
    cells = line.split(delimiter)
    headless = all(re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", cell) for cell in cells)
    names = [str(i) for i in range(len(cells))] if headless else []
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False, column_names=names or None),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(timestamp_parsers=[]),
        )
        table.column_names  # noqa: B018  raises if a name is not UTF-8
    except pa.ArrowInvalid as error:
        raise _bad_line(path, str(error), headless) from error
    except UnicodeDecodeError as error:
        raise _bad_line(path, "utf-8", headless) from error
    if any(pa.types.is_binary(kind) for kind in table.schema.types):  # what pyarrow makes of text that is not UTF-8
        raise _bad_line(path, "utf-8", headless)
    return from_arrow(table, path)


def _bad_line(path: Path, words: str, headless: bool) -> InputError:
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns?, got (\d+)", words)
    if ragged:
        row = int(ragged[1]) - (0 if headless else 1)
        return InputError(f"{ragged[3]} cells where the header has {ragged[2]}", file=path, row=row)
    if "UTF8" in words or "utf-8" in words.lower():
        return InputError("the text is not in UTF-8; save it as UTF-8", file=path)
    return InputError(f"this is no table of equal rows ({words[:120]})", file=path)


def _parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return from_arrow(pq.read_table(path), path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"this is no whole Parquet file ({str(error)[:120]})", file=path) from error


def from_arrow(table: Any, path: Path) -> Table:
    """A Table from a pyarrow one."""
    names = [name.strip() for name in table.column_names]
    if "" in names:
        raise InputError(f"column {names.index('') + 1} has no name", file=path)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"there are two columns called '{twice}'", file=path)
    if table.num_rows == 0:
        raise InputError("the table has no rows", file=path)
    return Table({name: _column(table.column(i)) for i, name in enumerate(names)}, str(path))


def _column(column: Any) -> np.ndarray:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(kind):
        column, kind = column.cast(pa.int8()), pa.int8()
    if pa.types.is_integer(kind) and column.null_count == 0:
        return np.asarray(column.to_numpy(), np.int64)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    cells = ["" if cell is None else cell if isinstance(cell, str) else str(cell) for cell in column.to_pylist()]
    return np.array(cells, dtype=np.str_)


def _arrays(path: Path) -> Table:
    from precis.data.arrays import read_arrays

    arrays = read_arrays(path, WANTED)
    if "" in arrays:
        array = arrays[""]
        if array.dtype.names:
            arrays = {name: array[name] for name in array.dtype.names}
        elif array.ndim in (1, 2) and array.size:
            arrays = {str(i): c for i, c in enumerate(array.reshape(len(array), -1).T)}
        else:
            raise InputError(f"an array {list(array.shape)} is no table; [n, columns] is wanted", file=path)
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        listed = ", ".join(f"'{name}' has {n}" for name, n in list(lengths.items())[:6])
        raise InputError(f"the columns must have the same number of rows, at least 1: {listed}", file=path)
    columns: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "biufUS":
            raise InputError(f"column '{name}' is of kind {array.dtype}; numbers or text are wanted", file=path)
        kind: Any = {"f": np.float64, "U": np.str_, "S": np.str_}.get(array.dtype.kind, np.int64)
        columns[name] = np.asarray(array).astype(kind)
    return Table(columns, str(path))
