"""Train, prune, retrain, compare, export: the work of the job."""

import copy
import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from precis.data.program import load_program, refuse_module
from precis.errors import InputError
from precis.nn.norm import BatchNorm, recalibrate
from precis.papers.job import Work
from precis.papers.labelled import Labelled, read_labelled
from precis.papers.pruning import Change, Net, change, comes_trained, export, open_net, right, weights_of
from precis.papers.work import writing
from precis.sparsity.masks import Masks, apply_masks_, geometric, n_of_m_masks
from precis.sparsity.rewinding import (
    Checkpoint,
    History,
    Pruned,
    Schedule,
    Trainer,
    iterative,
    sample_rates,
    step_schedule,
)  # fmt: skip
from precis.train.augment import preset
from precis.train.checkpoint import load_state, save_state
from precis.train.classify import to_input
from precis.train.schedule import constant, cosine, linear

from .pictures import draw_curve, draw_search
from .setting import Replay
from .training import cross_entropy

ALL = ("lr_rewind", "weight_rewind", "fine_tune")
SCHEDULES = {"cosine": cosine, "linear": linear, "constant": constant}
NAMES = {"lr_rewind": "learning-rate rewinding", "weight_rewind": "weight rewinding", "fine_tune": "fine-tuning"}
DENSE = ".dense.safetensors"


class Point(NamedTuple):
    """One pruned network: on validation examples its change against the dense one, and accuracies (%) on both parts."""

    method: str
    pruned: Pruned
    before: float
    val: float
    test: float
    change: Change


@dataclass
class Progress:
    """Steps of all trainings together."""

    work: Work
    total: int
    done: int = 0

    def __call__(self, step: int, total: int, **scalars: float) -> None:
        self.work.log(self.done + step, self.total, **scalars)


class Task(NamedTuple):
    """What all rounds have in common."""

    job: Any
    work: Work
    data: Labelled
    net: Net
    fit: Trainer
    history: History
    t: int
    progress: Progress


def run_prune(job: Any, work: Work) -> dict[str, float | None]:
    _check(job)
    data = read_labelled(job, work)
    net, data = open_net(job, work, data, torch.Generator().manual_seed(job.seed))
    densities = _densities(job)
    n = sum(p.numel() for p in weights_of(net, job).values())
    if round(densities[-1] * n) < 1:
        raise InputError(f"a density of {densities[-1]:g} keeps none of {n} weights")
    if densities == [1]:
        work.note("A density of 1 removes nothing: what is written is the dense network itself.")
    task = _prepare(job, work, data, net, sum(d < 1 for d in densities))
    dense = _dense(task)
    accuracy = 100 * float(right(dense, data.test).mean())
    if net.trained:
        work.note("The model came trained: where it has seen the examples that it is tested on, its own accuracy "
                  "flatters it; a folder with train.parquet and test.parquet keeps them apart.")  # fmt: skip
    guess = 100 * float(torch.bincount(data.test.y).max() / len(data.test.y))
    if accuracy <= guess:
        work.note(f"The dense network is no better than guessing ({accuracy:.1f} %, the most common class has "
                  f"{guess:.1f} %): what pruning costs cannot be seen on it.")  # fmt: skip
    points: list[Point] = []
    for method in _methods(job, net):
        points += _retrain(task, method, densities, dense)
    chosen, words = _choose(job, points, densities)
    work.note(words)
    _write_points(job, work, points, accuracy)
    _draw(job, work, points, accuracy, len(data.test.y))
    metrics = export(work, net, dense, chosen.pruned.model, chosen.pruned.masks, data)
    if chosen.pruned.epochs:
        work.note(f"The pruned network has had {chosen.pruned.epochs:g} epochs of training more than the dense one; "
                  "where it is better, that may be why.")  # fmt: skip
    metrics |= {"accuracy_before_retraining": chosen.before / 100, "retraining_epochs": chosen.pruned.epochs}
    metrics |= _search_cost(task, points)
    for point in points if job.compare else []:
        if point.pruned.density == densities[-1]:
            metrics[f"accuracy_{point.method}"] = point.test / 100
    for left in work.folder.glob(".*.safetensors"):
        left.unlink()
    return metrics


