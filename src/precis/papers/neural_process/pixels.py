"""Pictures as functions of the place: data, networks, their training, and the baselines behind the claims on pictures.

Places are pixel centres in [−1, 1]², values lie in [0, 1].  Networks of all seeds and all kinds train as one stack, on
the same pictures in the same order a seed; what differs is which pixels they are shown:

    mixed         random, ordered or half, one of them a step      only_random, only_ordered, only_half   that one alone
    permuted      as mixed, the values at each other's places
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from precis.data import standard
from precis.data.embedded import digits
from precis.data.imageset import ImageSet
from precis.errors import InputError
from precis.fields.neural_process import CNP
from precis.fields.neural_process_context import Order, knn_predict, sample_context, take
from precis.fields.neural_process_fit import ORDERS, glorot_
from precis.fields.neural_process_gp import RBF, fit_gp, gp_mean
from precis.fields.neural_process_stacked import StackedCNP
from precis.fields.siren_fit import losses, train
from precis.lab.claim import Recorder
from precis.nn.coordinates import coordinate_grid
from precis.train.schedule import cosine

LEAST = 200  # pictures
TUNING = 10_000  # seeds from here on score training pictures that were held back
ONLY: dict[str, Order] = {"only_random": "random", "only_ordered": "ordered", "only_half": "half"}
NETS = ("mixed", *ONLY, "permuted")


@dataclass(frozen=True)
class Pixels:
    """contexts: few, some, many pixels shown when scoring, and the most in training; targets: pixels scored a step;
    held: pictures scored; asked: pictures and pixels for the choice of the next pixel."""

    data: str
    size: int
    contexts: tuple[int, int, int]
    steps: int
    batch: int = 16
    targets: int = 32
    width: int = 64
    lr: float = 3e-3
    held: int = 600
    asked: tuple[int, int] = (300, 12)
    gp_pictures: int = 300
    gp_pixels: int = 64


class Pictures(NamedTuple):
    """uint8 [N,C,S,S] with values up to `peak`; no verdict trains on `test`, and no tuning sees it."""

    train: UInt8[np.ndarray, "n c s s"]
    test: UInt8[np.ndarray, "m c s s"]
    peak: int

    def rows(self, which: np.ndarray) -> Float[Tensor, "n pixels c"]:
        """Pixels in row-major order, values in [0, 1]."""
        return torch.from_numpy(np.ascontiguousarray(which)).flatten(2).mT.float() / self.peak

    def split(self, seed: int, held: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Five sixths of the training pictures, and those that are scored: test pictures, or, for tuning, the rest."""
        order = torch.randperm(len(self.train), generator=generator).numpy()
        most = len(order) * 5 // 6
        scored = self.train[order[most:]] if seed >= TUNING else self.test
        return self.rows(self.train[order[:most]]), self.rows(scored[:held])


def load_pictures(settings: Pixels, source: Path | None) -> Pictures:
    """The digits, MNIST, or the pictures at `source` at size²; a third of them is for the test."""
    if source is not None:
        images = ImageSet.open(source, settings.size).images
        if len(images) < LEAST:
            raise InputError(f"{len(images)} pictures; at least {LEAST} are needed to learn from", file=source)
        order = np.random.default_rng(0).permutation(len(images))
        cut = len(images) * 2 // 3
        return Pictures(np.asarray(images[np.sort(order[:cut])]), np.asarray(images[np.sort(order[cut:])]), 255)
    if settings.data == "digits":
        return Pictures(digits(split="train").images, digits(split="test").images, 16)
    if settings.data == "mnist":
        return Pictures(standard.load("mnist", "train").images, standard.load("mnist", "test").images, 255)
    raise InputError(f"{settings.data} is not shipped: give a folder of pictures with --data")


def train_nets(
    names: tuple[str, ...], pictures: Mapping[int, Float[Tensor, "n pixels c"]], settings: Pixels,
    streams: Mapping[int, Mapping[str, torch.Generator]], record: Recorder,
) -> dict[tuple[str, int], CNP]:  # fmt: skip
    """The networks of these names for every seed of `pictures`, trained in one stack; {(name, seed): network}.

    The number of pixels shown is one a step for all, uniform in 1 … the many of `contexts`; halves stop at the half.
    """
    seeds, shape, device = list(pictures), (settings.size, settings.size), record.device
    states = {seed: streams[seed]["init"].get_state() for seed in seeds}
    channels = pictures[seeds[0]].shape[-1]
    built = []
    for seed in seeds:
        for _ in names:  # the same weights for every network of a seed
            built.append(build(channels, settings.width, torch.Generator().manual_seed(0), states[seed]))
    if len(built) == 1:  # one matrix alone goes another way than a batch and rounds otherwise: a mate for it
        built.append(build(channels, settings.width, torch.Generator().manual_seed(0)))
    net = StackedCNP(built).to(device)
    grid = coordinate_grid(shape, device=device)
    counts = torch.Generator().manual_seed(0)

    def step(_: object) -> dict[str, Tensor]:
        n = int(torch.randint(1, settings.contexts[2] + 1, (), generator=counts))
        made = [_batch(names, pictures[seed], n, settings, shape, streams[seed]) for seed in seeds]
        rows, mask, values, where, targets = (torch.cat(parts).to(device) for parts in zip(*made))
        if len(rows) < net.copies:
            rows, mask, values, where, targets = (torch.cat([t, t]) for t in (rows, mask, values, where, targets))
        return losses(net.losses(grid[rows], values, grid[where], targets, mask))

    run = train(net, step, [None], steps=settings.steps, lr=settings.lr, schedule=cosine(0.03), log=record.log)
    found = dict(zip([(name, seed) for seed in seeds for name in names], net.to_modules()))
    for i, (name, seed) in enumerate(found):
        if seed == seeds[0]:
            record.curve(f"training loss, {name}", *run.curves[f"loss/{i}"])
    return found


