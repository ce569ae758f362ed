"""Train a small residual net with every norm at every batch size, and say which to take."""

import csv
import io
import json
import math
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from precis.errors import InputError
from precis.lab.statistics import one_sample, proportion_interval
from precis.lab.timing import interleaved
from precis.nn.norm import fold_batchnorm
from precis.nn.resnet import ResNet
from precis.papers.class_folders import check_folders
from precis.papers.job import Work
from precis.papers.picture_sets import open_pictures, tell_skipped
from precis.papers.small_nets import cross_entropy
from precis.papers.work import writing
from precis.train.classify import to_channels_last, to_input
from precis.train.loop import Budget
from precis.train.many import ManySGD, fit_many
from precis.train.schedule import cosine
from precis.vision.group_norm import check_groups

from .pictures import draw_errors
from .training import NORMS

STRIDES = (2, 2, 2)
NAMES = {"bn": "batch norm", "gn": "group norm", "ln": "layer norm", "in": "instance norm"}
DONE = ".cells.json"
SLOWER = "group_norm_inference_slowdown"  # time with group norm over time with batch norm folded away
EPOCHS = 2


@dataclass
class Cell:
    """One norm at one batch size: errors in % of all repeats, of `held` pictures each, their mean and 95 % interval."""

    norm: str
    batch: int
    values_at_last_map: int
    error: float
    low: float
    high: float
    steps: int
    seconds: float
    errors: list[float]
    held: int


def run_sweep(job: Any, work: Work) -> dict[str, float | None]:
    norms = _words("--norms", job.norms, tuple(NAMES))
    sizes = numbers("--batch-sizes", job.batch_sizes)
    images, labels, classes = _read(job, work, max(sizes))
    per_group = _groups(job)
    last = math.prod(math.ceil(side / math.prod(STRIDES)) for side in images.shape[2:])
    _check_maps(norms, sizes, last)
    done = _recall(work)
    cells, planned = [], [(norm, size) for size in sizes for norm in norms]
    if len(done) < len(planned):  # what is loaded and set up once shall not count as the first norm's time
        _train(job, norms[0], sizes[0], images, labels, len(classes), per_group, lambda *_, **__: None, work.device, 1)
    shares = np.cumsum([0.0, *(1 / size + 0.02 for _, size in planned)])
    for (norm, size), begun, ended in zip(planned, shares, shares[1:]):
        kept = done.get(f"{norm}_{size}")
        if kept is None:
            progress = partial(_progress, work, begun / shares[-1], ended / shares[-1])
            made = _train(job, norm, size, images, labels, len(classes), per_group, progress, work.device)
            kept = asdict(_cell(norm, size, size * last, *made))
            done[f"{norm}_{size}"] = kept
            with writing(work.folder / DONE) as beside:
                beside.write_text(json.dumps(done))
        cells.append(Cell(**kept))
    return _report(job, work, cells, images, labels, len(classes), per_group)


