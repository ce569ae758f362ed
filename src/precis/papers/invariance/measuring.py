"""--measure: the firing score of encoders for each change of the user's pictures, or of rendered objects."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from precis.contrastive.invariance import InvarianceScore, invariance_score
from precis.data.imageset import ImageSet
from precis.data.program import load_program
from precis.data.toy_clips import CHANGES, changes
from precis.data.toy_shapes import SHAPES
from precis.errors import InputError
from precis.lab.words import counted
from precis.papers.contrastive_pictures import as_channels
from precis.papers.contrastive_run import shape_of
from precis.papers.job import Work
from precis.papers.work import save, save_table
from precis.train.checkpoint import load_model
from precis.train.probe import embed

from .permuting import FEW, other_targets
from .pictures import Shown, score_bars, unit_sheet

LEAST_TARGETS, LEAST_PICTURES = 2, 4
SYNTHETIC = (16, 8)  # base pictures of each shape, and how often each is shown


class Encoder(NamedTuple):
    """What is scored: its name, and the channels and side of the pictures that it wants."""

    name: str
    module: nn.Module
    channels: int
    size: int


class Set(NamedTuple):
    """Pictures uint8 [N,C,S,S] of one change, their targets and base pictures, and the targets' names."""

    images: Tensor
    target: Tensor
    base: Tensor
    names: tuple[str, ...]


def measure(job: Any, work: Work) -> dict[str, float | None]:
    """Score every encoder of --measure; `invariance.csv`, `invariance.png` and `units.png`."""
    if len(set(job.measure)) < len(job.measure):
        raise InputError("--measure names an encoder twice")
    encoders = [_encoder(spec, job, work) for spec in job.measure]
    if len({e.name for e in encoders}) < len(encoders):
        encoders = [e._replace(name=spec) for e, spec in zip(encoders, job.measure)]
    kept: dict[tuple[int, int], dict[str, Set]] = {}
    others: dict[tuple[int, int], dict[str, list[Tensor]]] = {}
    rows: list[dict[str, Any]] = []
    shown: list[Shown] = []
    for number, encoder in enumerate(encoders):
        key = encoder.channels, encoder.size
        if key not in kept:
            kept[key] = _sets(job, work, *key)
            others[key] = {change: _others(s, change, job.seed, work) for change, s in kept[key].items()}
        untrained = _untrained(encoder.module, job.seed)
        if untrained is None:
            work.note(f"{encoder.name}: its layers cannot be drawn anew, so there is no untrained reference")
        for at, (change, pictures) in enumerate(kept[key].items()):
            work.log(number * len(kept[key]) + at + 1, len(encoders) * len(kept[key]))
            f = embed(encoder.module, pictures.images.to(work.device)).cpu()
            units = _units(job, f, encoder, work)
            found = _score(job, f, pictures, units)
            row = {"encoder": encoder.name, "change": change, "units": units, "score": float(found.mean[0]),
                   "short": 100 * found.short}  # fmt: skip
            if others[key][change]:
                mixed = (pictures._replace(target=target) for target in others[key][change])
                row["shuffled"] = float(np.mean([float(_score(job, f, m, units).mean[0]) for m in mixed]))
            if untrained is not None:
                g = embed(untrained, pictures.images.to(work.device)).cpu()
                row["untrained"] = float(_score(job, g, pictures, units).mean[0])
            rows.append(row | {"targets": dict(zip(pictures.names, found.per_target[:, 0].tolist()))})
            if number == 0:
                shown.append(Shown(change, pictures.images, f, pictures.target, pictures.names, found.units))
    _table(work.folder, rows)
    for name, content in (("invariance.png", score_bars(rows)), ("units.png", unit_sheet(shown, job.two_sided))):
        save(work.folder / name, content)
    work.show("units.png")
    work.show("invariance.png")
    first = [row for row in rows if row["encoder"] == encoders[0].name]
    metrics: dict[str, float | None] = {"score": float(np.mean([row["score"] for row in first]))}
    if "untrained" in first[0]:
        metrics["untrained"] = float(np.mean([row["untrained"] for row in first]))
    shuffled = [row["shuffled"] for row in first if "shuffled" in row]
    metrics["shuffled"] = float(np.mean(shuffled)) if shuffled else None
    if len(first) > 1:
        metrics |= {row["change"]: row["score"] for row in first}
    return metrics | {"encoders": float(len(encoders))}


