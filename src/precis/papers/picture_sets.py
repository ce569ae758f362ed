"""Sets of pictures with the labels of a CSV, as jobs open them: what the CSV leaves out is told, not dropped unsaid."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from precis.data.images import SUFFIXES
from precis.data.imageset import ImageSet, _classes, _files_of
from precis.data.tables import Table, read_table
from precis.errors import InputError
from precis.lab.words import counted
from precis.papers.job import Work

FILES, LABELS = ("file", "path", "image"), ("label", "labels", "y", "fine_label")
OWN_LABELS = (".npy", ".npz", ".parquet", ".csv", ".tsv")
NO_ROW = "no row in "


def open_pictures(
    path: str | Path, size: int | None, labels: str | Path = "auto", group: str | None = None,
    keep_going: bool = False, *, background: str = "white", rest: Literal["unlabelled", "left out"] = "left out",
) -> ImageSet:  # fmt: skip
    """`ImageSet.open`; `labels` may be a CSV (file, label and, if there are any, group), which need not name them all.

    rest: pictures without a row are pictures without a label, or are among the `skipped`.  InputError for a CSV without
    these columns, with decimals as labels, or with files that are not among the pictures.
    """
    path = Path(path)
    if str(labels) == "auto":
        return ImageSet.open(path, size, "auto", group, keep_going, background=background)
    table = read_table(labels)
    _check_columns(table)
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        raise InputError("a CSV of pictures brings its own labels; leave --labels out", file=path)
    if path.is_dir():
        _check_there(table, path)
    if rest == "unlabelled" and path.suffix.lower() not in OWN_LABELS:
        whole = ImageSet.open(path, size, "auto", None, keep_going, background=background)
        return _labelled(whole, table, group, path)
    found = ImageSet.open(path, size, labels, group, keep_going, background=background)
    if path.is_dir():
        named = {*_files_of(table), *(name for name, _ in found.skipped)}
        others = [name for name in _pictures_in(path) if name not in named]
        found = replace(found, skipped=(*found.skipped, *((name, _no_row(table)) for name in others)))
    return found


def tell_skipped(found: ImageSet, work: Work) -> None:
    """`skipped.csv`, if anything was left out, and a note that says how many and why."""
    if not found.write_skipped(work.folder):
        return
    rowless = sum(reason.startswith(NO_ROW) for _, reason in found.skipped)
    unread = len(found.skipped) - rowless
    told = [f"{counted(unread, 'picture')} could not be read"] if unread else []
    told += [f"{counted(rowless, 'picture')} {'has' if rowless == 1 else 'have'} no row in --labels"] if rowless else []
    work.note(", ".join(told) + ": see skipped.csv")


def _check_columns(table: Table) -> None:
    if table.first(*FILES) is None or table.first(*LABELS) is None:
        there = ", ".join(list(table.columns)[:8])
        raise InputError(f"the columns file, label and, if there are any, group are wanted; there are {there}",
                         file=table.file)  # fmt: skip


def _check_there(table: Table, root: Path) -> None:
    files = _files_of(table)
    if missing := [name for name in files if not (root / name).is_file()]:
        raise InputError(f"{len(missing)} of {len(files)} files are not there: {', '.join(missing[:10])}", file=root)


def _pictures_in(root: Path) -> list[str]:
    """Names of the pictures below a folder, by suffix."""
    names = (p.relative_to(root).parts for p in sorted(root.rglob("*")) if p.name.lower().endswith(SUFFIXES))
    return ["/".join(parts) for parts in names if not any(part.startswith((".", "__MACOSX")) for part in parts)]


def _labelled(whole: ImageSet, table: Table, group: str | None, path: Path) -> ImageSet:
    """All pictures, with the labels, groups and other columns of those that have a row."""
    rows = {_relative(name, path): row for row, name in enumerate(_files_of(table))}
    free, archive = dict(rows), path.is_file()
    at = np.array([_take(name, free, archive) for name in whole.names])
    for name, _ in whole.skipped:
        _take(name, free, archive)
    if free:
        raise InputError(f"{len(free)} of {len(rows)} files are not among the pictures of {path.name}: "
                         f"{', '.join(list(free)[:10])}", file=table.file)  # fmt: skip
    column = table.columns[str(table.first(*LABELS))]
    known, classes = _classes(column, None, table.file)
    if known is None and column.dtype.kind == "f" and not np.isnan(column).all():
        raise InputError("the column of labels holds decimals: classes are whole numbers or words", file=table.file)
    labels = None if known is None else np.where(at >= 0, known[at], -1)
    by = group if group is not None else table.first("group")
    groups = None
    if by is not None:  # a picture without a row is a group of its own
        values = table.column(by).astype(np.str_)
        groups = np.array([f"group {values[row]}" if row >= 0 else f"picture {n}" for n, row in zip(whole.names, at)])
    return replace(whole, labels=labels, classes=classes, groups=groups)


def _relative(name: str, path: Path) -> str:
    place = Path(name)
    inside = place.is_absolute() and place.resolve().is_relative_to(path.resolve())
    return place.resolve().relative_to(path.resolve()).as_posix() if inside else name


def _take(name: str, free: dict[str, int], archive: bool) -> int:
    """The row of a picture, taken out of `free`; −1: none.  In an archive leading folders need not be named."""
    parts = name.split("/")
    ways = ["/".join(parts[i:]) for i in range(len(parts))] if archive else [name]
    return next((free.pop(way) for way in ways if way in free), -1)


def _no_row(table: Table) -> str:
    return f"{NO_ROW}{Path(table.file).name}"
