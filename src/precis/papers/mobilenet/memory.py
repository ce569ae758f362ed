"""Memory of an evaluation: the largest tensor that must exist whole, and the most that live at once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(fn: Callable[[], Any]) -> int:
    """The most bytes of tensors made inside `fn` that live at the same time.

    Storages are counted once, after every operation; weights and inputs, which were there before, are not, nor is what
    a kernel uses inside.  So it is the same on every machine.
    """
    with _Live() as live:
        fn()
    return live.peak


class _Live(TorchDispatchMode):
    """Watches the storages that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        self.alive = {key: kept for key, kept in self.alive.items() if not kept[0].expired()}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and (storage := t.untyped_storage())._cdata not in given:
                self.alive.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def largest_output(model: nn.Module, x: Tensor, modules: Sequence[nn.Module]) -> int:
    """Entries of the largest output of these `modules` of the model, for one picture."""
    sizes: list[int] = []
    hooks = [m.register_forward_hook(lambda _, __, out: sizes.append(out[0].numel())) for m in modules]
    try:
        with torch.no_grad():
            model.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)