def _encoder(spec: str, job: Any, work: Work) -> Encoder:
    path = Path(spec).expanduser()
    if path.is_dir():
        channels, size = shape_of(path)
        if job.size not in (None, size):
            raise InputError(f"--size {job.size}: this encoder was trained on {size} pixels", file=path)
        return Encoder(path.name or spec, load_model(path, device=work.device), channels, size)
    program = load_program(spec)
    if program.note:
        work.note(program.note)
    program.to(work.device)
    name = path.stem if path.is_file() else spec.rpartition(":")[2]
    weights = [p for p in program.module.parameters() if p.ndim == 4]
    channels = int(weights[0].shape[1]) if weights and weights[0].shape[1] in (1, 3) else 3
    size = job.size or 32
    try:
        out = embed(program.module, torch.zeros(2, channels, size, size))
    except Exception as error:  # whatever the user's net raises
        words = str(error).strip().splitlines()
        why = f"the encoder fails on pictures of {channels} × {size} × {size} ({words[0] if words else error})"
        raise InputError(f"{why}; --size names another", file=spec) from error
    if out.ndim != 2 or len(out) != 2:
        raise InputError("the encoder must give one row of numbers a picture (or maps, which are averaged)", file=spec)
    return Encoder(name, program.module, channels, size)


def _sets(job: Any, work: Work, channels: int, size: int) -> dict[str, Set]:
    if job.synthetic or job.input == "toy_objects":
        if not job.synthetic:
            work.note("no INPUT was named: rendered objects are used (--synthetic)")
        made = {c: changes(c, *SYNTHETIC, job.seed + i, size=size) for i, c in enumerate(CHANGES)}
        return {c: Set(as_channels(torch.from_numpy(m.images), channels), torch.from_numpy(m.targets),
                       torch.from_numpy(m.bases), SHAPES) for c, m in made.items()}  # fmt: skip
    found = ImageSet.open(job.input, size, keep_going=job.keep_going, background=job.background)
    if found.write_skipped(work.folder):
        work.note(f"{counted(len(found.skipped), 'picture')} could not be read: see skipped.csv")
    images = as_channels(torch.from_numpy(np.ascontiguousarray(found.images)), channels)
    change, target, base = _layout(found, job.input)
    sets = {}
    for name in sorted(set(change)):
        rows = np.flatnonzero(change == name)
        sets[name] = _one_set(images[torch.from_numpy(rows)], target[rows], base[rows], name, job)
    return sets


