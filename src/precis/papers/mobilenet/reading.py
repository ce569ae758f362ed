"""The user's pictures: read at one size, checked, and split class by class; and the weights to start from."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.data import sources
from precis.data.images import SUFFIXES
from precis.data.imageset import ImageSet
from precis.data.program import WEIGHTS, read_weights
from precis.errors import InputError
from precis.lab.words import counted
from precis.papers.class_folders import check_folders, stratified
from precis.papers.job import Work
from precis.papers.picture_sets import open_pictures
from precis.vision.mobilenet import MobileNetV2
from precis.vision.mobilenet_weights import published

SMALL, USUAL, LEAST = 64, 96, 32


class Pictures(NamedTuple):
    """images uint8 [N,3,S,S], labels [N], names and classes; `train` and `val` index them."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]
    train: Tensor
    val: Tensor


def read_pictures(job: Any, work: Work) -> tuple[Pictures, ImageSet]:
    """The labelled pictures, and the set as it was read."""
    path = Path(job.input)
    natural = natural_size(path)
    size = job.size or (max(natural, LEAST) if natural is not None and natural <= SMALL else USUAL)
    if natural is not None and natural < LEAST:
        work.note(f"pictures of {natural} pixels were enlarged to {size}: MobileNetV2 halves a picture five times")
    found = open_pictures(path, size, job.labels, keep_going=job.keep_going, background=job.background)
    if path.is_dir() and job.labels == "auto":
        check_folders(path)
    if found.labels is None or len(found.classes) < 2:
        raise InputError("at least two classes are wanted: a sub-folder each, or a column of labels", file=path)
    known = found.labels >= 0
    counts = np.bincount(found.labels[known], minlength=len(found.classes))
    for name, n in zip(found.classes, counts):
        if n < 2:
            raise InputError(f"the class {name} has {counted(int(n), 'readable picture')}; at least two are wanted, "
                             "one to learn from and one to measure on", file=path)  # fmt: skip
    if not known.all():
        work.note(f"{counted(int((~known).sum()), 'picture')} without a label left out")
    labels = torch.from_numpy(found.labels[known])
    train, val = stratified(labels, job.val, torch.Generator().manual_seed(job.seed))
    names = tuple(name for name, k in zip(found.names, known) if k)
    if len(train) < job.batch:
        work.note(f"there are {len(train)} pictures to learn from: batches are of {len(train)}, not {job.batch}")
    return Pictures(three_channels(found.images[known]), labels, names, found.classes, train, val), found


def natural_size(path: Path) -> int | None:
    """The smaller side of the pictures of an array file, or of a folder's first readable picture; else None."""
    from PIL import Image

    if path.is_file() and path.suffix in (".npy", ".npz"):
        return min(ImageSet.open(path, None).images.shape[2:])
    if not path.is_dir():
        return None
    files = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    for file in sorted(files, key=lambda p: sources.natural(p.as_posix())):
        try:
            with Image.open(file) as picture:
                return min(picture.size)
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    return None


def three_channels(images: np.ndarray) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images))
    return x.expand(-1, 3, -1, -1).contiguous() if x.shape[1] == 1 else x


def make_model(job: Any, classes: tuple[str, ...], size: int, work: Work) -> tuple[MobileNetV2, dict[str, Any]]:
    """The net to train, and the arguments that build it again.

    Weights of an earlier run bring their classifier along if its classes are these, in whatever order; of published
    ones, which name none, it is kept if there are as many.
    """
    arguments: dict[str, Any] = {"classes": len(classes), "width": job.width or 0.35, "small": size <= SMALL}
    if job.weights is None:
        return MobileNetV2(**arguments, generator=torch.Generator().manual_seed(job.seed)), arguments
    file = job.weights / WEIGHTS if job.weights.is_dir() else job.weights
    try:
        found = published(read_weights(file))
    except ValueError as error:
        raise InputError(str(error), file=file) from None
    width = found.arguments["width"]
    if job.width is not None and job.width != width:
        raise InputError(f"these weights are of width {width:g}, not --width {job.width:g}: leave it out", file=file)
    options = _options_of(file) if found.layout == "ours" else found.arguments
    arguments |= {"width": width} | {key: options[key] for key in ("padding", "eps") if key in options}
    model = MobileNetV2(**arguments, generator=torch.Generator().manual_seed(job.seed))
    wanted = model.state_dict()
    state, told = _classifier(dict(found.state), wanted, classes, _classes_of(file) if found.layout == "ours" else None)
    wrong = [name for name in state if name not in wanted or wanted[name].shape != state[name].shape]
    missing = [name for name in wanted if name not in state and not name.startswith("head.")]
    if wrong or missing:
        raise InputError(f"does not fit the model: {'holds' if wrong else 'lacks'} {(wrong or missing)[0]}", file=file)
    model.load_state_dict(state, strict=False)
    work.note(f"started from weights in the layout of {found.layout}, width {width:g}; {told}")
    return model, arguments


def _classifier(
    state: dict[str, Tensor], wanted: dict[str, Tensor], classes: tuple[str, ...], named: tuple[str, ...] | None
) -> tuple[dict[str, Tensor], str]:
    """The state with the classifier that serves these classes, or without one, and what is to be told of it."""
    heads = [name for name in state if name.startswith("head.")]
    fits = bool(heads) and all(name in wanted and state[name].shape == wanted[name].shape for name in heads)
    listed = lambda names: ", ".join(names[:8]) + " …" * (len(names) > 8)
    if fits and named is not None and set(named) == set(classes):
        order = [named.index(name) for name in classes]
        return state | {name: state[name][order] for name in heads}, "the classifier is theirs, of the same classes"
    if fits and named is None:
        return state, f"the classifier is theirs, its outputs taken to be {listed(classes)}"
    rest = {name: value for name, value in state.items() if name not in heads}
    why = "" if named is None else f": theirs is of {listed(named)}"
    return rest, f"the classifier is new, for {len(classes)} classes{why}"


def _classes_of(file: Path) -> tuple[str, ...] | None:
    """The classes that an earlier run's labels.json names, in the order of its net's outputs."""
    try:
        return tuple(map(str, json.loads((file.parent / "labels.json").read_text(encoding="utf-8"))["classes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _options_of(file: Path) -> dict[str, Any]:
    """What an earlier run's config.json says of its net."""
    try:
        return dict(json.loads((file.parent / "config.json").read_text())["arguments"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
