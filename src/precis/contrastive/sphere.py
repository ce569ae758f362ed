"""What the losses do alike: rows of embeddings on the unit sphere, in float32 at least, and what they refuse.

    z ← z/‖z‖

A half-precision product would round the logits of a small temperature to whole numbers.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Number = int | float
EPS = 1e-12


def wide(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """float16 and bfloat16 as float32, others as they are."""
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


def unit(z: Float[Tensor, "n d"], normalize: bool = True) -> Float[Tensor, "n d"]:
    """Rows brought to length 1, a row of zeros stays one; normalize=False: as they are."""
    return F.normalize(z, dim=1, eps=EPS) if normalize else z


def full_precision(z: Float[Tensor, "*shape"]) -> torch.autocast:
    """A context on z's device without autocast."""
    return torch.autocast(z.device.type, enabled=False)


def check_temperature(temperature: Number) -> None:
    """ValueError for τ ≤ 0."""
    if temperature <= 0:
        raise ValueError(f"the temperature must be positive, got {temperature}")


def check_negatives(pictures: int) -> None:
    """ValueError for a batch of one picture."""
    if pictures < 2:
        raise ValueError("a batch of one picture has no negatives: at least two are wanted")


def check_chunk(chunk: int | None) -> None:
    """ValueError for a chunk below 1."""
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")


def check_pair(z1: Tensor, z2: Tensor, temperature: Number) -> None:
    """ValueError for views of two shapes, and for τ ≤ 0."""
    check_temperature(temperature)
    if z1.shape != z2.shape:
        raise ValueError(f"both views must have one shape, got {tuple(z1.shape)} and {tuple(z2.shape)}")
