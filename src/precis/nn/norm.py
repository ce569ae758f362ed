"""Normalisation layers by name, and what can be done to batch norm afterwards: fold it, or measure its statistics anew.

The layers are torch's own; the four normalisations as equations are in `precis.vision.group_norm`.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import jaxtyping
import torch
import torch.fx
from torch import Tensor, nn

from precis.nn.layers import Standardise

BatchNorm = nn.modules.batchnorm._BatchNorm
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def pick_groups(channels: int, groups: int = 32) -> int:
    """The largest divisor of `channels` that is at most `groups`: 32 of 64, but 24 of 48."""
    if channels < 1 or groups < 1:
        raise ValueError(f"channels and groups must be at least 1, got {channels} and {groups}")
    return next(g for g in range(min(channels, groups), 0, -1) if channels % g == 0)


def make_norm(
    kind: str, channels: int, *, groups: int = 32, channels_per_group: int | None = None, zero_init: bool = False,
    **bn: Any,
) -> nn.Module:  # fmt: skip
    """A layer for maps [B,C,H,W] with a gain and an offset a channel: "batch", "group", "layer", "instance", "none".

    group: `pick_groups(channels, groups)` groups, or of `channels_per_group` channels (then `pick_groups` of their
    number).  layer: over channels and positions of a sample, one group.  none: the identity.
    zero_init: the gain starts at 0, so that a residual branch that ends with it begins as the identity.
    bn: options of `nn.BatchNorm2d` (eps, momentum, …), ignored by the others except `eps`.
    """
    eps = {"eps": bn["eps"]} if "eps" in bn else {}
    if kind == "batch":
        norm: nn.Module = nn.BatchNorm2d(channels, **bn)
    elif kind == "group":
        wanted = groups if channels_per_group is None else max(channels // channels_per_group, 1)
        norm = nn.GroupNorm(pick_groups(channels, wanted), channels, **eps)
    elif kind == "layer":
        norm = nn.GroupNorm(1, channels, **eps)
    elif kind == "instance":
        norm = nn.InstanceNorm2d(channels, affine=True, **eps)
    elif kind == "none":
        return nn.Identity()
    else:
        raise ValueError(f"no normalisation is called {kind!r}: batch, group, layer, instance, none")
    if zero_init:
        assert isinstance(norm.weight, Tensor)
        nn.init.zeros_(norm.weight)
    return norm


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with each batch norm that follows a convolution or linear layer folded into it.

        w ← w · γ/√(σ²+ε),   b ← (b − μ) · γ/√(σ²+ε) + β

    Exact in evaluation mode.  "Follows" is read from the traced graph (`torch.fx`), so that a batch norm whose input is
    used elsewhere, or does not come from such a layer, stays as it is; modules that fx cannot trace go by their order
    inside `nn.Sequential`.
    """
    folded = copy.deepcopy(model).eval()
    modules = dict(folded.named_modules(remove_duplicate=False))
    for before, after in _pairs(folded, modules):
        layer, norm = modules[before], modules[after]
        if norm.running_mean is None:
            continue
        fuse: Any = nn.utils.fusion.fuse_conv_bn_eval
        if isinstance(layer, nn.Linear):
            fuse = nn.utils.fusion.fuse_linear_bn_eval
        _replace(folded, before, fuse(layer, norm))
        _replace(folded, after, nn.Identity())
    return folded


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Set the statistics of every batch norm, in place, to exact means over `batches` under the present weights.

    The mean is that of all values; the variance is the unbiased one of all values, not the average of batches'.  One
    pass: deeper layers see inputs normalised by batch statistics, as in training.  Returns the model, whose modes are
    as before.  A batch is a tensor, or a tuple whose first entry is one.
    """
    norms = {m for m in model.modules() if isinstance(m, BatchNorm) and m.running_mean is not None}
    modes = {m: m.training for m in model.modules()}
    rates = {m: m.momentum for m in norms}
    sums: dict[nn.Module, list[Tensor]] = {}

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach()
        wide = x.double() if x.device.type != "mps" else x.float()
        axes = [d for d in range(x.ndim) if d != 1]
        n = torch.tensor(x.numel() / x.shape[1], dtype=wide.dtype, device=x.device)
        mean = wide.mean(axes)
        spread = (wide - mean.view(-1, *[1] * (x.ndim - 2))).square().sum(axes)
        if module in sums:  # pairwise update of Chan, Golub and LeVeque
            m, m_mean, m_spread = sums[module]
            delta, total = mean - m_mean, m + n
            n, mean, spread = total, m_mean + delta * n / total, m_spread + spread + delta.square() * m * n / total
        sums[module] = [n, mean, spread]

    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = 0.0  # what is measured is set below
        for batch in batches:
            model(batch[0] if isinstance(batch, tuple | list) else batch)
        if not sums and norms:
            raise ValueError("recalibrate needs at least one batch")
        for measured, (n, mean, spread) in sums.items():
            assert isinstance(measured.running_mean, Tensor) and isinstance(measured.running_var, Tensor)
            measured.running_mean.copy_(mean)
            measured.running_var.copy_(spread / (n - 1).clamp(min=1))
    finally:
        for hook in hooks:
            hook.remove()
        for norm, rate in rates.items():
            norm.momentum = rate
        for part, mode in modes.items():
            part.training = mode
    return model


def _pairs(model: nn.Module, modules: dict[str, nn.Module]) -> list[tuple[str, str]]:
    """Names (layer, batch norm) of which the second alone reads the first's output."""
    kinds = (*CONVOLUTIONS, nn.Linear)
    try:
        with _shapes_unchecked():
            graph = _Tracer().trace(model)
    except Exception:  # control flow that depends on data, and the like
        found = []
        for path, module in modules.items():
            if isinstance(module, nn.Sequential):
                names = [f"{path}.{name}".lstrip(".") for name in module._modules]
                found += [(a, b) for a, b in zip(names, names[1:])
                          if isinstance(modules[a], kinds) and isinstance(modules[b], BatchNorm)]  # fmt: skip
        return found
    calls: dict[Any, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    pairs = []
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], BatchNorm):
            continue
        source = node.args[0] if node.args else None
        if not isinstance(source, torch.fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        if isinstance(modules[str(source.target)], kinds) and calls[node.target] == calls[source.target] == 1:
            pairs.append((str(source.target), str(node.target)))
    return pairs


class _Tracer(torch.fx.Tracer):
    """Takes the layers that look at a tensor's type as they are, too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Standardise) or super().is_leaf_module(m, module_qualified_name)


@contextmanager
def _shapes_unchecked() -> Iterator[None]:
    """Symbols have no shapes, so annotations cannot be checked against them (where they are checked: in tests)."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _replace(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
