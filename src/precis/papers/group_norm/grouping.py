"""Permuting the channels of a net, and ordering them by how alike they are."""

import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from precis.nn.resnet import ResNet
from precis.vision.group_norm import GroupNorm


@torch.no_grad()
def permuted(net: ResNet, generator: torch.Generator, weights: bool = True) -> ResNet:
    """The same function with its channels in another order, and group norms whose groups follow them.

    Channel order[j] of a layer is channel j of the given net's; every weight before and after moves along.  With
    weights=False only the groups change: that is another function.
    """
    new = copy.deepcopy(net)
    draw = lambda n: torch.randperm(n, generator=generator)
    order = draw(new.stem[0].out_channels)
    _rows(new.stem[0], order, weights)
    new.stem[1] = _grouped(new.stem[1], order, weights)
    stages: Any = new.blocks
    for stage in stages:
        for block in stage:
            before, last = order, len(block.convs) - 1
            changes = not isinstance(block.shortcut, nn.Identity)
            after = draw(block.convs[-1].out_channels) if changes else order
            if changes:
                _columns(block.shortcut[0], before, weights)
                _rows(block.shortcut[0], after, weights)
                block.shortcut[1] = _grouped(block.shortcut[1], after, weights)
            for i, conv in enumerate(block.convs):
                out = after if i == last else draw(conv.out_channels)
                _columns(conv, before, weights)
                _rows(conv, out, weights)
                block.norms[i] = _grouped(block.norms[i], out, weights)
                before = out
            order = after
    _columns(new.head, order, weights)
    return new


def correlated_order(x: Float[Tensor, "n c"], groups: int) -> Int[Tensor, "c"]:
    """Channels in groups of equal size, each a channel and those left that vary most like it (|correlation|).

    Starts with the channel that is on the whole most like the others.
    """
    channels = x.shape[1]
    x = x - x.mean(0)
    x = x / x.norm(dim=0).clamp(min=1e-8)
    alike = (x.T @ x).abs()
    left = torch.ones(channels, dtype=torch.bool, device=x.device)
    order: list[int] = []
    for _ in range(groups):
        start = int(alike[:, left].sum(1).masked_fill(~left, -1).argmax())
        chosen = alike[start].masked_fill(~left, -1).topk(channels // groups).indices
        left[chosen] = False
        order += chosen.tolist()
    return torch.tensor(order)


@torch.no_grad()
def norm_inputs(net: nn.Module, x: Tensor, kind: type[nn.Module]) -> dict[str, Tensor]:
    """What each layer of this kind is given [N,C,H,W] when the net is evaluated on x."""
    found: dict[str, Tensor] = {}
    hooks: list[Any] = []
    for name, module in net.named_modules():
        if isinstance(module, kind):
            keep = lambda _, inputs, name=name: found.__setitem__(name, inputs[0])
            hooks.append(module.register_forward_pre_hook(keep))
    try:
        net.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _inverse(order: Tensor) -> Tensor:
    return order.argsort()


def _rows(layer: Any, order: Tensor, weights: bool) -> None:
    """Output channel order[j] becomes what output j was."""
    if weights:
        layer.weight.copy_(layer.weight[_inverse(order)])


def _columns(layer: Any, order: Tensor, weights: bool) -> None:
    if weights:
        layer.weight.copy_(layer.weight[:, _inverse(order)])


def _grouped(norm: Any, order: Tensor, weights: bool) -> GroupNorm:
    """A group norm whose groups are of the given net's channels, wherever they are now."""
    new = GroupNorm(norm.num_channels, norm.num_groups, eps=norm.eps, order=order).to(norm.weight)
    new.order = order.to(norm.weight.device)
    moved = _inverse(order) if weights else torch.arange(len(order))
    new.weight.copy_(norm.weight[moved])
    new.bias.copy_(norm.bias[moved])
    return new
