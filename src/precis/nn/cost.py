"""What a model costs: parameters, multiply–accumulates, activation memory; and the width that meets a budget."""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


class Cost(NamedTuple):
    """`macs`: multiply–accumulates of convolutions and linear maps only, no factor 2.

    `peak_activation_bytes`: the largest input plus output of any single leaf module.
    """

    params: int
    params_without_norm: int
    macs: int
    peak_activation_bytes: int


def count(model: nn.Module, *inputs: Tensor) -> Cost:
    """Cost of one forward pass on inputs of these shapes, computed on the meta device: nothing is calculated."""
    ghost = copy.deepcopy(model).to("meta")
    macs, peak = 0, 0

    def measure(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal macs, peak
        tensors = [t for t in (*args, output) if isinstance(t, Tensor)]
        peak = max(peak, sum(t.numel() * t.element_size() for t in tensors))
        if isinstance(module, nn.modules.conv._ConvNd):
            kernel = math.prod(module.kernel_size)
            positions = args[0] if module.transposed else output
            channels = module.out_channels if module.transposed else module.in_channels
            macs += positions.numel() * kernel * channels // module.groups
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features

    hooks = [m.register_forward_hook(measure) for m in ghost.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            ghost(*(x.to("meta") for x in inputs))
    finally:
        for hook in hooks:
            hook.remove()
    params = _params(model)
    in_norms = sum(_params(m) for m in model.modules() if isinstance(m, NORMS))
    return Cost(params, params - in_norms, macs, peak)


def saved_bytes(fn: Callable[..., Any], *args: Any) -> int:
    """Bytes that autograd keeps for the backward of `fn(*args)`: each storage once, parameters left out."""
    seen: dict[int, int] = {}
    leaves: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        origin = tensor if tensor._base is None else tensor._base  # a linear layer saves its weight transposed
        if isinstance(origin, nn.Parameter) or (origin.is_leaf and origin.requires_grad):
            leaves.add(storage.data_ptr())
        seen[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = fn(*args)
    total = sum(size for pointer, size in seen.items() if pointer not in leaves)
    del result, alive
    return total


def match_width(
    build: Callable[[int], nn.Module], target: int, *, by: Literal["params", "macs"] = "params", within: float = 0.02,
    inputs: tuple[Tensor, ...] = (),
) -> int:
    """The width w whose `build(w)` costs nearest to `target`; `build` must grow with w.

    Raises ValueError if the nearest width misses the target by more than the share `within`.
    """

    def cost(width: int) -> int:
        model = build(width)
        return _params(model) if by == "params" else count(model, *inputs).macs

    low, high = 1, 2
    while cost(high) < target:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) < target else (low, middle)
    best = min((low, high), key=lambda width: abs(cost(width) - target))
    reached = cost(best)
    if abs(reached - target) > within * target:
        raise ValueError(f"the nearest width, {best}, has {reached} {by}, not within {within:.0%} of {target}")
    return best


def _params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
