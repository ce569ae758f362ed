"""The same small net over many seeds (or rates, or data) at once: M copies in one `vmap`.

Parameters are stacked to [M,…] by `torch.func.stack_module_state`; one pass gives the losses of all copies, and since
copies share nothing, the gradient of their sum is the gradient of each.  Every copy has its own data order, rate,
clipping, batch-norm statistics and end, and comes out as if it had been trained alone.  For plain perceptrons
`precis.nn.stacked` is faster.
"""

import copy
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from precis.errors import InputError
from precis.train.feed import index_batches
from precis.train.loop import LOG_SECONDS, Budget
from precis.train.optim import ManyAdam, ManySGD, Rate, clip_each_
from precis.train.schedule import Schedule, constant

__all__ = ["Many", "ManyAdam", "ManySGD", "clip_each_", "fit_many"]

CHECK_STEPS = 16  # between two looks at losses that lie on a GPU, which has to be waited for


@dataclass
class Many:
    """M trained copies: parameters and buffers [M,…], curves [M,T] by metric (NaN after a copy's end), steps taken.

    `diverged` marks copies whose loss became infinite or NaN; they keep the weights from before.
    """

    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    curves: dict[str, Float[Tensor, "m t"]]
    steps: Int[Tensor, "m"]
    diverged: Bool[Tensor, "m"]
    seconds: float
    template: nn.Module = field(repr=False)

    def module(self, m: int) -> nn.Module:
        """Copy m as a module of its own, in evaluation mode."""
        single = copy.deepcopy(self.template).eval().requires_grad_(True)
        state = self.params | self.buffers
        with torch.no_grad():
            for name, tensor in [*single.named_parameters(), *single.named_buffers()]:
                tensor.copy_(state[name][m])
        return single

    @torch.no_grad()
    def predict(self, *inputs: Tensor, own: bool = False, batch: int | None = None) -> Any:
        """Outputs [M,N,…] of all copies in evaluation mode, for inputs [N,…], or each copy's `own` [M,N,…].

        `batch` limits how many of the N examples are evaluated at once.
        """
        call = _Call(copy.deepcopy(self.template).eval())
        axis = 1 if own else 0
        size = batch or inputs[0].shape[axis]
        parts = []
        for at in range(0, inputs[0].shape[axis], size):
            part = [x.narrow(axis, at, min(size, x.shape[axis] - at)) for x in inputs]
            dims = (0, 0, *[0 if own else None] * len(part))
            parts.append(vmap(lambda p, b, *x: _Copy(call, p, b)(*x), in_dims=dims)(self.params, self.buffers, *part))
        return tree_map(lambda *pieces: torch.cat(pieces, 1), *parts)


