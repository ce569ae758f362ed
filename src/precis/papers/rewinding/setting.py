"""Settings of the claims, their pictures, and the batch of every step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from precis.lab.trial import stream_seed, streams
from precis.papers.pools import Pool, Split, at, draw, read_pool
from precis.sparsity.rewinding import sample_rates, step_schedule
from precis.train.classify import to_input


@dataclass(frozen=True)
class Setting:
    """The data, the dense training and what follows.  `data`: digits, or a set of `precis.data.standard`.

    The rate is `lr`, a tenth from half of `steps` on and a hundredth from three quarters on.  `t`: share of the steps
    that a retraining repeats; `ts`: those that are compared at `density_t`.  A checkpoint is kept every `every` steps.
    """

    data: str = "digits"
    size: int = 8
    train: int = 500
    test: int = 1297
    model: str = "mlp:300-100"
    augment: str = ""
    batch: int = 64
    steps: int = 500
    every: int = 50
    lr: float = 0.1
    densities: tuple[float, ...] = (0.05, 0.02, 0.01)
    t: float = 0.9
    ts: tuple[float, ...] = (0.1, 0.5, 0.9, 1.0)
    density_t: float = 0.02
    iterative: bool = False


def load_pool(settings: Setting, source: Path | None) -> Pool:
    """The pictures of `settings`, or the user's own set at the same size."""
    return read_pool(settings.data, settings.size, source, fewest=200, whole_bytes=True)


def split(pool: Pool, settings: Setting, seed: int, device: str) -> Split:
    """One seed's pictures; for a perceptron flat and standardised by the training part."""
    most = min(settings.train, len(pool.images) // 2)
    train, test = draw(pool, most, settings.train, settings.test, streams(seed)["data"])
    x, y, test_x, test_y = at(pool, train, test)
    if is_stacked(settings):
        x, test_x = x.flatten(1).float(), test_x.flatten(1).float()
        mean, std = x.mean(), x.std()
        x, test_x = (x - mean) / std, (test_x - mean) / std
    return Split(*(part.to(device) for part in (x, y, test_x, test_y)))


def is_stacked(settings: Setting) -> bool:
    return settings.model.startswith("mlp:")


@dataclass
class Replay:
    """The batch of a step: an order an epoch, whole batches only, and augmentation, all from (seed, pruning, step).

    So every method, and a training that begins later, sees the same.
    """

    x: Tensor
    y: Tensor
    size: int
    seed: int
    augment: Any = None

    def __post_init__(self) -> None:
        self.size = min(self.size, len(self.y))
        self.steps_per_epoch = len(self.y) // self.size
        self._orders: dict[tuple[int, int], Tensor] = {}

    def indices(self, step: int, rounds: int) -> Int[Tensor, "b"]:
        epoch, at = divmod(step, self.steps_per_epoch)
        if (epoch, rounds) not in self._orders:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, f"order/{rounds}/{epoch}"))
            self._orders = {(epoch, rounds): torch.randperm(len(self.y), generator=generator).to(self.y.device)}
        return self._orders[epoch, rounds][at * self.size : (at + 1) * self.size]

    def __call__(self, step: int, rounds: int) -> tuple[Tensor, Tensor]:
        chosen = self.indices(step, rounds)
        x = self.x[chosen]
        if self.augment is not None:
            generator = torch.Generator(x.device).manual_seed(stream_seed(self.seed, f"augment/{rounds}/{step}"))
            x = self.augment(x, generator)
        return to_input(x), self.y[chosen]


def rates_of(settings: Setting) -> Float[Tensor, "steps"]:
    """The rate of every step of the first training; a step is the history's unit of time."""
    milestones = {0.5 * settings.steps: 0.1, 0.75 * settings.steps: 0.01}
    return sample_rates(step_schedule(settings.lr, milestones), settings.steps, 1)
