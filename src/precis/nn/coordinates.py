"""Coordinates of the samples of a regular grid."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def coordinate_grid(
    shape: Sequence[int],
    *,
    align_corners: bool = False,
    span: tuple[float | int, float | int] = (-1.0, 1.0),
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "n d"]:
    """Coordinates [prod(shape), d] of an array's samples, row-major; column a belongs to the array's axis a.

    Sample i of N along an axis lies at the centre of its cell, low + (high − low)(2i + 1)/(2N), so that resampling
    does not shift a picture; with `align_corners` the outermost samples lie on the borders, low + (high − low) i/(N−1)
    (one sample alone: the middle).

    Raises ValueError if `shape` is empty or holds a number below 1, or if `span` does not rise.
    """
    low, high = span
    if not shape or min(shape) < 1:
        raise ValueError(f"a grid needs at least one axis and one sample an axis, got shape {tuple(shape)}")
    if not low < high:
        raise ValueError(f"span must rise from low to high, got {span}")
    dtype = dtype or torch.get_default_dtype()

    def axis(n: int) -> Tensor:
        i = torch.arange(n, device=device, dtype=dtype)
        unit = i / (n - 1) if align_corners and n > 1 else (2 * i + 1) / (2 * n)
        return low + (high - low) * unit

    return torch.stack(torch.meshgrid(*(axis(n) for n in shape), indexing="ij"), -1).reshape(-1, len(shape))
