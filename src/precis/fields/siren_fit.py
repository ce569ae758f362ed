"""Recipes that fit a coordinate network to sampled values and derivatives: pictures, sound, video, Poisson problems.

A recipe trains the net that it is given, in place, with Adam, and returns the `Run` of `precis.train.loop`.  A stack of
M nets trains in one pass; its "loss" is the sum over copies, "loss/m" that of copy m, which is what it would be alone.
Arrays become coordinates and values by `to_values`, and a net becomes an array on any grid by `evaluate`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.siren import Siren
from precis.fields.siren_fused import FusedMSE
from precis.fields.siren_losses import gradient_loss, laplacian_loss, value_loss
from precis.nn.coordinates import coordinate_grid
from precis.train.loop import Budget, Run, fit, index_batches
from precis.train.optim import ManyAdam, clip_each_
from precis.train.schedule import Schedule

Number = float | int
Draw = torch.Generator | Sequence[torch.Generator] | None


class Options(TypedDict, total=False):
    """What every recipe takes beside its own arguments; see `precis.train.loop.fit`.

    lr: Adam's rate, or one a copy of a stack [M].  measure(net) -> scalars for the curves, called every `every` steps,
    before the step.
    """

    steps: int | None
    minutes: Number | None
    lr: Number | Tensor
    schedule: Schedule | None
    clip: Number | None
    measure: Callable[[Any], dict[str, float]] | None
    every: int
    log: Callable[..., None] | None
    folder: str | Path | None
    resume: bool


def fit_values(
    net: Any, coords: Float[Tensor, "n d"], values: Float[Tensor, "*copies n o"], *, batch: int | None = None,
    generator: Draw = None, weight: Float[Tensor, "n 1"] | None = None,
    jitter: "Callable[[Tensor, torch.Generator | None], Tensor] | None" = None, **options: Any,
) -> Run:  # fmt: skip
    """Fit Φ(coords) = values by least squares; values [N,o], or [M,N,o] for a stack whose copies have their own.

    batch: rows a step, reshuffled by `generator` for each epoch (None: all rows).  One generator a copy gives every
    copy an order of its own.  weight: of each row (0: left out).  jitter(coords, generator): moves the coordinates of
    each step, see `pixel_jitter`.
    """
    mse = FusedMSE(net)
    _check_rows(coords, values)
    shared = generator if isinstance(generator, torch.Generator) else None
    if jitter is not None and shared is None:
        raise ValueError("jitter needs one generator")

    def step(rows: Tensor | None) -> dict[str, Tensor]:
        x, y, w = _take(coords, rows), _take_values(values, rows), None if weight is None else _take(weight, rows)
        return losses(mse(x if jitter is None else jitter(x, shared), y, w))

    keep = {} if jitter is None else {"generator": shared}
    return train(net, step, row_batches(len(coords), batch, generator), keep=keep, **options)


def fit_derivatives(
    net: Any, coords: Float[Tensor, "n d"], *, values: Float[Tensor, "*v n o"] | None = None,
    gradients: Float[Tensor, "*g n o d"] | None = None, laplacians: Float[Tensor, "*l n o"] | None = None,
    weights: tuple[Number, Number, Number] = (1.0, 1.0, 1.0), batch: int | None = None, generator: Draw = None,
    **options: Any,
) -> Run:  # fmt: skip
    """Fit values, gradients and Laplacians (those that are given) together.

        weights_0 mean(Φ − y)² + weights_1 mean‖∇Φ − g‖²/mean‖g‖² + weights_2 mean(ΔΦ − l)²/mean l²

    Targets are in units of the coordinates; `precis.fields.poisson` has an array's.
    """
    given = [target for target in (values, gradients, laplacians) if target is not None]
    if not given:
        raise ValueError("fit_derivatives needs values, gradients or laplacians")
    if gradients is None and laplacians is None:
        return fit_values(net, coords, given[0], batch=batch, generator=generator, **options)
    _check_rows(coords, *[target if target is not gradients else target[..., 0] for target in given])
    g_scale = 1.0 if gradients is None else _scale(gradients.square().sum(-1))
    l_scale = 1.0 if laplacians is None else _scale(laplacians.square())

    def step(rows: Tensor | None) -> dict[str, Tensor]:
        jet = net.jet(_take(coords, rows), 1 if laplacians is None else 2, laplacian_only=laplacians is not None)
        total: Any = 0.0
        if values is not None:
            total = total + weights[0] * value_loss(jet.value, _take_values(values, rows))
        if gradients is not None:
            total = total + weights[1] * gradient_loss(jet.grad, _take_values(gradients, rows, -3), g_scale)
        if laplacians is not None:
            total = total + weights[2] * laplacian_loss(jet.lap, _take_values(laplacians, rows), l_scale)
        return losses(total)

    return train(net, step, row_batches(len(coords), batch, generator), **options)


def fit_poisson(
    net: Any, coords: Float[Tensor, "n d"], target: Float[Tensor, "..."],
    kind: Literal["gradient", "laplacian"] = "gradient", **options: Any,
) -> Run:  # fmt: skip
    """Fit ∇Φ = target [N,o,d] or ΔΦ = target [N,o] alone; the values follow up to a constant, or a harmonic function.

    Align before comparing: `precis.fields.poisson.align_mean`, `align_gain_offset`.
    """
    if kind == "gradient":
        return fit_derivatives(net, coords, gradients=target, **options)
    return fit_derivatives(net, coords, laplacians=target, **options)


class FittedImage(NamedTuple):
    """A net fitted to a picture, and how it went."""

    net: nn.Module
    run: Run


def fit_image(
    image: Float[Tensor, "c h w"], net: nn.Module | None = None, *, batch: int | None = 4096,
    align_corners: bool = False, generator: torch.Generator | None = None, width: int = 256, **options: Any,
) -> FittedImage:  # fmt: skip
    """Fit a net (default: a SIREN of this width) to a picture in [0, 1]; `evaluate_image` draws it, of any size."""
    coords, values = to_values(image, align_corners=align_corners)
    if net is None:
        net = Siren(2, len(image), width, generator=generator).to(image)
    return FittedImage(net, fit_values(net, coords, values, batch=batch, generator=generator, **options))


def to_values(
    array: Float[Tensor, "c *shape"], *, align_corners: bool = False, span: tuple[Number, Number] = (-1.0, 1.0)
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n c"]]:
    """Coordinates [N,d] and values [N,C] of an array in [0, 1] with channels first; values are scaled to [−1, 1]."""
    grid = coordinate_grid(
        array.shape[1:], align_corners=align_corners, span=span, device=array.device, dtype=array.dtype
    )
    return grid, array.flatten(1).T.contiguous() * 2 - 1


@torch.no_grad()
def evaluate(
    net: nn.Module, shape: Sequence[int], *, align_corners: bool = False, span: tuple[Number, Number] = (-1.0, 1.0),
    average: int = 1, rows: int = 1 << 16,
) -> Float[Tensor, "..."]:  # fmt: skip
    """The net's outputs [C,*shape] ([M,C,*shape] for a stack) on a grid of this shape, whatever it was fitted on.

    average: k > 1 takes the mean of k samples along each axis over every cell (a box filter), for grids coarser than
    the fitted one.  rows: evaluated at once.
    """
    like = next(net.parameters())
    if average > 1 and align_corners:
        raise ValueError("averages are over cells: they need align_corners=False")
    fine = [n * average for n in shape]
    grid = coordinate_grid(fine, align_corners=align_corners, span=span, device=like.device, dtype=like.dtype)
    out = torch.cat([net(part) for part in grid.split(rows)], -2).mT
    out = out.unflatten(-1, tuple(fine))
    if average > 1:
        lead = out.ndim - len(fine)
        cells = out.reshape(*out.shape[:lead], *[k for n in shape for k in (n, average)])
        out = cells.mean([lead + 1 + 2 * i for i in range(len(fine))])
    return out


def evaluate_image(net: nn.Module, shape: Sequence[int], **options: Any) -> Float[Tensor, "..."]:
    """`evaluate`, from [−1, 1] back to [0, 1]; not clipped."""
    return (evaluate(net, shape, **options) + 1) / 2


def pixel_jitter(
    shape: Sequence[int], kernel: Literal["bilinear", "box"] = "bilinear"
) -> Callable[[Tensor, torch.Generator | None], Tensor]:
    """A `jitter` for `fit_values`: moves each coordinate at random within its pixel of an array of this shape.

    The fitted function then has the array's values as averages over pixels, not at their centres; wanted when a picture
    is to be scaled down.  "bilinear": triangular density (as the released code), "box": uniform, both ± half a pixel.
    """
    half = torch.tensor([1.0 / n for n in shape])

    def jitter(x: Tensor, generator: torch.Generator | None) -> Tensor:
        def uniform() -> Tensor:
            device = x.device if generator is None else generator.device
            return torch.rand(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)

        move = uniform() + uniform() - 1 if kernel == "bilinear" else 2 * uniform() - 1
        return x + move * half.to(x)

    return jitter


def train(
    net: nn.Module, step: Callable[[Any], dict[str, Any]], batches: Iterable[Any], *, steps: int | None = 1000,
    minutes: Number | None = None, lr: Number | Tensor = 1e-4, schedule: Schedule | None = None,
    clip: Number | None = None, measure: Callable[[Any], dict[str, float]] | None = None, every: int = 25,
    keep: dict[str, Any] | None = None, budget: Budget | None = None, log: Callable[..., None] | None = None,
    folder: str | Path | None = None, resume: bool = False,
) -> Run:  # fmt: skip
    """`precis.train.loop.fit` with the optimiser and the options of all recipes."""
    count = _Count()

    def measured(batch: Any) -> dict[str, Any]:
        out = step(batch)
        if measure is not None and count.done % every == 0:
            with torch.no_grad():
                out |= measure(net)
        count.done += 1
        return out

    budget = Budget(steps=steps, minutes=minutes) if budget is None else budget
    optimizer = adam(net, lr)
    if clip is not None and getattr(net, "copies", None) is not None:  # each copy by its own norm
        norm, clip = clip, None

        def clip_copies(*_: Any) -> None:
            clip_each_([p.grad for p in net.parameters() if p.grad is not None], norm)

        optimizer.register_step_pre_hook(clip_copies)
    return fit(
        measured, batches, budget=budget, optimizer=optimizer, schedule=schedule, clip=clip, log=log, folder=folder,
        resume=resume, keep={"net": net, "count": count, **(keep or {})},
    )  # fmt: skip


class _Count:
    """Steps done, which a resumed run must know to measure at the same steps."""

    def __init__(self) -> None:
        self.done = 0

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]


def adam(net: nn.Module, lr: Number | Tensor) -> torch.optim.Optimizer:
    """Adam with one rate, or for a stack one a copy [M]."""
    if isinstance(lr, Tensor) and lr.ndim:
        return ManyAdam(list(net.parameters()), lr)
    return torch.optim.Adam(net.parameters(), lr=float(lr), fused=True)


def losses(loss: Float[Tensor, "*copies"]) -> dict[str, Tensor]:
    """A recipe's scalars: the loss, and of a stack also that of each copy."""
    if loss.ndim == 0:
        return {"loss": loss}
    return {"loss": loss.sum(), **{f"loss/{m}": one for m, one in enumerate(loss.detach().unbind())}}


