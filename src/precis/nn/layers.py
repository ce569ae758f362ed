"""Small parts that the backbones share: the first layer for pictures, and weights drawn from a generator."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x − mean)/std a channel, for uint8 (taken as x/255) or float [B,C,…]; the identity until `fit` has seen data.

    With one channel the two are of all values, whatever the shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @torch.no_grad()
    def fit(self, images: Tensor) -> "Standardise":
        """Take mean and deviation from `images` [N,C,…] (of at most 10,000 of them); a constant channel keeps std 1."""
        some = images[:: max(1, len(images) // 10_000)]
        channels = len(self.mean)
        axes = [d for d in range(some.ndim) if d != 1 or channels == 1]
        some = (some.double() / 255 if some.dtype == torch.uint8 else some.double()).cpu()
        std = some.std(axes, correction=0)
        self.mean.copy_(some.mean(axes))
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))
        return self

    def forward(self, x: Tensor) -> Tensor:
        if len(self.mean) not in (1, x.shape[1]):
            raise ValueError(f"{x.shape[1]} channels were given, {len(self.mean)} are wanted")
        if x.dtype == torch.uint8:
            x = x.to(self.mean.dtype) / 255
        shape = (-1, *[1] * (x.ndim - 2))
        return (x - self.mean.view(shape)) / self.std.view(shape)


def drawn_from(generator: torch.Generator | None):
    """A context in which layers may be made without moving the global generator, if another one is given."""
    return _undisturbed() if generator is not None else nullcontext()


@contextmanager
def _undisturbed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Convolutions He normal by fan-out, linear maps as torch makes them, all from `generator`; biases of the former 0.

    Without a generator: from torch's global one, as torch's layers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            if layer.bias is not None:
                layer.bias.uniform_(-bound, bound, generator=generator)
