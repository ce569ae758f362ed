"""Which weights of a network live: masks beside the parameters, and training that keeps the others at zero.

    θ ← m ⊙ θ,   m ∈ {0,1},   density = Σm / n over the prunable weights,   compression = 1/density

A mask is a Boolean tensor under its parameter's name; the module stays as it is, with its own names and no extra
copies of its weights.  Nothing here depends on how the masks were found: by magnitude (Han, Pool, Tran, Dally, NeurIPS
2015), by variational dropout, or at random.  With `stacked`, parameters and masks have a leading axis of M copies
(`precis.nn.stacked`, `torch.func.stack_module_state`), each of which is a network of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

Masks = dict[str, Tensor]  # bool, in the shape of the parameter of that name
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
PACKED = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # of nn.MultiheadAttention


class LayerSparsity(NamedTuple):
    """How much of one weight tensor is left."""

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int


def prunable(
    model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = (),
    kinds: tuple[type[nn.Module], ...] = KINDS,
) -> dict[str, nn.Parameter]:  # fmt: skip
    """The weights of linear and convolutional layers by name: no biases, norms or embeddings.

    A weight that several layers share is named once, by its first name, and not at all if an embedding shares it.
    The packed projection of `nn.MultiheadAttention` counts where linear layers do.  `include`, `exclude`: patterns
    with * and ? for names ("head.*", "blocks.0.*", "*.in_proj_weight"); without `include` every name is in.
    """
    found: dict[str, nn.Parameter] = {}
    taken = {_place(p) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) for p in [m.weight]}
    for path, module in model.named_modules():
        names: tuple[str, ...] = ()
        if isinstance(module, kinds):
            names = ("weight",)
        elif isinstance(module, nn.MultiheadAttention) and nn.Linear in kinds:
            names = PACKED
        for leaf in names:
            weight, name = getattr(module, leaf), f"{path}.{leaf}".lstrip(".")
            if not isinstance(weight, nn.Parameter) or _place(weight) in taken:
                continue
            if include and not _matches(name, include) or _matches(name, exclude):
                continue
            taken.add(_place(weight))
            found[name] = weight
    return found


@torch.no_grad()
def magnitude_masks(
    params: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None, *, density: float | int,
    scope: Literal["global", "layer"] = "global", stacked: bool = False,
) -> Masks:  # fmt: skip
    """Keep exactly round(density · n) weights: those of the largest |θ| among the ones that `masks` leaves alive.

    n counts all prunable weights, dead ones too: of the whole set ("global") or of each tensor ("layer").  Of equal
    magnitudes the one that comes first is kept.  `masks` None: all are alive.

    Raises ValueError for a density outside [0, 1], more weights than are alive, or a weight that is not a number.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density must lie in [0, 1], got {density:g}")
    groups = [list(params)] if scope == "global" else [[name] for name in params]
    kept: Masks = {}
    for names in groups:
        scores = []
        for name in names:
            score = params[name].detach().abs()
            if bool(score.isnan().any()):
                raise ValueError(f"{name} holds a weight that is not a number")
            if masks is not None:
                score = score.masked_fill(~masks[name], -1.0)
            scores.append(score.flatten(1) if stacked else score.flatten()[None])
        chosen = _largest(torch.cat(scores, 1), density)
        parts = chosen.split([score.shape[1] for score in scores], 1)
        kept |= {name: part.reshape(params[name].shape) for name, part in zip(names, parts)}
    return kept


def _largest(scores: Float[Tensor, "m n"], density: float | int) -> Bool[Tensor, "m n"]:
    """The round(density · n) largest of each row; −1 marks what may not be chosen, ties go to the lower index."""
    n = scores.shape[1]
    keep = round(density * n)
    if int((scores >= 0).sum(1).min()) < keep:
        raise ValueError(f"a density of {density:g} keeps {keep} of {n} weights, but fewer are alive")
    if keep in (0, n):
        return torch.full_like(scores, keep == n, dtype=torch.bool)
    threshold = scores.kthvalue(n - keep + 1, 1, keepdim=True).values
    above, tied = scores > threshold, scores == threshold
    rank: Int64[Tensor, "m n"] = tied.cumsum(1)
    return above | (tied & (rank <= keep - above.sum(1, keepdim=True)))


def geometric(target: float | int, *, rate: float = 0.2, rounds: int | None = None) -> list[float]:
    """Densities of rounds that each remove `rate` of what remains, 0.8, 0.64, 0.512 …, and end at `target`.

    `rounds`: so many rounds of one ratio instead.
    """
    _check_target(target)
    if rounds is not None:
        return [float(target) ** (k / rounds) for k in range(1, rounds)] + [float(target)]
    found: list[float] = []
    while (density := (1 - rate) ** (len(found) + 1)) > target * (1 + 1e-9):
        found.append(density)
    return [*found, float(target)]


