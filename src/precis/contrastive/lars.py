"""LARS: momentum with a rate of its own for each layer, for batches of thousands of pictures.

    d = g + λ w,   v ← μ v + η · (‖w‖ / ‖d‖) · ε d,   w ← w − v

η is the trust coefficient, ε the rate.  Biases and normalisation (one-dimensional parameters) go by plain momentum
without decay, as in SimCLR's code.  You, Gitman, Ginsburg, 2017 (arXiv 1708.03888), algorithm 1.
"""

from typing import Any

import torch
from torch.optim import Optimizer


class LARS(Optimizer):
    """For batches from about 2,048; SimCLR takes lr = 0.3·batch/256, weight decay 1e-6, μ = 0.9, η = 0.001."""

    def __init__(
        self, params: Any, lr: float | int, momentum: float | int = 0.9, weight_decay: float | int = 1e-6,
        trust: float | int = 0.001,
    ) -> None:  # fmt: skip
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0 or trust <= 0:
            raise ValueError(f"lr {lr}, momentum {momentum}, weight decay {weight_decay}, trust {trust}: out of range")
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                d, ratio = p.grad, torch.ones((), dtype=p.dtype, device=p.device)
                if p.ndim > 1:
                    d = d + group["weight_decay"] * p
                    size, slope = p.norm(), d.norm()
                    ratio = torch.where((size > 0) & (slope > 0), group["trust"] * size / slope, ratio)
                velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                velocity.mul_(group["momentum"]).add_(ratio * group["lr"] * d)
                p.sub_(velocity)
