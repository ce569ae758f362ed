"""Exponential moving averages: target networks, momentum encoders and weight averages by one formula.

    θ̄ ← β θ̄ + (1 − β) θ
"""

import copy
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn


@torch.no_grad()
def ema_(
    target: nn.Module | Iterable[Tensor], source: nn.Module | Iterable[Tensor], decay: float | int | Tensor
) -> None:
    """target ← decay · target + (1 − decay) · source, in place, for all parameters (not buffers) at once.

    `decay` may be a tensor [M], one value for each copy of stacked parameters [M,…].
    """
    targets = list(target.parameters() if isinstance(target, nn.Module) else target)
    sources = list(source.parameters() if isinstance(source, nn.Module) else source)
    if len(targets) != len(sources):
        raise ValueError(f"target has {len(targets)} tensors, source {len(sources)}")
    if not targets:
        return
    if isinstance(decay, Tensor) and decay.ndim:
        weights = [(1 - decay).to(t).view(-1, *[1] * (t.ndim - 1)) for t in targets]
        torch._foreach_lerp_(targets, sources, weights)
    else:
        torch._foreach_lerp_(targets, sources, 1 - float(decay))


class EMA:
    """The average of a model's weights along its training, as a model of its own: `ema.model`, in evaluation mode.

    Give `decay` (β), or `half_life` in whatever `update(amount)` counts (steps by default, images with
    `update(batch_size)`): then β = ½^(1 / half_life).  The average moves by β^amount.  `buffers`: "copy" takes the
    model's as they are, "average" averages those of floating point too, "own" leaves the average's alone (to be
    recomputed, for instance).
    """

    def __init__(
        self, model: nn.Module, decay: float | int | None = None, *, half_life: float | int | None = None,
        buffers: Literal["copy", "average", "own"] = "copy",
    ) -> None:  # fmt: skip
        if (decay is None) == (half_life is None):
            raise ValueError("give either decay or half_life")
        if decay is not None and not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], got {decay}")
        if half_life is not None and half_life <= 0:
            raise ValueError(f"half_life must be positive, got {half_life}")
        # decay an amount of 1, so that β = decay^amount either way
        self.decay = float(decay) if decay is not None else 0.5 ** (1 / (half_life or 1))
        self.buffers, self.source = buffers, model
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, amount: float | int = 1) -> None:
        """Move the average towards the model, after the model's step."""
        decay = self.decay**amount
        ema_(self.model, self.source, decay)
        if self.buffers == "own":
            return
        for mean, value in zip(self.model.buffers(), self.source.buffers()):
            if self.buffers == "average" and mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state)
