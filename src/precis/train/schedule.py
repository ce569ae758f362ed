"""Learning-rate schedules: functions of progress in [0, 1], so that a run of any length ends fully decayed.

Each name makes a schedule: `cosine()` is a function progress → factor, by which the base rate is multiplied.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Schedule = Callable[[float], float]
Number = float | int


def constant() -> Schedule:
    """1 throughout."""
    return lambda progress: 1.0


def linear(end: Number = 0.0) -> Schedule:
    """From 1 to `end` along a straight line."""
    return lambda progress: 1 + (end - 1) * progress


def cosine(end: Number = 0.0) -> Schedule:
    """end + (1 − end)(1 + cos πp)/2: half a cosine from 1 to `end` (Loshchilov and Hutter, 2017)."""
    return lambda progress: end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


def steps(at: Sequence[Number] = (0.5, 0.75), factor: Number = 0.1) -> Schedule:
    """Multiplied by `factor` as progress reaches each of `at`."""
    return lambda progress: factor ** sum(progress >= a for a in at)


def exponential(end: Number = 0.01) -> Schedule:
    """endᵖ: from 1 to `end` by a constant ratio."""
    if end <= 0:
        raise ValueError(f"an exponential schedule ends above 0, got {end}")
    return lambda progress: end**progress


def warmup(fraction: Number, then: Schedule | None = None) -> Schedule:
    """Rises from 0 in proportion over the first `fraction`, times `then` (default constant), which starts after it."""
    if not 0 <= fraction < 1:
        raise ValueError(f"the warm-up takes a fraction in [0, 1) of the run, got {fraction}")
    after = then or constant()

    def schedule(progress: Number) -> float:
        rest = max(progress - fraction, 0.0) / (1 - fraction)
        return after(rest) * (progress / fraction if progress < fraction else 1.0)

    return schedule


def sample(schedule: Schedule, n: int) -> Float[Tensor, "n"]:
    """The factors of a run of n steps; step k (from 0) is taken at progress k/n."""
    return torch.tensor([schedule(k / n) for k in range(n)], dtype=torch.float64)
