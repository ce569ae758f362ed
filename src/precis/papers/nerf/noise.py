"""Noise on raw densities while learning: the paper's remedy against haze in photographs of the real world."""

from typing import Any

import torch
from torch import Tensor, nn


class Noisy(nn.Module):
    """A network to whose raw densities N(0, std²) is added before they are made positive; std in their own units."""

    def __init__(self, field: Any, std: float, generator: torch.Generator) -> None:
        super().__init__()
        self.field, self.std, self.generator = field, std, generator

    def forward(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        drawn = torch.randn(x.shape[:-1], dtype=x.dtype, generator=self.generator, device=self.generator.device)
        found: Any = self.field(x, d, noise=self.std * drawn.to(x.device))
        return found[0], found[1]