def _read(job: Any, work: Work, largest: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Labelled pictures uint8 on the CPU, at most --pictures of them."""
    size = job.size or 32
    if job.size is None and str(job.input).endswith((".npy", ".npz")):
        size = None
    found = open_pictures(job.input, size, job.labels, keep_going=job.keep_going, background=job.background)
    if size is None and max(found.images.shape[2:]) > 64:
        found = open_pictures(job.input, 32, job.labels, keep_going=job.keep_going, background=job.background)
    if Path(job.input).is_dir() and job.labels == "auto":
        check_folders(Path(job.input))
    tell_skipped(found, work)
    counts = [] if found.labels is None else [int((found.labels == k).sum()) for k in range(len(found.classes))]
    if sum(n > 0 for n in counts) < 2:
        raise InputError("at least two classes are wanted: a sub-folder each, or a column of labels", file=job.input)
    assert found.labels is not None
    known = np.flatnonzero(found.labels >= 0)
    if len(known) < 2 * largest:
        raise InputError(f"{len(known)} labelled pictures are too few: batches of {largest} need {2 * largest} or more",
                         file=job.input)  # fmt: skip
    training = len(known) - round(job.val * len(known))
    if training < largest:
        raise InputError(f"--val {job.val:g} leaves {training} pictures for training, fewer than a batch of {largest}")
    if len(known) > job.pictures:
        known = np.sort(np.random.default_rng(job.seed).permutation(known)[: max(job.pictures, 2 * largest)])
        work.note(f"{len(known)} of the pictures were used, drawn at random; --pictures takes more")
    return torch.from_numpy(found.images[known]), torch.from_numpy(found.labels[known]), found.classes


def _groups(job: Any) -> int | None:
    """--groups, checked against the net's two widths."""
    if job.channels_per_group is not None and job.channels_per_group > job.width:
        raise InputError(f"--channels-per-group {job.channels_per_group}: the net has {job.width} channels (--width)")
    if job.groups is not None:
        for width in (job.width, 2 * job.width):
            try:
                check_groups(width, job.groups)
            except ValueError as error:
                raise InputError(f"--groups {job.groups}: {error}") from None
    return job.groups  # type: ignore[no-any-return]


def _check_maps(norms: list[str], sizes: list[int], positions: int) -> None:
    if "bn" in norms and min(sizes) * positions < 2:
        raise InputError("batch norm at batch size 1 with a last map of one position: a variance over one value does "
                         "not exist; leave 1 out of --batch-sizes, or give --size 16 or more")  # fmt: skip
    if "in" in norms and positions < 2:
        raise InputError("instance norm of a last map of one position is a constant; give --size 16 or more")


def _train(
    job: Any, norm: str, size: int, images: Tensor, labels: Tensor, classes: int, groups: int | None, progress: Any,
    device: str, steps: int | None = None,
) -> tuple[list[float], int, int, float]:  # fmt: skip
    """Errors (%) of all repeats, of how many pictures each, steps (None: by --epochs), seconds.

    The splits are the same for every cell.
    """
    seeds = [1000 * job.seed + r for r in range(job.repeats)]
    held = round(job.val * len(images))
    orders = [torch.randperm(len(images), generator=torch.Generator().manual_seed(s)) for s in seeds]
    training, test = (torch.stack([o[part] for o in orders]) for part in (slice(held, None), slice(held)))
    std = images.float().std() / 255
    stacked = [((images[i].float() / 255 - 0.5) / std.clamp(min=0.01)).to(device) for i in (training, test)]
    steps = steps or max(1, (job.epochs or EPOCHS) * (len(images) - held) // size)
    began = time.perf_counter()
    many = fit_many(
        lambda seed: _net(job, norm, images.shape[1], classes, groups, seed).to(device), seeds,
        (stacked[0], labels[training].to(device)), cross_entropy, own=(0, 1), size=size, drop_last=True,
        budget=Budget(steps=steps), lr=job.lr * size / 32, schedule=cosine(), log=partial(progress, norm, size),
        optimizer=partial(ManySGD, momentum=0.9, weight_decay=1e-4),
    )  # fmt: skip
    found = many.predict(stacked[1], own=True, batch=256).argmax(2)
    errors = 100 * (found != labels[test].to(device)).float().mean(1)
    return errors.tolist(), held, steps, time.perf_counter() - began


def _net(job: Any, norm: str, channels: int, classes: int, groups: int | None, seed: int) -> ResNet:
    width = job.width
    each = job.channels_per_group or 8
    grouping: dict[str, Any] = {"channels_per_group": each} if groups is None else {"groups": groups}
    return ResNet(
        (1, 1, 1), (width, 2 * width, 2 * width), strides=STRIDES, in_channels=channels, classes=classes,
        norm=NORMS[norm], zero_init=True, generator=torch.Generator().manual_seed(seed), **grouping,
    )  # fmt: skip


def _cell(norm: str, size: int, values: int, errors: list[float], held: int, steps: int, seconds: float) -> Cell:
    """The interval is the exact one of all answers together, and of three trainings and more at least as wide as
    Student's t over them: neither may be missed, few pictures as little as trainings that differ.
    """
    mean = sum(errors) / len(errors)
    n = held * len(errors)
    exact = proportion_interval(round(mean / 100 * n), n)
    low, high = 100 * exact.low, 100 * exact.high
    if len(errors) > 2:
        interval = one_sample(errors)
        low, high = min(low, interval.low), max(high, interval.high)
    return Cell(norm, size, values, mean, max(low, 0.0), min(high, 100.0), steps, seconds, errors, held)


def _report(
    job: Any, work: Work, cells: list[Cell], images: Tensor, labels: Tensor, classes: int, groups: int | None
) -> dict[str, float | None]:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["norm", "batch", "values_at_last_map", "error", "low", "high", "steps", "seconds", "errors"])
    for c in cells:
        numbers = [f"{x:.3f}" for x in (c.error, c.low, c.high)]
        every = " ".join(f"{e:.3f}" for e in c.errors)
        rows.writerow([c.norm, c.batch, c.values_at_last_map, *numbers, c.steps, f"{c.seconds:.2f}", every])
    with writing(work.folder / "results.csv") as beside:
        beside.write_text(text.getvalue())
    with writing(work.folder / "errors.png") as beside:
        beside.write_bytes(draw_errors(cells, NAMES, job.lr))
    work.show("errors.png")
    words = recommend(cells, 100 * (1 - _most_common(labels)))
    caveat = conditions(cells, job.lr)
    with writing(work.folder / "recommendation.txt") as beside:
        beside.write_text(f"{words}\n{caveat}\n")
    work.note(words)
    work.note(caveat)
    (work.folder / DONE).unlink(missing_ok=True)
    best = min(cells, key=lambda c: c.error)
    metrics: dict[str, float | None] = {"best_error": best.error}
    metrics |= {f"error_{c.norm}_{c.batch}": c.error for c in cells}
    if {"bn", "gn"} <= {c.norm for c in cells}:
        group, batch = (_net(job, norm, images.shape[1], classes, groups, 0).eval() for norm in ("gn", "bn"))
        metrics[SLOWER] = tell_slower(work, to_channels_last(group), to_channels_last(fold_batchnorm(batch)),
                                      to_input(images[:64]))  # fmt: skip
    return metrics


def _most_common(labels: Tensor) -> float:
    return float(labels.bincount().max() / len(labels))


def recommend(cells: list[Cell], guessing: float) -> str:
    """Which norm at which batch size, in one line; one that is not worse beyond chance is named with the best.

    guessing: the error (%) of always naming the most common class; where no norm is clearly below it, nothing is said.
    """
    if min(c.high for c in cells) >= guessing:
        return f"No net was clearly better than guessing ({guessing:.1f} % error): give more --epochs, or another --lr."
    parts: dict[str, list[str]] = {}
    for size in dict.fromkeys(c.batch for c in cells):
        best, *others = sorted((c for c in cells if c.batch == size), key=lambda c: c.error)
        open_ = [c for c in others if not _worse(c, best)]
        behind = [c for c in open_ if len(c.errors) > 1 and all(x > y for x, y in zip(c.errors, best.errors))]
        alike = [c for c in open_ if c not in behind]
        told = [f"{_named(alike)} cannot be told from it"] if alike else []
        if behind:
            told.append(f"{_named(behind)} behind in each of {len(best.errors)} trainings, too few to be sure")
        words = NAMES[best.norm] + (f" ({'; '.join(told)})" if told else "")
        parts.setdefault(words, []).append(f"{size} ({best.error:.1f} % error)")
    lines = [f"at batch size {' and '.join(sizes)}: {words}" for words, sizes in parts.items()]
    return "Recommended " + "; ".join(lines) + "."


def _named(cells: list[Cell]) -> str:
    return " and ".join(f"{NAMES[c.norm]} at {c.error:.1f} %" for c in cells)


def conditions(cells: list[Cell], lr: float) -> str:
    """What the recommendation holds for: a rate that nobody tuned, and m values a batch statistic."""
    values = {c.batch: c.values_at_last_map for c in cells}
    return (f"The learning rate was not tuned: {lr:g} at 32 pictures, in proportion to the batch, for every norm; "
            "another may order them otherwise. A statistic of batch norm was of m values at the last map: "
            + ", ".join(f"m = {m} at batch size {size}" for size, m in sorted(values.items())) + ".")  # fmt: skip


def _worse(a: Cell, b: Cell) -> bool:
    """Whether a's error is above b's.

    Of three trainings and more: the paired interval over them, which share splits and weights, lies above 0, and the
    difference is more than so few pictures leave to chance (as if the nets were measured on different ones, which is
    careful).  Of one or two: intervals that do not meet.
    """
    if len(a.errors) < 3:
        return a.low > b.high
    variance = sum(c.error * (100 - c.error) / (c.held * len(c.errors)) for c in (a, b))
    paired = one_sample([x - y for x, y in zip(a.errors, b.errors)])
    return paired.low > 0 and paired.estimate > 1.96 * variance**0.5


@torch.no_grad()
def tell_slower(work: Work, group: nn.Module, folded: nn.Module, x: Tensor) -> float:
    """Time of the net with group norm over that with batch norm folded away; tells what can be said about it."""
    timed = interleaved({"group": lambda: group(x), "batch": lambda: folded(x)}, repeats=15, warmup=2)
    low, high = timed.interval
    span = f"{timed.ratio:.2f} times as long (95 %: {low:.2f} to {high:.2f})"
    doubt = "" if low > 1 or high < 1 else ", which cannot be told from 1: time it again on a quiet machine"
    work.note("At inference batch norm folds into the convolutions and group norm does not: the net with group norm "
              f"took {span} here{doubt}.")  # fmt: skip
    return timed.ratio


def _progress(
    work: Work, begun: float, ended: float, norm: str, size: int, step: int, total: int, **scalars: float
) -> None:
    share = begun + (ended - begun) * step / max(total, 1)
    work.log(round(100 * share), 100, batch=float(size), **scalars)


def _recall(work: Work) -> dict[str, Any]:
    path = work.folder / DONE
    return json.loads(path.read_text()) if work.resume and path.exists() else {}  # type: ignore[no-any-return]


def _words(option: str, text: str, known: tuple[str, ...]) -> list[str]:
    found = list(dict.fromkeys(word.strip().lower() for word in text.split(",") if word.strip()))
    wrong = [word for word in found if word not in known]
    if wrong or not found:
        raise InputError(f"{option}: {', '.join(known)} are known, with commas; got {text!r}")
    return found


def numbers(option: str, text: str) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise InputError(f"{option}: whole numbers from 1, with commas, such as 2,8,32; got {text!r}")
    return found


