"""How to train on after pruning: from which weights, at which rates.  Renda, Frankle, Carbin, ICLR 2020.

A network is trained for T epochs at rates η(0 … T), which ends in W_T; the weights of largest magnitude are kept, and
the rest of the network is trained for t epochs more (§3 of the paper, arXiv 2003.02389):

    fine_tune             from W_T,      at the last rate η(T) throughout
    weight_rewind         from W_{T−t},  at η(T−t … T)
    lr_rewind             from W_T,      at η(T−t … T)
    weight_rewind_low_lr  from W_{T−t},  at η(T)             (controls, to see
    reinit                from new ones, at η(T−t … T)        what it is that helps)

One-shot pruning does this once, iterative pruning again and again, each time from the network that the last round left.
Everything that a checkpoint holds goes back with the weights: batch-norm statistics and the optimiser's momentum.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from precis.sparsity.masks import MaskedTraining, Masks, apply_masks_, magnitude_masks, prunable
from precis.train.loop import Budget, fit

Retraining = Literal["fine_tune", "weight_rewind", "lr_rewind", "weight_rewind_low_lr", "reinit"]
METHODS: tuple[str, ...] = get_args(Retraining)
Schedule = Callable[[float], float]  # epoch, fractional → learning rate
Project = Callable[[Mapping[str, Tensor], Masks | None], Masks]
Weights = Callable[[nn.Module], Mapping[str, Tensor]]
LAST = 0.05  # where the rate is not constant at the end, "the last rate" is its mean over this share of the run


@dataclass(frozen=True)
class Checkpoint:
    """A training as it stood after `epoch` epochs: parameters and buffers, and the optimiser's state by parameter."""

    epoch: float
    model_state: dict[str, Tensor]
    optimizer_state: dict[int, Any]


