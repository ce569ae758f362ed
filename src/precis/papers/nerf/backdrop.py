"""Learning before a backdrop of any colour, with a recipe that knows grey ones alone.

With the backdrop b subtracted from the field's colours and from the photographs', a pixel's error is as before b:

    Σ w (c − b) − (truth − b) = Σ w c + (1 − Σ w) b − truth
"""

from typing import Any

import torch
from torch import Tensor, nn

from precis.fields.nerf_fit import Photographs


class Against(nn.Module):
    """A field whose colours are told as differences from a backdrop [3]."""

    def __init__(self, field: nn.Module, backdrop: Tensor) -> None:
        super().__init__()
        self.field = field
        self.register_buffer("backdrop", backdrop, persistent=False)

    def forward(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        sigma, rgb = self.field(x, d)
        behind: Any = self.backdrop
        return sigma, rgb - behind


class Backed(Photographs):
    """Photographs whose colours are told as differences from a backdrop, which is there where they are clear."""

    backdrop: Tensor

    def some(self, rows: Any) -> "Backed":
        return backed(super().some(rows), self.backdrop)

    def colours(self, rows: Any, background: Any = 0.0) -> Tensor:
        """`background` must be 0: that is what the backdrop has become."""
        return super().colours(rows, self.backdrop) - self.backdrop


def backed(photos: Photographs, backdrop: Tensor) -> Backed:
    """The same pixels before a backdrop [3]."""
    made = Backed(*photos)
    made.backdrop = backdrop.to(torch.float32)
    return made