def _check(job: Any) -> None:
    trained = comes_trained(job)
    for given in (job.model, job.weights, job.rewind_weights):
        if given is not None and Path(given).is_file():
            refuse_module(Path(given))
    if trained:
        missing = [option for option, given in (("--epochs", job.epochs), ("--lr", job.lr)) if given is None]
        if missing:
            raise InputError(f"{' and '.join(missing)} of the training that made the weights: that is what is rewound")
    if job.rewind_weights is not None and not trained:
        raise InputError("--rewind-weights goes with --weights or a saved program; a model that is trained here keeps "
                         "its own checkpoint")  # fmt: skip
    if trained and job.method == "weight_rewind" and not job.compare and job.rewind_weights is None:
        raise InputError("weight rewinding needs the weights of an earlier epoch, --rewind-weights FILE; without them "
                         "--method lr_rewind is as good or better")  # fmt: skip
    if job.retrain_epochs is not None and job.retrain_epochs > (job.epochs or 20):
        raise InputError(f"--retrain-epochs {job.retrain_epochs} is more than the {job.epochs or 20} of the first "
                         "training, and there is no rate to replay for the rest")  # fmt: skip
    if job.milestones is not None and job.lr_schedule != "steps":
        raise InputError("--milestones are for --lr-schedule steps")
    if job.one_shot and job.iterative:
        raise InputError("--one-shot and --iterative exclude each other: prune at once, or in rounds")


def _methods(job: Any, net: Net) -> tuple[str, ...]:
    if not job.compare:
        return (job.method,)
    return tuple(m for m in ALL if m != "weight_rewind" or not net.trained or job.rewind_weights is not None)


def _densities(job: Any) -> list[float]:
    """Those to prune to, falling: as given, or rounds that remove 20 % of the rest.  1 is the dense network."""
    if job.densities is None:
        found = [job.density] if job.one_shot or job.density == 1 else geometric(job.density)
        return _within_pattern(job, found, "--density")
    try:
        found = sorted({float(part) for part in job.densities.split(",")}, reverse=True)
    except ValueError:
        found = []
    if not found or not all(0 < d <= 1 for d in found):
        raise InputError(f"--densities: numbers above 0 and up to 1 with commas, as 0.5,0.2,0.1; got {job.densities!r}")
    return _within_pattern(job, found, "--densities")


def _within_pattern(job: Any, densities: list[float], option: str) -> list[float]:
    """Under 2:4 half of the weights are the most that can be kept: rounds above are left out, the dense network not."""
    if job.pattern == "none":
        return densities
    found = [d for d in densities if d <= 0.5]
    if not found:
        raise InputError(f"{option}: the pattern 2:4 keeps half of the weights at the most; give 0.5 or less")
    return [d for d in densities if d == 1] + found


def _prepare(job: Any, work: Work, data: Labelled, net: Net, rounds: int) -> Task:
    device, epochs = work.device, job.epochs or 20
    x, y = (part.to(device) for part in data.train)
    augment = None
    if job.augment == "cifar":
        if len(data.shape) != 3:
            raise InputError("--augment is for pictures")
        augment = preset("cifar", data.shape[1])
    replay = Replay(x, y, job.batch, job.seed, augment)
    t = job.retrain_epochs or epochs
    rates = sample_rates(_schedule(job, epochs), epochs, replay.steps_per_epoch)
    history = History(rates, replay.steps_per_epoch, every_epochs=(epochs - t) or epochs)
    solver = partial(torch.optim.SGD, lr=1.0, momentum=job.momentum, weight_decay=job.weight_decay)
    steps = len(_methods(job, net)) * rounds * t * replay.steps_per_epoch
    progress = Progress(work, steps + (0 if net.trained else len(rates)))
    return Task(job, work, data, net, Trainer(replay, cross_entropy, solver), history, t, progress)


def _schedule(job: Any, epochs: int) -> Schedule:
    lr = 0.1 if job.lr is None else job.lr
    if job.lr_schedule != "steps":
        falls = SCHEDULES[job.lr_schedule]()
        return lambda epoch: lr * falls(epoch / epochs)
    if job.milestones is None:
        return step_schedule(lr, {epochs / 2: 0.1, 3 * epochs / 4: 0.01})
    try:
        found = [float(part) for part in job.milestones.split(",")]
    except ValueError:
        found = []
    if not found or found != sorted(found) or not 0 < found[0] <= found[-1] < epochs:
        raise InputError(f"--milestones: epochs between 0 and {epochs}, rising, with commas; got {job.milestones!r}")
    return step_schedule(lr, {milestone: 0.1 ** (k + 1) for k, milestone in enumerate(found)})