@dataclass
class History:
    """The rates of all steps of the first training, and its checkpoints, one every `every_epochs` (and the last)."""

    rates: Float[Tensor, "steps"]
    steps_per_epoch: int
    every_epochs: float | int = 1.0
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict)

    @property
    def epochs(self) -> float:
        return len(self.rates) / self.steps_per_epoch

    def keep(self, step: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Take a checkpoint after `step` steps, if one is due there."""
        every = max(1, round(self.every_epochs * self.steps_per_epoch))
        if step % every == 0 or step == len(self.rates):
            self.add(step, model.state_dict(), optimizer.state_dict()["state"])

    def add(self, step: int, model_state: Mapping[str, Tensor], optimizer_state: Mapping[int, Any]) -> None:
        copied = {name: tensor.detach().clone() for name, tensor in model_state.items()}
        epoch = step / self.steps_per_epoch
        self.checkpoints[step] = Checkpoint(epoch, copied, copy.deepcopy(dict(optimizer_state)))

    def at(self, step: int) -> Checkpoint:
        """ValueError where there is no such checkpoint, with those there are."""
        if step not in self.checkpoints:
            there = ", ".join(f"{c.epoch:g}" for c in self.checkpoints.values()) or "none"
            raise ValueError(f"there is no checkpoint of epoch {step / self.steps_per_epoch:g}; there are {there}")
        return self.checkpoints[step]


class Plan(NamedTuple):
    """Where a retraining starts (None: anew), its rates, and the step of the first training that it begins at."""

    start: Checkpoint | None
    rates: Float[Tensor, "steps"]
    position: int


def retrain_plan(method: Retraining, history: History, t: float | int, *, now: Checkpoint | None = None) -> Plan:
    """What `method` does for t epochs.  `now`: the network that is pruned, if it is no longer the first training's.

    Raises ValueError for t outside [0, T], or a checkpoint that was not kept.
    """
    total = len(history.rates)
    steps = round(t * history.steps_per_epoch)
    if not 0 <= steps <= total:
        raise ValueError(f"t must lie between 0 and the {history.epochs:g} epochs of training, got {t:g}")
    position = total - steps
    tail = history.rates[position:]
    if method in ("fine_tune", "weight_rewind_low_lr"):
        tail = last_rate(history.rates).expand(steps)
    if method == "reinit":
        return Plan(None, tail, position)
    if method in ("fine_tune", "lr_rewind"):
        return Plan(now or history.at(total), tail, position)
    return Plan(history.at(position), tail, position)


def last_rate(rates: Float[Tensor, "steps"]) -> Float[Tensor, ""]:
    """The final rate; where the rate still changes at the end, as under a cosine, its mean over the last 5 %."""
    end = rates[-max(1, round(LAST * len(rates))) :]
    return end[-1] if bool((end == end[-1]).all()) else end.mean()


def step_schedule(lr: float | int, factors: Mapping[float | int, float | int]) -> Schedule:
    """`lr` times the factor of the last milestone (epoch) reached: step_schedule(0.1, {91: 0.1, 136: 0.01})."""

    def rate(epoch: float) -> float:
        reached = [milestone for milestone in factors if epoch >= milestone]
        return float(lr * factors[max(reached)]) if reached else float(lr)

    return rate


def sample_rates(
    schedule: Schedule | torch.optim.lr_scheduler.LRScheduler, epochs: float | int, steps_per_epoch: int
) -> Float[Tensor, "steps"]:
    """The rate of every step.  A torch scheduler is stepped once an epoch, and stands afterwards as before."""
    steps = round(epochs * steps_per_epoch)
    if not isinstance(schedule, torch.optim.lr_scheduler.LRScheduler):
        return torch.tensor([schedule(k / steps_per_epoch) for k in range(steps)], dtype=torch.float64)
    state, group = copy.deepcopy(schedule.state_dict()), schedule.optimizer.param_groups[0]
    before, found = group["lr"], []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for k in range(steps):
            found.append(float(group["lr"]))
            if (k + 1) % steps_per_epoch == 0:
                schedule.step()
    schedule.load_state_dict(state)
    group["lr"] = before
    return torch.tensor(found, dtype=torch.float64)


def sgd(parameters: Any) -> Optimizer:
    """Momentum 0.9 and L2 2e-4, as for the paper's ResNet-20; the rate is set at every step."""
    return torch.optim.SGD(parameters, lr=1.0, momentum=0.9, weight_decay=2e-4)


@dataclass(frozen=True)
class Trainer:
    """Trains a model on `batches(step, rounds)` under given rates; a batch depends on its step alone.

    So a training that begins at step s of the first one sees what that saw from there on, and all methods see the same.
    `rounds` counts the prunings before (0 in the first training and in one-shot pruning).  `loss(model, batch)`.
    """

    batches: Callable[[int, int], Any]
    loss: Callable[[nn.Module, Any], Tensor]
    optimizer: Callable[[Any], Optimizer] = sgd

    def __call__(
        self, model: nn.Module, rates: Float[Tensor, "steps *copies"], *, position: int = 0,
        optimizer_state: Mapping[int, Any] | None = None, masks: Mapping[str, Tensor] | None = None, rounds: int = 0,
        history: History | None = None, log: Callable[..., None] | None = None,
    ) -> dict[int, Any]:  # fmt: skip
        """Train in place, dead weights staying at 0; returns the optimiser's state.  `history` takes checkpoints."""
        solver = self.optimizer(model.parameters())
        steps = len(rates)
        if optimizer_state:
            solver.load_state_dict(solver.state_dict() | {"state": copy.deepcopy(dict(optimizer_state))})
        if history is not None:
            history.keep(0, model, solver)
        if steps == 0:
            return solver.state_dict()["state"]  # type: ignore[no-any-return]
        each: Any = rates if rates.ndim > 1 else rates.tolist()

        def step(at: int) -> Tensor:
            for group in solver.param_groups:
                group["lr"] = each[at - position]
            return self.loss(model, self.batches(at, rounds))

        def kept(done: int, scalars: Mapping[str, Tensor]) -> bool:
            if history is not None:
                history.keep(done, model, solver)
            return False

        model.train()
        with MaskedTraining(model, masks or {}):
            steps_of = range(position, position + steps)
            fit(step, steps_of, budget=Budget(steps=steps), optimizer=solver, log=log, stop=kept)
        model.eval()
        return solver.state_dict()["state"]  # type: ignore[no-any-return]


@dataclass
class Pruned:
    """A pruned and retrained network, its masks, the epochs of retraining that it took in all, and how it stands."""

    model: nn.Module
    masks: Masks
    density: float
    epochs: float
    state: Checkpoint


def prune_and_retrain(
    model_fn: Callable[[], nn.Module], history: History, fit: Trainer, *, density: float | int, t: float | int,
    method: Retraining, scope: Literal["global", "layer"] = "global", weights: Weights = prunable,
    project: Project | None = None, log: Callable[..., None] | None = None,
) -> Pruned:  # fmt: skip
    """One-shot: prune the trained network to `density` by magnitude, and retrain it for t epochs."""
    return iterative(model_fn, history, fit, densities=[density], t=t, method=method, scope=scope, weights=weights,
                     project=project, log=log)[0]  # fmt: skip


def iterative(
    model_fn: Callable[[], nn.Module], history: History, fit: Trainer, *, densities: Sequence[float | int],
    t: float | int, method: Retraining, scope: Literal["global", "layer"] = "global", weights: Weights = prunable,
    project: Project | None = None, log: Callable[..., None] | None = None,
    begin: Sequence[Pruned] = (),
) -> list[Pruned]:  # fmt: skip
    """A network for each of the falling `densities`, pruned from the one before it and retrained for t epochs.

    model_fn() builds the model, with new weights for "reinit".  project(weights, masks or None) → the weights that may
    be kept, as a pattern allows them (`n_of_m_masks`).  `begin`: rounds that are done already.
    """
    if any(b >= a for a, b in zip([1.0001, *densities], densities)):
        raise ValueError(f"densities of rounds must fall from 1 on, got {', '.join(f'{d:g}' for d in densities)}")
    found = list(begin)
    now = found[-1].state if found else history.at(len(history.rates))
    masks: Masks | None = found[-1].masks if found else None
    for done in range(len(found), len(densities)):
        model = model_fn()
        fresh = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(now.model_state)
        allowed = masks if project is None else project(weights(model), masks)
        masks = magnitude_masks(weights(model), allowed, density=densities[done], scope=scope)
        plan = retrain_plan(method, history, t, now=now)
        model.load_state_dict(fresh if plan.start is None else plan.start.model_state)
        state = None if plan.start is None else plan.start.optimizer_state
        apply_masks_(model, masks)
        after = fit(model, plan.rates, position=plan.position, optimizer_state=state, masks=masks, rounds=done, log=log)
        kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        now = Checkpoint(history.epochs, kept, copy.deepcopy(after))
        found.append(Pruned(model.eval(), masks, float(densities[done]), (done + 1) * float(t), now))
    return found


class Row(NamedTuple):
    """One point of a comparison; accuracy in any unit, epochs of retraining in all."""

    method: str
    density: float
    t: float
    seed: int
    accuracy: float
    search_epochs: float


def sweep(
    run: Callable[[str, float, float, int], tuple[float, float]], methods: Sequence[str], densities: Sequence[float],
    ts: Sequence[float], seeds: Sequence[int],
) -> list[Row]:  # fmt: skip
    """All combinations: run(method, density, t, seed) → (accuracy, search epochs)."""
    return [Row(m, d, t, s, *run(m, d, t, s)) for m in methods for d in densities for t in ts for s in seeds]


def best_compression(
    rows: Sequence[Row], dense: Mapping[int, float], tolerance: float | int = 0.0
) -> dict[str, float]:  # fmt: skip
    """For each method the highest 1/density whose median accuracy is within `tolerance` of the dense median (else 1).

    dense: accuracy by seed.  Of several t the one best at a density counts, so choose on validation data.
    """
    wanted = float(torch.tensor(list(dense.values()), dtype=torch.float64).quantile(0.5)) - tolerance
    found: dict[str, float] = {row.method: 1.0 for row in rows}
    cells: dict[tuple[str, float, float], list[float]] = {}
    for row in rows:
        cells.setdefault((row.method, row.density, row.t), []).append(row.accuracy)
    for (method, density, _), values in cells.items():
        if float(torch.tensor(values, dtype=torch.float64).quantile(0.5)) >= wanted:
            found[method] = max(found[method], 1 / density)
    return found
