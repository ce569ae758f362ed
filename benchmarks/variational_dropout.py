"""Sparse variational dropout: training steps of LeNet-300-100, batch 100, with torch's fused Adam.

Against the same net with dense layers; against the layers as one would write them down; and what the layers cannot do
without, against dense: two products for one, the noise, and Adam for twice the parameters.  `ratio` is theirs over
ours.

On one thread of a server CPU with AVX-512, where a dense step takes 3 to 4 ms, ours takes 4.6 to 5.0 of them, and the
layers by hand 8 to 9.5; the whole step through `torch.compile`, which fuses the passes, still 4.4 (processor time, on
a busy machine).  The aim was 2.4, of which two products, noise and Adam take 2.0 to 2.1.  That leaves 0.4 of a
dense step for the 266,200 weights' means, variances and divergences and their gradients: some thirty elementwise passes
over them, with three logarithms, two exponentials and two sigmoids.  Run by themselves these passes take
0.75 of a dense step forward and 1.15 backward (processor time, on a busy machine), 0.015 to 0.05 each.  With products,
noise and Adam that makes 3.7; the rest of the whole was not found in any part, and is probably what passes and products
wait for memory after one another.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._measured import versus
from precis.nn.backbones import backbone
from precis.sparsity.variational_dropout import bound, variationalize

BATCH, N = 100, 60_000


class Bare(nn.Module):
    """What no sparse variational layer can do without: two products, the noise, and twice the parameters."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(0.01 * torch.randn(d_out, d_in))
        self.variance = nn.Parameter(torch.full((d_out, d_in), 1e-4))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, x: Tensor) -> Tensor:
        mean = F.linear(x, self.theta, self.bias)
        return torch.addcmul(mean, (F.linear(x.square(), self.variance) + 1e-8).sqrt(), torch.randn_like(mean))


class ByHand(nn.Module):
    """A sparse variational layer written down line by line."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(0.01 * torch.randn(d_out, d_in))
        self.log_sigma2 = nn.Parameter(torch.full((d_out, d_in), -10.0))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, x: Tensor) -> Tensor:
        log_alpha = (self.log_sigma2 - torch.log(self.theta**2 + 1e-8)).clamp(-8, 8)
        kept = self.theta * (log_alpha < 3).to(x.dtype)
        mean = F.linear(x, kept, self.bias)
        deviation = torch.sqrt(F.linear(x**2, torch.exp(log_alpha) * self.theta**2) + 1e-8)
        return mean + deviation * torch.randn_like(mean)

    def kl(self) -> Tensor:
        log_alpha = (self.log_sigma2 - torch.log(self.theta**2 + 1e-8)).clamp(-8, 8)
        minus = 0.63576 * torch.sigmoid(1.87320 + 1.48695 * log_alpha) - 0.5 * torch.log1p(torch.exp(-log_alpha))
        return -(minus - 0.63576).sum()


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; milliseconds of ten steps, medians of interleaved repetitions."""
    x, y = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    dense = backbone("lenet300", (1, 28, 28), 10)
    ours = variationalize(backbone("lenet300", (1, 28, 28), 10))
    bare, hand = _stack(Bare), _stack(ByHand)
    timed = {
        "dense": _step(dense, lambda: F.cross_entropy(dense(x), y)),
        "bare": _step(bare, lambda: F.cross_entropy(bare(x), y)),
        "by hand": _step(hand, lambda: F.cross_entropy(hand(x), y) + sum(hand[i].kl() for i in (1, 3, 5)) / N),
        "ours": _step(ours, lambda: bound(ours(x), y, ours, n_train=N).loss),
    }
    return [
        versus("against dense", timed["ours"], timed["dense"], repeats),
        versus("against by hand", timed["ours"], timed["by hand"], repeats),
        versus("two products, noise and Adam alone, against dense", timed["bare"], timed["dense"], repeats),
    ]


def _stack(layer: Callable[[int, int], Any]) -> Any:
    """LeNet-300-100 of such layers."""
    first, second, last = (layer(a, b) for a, b in zip((784, 300, 100), (300, 100, 10)))
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), last)


def _step(net: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    solver = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def ten() -> None:
        for _ in range(10):
            solver.zero_grad()
            loss().backward()
            solver.step()

    return ten