def fit_many(
    build: Callable[[int], nn.Module],
    seeds: Sequence[int],
    data: Any,
    step: Callable[[Any, Any], Tensor | Mapping[str, Tensor]],
    *,
    budget: Budget,
    lr: Rate,
    size: int | None = None,
    drop_last: bool = False,
    order: Sequence[torch.Generator] | None = None,
    own: Collection[Any] = (),
    freeze: Callable[[str], bool] | Collection[str] | None = None,
    optimizer: Callable[..., Optimizer] | None = None,
    schedule: Schedule | None = None,
    clip: float | int | None = None,
    stop: Callable[[int, Mapping[str, Tensor]], Tensor] | None = None,
    log: Callable[..., None] | None = None,
    randomness: Literal["error", "different"] = "error",
) -> Many:
    """Train `build(seed)` for every seed, all at once.

    data: a tensor [N,…], a tuple or a dict of such; those whose index or key is in `own` are [M,N,…], one a copy.  Or a
        function (step, generators) -> batch [M,B,…], for what is drawn or augmented on the way.
    step(model, batch): the loss of one copy, or a dict of scalars with a "loss"; `model` is called as the module is,
        and has its methods.  `batch` [B,…] holds `size` rows of `data` (None: all N, as they are).
    lr: one rate, or one a copy [M]; multiplied by `schedule(progress)`.
    drop_last: leave out the smaller last batch of an epoch, where there is one.
    order: generators, one a copy, of its batches (default: a generator of its seed).
    freeze: names (or a rule on names) of parameters that stay as they were built; a name stands for all that it begins.
    optimizer(params, lr): `ManyAdam`, or `partial(ManySGD, momentum=0.9)`.  clip: gradient norm of each copy.
    stop(steps done, scalars [M]): which copies [M] end here.
    randomness: "different" allows dropout and the like.  Their numbers come from one stream for all copies, so that a
        copy depends on its mates; to have it otherwise draw noise in `data`.

    A module is built under the random state of its seed.  Buffers must be updated in place, as torch's layers do.
    """
    models = [_build(build, seed) for seed in seeds]
    if not models:
        raise InputError("fit_many needs at least one seed")
    order = [torch.Generator().manual_seed(s) for s in seeds] if order is None else order
    if len(order) != len(models):
        raise ValueError(f"{len(models)} seeds need as many generators, got {len(order)}")
    batches, dims, per_epoch = _batches(data, own, len(models), size, order, drop_last)
    if per_epoch is None and budget.steps is None and budget.minutes is None:
        raise InputError("data that a function draws have no epochs: give steps")
    params, buffers = stack_module_state(models)
    for name, p in params.items():
        p.requires_grad_(not _frozen(name, freeze))
    training = {name: p for name, p in params.items() if p.requires_grad}
    solver = (optimizer or ManyAdam)(list(training.values()), lr=lr)
    call = _Call(models[0].train())

    def one(p: dict[str, Tensor], b: dict[str, Tensor], batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        b = {name: tensor.clone() for name, tensor in b.items()}
        out = step(_Copy(call, p, b), batch)
        return ({"loss": out} if isinstance(out, Tensor) else dict(out)), b

    every = vmap(one, in_dims=(0, 0, dims), randomness=randomness) if len(models) > 1 else _alone(one, dims)
    state = _Ends(len(models), training)
    curves: list[dict[str, Tensor]] = []
    began, logged = time.perf_counter(), -math.inf
    budget.update(0, 0.0, 0.0)
    devices = {p.device for p in params.values() if p.is_cuda}
    with torch.random.fork_rng(devices, enabled=randomness == "different"):
        if randomness == "different":
            torch.manual_seed(seeds[0])
        while budget.progress < 1 and not state.all_ended():
            for group in solver.param_groups:
                group["lr"] = lr * (schedule or constant())(budget.progress)
            scalars, new_buffers = every(params, buffers, next(batches))
            loss, done = scalars["loss"], len(curves)
            if loss.device.type == "cpu" or done % CHECK_STEPS == 0:
                state.end(~loss.detach().isfinite(), done, diverged=True)
            grads = torch.autograd.grad(loss.sum(), list(training.values()), allow_unused=True)
            for p, grad in zip(training.values(), grads):
                p.grad = grad
            if clip is not None:
                clip_each_([p.grad for p in training.values() if p.grad is not None], clip)
            solver.step()
            buffers = state.keep(buffers, new_buffers)
            curves.append({name: value.detach() for name, value in scalars.items()})
            if stop is not None:
                state.end(stop(done + 1, curves[-1]), done + 1)
            now = time.perf_counter()
            budget.update(done + 1, (done + 1) / per_epoch if per_epoch else 0.0, now - began)
            if log is not None and (now - logged > LOG_SECONDS or budget.progress >= 1):
                logged = now
                means = {name: float(value.float().nanmean()) for name, value in curves[-1].items()}
                log(done + 1, round((done + 1) / budget.progress), **means)
    return Many(
        {name: p.detach() for name, p in params.items()}, buffers, state.curves(curves), state.steps(len(curves)),
        state.diverged, time.perf_counter() - began, models[0],
    )  # fmt: skip


def _alone(one: Callable[..., Any], dims: Any) -> Callable[..., Any]:
    """`vmap` for a single copy, without its cost: about half a step's time where operations are small."""

    def first(tree: Any, axes: Any) -> Any:
        if isinstance(tree, Mapping):
            return {key: first(x, axes if axes is None or axes == 0 else axes[key]) for key, x in tree.items()}
        if isinstance(tree, tuple | list):
            return tuple(first(x, axes if axes is None or axes == 0 else axes[i]) for i, x in enumerate(tree))
        return tree if axes is None else tree[0]

    def every(params: Any, buffers: Any, batch: Any) -> Any:
        return tree_map(lambda x: x[None], one(first(params, 0), first(buffers, 0), first(batch, dims)))

    return every


class _Call(nn.Module):
    """Makes a module's methods reachable for `functional_call`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.net, method)(*args, **kwargs)


class _Copy:
    """One copy inside `vmap`: called as the module is, with the module's methods."""

    def __init__(self, call: _Call, params: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        self._call, self._state = call, {f"net.{k}": v for k, v in (params | buffers).items()}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self._call, self._state, ("__call__", *args), kwargs)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: functional_call(self._call, self._state, (name, *args), kwargs)


class _Ends:
    """Which copies have ended and when; their parameters are put back after every step of the others."""

    def __init__(self, copies: int, training: dict[str, Tensor]) -> None:
        self.training = training
        self.at = torch.full((copies,), -1)
        self.diverged = torch.zeros(copies, dtype=torch.bool)
        self.kept: dict[str, Tensor] = {}

    def all_ended(self) -> bool:
        return bool((self.at >= 0).all())

    def end(self, which: Tensor, step: int, diverged: bool = False) -> None:
        new = which.cpu() & (self.at < 0)
        if new.any():
            self.at[new] = step
            self.diverged |= new & diverged
            self.kept = {name: self.kept.get(name, p.detach().clone()) for name, p in self.training.items()}
            for name, p in self.training.items():
                self.kept[name][new.to(p.device)] = p.detach()[new.to(p.device)]

    @torch.no_grad()
    def keep(self, old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put ended copies' parameters back; the buffers, new ones only for copies that go on."""
        new = {name: tensor.detach() for name, tensor in new.items()}
        if not self.kept:
            return new
        ended = self.at >= 0
        for name, p in self.training.items():
            p[ended.to(p.device)] = self.kept[name][ended.to(p.device)]
        for name, tensor in new.items():
            tensor[ended.to(tensor.device)] = old[name][ended.to(tensor.device)]
        return new

    def steps(self, done: int) -> Tensor:
        return torch.where(self.at < 0, done, self.at)

    def curves(self, rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        names = list(rows[0]) if rows else []
        found = {name: torch.stack([row[name] for row in rows], 1).cpu() for name in names}
        after = torch.arange(len(rows)) >= self.steps(len(rows))[:, None]
        return {name: curve.masked_fill(after, math.nan) if curve.is_floating_point() else curve
                for name, curve in found.items()}  # fmt: skip


def _build(build: Callable[[int], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(seed)


def _frozen(name: str, freeze: Callable[[str], bool] | Collection[str] | None) -> bool:
    if freeze is None:
        return False
    if callable(freeze):
        return freeze(name)
    return any(name == part or name.startswith(part + ".") for part in freeze)


def _batches(
    data: Any, own: Collection[Any], copies: int, size: int | None, order: Sequence[torch.Generator],
    drop_last: bool = False,
) -> tuple[Iterator[Any], Any, int | None]:
    """Batches for all copies, `vmap`'s in_dims for them, and batches an epoch (None: there are no epochs)."""
    if callable(data) and not isinstance(data, Tensor):
        return (data(k, order) for k in _count()), 0, None
    parts = {None: data} if isinstance(data, Tensor) else dict(data if isinstance(data, Mapping) else enumerate(data))
    if unknown := set(own) - set(parts):
        raise ValueError(f"own names {sorted(map(str, unknown))}, which data does not hold")
    lengths = {key: x.shape[1 if key in own else 0] for key, x in parts.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"the data must be of equal length, got {lengths}")
    for key in own:
        if len(parts[key]) != copies:
            raise ValueError(f"{key!r} is each copy's own and must begin with {copies}, got {tuple(parts[key].shape)}")
    n = next(iter(lengths.values()))

    def like(values: dict[Any, Any]) -> Any:
        if isinstance(data, Tensor):
            return values[None]
        return values if isinstance(data, Mapping) else tuple(values.values())

    if size is None:
        return (data if isinstance(data, Tensor) else like(parts) for _ in _count()), \
            like({key: 0 if key in own else None for key in parts}), 1  # fmt: skip
    feeds = [index_batches(n, min(size, n), generator, drop_last) for generator in order]
    rows = torch.arange(copies)[:, None]

    def draw() -> Iterator[Any]:
        while True:
            for indices in zip(*feeds):
                i = torch.stack(indices)
                yield like({key: x[rows.to(x.device), i.to(x.device)] if key in own else x[i.to(x.device)]
                            for key, x in parts.items()})  # fmt: skip

    return draw(), like(dict.fromkeys(parts, 0)), len(feeds[0])


def _count() -> Iterator[int]:
    k = 0
    while True:
        yield k
        k += 1
