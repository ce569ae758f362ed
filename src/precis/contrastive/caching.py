"""Gradients of a contrastive loss for a batch that does not fit: embed, differentiate the loss, replay the encoder.

    ∂L/∂θ = Σ_parts (∂z_part/∂θ)ᵀ ∂L/∂z_part

The loss needs all embeddings at once but no graph behind them; the encoder's graph is made again a part at a time.  One
more forward pass, and the memory of one part.  Gao, Zhang, Han, Callan, 2021 (arXiv 2101.06983), §3.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def cached_backward(
    model: nn.Module, views: Sequence[Float[Tensor, "n c h w"]], loss: Callable[..., Tensor], micro: int
) -> Float[Tensor, ""]:
    """Add the gradients of loss(z of view 1, z of view 2, …) to the parameters; returns the loss, detached.

    model(x): (h, z), without random layers.  micro: pictures a part.  Batch statistics are of a part, not of the batch;
    running ones move once a part, as in a plain pass.  Where no layer mixes pictures, the gradients are those of one
    large batch.
    """
    if micro < 1:
        raise ValueError(f"a part has at least one picture, got {micro}")
    before = {name: b.clone() for name, b in model.named_buffers()}
    with torch.no_grad():
        embedded = [torch.cat([model(part)[1] for part in view.split(micro)]) for view in views]
        for name, b in model.named_buffers():
            b.copy_(before[name])  # the replay moves them
    leaves = [z.detach().requires_grad_() for z in embedded]
    value = loss(*leaves)
    slopes = torch.autograd.grad(value, leaves)
    for view, slope in zip(views, slopes):
        for part, given in zip(view.split(micro), slope.split(micro)):
            model(part)[1].backward(given)
    return value.detach()