def row_batches(n: int, batch: int | None, generator: Draw) -> Iterable[Any]:
    """Row indices [B], or [M,B] for one generator a copy; `WHOLE` for all rows."""
    if batch is None or batch >= n:
        return WHOLE
    if generator is None:
        raise ValueError("batches of fewer rows than there are need a generator")
    if isinstance(generator, torch.Generator):
        return index_batches(n, batch, generator, drop_last=True)
    return _CopyBatches([index_batches(n, batch, one, drop_last=True) for one in generator])


class _Whole:
    """Every batch is `None`, "all that there is": nothing is drawn, and a resumed run has no place to find."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[None]:
        yield None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


WHOLE = _Whole()


class _CopyBatches:
    """One order a copy, side by side."""

    def __init__(self, copies: list[Any]) -> None:
        self.copies = copies

    def __len__(self) -> int:
        return len(self.copies[0])

    def __iter__(self) -> Iterator[Tensor]:
        for rows in zip(*self.copies):
            yield torch.stack(rows)

    def state_dict(self) -> dict[str, Any]:
        return {str(m): copy.state_dict() for m, copy in enumerate(self.copies)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for m, copy in enumerate(self.copies):
            copy.load_state_dict(state[str(m)])


def _take(x: Tensor, rows: Tensor | None) -> Tensor:
    return x if rows is None else x[rows.to(x.device)]


def _take_values(x: Tensor, rows: Tensor | None, axis: int = -2) -> Tensor:
    """Rows of [N,…] or [M,N,…], rows [B] or [M,B]; N is at `axis`."""
    if rows is None:
        return x
    rows = rows.to(x.device)
    if x.ndim == -axis:
        return x[rows]
    if rows.ndim == 1:
        return x[:, rows]
    return x[torch.arange(len(x), device=x.device)[:, None], rows]


def _scale(square: Tensor) -> Tensor:
    """Mean of [*,N,o] over the last two; 1 where it is 0 (a flat picture)."""
    mean = square.mean((-2, -1))
    return torch.where(mean > 0, mean, 1.0)


def _check_rows(coords: Tensor, *targets: Tensor) -> None:
    for target in targets:
        if target.shape[-2] != len(coords):
            raise ValueError(f"{len(coords)} coordinates need as many targets, got {target.shape[-2]}")