def _layout(found: ImageSet, given: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Change, target and base of each picture: columns of a table, or the folders it lies in."""
    if found.columns or Path(given).suffix.lower() in (".csv", ".tsv"):
        if missing := [c for c in ("target", "base") if c not in found.columns]:
            raise InputError(f"columns file, target, base (and transform) are wanted; {', '.join(missing)} is missing",
                             file=given)  # fmt: skip
        target, base = (found.columns[c].astype(np.str_) for c in ("target", "base"))
        change = found.columns.get("transform", np.full(len(base), "all")).astype(np.str_)
        return change, target, base
    parts = [name.split("/") for name in found.names]
    depth = {len(p) for p in parts}
    if depth not in ({3}, {4}):
        words = "folders target/base/ or change/target/base/ are wanted, or a CSV of file, target, base and transform"
        raise InputError(words, file=given)
    change = np.array([p[0] if len(p) == 4 else "all" for p in parts])
    return change, np.array([p[-3] for p in parts]), np.array([f"{p[-3]}/{p[-2]}" for p in parts])


def _one_set(images: Tensor, target: np.ndarray, base: np.ndarray, change: str, job: Any) -> Set:
    names, of, counts = np.unique(target, return_inverse=True, return_counts=True)
    where = "" if change == "all" else f"{change}: "
    if len(names) < LEAST_TARGETS:
        raise InputError(f"{where}two targets or more are wanted, and there is {names[0]} alone", file=job.input)
    if few := [f"{n} ({c})" for n, c in zip(names, counts) if c < LEAST_PICTURES]:
        words = f"{LEAST_PICTURES} pictures of every target are wanted; fewer have {', '.join(few[:5])}"
        raise InputError(where + words, file=job.input)
    _, number = np.unique(np.char.add(np.char.add(target, "/"), base), return_inverse=True)
    if job.select == "split" and (lone := [n for i, n in enumerate(names) if len(set(number[of == i])) < 2]):
        words = f"--select split needs two base pictures of every target, and {', '.join(lone[:5])} has one"
        raise InputError(f"{where}{words}; --select same ranks and scores on the same pictures", file=job.input)
    return Set(images, torch.from_numpy(of), torch.from_numpy(number), tuple(map(str, names)))


def _units(job: Any, f: Tensor, encoder: Encoder, work: Work) -> int:
    """How many units to average: --units, at most as many as there are; notes where the score means little."""
    if not f.isfinite().all():
        raise InputError(f"{encoder.name} gives features that are not finite")
    if bool((f < 0).any()) and not job.two_sided:
        work.note(f"{encoder.name}: some features are negative; --two-sided also takes units that fire by being low")
    if job.units > f.shape[1] / 4:
        work.note(f"{encoder.name}: the best {job.units} of {f.shape[1]} units are not a choice; a quarter at most is")
    return int(min(job.units, f.shape[1]))


def _score(job: Any, f: Tensor, s: Set, units: int) -> InvarianceScore:
    generator = torch.Generator().manual_seed(job.seed)
    return invariance_score(f, s.target, s.base, k=(units,), select=job.select, two_sided=job.two_sided,
                            generator=generator)  # fmt: skip


def _others(s: Set, change: str, seed: int, work: Work) -> list[Tensor]:
    """Targets permuted among the base pictures, in some ways; a note where there are too few to tell chance by."""
    possible, drawn = other_targets(s.target, s.base, seed)
    if possible < FEW:
        where = "" if change == "all" else f"{change}: "
        ways = "no other way" if not possible else f"{possible} other way{'' if possible == 1 else 's'}"
        rest = "is not given" if not possible else "says little of what chance gives"
        work.note(f"{where}there is {ways} to give the base pictures to the targets, so the reference with targets "
                  f"permuted {rest}; more base pictures a target are wanted")  # fmt: skip
    return drawn


def _untrained(module: nn.Module, seed: int) -> nn.Module | None:
    """A copy whose layers are drawn anew, or None where a layer with parameters cannot be."""
    if isinstance(module, torch.jit.ScriptModule):
        return None
    try:
        fresh = copy.deepcopy(module)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for layer in fresh.modules():
                own = list(layer.parameters(recurse=False))
                reset = getattr(layer, "reset_parameters", None)
                if reset is not None:
                    reset()
                elif own:
                    return None
    except Exception:  # a module that does not copy, as exported ones
        return None
    return fresh


def _table(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    lines = []
    for row in rows:
        more = [f"{row[k]:.3f}" if k in row else "" for k in ("untrained", "shuffled", "short")]
        lines.append([row["encoder"], row["change"], "mean", row["units"], f"{row['score']:.3f}", *more])
        for name, value in row["targets"].items():
            lines.append([row["encoder"], row["change"], name, row["units"], f"{value:.3f}", "", "", ""])
    head = ("encoder", "change", "target", "units", "score", "untrained", "shuffled", "short")
    save_table(folder / "invariance.csv", head, lines)
