"""Labelled data for jobs that train a classifier: pictures with classes or rows of a table, split once.

INPUT is a standard set by name (mnist), a folder with train.parquet and test.parquet, a set of pictures (folder with a
sub-folder a class, archive, array file, Parquet, CSV of files), or a table (CSV, TSV, Parquet, .npz) with a column of
labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.data import kinds_of, standard
from precis.data.tables import Table, read_table
from precis.errors import InputError
from precis.lab.words import counted
from precis.papers.job import Work
from precis.papers.picture_sets import open_pictures, tell_skipped

LABEL_COLUMNS = ("label", "labels", "y", "class", "target")
FEWEST = 20
ARRAYS = (".npy", ".npz")


class Part(NamedTuple):
    """Pictures uint8 [N,C,S,S], or standardised numbers [N,D], and their classes [N]."""

    x: Tensor
    y: Tensor


class Labelled(NamedTuple):
    """Three disjoint parts: choices are made on `val`, what is reported is measured on `test`.

    `columns`: of a table, whose `mean` and `std` on the training part were used; () for pictures.
    """

    train: Part
    val: Part
    test: Part
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.x.shape[1:])


class _Whole(NamedTuple):
    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    groups: np.ndarray | None = None
    columns: tuple[str, ...] = ()


def read_labelled(job: Any, work: Work) -> Labelled:
    """INPUT of a job with the options size, label_column, labels, background, keep_going, val, test_share and rows."""
    given = str(job.input)
    root = Path(given).expanduser()
    if not root.exists() and given in standard.names():
        whole, test = (_standard(given, part) for part in ("train", "test"))
    elif root.is_dir() and all((root / f"{part}.parquet").is_file() for part in ("train", "test")):
        whole, test = (_pictures(job, work, root / f"{part}.parquet") for part in ("train", "test"))
        if whole.classes != test.classes:
            raise InputError("train.parquet and test.parquet have other classes", file=root)
    else:
        whole, test = _read(job, work, root), None
    _check(whole, root)
    generator = torch.Generator().manual_seed(job.seed)
    order = _order(whole, generator)
    if test is None:
        held = _cut(whole, order, job.test_share)
        test_part, order = Part(whole.x[order[:held]], whole.y[order[:held]]), order[held:]
    else:
        test_part = Part(test.x, test.y)
    held = _cut(whole, order, job.val)
    val, train = order[:held], order[held:]
    if job.rows is not None and len(train) > job.rows:
        work.note(f"{job.rows} of {len(train)} training examples are used (--rows)")
        train = train[: job.rows]
    if len(whole.y[train].unique()) < 2:
        raise InputError(f"the {len(train)} training examples are all of one class", file=root)
    if len(test_part.y) < 100:
        work.note(f"only {len(test_part.y)} test examples: accuracies are known to within "
                  f"{100 / len(test_part.y) ** 0.5:.0f} points at best")  # fmt: skip
    parts = [Part(whole.x[train], whole.y[train]), Part(whole.x[val], whole.y[val]), test_part]
    if whole.columns and getattr(job, "standardise", True):
        mean, std = parts[0].x.mean(0), parts[0].x.std(0)
        std = torch.where(std > 1e-12, std, torch.ones_like(std))
        parts = [Part((p.x - mean) / std, p.y) for p in parts]
    if whole.columns:
        parts = [Part(p.x.float(), p.y) for p in parts]
    return Labelled(parts[0], parts[1], parts[2], whole.classes, whole.columns)


def _standard(name: str, part: str) -> _Whole:
    found = standard.load(name, part, download=False)
    return _Whole(torch.from_numpy(found.images), torch.from_numpy(found.labels), found.classes)


def _read(job: Any, work: Work, path: Path) -> _Whole:
    if not path.exists():
        sets = ", ".join(entry.name for entry in standard.catalogue() if entry.megabytes)
        raise InputError(f"no such file or folder, and no set of that name ({sets})", file=path)
    kinds = kinds_of(path)
    if "images" in kinds and job.label_column is None:
        return _pictures(job, work, path)
    if "table" in kinds:
        return _table(job, work, read_table(path))
    if "images" in kinds:
        raise InputError("--label-column is for tables; classes of pictures are sub-folders, or --labels CSV")
    what = f"looks like {' or '.join(sorted(kinds))}" if kinds else "is of no kind that precis reads"
    raise InputError(f"pictures with classes or a table are wanted; this {what}", file=path)


def _pictures(job: Any, work: Work, path: Path) -> _Whole:
    size = job.size
    options: dict[str, Any] = {"keep_going": job.keep_going, "background": job.background}
    if size is None and path.suffix in (*ARRAYS, ".parquet"):
        try:
            found = open_pictures(path, None, job.labels, **options)
            size = 0 if max(found.images.shape[2:]) <= 64 else 32
        except InputError:
            size = 32  # of several sizes
    if size != 0:
        found = open_pictures(path, size or 32, job.labels, **options)
    tell_skipped(found, work)
    if found.labels is None:
        raise InputError("there are no classes: a sub-folder each, a column label, or --labels CSV", file=path)
    known = found.labels >= 0
    if not known.all():
        n = int((~known).sum())
        work.note(f"{counted(n, 'picture')} without a label {'is' if n == 1 else 'are'} left out")
    groups = None if found.groups is None else found.groups[known]
    return _Whole(torch.from_numpy(found.images[known]), torch.from_numpy(found.labels[known]), found.classes, groups)


def _table(job: Any, work: Work, table: Table) -> _Whole:
    label = job.label_column or table.first(*LABEL_COLUMNS)
    if label is None:
        names = ", ".join(list(table.columns)[:8])
        raise InputError(f"which column holds the classes?  --label-column NAME, of {names}", file=table.file)
    values = table.column(label)
    if values.ndim != 1:
        raise InputError(f"column '{label}' has shape {list(values.shape)}: one class a row is wanted", file=table.file)
    if values.dtype.kind == "f" and (values[np.isfinite(values)] % 1 != 0).any():
        raise InputError(f"column '{label}' holds decimals: classes are whole numbers or words", file=table.file)
    blank = np.isnan(values) if values.dtype.kind == "f" else np.char.strip(values.astype(np.str_)) == ""
    if blank.any():
        row = int(np.flatnonzero(blank)[0]) + 1
        raise InputError(f"column '{label}': the class is empty", file=table.file, row=row)
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    classes, y = np.unique(values, return_inverse=True)
    others = [name for name in table.columns if name != label]
    words = [name for name in others if table.columns[name].dtype.kind == "U" and not _numeric(table.columns[name])]
    if words:
        work.note(f"columns of words are left out: {', '.join(words[:6])}")
    numeric = [name for name in others if name not in words]
    if not numeric:
        raise InputError("there is no column of numbers beside the label", file=table.file)
    x = torch.from_numpy(table.numbers(numeric))
    return _Whole(x, torch.from_numpy(y.astype(np.int64)), tuple(map(str, classes.tolist())), None, tuple(numeric))


def _numeric(cells: np.ndarray) -> bool:
    """Whether most of the cells are numbers, so that the column is meant as one."""
    some = [cell for cell in cells.ravel()[:200].tolist() if cell.strip()]
    good = 0
    for cell in some:
        try:
            float(cell)
            good += 1
        except ValueError:
            continue
    return 2 * good > len(some)


def _check(whole: _Whole, path: Path) -> None:
    counts = torch.bincount(whole.y, minlength=len(whole.classes))
    if int((counts > 0).sum()) < 2:
        raise InputError("at least two classes are wanted", file=path)
    if len(whole.y) < FEWEST:
        raise InputError(f"{len(whole.y)} labelled examples are too few: {FEWEST} at least", file=path)
    if len(whole.classes) > len(whole.y) // 2:
        raise InputError(f"{len(whole.classes)} classes for {len(whole.y)} examples: is this the label?", file=path)


def _order(whole: _Whole, generator: torch.Generator) -> Tensor:
    """A random order in which examples of one group stand together."""
    if whole.groups is None:
        return torch.randperm(len(whole.y), generator=generator)
    _, group = np.unique(whole.groups, return_inverse=True)
    rank = torch.randperm(int(group.max()) + 1, generator=generator)
    return rank[torch.from_numpy(group)].argsort(stable=True)


def _cut(whole: _Whole, order: Tensor, share: float) -> int:
    """How many of `order` come to about that share, no group being cut apart."""
    held = max(1, round(share * len(order)))
    groups: Sequence[Any] | None = None if whole.groups is None else whole.groups[order.numpy()].tolist()
    while groups is not None and held < len(order) - 1 and groups[held] == groups[held - 1]:
        held += 1
    return held