def _batch(
    names: tuple[str, ...], pictures: Tensor, n: int, settings: Pixels, shape: tuple[int, int],
    streams: Mapping[str, torch.Generator],
) -> tuple[Tensor, ...]:  # fmt: skip
    """Of one seed, for each network: rows shown [k,B,n], mask, their values, rows scored [k,B,m], their values."""
    g, size = streams["data"], settings.batch
    y = pictures[torch.randint(len(pictures), (size,), generator=g)]
    mixed = ORDERS[int(torch.randint(len(ORDERS), (), generator=g))]
    half = min(n, len(pictures[0]) // 2)
    chosen = {}
    for order in ORDERS:  # all are drawn, whichever networks there are, so that none changes what another sees
        k = half if order == "half" else n
        rows, _ = sample_context(size, shape, k, k, order, g)
        chosen[order] = torch.nn.functional.pad(rows, (0, n - k)), (torch.arange(n) < k).expand(size, -1)
    where = torch.rand(size, len(pictures[0]), generator=g).argsort(-1)[:, : settings.targets]
    shuffled = torch.rand(size, n, generator=g)
    parts = []
    for name in names:
        rows, mask = chosen[ONLY.get(name, mixed)]
        values = take(y, rows)
        if name == "permuted":
            values = take(values, (shuffled + 2 * ~mask).argsort(-1))
        parts.append((rows, mask, values))
    rows, mask, values = (torch.stack(part) for part in zip(*parts))
    return rows, mask, values, where.expand(len(names), -1, -1), take(y, where).expand(len(names), -1, -1, -1)


def build(channels: int, width: int, generator: torch.Generator, state: Tensor | None = None) -> CNP:
    """A network whose weights are drawn as in the paper's notebook, from the generator set to `state`."""
    if state is not None:
        generator.set_state(state)
    net = CNP(2, channels, width, (width,) * 3, (width,) * 2, generator=generator)
    glorot_(net, generator)
    return net


@torch.no_grad()
def complete(net: CNP, rows: Int[Tensor, "b k"], y: Float[Tensor, "b n c"], size: int) -> Float[Tensor, "b n c"]:
    """All pixels from those at `rows`, in the order of the context."""
    grid = coordinate_grid((size, size), device=y.device)
    parts = []
    for some, values in zip(rows.split(256), y.split(256)):
        everywhere = grid.expand(len(values), -1, -1)
        parts.append(net(grid[some], take(values, some), everywhere).mean)
    return torch.cat(parts)


@dataclass(frozen=True)
class Neighbours:
    """Mean of the k nearest shown pixels; k by validation on training pictures, for each number of pixels shown."""

    size: int
    k: int

    @classmethod
    def fit(cls, pictures: Tensor, n: int, size: int, generator: torch.Generator) -> "Neighbours":
        some = pictures[:300]
        rows, _ = sample_context(len(some), (size, size), n, n, "random", generator)
        errors = {k: float((cls(size, k).complete(rows.to(some.device), some) - some).square().mean())
                  for k in (1, 2, 3, 4, 6, 8, 12) if k <= n}  # fmt: skip
        return cls(size, min(errors, key=lambda k: errors[k]))

    def complete(self, rows: Int[Tensor, "b k"], y: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        grid = coordinate_grid((self.size, self.size), device=y.device)
        parts = [knn_predict(grid[r], take(v, r), grid.expand(len(v), -1, -1), self.k)
                 for r, v in zip(rows.split(256), y.split(256))]  # fmt: skip
        return torch.cat(parts)


@dataclass(frozen=True)
class Process:
    """A GP over places, kernel and noise by the marginal likelihood of training pictures, around `mean` [n,c]."""

    size: int
    mean: Tensor
    kernel: RBF
    noise: float

    @classmethod
    def fit(cls, pictures: Tensor, settings: Pixels, by_place: bool, generator: torch.Generator) -> "Process":
        """by_place: around the mean picture; else around the mean value of all pixels."""
        mean = pictures.mean(0) if by_place else pictures.mean((0, 1)).expand_as(pictures[0])
        some = (pictures[: settings.gp_pictures] - mean).mT.flatten(0, 1)[..., None]  # channels alike
        where = torch.rand(some.shape[:2], generator=generator).argsort(-1)[:, : settings.gp_pixels].to(some.device)
        grid = coordinate_grid((settings.size, settings.size), device=some.device)
        kernel, noise = fit_gp(grid[where], take(some, where))
        return cls(settings.size, mean, kernel, noise)

    def complete(self, rows: Int[Tensor, "b k"], y: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        grid = coordinate_grid((self.size, self.size), device=y.device)
        parts = []
        for r, v in zip(rows.split(128), (y - self.mean).split(128)):
            shown, everywhere = take(v, r).mT[..., None], grid.expand(len(v), -1, -1)
            found = [gp_mean(self.kernel, grid[r], shown[:, c], everywhere, self.noise) for c in range(v.shape[-1])]
            parts.append(torch.cat(found, -1).to(y.dtype))
        return torch.cat(parts) + self.mean


def log_mse(found: Float[Tensor, "b n c"], y: Float[Tensor, "b n c"]) -> float:
    return math.log(float((found - y).square().mean()))