def _dense(task: Task) -> nn.Module:
    """The trained network; the history gets the checkpoints that rewinding goes back to."""
    model, history, last = task.net.model, task.history, len(task.history.rates)
    if task.net.trained:
        history.add(last, model.state_dict(), {})
        if task.job.rewind_weights is not None:
            early = load_program(task.job.model, task.job.rewind_weights, builtin=_same(model)).module
            history.add(last - task.t * history.steps_per_epoch, early.state_dict(), {})
        return copy.deepcopy(model).eval()
    kept = task.work.folder / DENSE
    if task.work.resume and kept.exists():
        for step, model_state, optimizer_state in load_state(kept):
            history.add(step, model_state, optimizer_state)
        model.load_state_dict(history.at(last).model_state)
    else:
        task.fit(model, history.rates, history=history, log=task.progress)
        save_state(kept, [[s, c.model_state, c.optimizer_state] for s, c in history.checkpoints.items()])
    task.progress.done += last
    return copy.deepcopy(model).eval()


def _same(model: nn.Module) -> Callable[[str], nn.Module | None]:
    """The model again, for another file of weights."""
    return lambda spec: copy.deepcopy(model).cpu()


def _retrain(task: Task, method: Any, densities: list[float], dense: nn.Module) -> list[Point]:
    """A network for every density: in rounds, or each from the dense one."""
    job, weights = task.job, lambda model: weights_of(Net(model, None, False), job)
    project = None if job.pattern == "none" else n_of_m_masks
    base = right(dense, task.data.val)
    points = [_untouched(task, method, weights, dense)] if densities[0] == 1 else []
    rounds: list[Pruned] = []
    densities = [d for d in densities if d < 1]
    for k, density in enumerate(densities):
        file = task.work.folder / f".{method}-{k}.safetensors"
        planned = [density] if job.one_shot else densities[: k + 1]
        if task.work.resume and file.exists():
            found = _load(task, file, density, float(task.t if job.one_shot else task.t * (k + 1)))
        else:
            found = iterative(
                lambda: copy.deepcopy(dense), task.history, task.fit, densities=planned, t=task.t, method=method,
                scope=job.scope, weights=weights, project=project, log=task.progress,
                begin=[] if job.one_shot else rounds,
            )[-1]  # fmt: skip
            save_state(file, [found.masks, found.model.state_dict(), found.state.optimizer_state])
        pruned_before = rounds[-1].model if rounds and not job.one_shot else dense
        rounds.append(found)
        task.progress.done += task.t * task.history.steps_per_epoch
        now = right(found.model, task.data.val)
        test = 100 * float(right(found.model, task.data.test).mean())
        before = _before(task, pruned_before, found.masks)
        points.append(Point(method, found, before, 100 * float(now.mean()), test, change(base, now)))
    return points


def _untouched(task: Task, method: str, weights: Callable[[nn.Module], Any], dense: nn.Module) -> Point:
    """The dense network as a point of the curve, density 1."""
    model = copy.deepcopy(dense)
    masks: Masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in weights(model).items()}
    last = task.history.at(len(task.history.rates))
    val, test = (100 * float(right(dense, part).mean()) for part in (task.data.val, task.data.test))
    return Point(method, Pruned(model, masks, 1.0, 0.0, last), test, val, test, Change(0.0, 0.0, 0.0, 1.0))


def _load(task: Task, file: Path, density: float, epochs: float) -> Pruned:
    masks, model_state, optimizer_state = load_state(file)
    model = copy.deepcopy(task.net.model)
    model.load_state_dict(model_state)
    masks = {name: mask.to(task.work.device) for name, mask in masks.items()}
    return Pruned(model.eval(), masks, density, epochs, Checkpoint(task.history.epochs, model_state, optimizer_state))


def _before(task: Task, model: nn.Module, masks: Masks) -> float:
    """Accuracy (%) after pruning and before retraining, with batch statistics measured anew."""
    pruned = apply_masks_(copy.deepcopy(model), masks)
    if any(isinstance(m, BatchNorm) for m in pruned.modules()):
        some: Tensor = task.data.train.x[:2048].to(task.work.device)
        recalibrate(pruned, [to_input(part) for part in some.split(256)])
    return 100 * float(right(pruned, task.data.test).mean())


