"""The training loop: budget, schedule, precision, averages, progress, checkpoints.

A `step(batch)` returns a loss, or a dict of scalars with a "loss" among them; `fit` does the rest, and leaves the
mathematics to the caller.  On a CPU, a run that was interrupted and resumed gives the same bits as one that was not.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from precis.errors import InputError, RunFailed, Stopped
from precis.train.checkpoint import load_state, save_state
from precis.train.ema import EMA
from precis.train.feed import Feed, IndexBatches, index_batches
from precis.train.schedule import Schedule, constant

__all__ = ["Budget", "Curve", "IndexBatches", "Patience", "Run", "fit", "index_batches", "param_groups"]

CHECKPOINT = "checkpoint.safetensors"
LOG_SECONDS = 0.2  # between two calls of `log`; until then metrics stay on the device, which need not wait for them


@dataclass
class Budget:
    """How long to train: whichever of steps, epochs and minutes is reached first ends the run.

    `progress` in [0, 1] is how far the run is, by the one that is furthest; a step may read it, for what it anneals.
    """

    steps: int | None = None
    epochs: float | int | None = None
    minutes: float | int | None = None
    progress: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        given = {"steps": self.steps, "epochs": self.epochs, "minutes": self.minutes}
        if all(value is None for value in given.values()):
            raise InputError("a training needs a budget: steps, epochs or minutes")
        for name, value in given.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} must be positive, got {value:g}")

    @property
    def repeatable(self) -> bool:
        """Whether the end does not depend on the clock."""
        return self.minutes is None

    def update(self, steps: int, epochs: float, seconds: float) -> None:
        """Set the progress after so many steps, epochs and seconds."""
        shares = [steps / self.steps if self.steps else 0.0]
        shares.append(epochs / self.epochs if self.epochs else 0.0)
        shares.append(seconds / (60 * self.minutes) if self.minutes else 0.0)
        self.progress = min(max(shares), 1.0)


class Curve(NamedTuple):
    """A metric, and the steps (from 1) after which it was measured."""

    steps: list[int]
    values: list[float]


@dataclass
class Run:
    """What `fit` did: a curve a metric, optimiser steps, seconds, and whether the same call gives the same again."""

    curves: dict[str, Curve] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    repeatable: bool = True


class Patience:
    """A `stop` for `fit`: true once `metric` has not fallen (or risen) by `least` for `steps` steps."""

    def __init__(self, metric: str, steps: int, *, least: float | int = 0.0, rising: bool = False) -> None:
        self.metric, self.steps, self.least, self.sign = metric, steps, least, -1 if rising else 1
        self.best, self.at = math.inf, 0

    def __call__(self, step: int, scalars: Mapping[str, Tensor]) -> bool:
        if self.metric in scalars:
            value = self.sign * float(scalars[self.metric])
            if value < self.best - self.least:
                self.best, self.at = value, step
        return step - self.at >= self.steps

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.at = state["best"], state["at"]


def fit(
    step: Callable[[Any], Tensor | Mapping[str, Any]],
    batches: Iterable[Any],
    *,
    budget: Budget,
    optimizer: Optimizer | None,
    schedule: Schedule | None = None,
    log: Callable[..., None] | None = None,
    ema: EMA | None = None,
    clip: float | int | None = None,
    accumulate: int = 1,
    precision: Literal["fp32", "bf16"] = "fp32",
    folder: str | Path | None = None,
    resume: bool = False,
    stop: Callable[[int, Mapping[str, Tensor]], bool] | None = None,
    keep: Mapping[str, Any] | None = None,
    checkpoint_seconds: float | int = 60.0,
) -> Run:
    """Train until the budget is spent, `stop(steps done, scalars of this step)` is true, or `log` raises `Stopped`.

    `batches` is gone through again and again (see `index_batches`).  `optimizer` takes a step after every `accumulate`
    batches, whose losses are averaged, with gradients clipped to the norm `clip`; with None, `step` updates the weights
    itself and its "loss" is only watched.  Every rate, of `optimizer` and of optimisers in `keep`, is multiplied by
    `schedule(progress)`.  "bf16" runs `step` under autocast; the weights stay as they are.  A few times a second, and
    at the end, `log(step, total, **scalars)` is called.

    With a `folder`, a checkpoint is written there every so many seconds, at the end, and when stopped; `resume` goes on
    from it.  It holds the optimiser and its parameters, `ema`, random states, the position in `batches`, and everything
    in `keep`: modules (for their buffers), generators, `stop`, whatever has `state_dict` and `load_state_dict`.

    Raises RunFailed at the first loss that is not finite (the last checkpoint is from before), and out of memory.
    """
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1, got {accumulate}")
    loop = _Loop(
        step, Feed(batches), budget, optimizer, schedule or constant(), log, ema, clip, accumulate, precision,
        None if folder is None else Path(folder) / CHECKPOINT, dict(keep or {}),
    )  # fmt: skip
    if resume and loop.path is not None and loop.path.exists():
        loop.load()
    saved = time.perf_counter()
    try:
        while not loop.finished:
            scalars = loop.advance()
            if stop is not None and stop(loop.run.steps, scalars):
                loop.halted = True
            try:
                loop.report()
            except Stopped:
                loop.save()
                raise
            if loop.finished or time.perf_counter() - saved > checkpoint_seconds:
                loop.save()
                saved = time.perf_counter()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RunFailed(f"out of memory at step {loop.run.steps + 1}: try a smaller batch{loop.kept()}") from error
    finally:
        loop.set_rates(1.0)
    return loop.run


def param_groups(
    model: nn.Module, weight_decay: float | int, skip: Collection[str] = ("bias", "norm")
) -> list[dict[str, Any]]:
    """Two groups for an optimiser: with `weight_decay`, and without it what `skip` names.

    "bias": parameters called so; "norm": those of normalisation layers (by the name of their class); any other word:
    parameters whose full name contains it.
    """
    decay: list[nn.Parameter] = []
    spare: list[nn.Parameter] = []
    seen: set[int] = set()
    words = [word for word in skip if word not in ("bias", "norm")]
    for path, module in model.named_modules():
        normalises = "norm" in skip and "norm" in type(module).__name__.lower()
        for name, p in module.named_parameters(path, recurse=False):
            if id(p) in seen or not p.requires_grad:
                continue
            seen.add(id(p))
            named = "bias" in skip and name.rpartition(".")[2].startswith("bias")
            (spare if normalises or named or any(word in name for word in words) else decay).append(p)
    found = ((decay, float(weight_decay)), (spare, 0.0))
    return [{"params": params, "weight_decay": rate} for params, rate in found if params]


@dataclass
class _Loop:
    """A running `fit`: its parts, and what changes with every step."""

    step: Callable[[Any], Tensor | Mapping[str, Any]]
    feed: Feed
    budget: Budget
    optimizer: Optimizer | None
    schedule: Schedule
    log: Callable[..., None] | None
    ema: EMA | None
    clip: float | int | None
    accumulate: int
    precision: str
    path: Path | None
    keep: dict[str, Any]
    halted: bool = False
    pending: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)
    logged: float = -math.inf

    def __post_init__(self) -> None:
        modules = [thing for thing in self.keep.values() if isinstance(thing, nn.Module)]
        self.rates = [group["lr"] for group in self.groups()]
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        self.parameters = [p for group in groups for p in group["params"]]
        inside = [p for module in modules for p in module.parameters()]
        self.loose = [p for p in self.parameters if all(p is not q for q in inside)]
        self.device = next(iter([*self.parameters, *inside, torch.zeros(0)])).device
        if self.ema is not None:
            self.keep = self.keep | {"ema": self.ema}
        self.run = Run(repeatable=self.budget.repeatable)
        self.budget.update(0, 0.0, 0.0)
        self.clock = time.perf_counter()

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimisers; other objects after a `load`."""
        found: list[Any] = [self.optimizer, *self.keep.values()]
        return [group for thing in found if isinstance(thing, Optimizer) for group in thing.param_groups]

    def set_rates(self, factor: float) -> None:
        for group, rate in zip(self.groups(), self.rates):
            group["lr"] = rate * factor

    @property
    def finished(self) -> bool:
        return self.halted or self.budget.progress >= 1

    def advance(self) -> dict[str, Tensor]:
        """One optimiser step; returns its scalars, still on the device."""
        self.set_rates(self.schedule(self.budget.progress))
        if self.optimizer is not None:
            self.optimizer.zero_grad()
        scalars: dict[str, Tensor] = {}
        for _ in range(self.accumulate):
            for name, value in self.one_batch().items():
                scalars[name] = scalars.get(name, 0) + value / self.accumulate
        if self.optimizer is not None:
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.clip)
            self.optimizer.step()
        if self.ema is not None:
            self.ema.update()
        self.run.steps += 1
        self.pending.append((self.run.steps, scalars))
        now = time.perf_counter()
        self.run.seconds += now - self.clock
        self.clock = now
        self.budget.update(self.run.steps, self.feed.epochs(), self.run.seconds)
        return scalars

    def one_batch(self) -> dict[str, Tensor]:
        batch = self.feed.next()
        with torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext():
            out = self.step(batch)
        out = {"loss": out} if isinstance(out, Tensor) else out
        if "loss" not in out:
            raise ValueError(f'step must return a loss or a dict with a "loss", got {sorted(out)}')
        loss = out["loss"]
        if not (isinstance(loss, Tensor) and loss.is_cuda):  # a GPU is asked later, in `flush`: it would have to wait
            self.check(self.run.steps + 1, float(loss.detach() if isinstance(loss, Tensor) else loss))
        if self.optimizer is not None:
            (loss / self.accumulate).backward()
        return {name: torch.as_tensor(value).detach() for name, value in out.items()}

    def check(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise RunFailed(f"the loss became {loss} at step {step}: try a smaller learning rate, or clip{self.kept()}")

    def kept(self) -> str:
        return f"; the last good checkpoint is {self.path}" if self.path is not None and self.path.exists() else ""

    def report(self) -> None:
        now = time.perf_counter()
        if now - self.logged < LOG_SECONDS and not self.finished:
            return
        self.logged = now
        last = self.flush()
        if self.log is not None:
            done = self.run.steps
            total = done if self.finished or not self.budget.progress else round(done / self.budget.progress)
            self.log(done, total, **last)

    def flush(self) -> dict[str, float]:
        """Fetch the pending scalars from the device at once, check losses, append to the curves; return the latest."""
        last: dict[str, float] = {}
        values = [value.reshape(()) for _, scalars in self.pending for value in scalars.values()]
        there = [i for i, value in enumerate(values) if value.device.type != "cpu"]
        if there:
            fetched = torch.stack([values[i].float() for i in there]).cpu()
            for i, value in zip(there, fetched):
                values[i] = value
        numbers = iter(values)
        for step, scalars in self.pending:
            now = {name: float(next(numbers)) for name in scalars}
            self.check(step, now["loss"])
            for name, value in now.items():
                curve = self.run.curves.setdefault(name, Curve([], []))
                curve.steps.append(step)
                curve.values.append(value)
            last |= now
        self.pending.clear()
        return last

    def save(self) -> None:
        self.flush()
        if self.path is None:
            return
        curves = {k: (torch.tensor(s), torch.tensor(v, dtype=torch.float64)) for k, (s, v) in self.run.curves.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_state(self.path, {
            "parameters": self.loose,
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "keep": {name: _state(thing) for name, thing in self.keep.items()},
            "batches": self.feed.state_dict(),
            "random": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "run": {"steps": self.run.steps, "seconds": self.run.seconds, "halted": self.halted, "curves": curves},
        })  # fmt: skip

    def load(self) -> None:
        assert self.path is not None
        state = load_state(self.path)
        try:
            if set(state["keep"]) != set(self.keep):
                raise ValueError(f"it keeps {sorted(state['keep'])}, this one {sorted(self.keep)}")
            shapes = [tuple(p.shape) for p in self.loose]
            if shapes != [tuple(p.shape) for p in state["parameters"]]:
                raise ValueError("its parameters have other shapes")
            for mine, saved in zip(self.loose, state["parameters"]):
                mine.data.copy_(saved)
            if self.optimizer is not None:
                self.optimizer.load_state_dict(state["optimizer"])
            self.feed.load_state_dict(state["batches"])  # first: it may draw from what is kept
            for name, thing in self.keep.items():
                _set_state(thing, state["keep"][name])
            run = state["run"]
            self.run.steps, self.run.seconds, self.halted = run["steps"], run["seconds"], run["halted"]
            self.run.curves = {k: Curve(s.tolist(), v.tolist()) for k, (s, v) in run["curves"].items()}
            torch.set_rng_state(state["random"])
            if state["cuda"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda"], self.device)
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise InputError(f"is a checkpoint of another training: {error}", file=self.path) from None
        self.budget.update(self.run.steps, self.feed.epochs(), self.run.seconds)
        self.clock = time.perf_counter()


def _state(thing: Any) -> Any:
    return thing.get_state() if isinstance(thing, torch.Generator) else thing.state_dict()


def _set_state(thing: Any, state: Any) -> None:
    if isinstance(thing, torch.Generator):
        thing.set_state(state)
    else:
        thing.load_state_dict(state)