def linear(target: float | int, *, rate: float = 0.1, rounds: int | None = None) -> list[float]:
    """Densities of rounds that each remove `rate` of the original weights, 0.9, 0.8, 0.7 …, and end at `target`.

    `rounds`: so many rounds of one size instead.
    """
    _check_target(target)
    step = rate if rounds is None else (1 - target) / rounds
    count = round((1 - target) / step + 0.4999)
    return [1 - step * k for k in range(1, count) if 1 - step * k > target + 1e-9] + [float(target)]


def n_of_m_masks(
    params: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None, *, n: int = 2, m: int = 4
) -> Masks:
    """Keep the n largest of every m neighbours along the input axis, the pattern that recent GPUs compute fast (2:4).

    Within `masks`, if given.  A tensor whose inputs are no multiple of m keeps the mask that it has.
    """
    if not 0 < n <= m:
        raise ValueError(f"n of m wants 0 < n <= m, got {n} of {m}")
    kept: Masks = {}
    for name, weight in params.items():
        before = torch.ones_like(weight, dtype=torch.bool) if masks is None else masks[name]
        if weight[0].numel() % m:
            kept[name] = before
            continue
        scores = weight.detach().abs().masked_fill(~before, -1.0).reshape(-1, m)
        kept[name] = _largest(scores + 2.0, n / m).view(weight.shape) & before
    return kept


def permuted_masks(masks: Mapping[str, Tensor], generator: torch.Generator | None = None) -> Masks:
    """As many weights in every tensor, elsewhere: each mask in a random order."""
    found = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        found[name] = mask.flatten()[order].view(mask.shape)
    return found


def layer_sparsity(masks: Mapping[str, Tensor]) -> list[LayerSparsity]:
    """Name, shape, surviving and all weights of every tensor."""
    return [LayerSparsity(name, tuple(m.shape), int(m.sum()), m.numel()) for name, m in masks.items()]


def density_of(masks: Mapping[str, Tensor]) -> float:
    """Share of weights that live."""
    return sum(int(m.sum()) for m in masks.values()) / max(1, sum(m.numel() for m in masks.values()))


@torch.no_grad()
def apply_masks_(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Set dead weights to exactly 0.0, in place.  ValueError for a name or a shape that does not fit."""
    for parameter, dead in _dead(model, masks).values():
        parameter.masked_fill_(dead, 0.0)
    return model


class MaskedTraining:
    """While it is entered, whatever trains the module leaves its dead weights at exactly 0.0.

        with MaskedTraining(model, masks):
            fit_classifier(model, data, …)

    On entry the weights are masked; then gradients of dead entries are cleared as soon as they are accumulated, and
    after every step of any optimiser that holds the weights, they and the optimiser's tensors of their shape (momentum,
    Adam's moments) are masked again, so that weight decay, carried momentum or a weight average revive nothing.  All
    names of a shared weight are served.  The module gets no new parameter, no new name and no hook that stays.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        self.model, self.masks = model, masks
        self._handles: list[Any] = []
        self._of: dict[int, tuple[nn.Parameter, Tensor]] = {}

    def __enter__(self) -> "MaskedTraining":
        apply_masks_(self.model, self.masks)
        self._of = _dead(self.model, self.masks)
        for parameter, dead in self._of.values():
            if parameter.requires_grad:
                self._handles.append(parameter.register_post_accumulate_grad_hook(_clearing(dead)))
        self._handles.append(register_optimizer_step_post_hook(self._after_step))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._of.clear()

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in self._of:
                    continue
                dead = self._of[id(parameter)][1]
                parameter.masked_fill_(dead, 0.0)
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.masked_fill_(dead, 0.0)


def _clearing(dead: Tensor) -> Any:
    def clear(parameter: Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.masked_fill_(dead, 0.0)

    return clear


def _dead(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[int, tuple[nn.Parameter, Tensor]]:
    """By id: every parameter that a mask acts on, under whatever name, and where it is to be 0."""
    named = dict(model.named_parameters(remove_duplicate=False))
    found: dict[int, tuple[nn.Parameter, Tensor]] = {}
    for name, mask in masks.items():
        if name not in named:
            raise ValueError(f"there is a mask for {name}, but no such parameter")
        if named[name].shape != mask.shape or mask.dtype != torch.bool:
            shapes = f"{mask.dtype} {tuple(mask.shape)} for a parameter {tuple(named[name].shape)}"
            raise ValueError(f"the mask of {name} is {shapes}; bool of the same shape is wanted")
        place, dead = _place(named[name]), ~mask.to(named[name].device)
        for parameter in named.values():
            if _place(parameter) == place and parameter.shape == mask.shape:
                found[id(parameter)] = parameter, dead
    return found


def _place(parameter: Tensor) -> Any:
    """What two parameters have in common that are one tensor in memory."""
    return (parameter.device, parameter.data_ptr()) if parameter.numel() else id(parameter)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, p) or fnmatchcase(name.rpartition(".")[0], p) for p in patterns)


def _check_target(target: float | int) -> None:
    if not 0 < target < 1:
        raise ValueError(f"rounds of pruning end at a density between 0 and 1, got {target:g}")