def _choose(job: Any, points: list[Point], densities: list[float]) -> tuple[Point, str]:
    """The network to export and a sentence on it: what was asked for, of several densities the recommended one."""
    mine = [p for p in points if p.method == job.method] or points
    fine = [p for p in mine if p.change.low >= -job.tolerance]
    asked = min(mine, key=lambda p: p.pruned.density)
    if fine:
        best = min(fine, key=lambda p: p.pruned.density)
        words = (f"Recommended: density {best.pruned.density:.3g}, the sparsest whose validation accuracy is with 95 % "
                 f"confidence at most {job.tolerance:g} points below the dense network's "
                 f"({best.change.points:+.1f}, from {best.change.low:+.1f} to {best.change.high:+.1f}).")  # fmt: skip
    else:
        best = max(mine, key=lambda p: (p.val, -p.pruned.density))
        words = (f"No density can be called within {job.tolerance:g} points of the dense network: the intervals on the "
                 f"validation examples are too wide or too low.  Best there: density {best.pruned.density:.3g} "
                 f"({best.change.points:+.1f}, from {best.change.low:+.1f} to {best.change.high:+.1f}).")  # fmt: skip
    if best.pruned.density == 1:
        words = "" if densities == [1] else (
            f"Recommended: density 1, the dense network itself, as no sparser one is with 95 % confidence at most "
            f"{job.tolerance:g} points below it on the validation examples.")  # fmt: skip
    if job.densities is None:
        return asked, f"{words}  Exported is what was asked for, density {asked.pruned.density:.3g}."
    return best, f"{words}  It is the one exported."


def _spent(job: Any, points: list[Point]) -> list[float]:
    """Epochs of retraining that each point's method has spent when that point is reached, in the order of `points`.

    Of rounds every network carries those before it; in one shot each starts from the dense network, and what was spent
    on the milder densities, which one has to try to know that they can be gone below, comes on top.
    """
    if not job.one_shot:
        return [p.pruned.epochs for p in points]
    so_far: dict[str, float] = {}
    found = []
    for p in points:
        so_far[p.method] = so_far.get(p.method, 0.0) + p.pruned.epochs
        found.append(so_far[p.method])
    return found


def _search_cost(task: Task, points: list[Point]) -> dict[str, float]:
    """Epochs of retraining in all, for each method and together; a note says what they are made of."""
    each = {p.method: spent for p, spent in zip(points, _spent(task.job, points))}  # the last of a method is its most
    n = sum(p.pruned.density < 1 for p in points) // len(each)
    how = f"{n} prunings of the dense network" if task.job.one_shot else f"{n} rounds, one after another"
    said = ", ".join(f"{NAMES[method]} {spent:g}" for method, spent in each.items())
    task.work.note(f"Epochs of retraining spent on the search: {said} ({how}, {task.t} each); the first training "
                   f"{'had' if task.net.trained else 'took'} {task.history.epochs:g}.")  # fmt: skip
    return {"search_epochs": sum(each.values())} | {f"search_epochs_{method}": spent for method, spent in each.items()}


def _write_points(job: Any, work: Work, points: list[Point], dense: float) -> None:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["method", "density", "compression", "retraining_epochs", "search_epochs",
                    "test_before_retraining", "test", "validation", "validation_change", "low", "high"])  # fmt: skip
    table.writerow(["dense", 1, 1, 0, 0, "", f"{dense:.3f}", "", "", "", ""])
    for p, spent in zip(points, _spent(job, points)):
        if p.pruned.density == 1:
            continue  # the dense network, whose row is the first
        numbers = (p.before, p.test, p.val, p.change.points, p.change.low, p.change.high)
        table.writerow([p.method, f"{p.pruned.density:.6g}", f"{1 / p.pruned.density:.4g}", f"{p.pruned.epochs:g}",
                        f"{spent:g}", *(f"{n:.3f}" for n in numbers)])  # fmt: skip
    with writing(work.folder / "curve.csv") as beside:
        beside.write_text(text.getvalue())


def _draw(job: Any, work: Work, points: list[Point], dense: float, n: int) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for p in points:
        lines.setdefault(NAMES[p.method], []).append((1 / p.pruned.density, p.test))
    deviation = 100 * math.sqrt(max(dense / 100 * (1 - dense / 100), 0.0) / n)
    with writing(work.folder / "curve.png") as beside:
        beside.write_bytes(draw_curve(lines, dense, deviation))
    work.show("curve.png")
    if job.compare:
        epochs: dict[str, list[tuple[float, float]]] = {}
        for p, spent in zip(points, _spent(job, points)):
            epochs.setdefault(NAMES[p.method], []).append((spent, p.test))
        with writing(work.folder / "search.png") as beside:
            beside.write_bytes(draw_search(epochs, dense))
