"""Losses on derivatives of a sine net (width 256, 8,192 points in the plane): `jet` against one `autograd.grad` each.

`ratio` is plain over ours: above 1 is faster than what one would write otherwise.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from precis.lab.timing import interleaved
from precis.nn.derivatives import ELEMENTWISE, Jet, jet, jet_through

WIDTH, POINTS = 256, 8192


class SineNet(nn.Module):
    """Four sine layers and a linear one, with and without a jet of its own."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        sizes = [2, WIDTH, WIDTH, WIDTH, WIDTH, outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x).sin()
        return self.layers[-1](x)

    def jet(self, x: Tensor, order: int, laplacian_only: bool = False) -> Jet:
        """Value and derivatives through the layers."""
        chain: list[Any] = []
        for layer in self.layers:
            chain += [(layer.weight, layer.bias), ELEMENTWISE["sine"]]
        return jet_through(chain[:-1], x, order, laplacian_only)


def rows(repeats: int = 5) -> list[dict[str, Any]]:
    """Gradient losses of one and three outputs, and the Laplacian's, forward and backward."""
    x = 2 * torch.rand(POINTS, 2, generator=torch.Generator().manual_seed(0)) - 1
    found = []
    for what, outputs in (("gradient", 1), ("gradient", 3), ("laplacian", 1), ("laplacian", 3)):
        net = SineNet(outputs)
        order = 1 if what == "gradient" else 2

        def ours(net: SineNet = net, order: int = order) -> None:
            found = jet(net, x, order, laplacian_only=True)
            _descend(net, found.grad if order == 1 else found.lap)

        timing = interleaved({"plain": _plain(net, x, order), "jet": ours}, repeats, warmup=1)
        low, high = timing.interval
        found.append({
            "loss on": what, "outputs": outputs, "plain ms": 1e3 * timing.medians["plain"],
            "jet ms": 1e3 * timing.medians["jet"], "ratio": timing.ratio, "95 %": f"{low:.2f}…{high:.2f}",
            "threads": torch.get_num_threads(),
        })  # fmt: skip
    return found


def _plain(net: SineNet, x: Tensor, order: int) -> Callable[[], None]:
    def run() -> None:
        z = x.clone().requires_grad_()
        y = net(z)
        parts = []
        for k in range(y.shape[1]):
            (g,) = torch.autograd.grad(y[:, k].sum(), z, create_graph=True)
            if order == 2:
                g = sum(torch.autograd.grad(g[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(2))
            parts.append(g)
        _descend(net, torch.stack(parts))

    return run


def _descend(net: SineNet, derivative: Tensor | None) -> None:
    assert derivative is not None
    net.zero_grad()
    derivative.square().mean().backward()
