"""Pictures from features, without a network that draws them: pixels with total variation as their prior.

    min_x ‖φ(x) − φ_0‖²/‖φ_0‖² + weight · mean √(dx² + dy² + ε),    x = sigmoid of free values

Mahendran and Vedaldi, CVPR 2015, §2 (with β = 1), whose pictures the paper compares its own with.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Number = float | int


def tv_inversion(
    features: Float[Tensor, "1 ..."], model: Callable[[Tensor], Tensor], shape: tuple[int, int, int], weight: Number,
    steps: int, generator: torch.Generator, lr: Number = 0.05,
) -> Float[Tensor, "1 c h w"]:  # fmt: skip
    """The pixels after `steps` of Adam, from grey with a little noise."""
    values = (0.01 * torch.randn(1, *shape, generator=generator)).to(features).requires_grad_()
    optimizer = torch.optim.Adam([values], lr=lr)
    scale = features.square().mean()
    for _ in range(steps):
        x = values.sigmoid()
        down, right = x[..., 1:, :-1] - x[..., :-1, :-1], x[..., :-1, 1:] - x[..., :-1, :-1]
        variation = (down.square() + right.square() + 1e-8).sum(1).sqrt().mean()
        loss = (model(x) - features).square().mean() / scale + weight * variation
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return values.detach().sigmoid()
