"""Running a part of a net a second time as if it were the first: for methods that compute activations again.

The second run must draw the same random numbers, see the same autocast, and not count its batch twice in running
statistics.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Autocast = tuple[tuple[str, bool, torch.dtype], ...]


@contextmanager
def frozen_statistics(*modules: nn.Module) -> Iterator[None]:
    """Normalisation layers normalise as they do, but their running statistics and counts stay as they are."""
    tracking: list[Any] = [
        m for module in modules for m in module.modules() if m.training and getattr(m, "track_running_stats", False)
    ]
    before = [(m, m.momentum, m.num_batches_tracked) for m in tracking]
    try:
        for m, _, counted in before:
            m.momentum = 0.0
            m.num_batches_tracked = None if counted is None else counted.clone()
        yield
    finally:
        for m, momentum, counted in reversed(before):
            m.momentum, m.num_batches_tracked = momentum, counted


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
    kinds = dict.fromkeys(("cpu", device.type))
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
