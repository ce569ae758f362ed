"""Running a part of a net a second time as if it were the first: for methods that compute activations again.

The second run must draw the same random numbers, see the same autocast, and not count its batch twice in running
statistics.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Autocast = tuple[tuple[str, bool, torch.dtype], ...]


def tracking(module: nn.Module) -> list[Any]:
    """The layers of a module that keep running statistics, or could: torch's batch and instance norms."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]


@contextmanager
def frozen(layers: Sequence[Any]) -> Iterator[None]:
    """These layers normalise as they do, but their running statistics and counts stay as they are."""
    moving = [m for m in layers if m.training and m.track_running_stats]
    before = [(vars(m), m._buffers, m.momentum, m.num_batches_tracked) for m in moving]
    try:
        for own, buffers, _, counted in before:  # set past `nn.Module.__setattr__`, which takes longer than the layer
            own["momentum"] = 0.0
            buffers["num_batches_tracked"] = None if counted is None else counted.clone()
        yield
    finally:
        for own, buffers, momentum, counted in reversed(before):
            own["momentum"], buffers["num_batches_tracked"] = momentum, counted


def frozen_statistics(module: nn.Module) -> AbstractContextManager[None]:
    """`frozen` for all layers of a module."""
    return frozen(tracking(module))


def random_state(device: torch.device) -> list[Tensor]:
    """States of the global generators that work on `device` draws from: the CPU's, and the GPU's if it is one."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextmanager
def random_from(states: Sequence[Tensor], device: torch.device) -> Iterator[None]:
    """Draw from these states (none: from where the generators are), and go on afterwards as if nothing was drawn."""
    if not states:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[1], device)
        yield


def autocast_state(device: torch.device) -> Autocast:
    """Whether, and to which type, operations are cast here: on the CPU and on `device`."""
    kinds = [k for k in dict.fromkeys(("cpu", device.type)) if torch.amp.is_autocast_available(k)]
    return tuple((k, torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in kinds)


@contextmanager
def autocast_as(state: Autocast) -> Iterator[None]:
    """The autocast of `state`, without its cache: weights cast under `no_grad` must not serve where gradients flow."""
    with ExitStack() as stack:
        for kind, enabled, dtype in state:
            if enabled or torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, dtype, enabled, cache_enabled=False))
        yield


def recomputed(module: nn.Module, *args: Any) -> Any:
    """`module(*args)`, of which only the arguments are kept; the rest is computed again for the backward pass.

    `torch.utils.checkpoint` with running statistics updated once.
    """
    return checkpoint(
        module, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), frozen_statistics(module))
    )
