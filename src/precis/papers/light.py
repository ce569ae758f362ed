"""sRGB and linear light (IEC 61966-2-1), of values in [0, 1], for jobs with --linear."""

import torch
from jaxtyping import Float
from torch import Tensor


def from_srgb(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sRGB to linear light."""
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Linear light to sRGB."""
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)
