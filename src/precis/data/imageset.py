"""A set of pictures as one array: folder (class = sub-folder), zip, tar, .npy, .npz, Parquet or CSV.

Each picture is cut to its central square and resized (bicubic, antialiased) to S × S; alpha is laid on `background`.
Pictures that cannot be read are listed with the reason; more than one in twenty is an error unless `keep_going`.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from precis.data import sources
from precis.data.files import whole
from precis.data.images import SUFFIXES
from precis.data.stack import from_array, from_pictures
from precis.data.tables import Table, read_table
from precis.errors import InputError

WANTED = "a folder, .zip, .tar, .npy, .npz, .parquet or .csv of pictures"
TOLERATED = 0.05


@dataclass(frozen=True, eq=False)
class ImageSet:
    """`images` uint8 [N,C,S,S], C = 1 if all are grey (a private memory map above 512 MiB).

    `labels` int64 [N] into `classes`, −1 where unlabelled, or None; `names` one a picture; `groups` text [N] or None;
    `columns`: the other columns of a table, [N] each; `skipped`: (name, reason) of pictures left out.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    groups: np.ndarray | None = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def open(
        cls, path: str | Path, size: int | None, labels: str | Path = "auto", group: str | None = None,
        keep_going: bool = False, *, background: "str | tuple[float | int, ...]" = "white",
    ) -> "ImageSet":
        """Read the set at `path`; `size` S in pixels, or None to keep a size that all pictures share.

        `labels`: "auto", or a CSV (columns file or path or image; label; group) that says which pictures count.
        Auto: sub-folder names, if at least two sub-folders hold two pictures or more; the label column of a table or
        array file.  A blank label is −1.  A numeric label column with decimals is no class: it stays in `columns`.
        `group`: the column whose equal values belong on one side of a split (default: `group`, if there is one).
        """  # fmt: skip
        path = Path(path)
        if size is not None and size < 1:
            raise InputError(f"--size must be at least 1, got {size}")
        if not path.exists():
            raise InputError(f"no such file or folder; {WANTED} is wanted", file=path)
        listing = _listing(path, None if str(labels) == "auto" else read_table(labels))
        made: tuple[np.ndarray, list[tuple[int, str]], list[tuple[str, str]]]
        if isinstance(listing.pictures, np.ndarray):
            made = from_array(listing.pictures, size, path), list(enumerate(listing.names)), []
        else:
            made = from_pictures(listing.pictures, size, background)
        images, kept, skipped = made
        total = len(kept) + len(skipped)
        if not kept:
            why = f" (first: {skipped[0][1]})" if skipped else f"; looked for {', '.join(SUFFIXES)}"
            raise InputError(f"there is no readable picture in it{why}", file=path)
        if len(skipped) > TOLERATED * total and not keep_going:
            raise InputError(
                f"{len(skipped)} of {total} pictures cannot be read, more than 5 % (first: {skipped[0][1]}); "
                "--keep-going goes on with the others", file=path,
            )  # fmt: skip
        return _assemble(listing, images, kept, [*skipped, *listing.unlisted], group, path)

    def write_skipped(self, folder: str | Path) -> Path | None:
        """`skipped.csv` (name, reason) in `folder`; None, and no file, if nothing was skipped."""
        if not self.skipped:
            return None
        path = Path(folder) / "skipped.csv"
        with whole(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("name", "reason"), *self.skipped])
        return path


class _Listing(NamedTuple):
    """Pictures as (row, name, bytes or error), or as an array with `names`; the rows of `table` belong to them."""

    pictures: Any
    table: Table | None = None
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    unlisted: Any = ()  # (name, reason) of pictures that the table leaves out; filled while they are read


def _listing(path: Path, table: Table | None) -> _Listing:
    if path.is_dir():
        return _Listing(_numbered(sources.from_folder(path))) if table is None else _named_in(table, path)
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PAR1"):
        return _parquet(path, table)
    arrays = head.startswith(b"\x93NUMPY") or head.startswith(b"PK\3\4") and path.suffix.lower() == ".npz"
    if arrays:
        return _arrays(path, table)
    if head.startswith(b"PK\3\4") or head[257:262] == b"ustar" or head[:3] in (b"\x1f\x8b\x08", b"BZh", b"\xfd7z"):
        stream = sources.from_zip(path) if head.startswith(b"PK") else sources.from_tar(path)
        return _Listing(_numbered(stream)) if table is None else _matched(stream, table)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _named_in(read_table(path), path.parent)
    raise InputError(f"this is no set of pictures; {WANTED} is wanted", file=path)


def _numbered(stream: Any) -> Any:
    return ((row, name, body) for row, (name, body) in enumerate(stream))


def _files_of(table: Table) -> list[str]:
    column = table.first("file", "path", "image")
    if column is None:
        raise InputError("there is no column 'file' (or 'path' or 'image') that names the pictures", file=table.file)
    files = [PurePosixPath(str(name).replace("\\", "/")).as_posix() for name in table.columns[column]]
    seen: set[str] = set()
    for row, name in enumerate(files, 1):
        if name in seen:
            raise InputError(f"the picture {name} is listed twice", file=table.file, row=row)
        seen.add(name)
    return files


def _named_in(table: Table, root: Path) -> _Listing:
    return _Listing(_numbered(sources.from_list(root, _files_of(table))), table)


def _matched(stream: Any, table: Table) -> _Listing:
    """The members of an archive that a table names, by their whole name or without leading folders."""
    rows = {name: row for row, name in enumerate(_files_of(table))}
    listing = _Listing(None, table, unlisted=[])

    def pictures() -> Any:
        seen = set()
        for name, body in stream:
            parts = name.split("/")
            row = next((rows[k] for i in range(len(parts)) if (k := "/".join(parts[i:])) in rows), None)
            if row is None:
                listing.unlisted.append((name, f"no row in {Path(table.file).name}"))
            elif row not in seen:
                seen.add(row)
                yield row, name, body
        missing = [name for name, row in rows.items() if row not in seen]
        if missing:
            words = f"{len(missing)} of {len(rows)} files are not in the archive: {', '.join(missing[:10])}"
            raise InputError(words, file=table.file)

    return listing._replace(pictures=pictures())


def _parquet(path: Path, labels: Table | None) -> _Listing:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"this is no whole Parquet file ({str(error)[:120]})", file=path) from error
    schema = file.schema_arrow
    column = next((name for name in ("image", "img") if name in schema.names), None)
    if column is None or pa.types.is_string(schema.field(column).type):
        return _named_in(read_table(path), path.parent)
    if labels is not None:
        raise InputError("a Parquet file brings its own labels; leave --labels out", file=path)
    others = [n for n in schema.names if n != column and not pa.types.is_nested(schema.field(n).type)]
    table = None
    if others:
        from precis.data.tables import from_arrow

        table = from_arrow(pq.read_table(path, columns=others), path)
    classes = None
    try:  # the names of the classes, as Hugging Face datasets keep them
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        classes = tuple(features[table.first("label", "labels", "fine_label")]["names"])  # type: ignore[union-attr]
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return _Listing(_numbered(sources.from_parquet(path, file, column)), table, classes=classes)


def _arrays(path: Path, labels: Table | None) -> _Listing:
    from precis.data.arrays import read_arrays

    if labels is not None:
        raise InputError("an array file brings its own labels; leave --labels out", file=path)
    arrays = read_arrays(path, WANTED)
    key = next((k for k in ("images", "x", "") if k in arrays), None)
    if key is None:
        raise InputError(f"there is no array 'images' or 'x', only {', '.join(arrays)}", file=path)
    images = arrays.pop(key)
    n = len(images) if images.ndim else 0
    classes = tuple(str(c) for c in arrays.pop("classes")) if "classes" in arrays else None
    names = tuple(str(name) for name in arrays.pop("names", np.arange(n)))
    if "y" in arrays and "label" not in arrays:
        arrays["label"] = arrays.pop("y")
    for name, array in {"names": np.array(names), **arrays}.items():
        if name in ("label", "labels", "names") and len(np.atleast_1d(array)) != n:
            raise InputError(f"'{name}' has {len(np.atleast_1d(array))} entries for {n} pictures", file=path)
    columns = {name: array for name, array in arrays.items() if array.ndim and len(array) == n}
    return _Listing(images, Table(columns, str(path)) if columns else None, names, classes)


def _assemble(
    listing: _Listing, images: np.ndarray, kept: list[tuple[int, str]], skipped: list[tuple[str, str]],
    group: str | None, path: Path,
) -> ImageSet:  # fmt: skip
    names = tuple(name for _, name in kept)
    if listing.table is None:
        if group is not None:
            raise InputError(f"there is no column '{group}': groups need a table (CSV, Parquet or .npz)", file=path)
        labels, classes = _by_folder(names) if not isinstance(listing.pictures, np.ndarray) else (None, ())
        return ImageSet(images, labels, classes, names, skipped=tuple(skipped))
    table, rows = listing.table, np.array([row for row, _ in kept])
    label = table.first("label", "labels", "y", "fine_label")
    labels, classes = (None, ()) if label is None else _classes(table.columns[label], listing.classes, table.file)
    by = group if group is not None else table.first("group")
    groups = None if by is None else table.column(by).astype(np.str_)[rows]
    used = {by, table.first("file", "path", "image"), None if labels is None else label}
    columns = {name: values[rows] for name, values in table.columns.items() if name not in used}
    return ImageSet(images, None if labels is None else labels[rows], classes, names, groups, columns, tuple(skipped))


def _by_folder(names: tuple[str, ...]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    tops = [name.split("/", 1)[0] if "/" in name else "" for name in sources.strip_common(list(names))]
    found, counts = np.unique([top for top in tops if top], return_counts=True)
    if (counts >= 2).sum() < 2:
        return None, ()
    classes = tuple(sorted((str(f) for f in found), key=sources.natural))
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(top, -1) for top in tops], np.int64), classes


def _classes(
    values: np.ndarray, names: tuple[str, ...] | None, file: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels and class names of a column of numbers or text; (None, ()) if it holds decimals."""
    if values.ndim != 1:
        raise InputError(f"the labels have shape {list(values.shape)}; one a picture is wanted", file=file)
    if values.dtype.kind == "f":
        blank = np.isnan(values)
        if blank.all() or (values[~blank] % 1 != 0).any():
            return None, ()
        values = np.where(blank, np.iinfo(np.int64).min, values).astype(np.int64)
    else:
        blank = np.char.strip(values.astype(np.str_)) == ""
    if names is not None and values.dtype.kind in "iu":
        labels = np.where(blank, -1, values).astype(np.int64)
        wrong = np.flatnonzero((labels >= len(names)) | (labels < -1))
        if wrong.size:
            words = f"label {labels[wrong[0]]} is none of the {len(names)} classes"
            raise InputError(words, file=file, row=int(wrong[0]) + 1)
        return labels, names
    found = sorted(np.unique(values[~blank]).tolist(), key=lambda v: sources.natural(v) if isinstance(v, str) else v)
    index = {value: i for i, value in enumerate(found)}
    return np.array([-1 if b else index[v] for v, b in zip(values.tolist(), blank)], np.int64), tuple(map(str, found))
