"""Pictures completed from a few of their pixels: data, networks and training behind SIREN's claims about its prior.

A step shows the first k of `targets` random pixels of each picture, k alike for the batch, and asks for all of them, so
that the targets hold the context.  Every network sees the same batches and contexts: pixels at the centres of
[−1, 1]², values in [−1, 1].  Sitzmann et al., NeurIPS 2020, §4.4 (arXiv 2006.09661); Garnelo et al., ICML 2018, §2
(arXiv 1807.01613).
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from precis.data import standard
from precis.data.embedded import digits
from precis.data.imageset import ImageSet
from precis.errors import InputError
from precis.fields.neural_process import CNP, SetEncoder
from precis.fields.siren import Siren
from precis.fields.siren_fit import train
from precis.fields.siren_prior import HyperNetwork, SirenPrior
from precis.lab.claim import Recorder
from precis.nn.coordinates import coordinate_grid
from precis.nn.cost import match_width
from precis.train.checkpoint import load_state, save_state
from precis.train.loop import index_batches
from precis.train.schedule import cosine

from .crops import TUNING

LEAST = 200  # pictures
Kind = Literal["siren", "cnp"]


@dataclass(frozen=True)
class Completion:
    """contexts: pixels shown when scoring; shown: least and most in training.  The SIREN has `hidden_layers` hidden-to-
    hidden layers of `width`; `latent`, `encoder` and `hyper` are widths.  held: pictures that are scored."""

    data: str
    size: int
    contexts: tuple[int, int, int]
    shown: tuple[int, int]
    targets: int
    steps: int
    batch: int = 32
    latent: int = 32
    encoder: int = 64
    hyper: int = 32
    width: int = 32
    hidden_layers: int = 1
    held: int = 600
    samples: int = 200


class Pictures(NamedTuple):
    """uint8 [N,C,S,S] with values up to `peak`; no verdict trains on `test`, and no tuning sees it."""

    train: UInt8[np.ndarray, "n c s s"]
    test: UInt8[np.ndarray, "m c s s"]
    peak: int

    def rows(self, which: np.ndarray, device: str) -> Float[Tensor, "n pixels c"]:
        """Pixels in row-major order, values in [−1, 1]."""
        x = torch.from_numpy(which).to(device).flatten(2).mT
        return x.float() * (2 / self.peak) - 1

    def split(self, seed: int, held: int, generator: torch.Generator, device: str) -> tuple[Tensor, Tensor]:
        """Five sixths of the training pictures, and those that are scored: test pictures, or, for tuning, the rest."""
        order = torch.randperm(len(self.train), generator=generator).numpy()
        most = len(order) * 5 // 6
        scored = self.train[order[most:]] if seed >= TUNING else self.test
        return self.rows(self.train[order[:most]], device), self.rows(scored[:held], device)


def load_pictures(settings: Completion, source: Path | None) -> Pictures:
    """The digits, MNIST, or the pictures at `source`, enlarged or reduced to size²; a third of them is for the test."""
    if source is not None:
        images = ImageSet.open(source, settings.size).images
        if len(images) < LEAST:
            raise InputError(f"{len(images)} pictures are too few: a prior needs at least {LEAST}", file=source)
        order = np.random.default_rng(0).permutation(len(images))
        cut = len(images) * 2 // 3
        return Pictures(np.asarray(images[order[:cut]]), np.asarray(images[order[cut:]]), 255)
    if settings.data == "digits":
        return Pictures(digits(split="train").images, digits(split="test").images, 16)
    if settings.data == "mnist":
        return Pictures(standard.load("mnist", "train").images, standard.load("mnist", "test").images, 255)
    raise InputError(f"{settings.data} is not shipped: give a folder of pictures with --data")


def build(kind: Kind, channels: int, settings: Completion, generator: torch.Generator) -> SirenPrior | CNP:
    """A hypernetwork prior, or a CNP with as many parameters (within 2 %)."""
    if kind == "siren":
        s, pair = settings, 2 + channels
        encoder = SetEncoder(pair, s.latent, (s.encoder,) * 2, "sine", generator, last_activation=True)
        target = Siren(2, channels, s.width, s.hidden_layers, generator=generator)
        return SirenPrior(encoder, HyperNetwork(s.latent, target, s.hyper, generator=generator))
    return _cnp(channels, _cnp_width(channels, settings), generator)


def trained(
    kind: Kind, broken: str, pictures: Float[Tensor, "n pixels c"], settings: Completion, record: Recorder
) -> SirenPrior | CNP:
    """The network of this seed, trained once at the tuned rate; its curve goes to the record.

    broken: "", or the arm that it is trained for; permuted_context shows the context's values at each other's places.
    """

    def make(folder: Path) -> None:
        net = build(kind, pictures.shape[-1], settings, record.streams["init"]).to(record.device)
        curve = _fit(net, broken == "permuted_context", pictures, settings, record)
        save_state(folder / "net.safetensors", dict(net.state_dict()))
        (folder / "curve.json").write_text(json.dumps(curve))

    identity = {"kind": kind, "broken": broken, "lr": record.tuned["lr"], "settings": settings}
    folder = record.shared("completion", make, identity)
    net = build(kind, pictures.shape[-1], settings, torch.Generator())
    net.load_state_dict(load_state(folder / "net.safetensors"))
    record.curve("training loss", *json.loads((folder / "curve.json").read_text()))
    return net.to(record.device).eval()


def _fit(
    net: SirenPrior | CNP, permuted: bool, pictures: Tensor, settings: Completion, record: Recorder
) -> tuple[list[int], list[float]]:
    """The paper's losses: MSE with its two penalties and clipped gradients, or a CNP's log-likelihood."""
    grid, order = pixel_grid(settings.size, pictures.device), record.streams["data"]

    def step(rows: Tensor) -> dict[str, Tensor]:
        y = pictures[rows.to(pictures.device)]
        where = shuffled(len(y), len(grid), order)[:, : settings.targets].to(y.device)
        k = int(torch.randint(settings.shown[0], settings.shown[1] + 1, (), generator=order))
        x, y = grid[where], take(y, where)
        shown = permute(y[:, :k], record.streams["noise"]) if permuted else y[:, :k]
        found = net.loss(x[:, :k], shown, x, y)
        return found if isinstance(found, dict) else {"loss": found}

    batches = index_batches(len(pictures), min(settings.batch, len(pictures)), order, drop_last=True)
    run = train(
        net, step, batches, steps=settings.steps, lr=record.tuned["lr"], schedule=cosine(),
        clip=1.0 if isinstance(net, SirenPrior) else None, log=record.log,
    )  # fmt: skip
    return run.curves["loss"].steps, run.curves["loss"].values


@torch.no_grad()
def complete(
    net: SirenPrior | CNP, x: Float[Tensor, "b k 2"], y: Float[Tensor, "b k c"], grid: Float[Tensor, "n 2"]
) -> Float[Tensor, "b n c"]:
    """All pixels of B pictures from k of each."""
    parts = []
    for xs, ys in zip(x.split(256), y.split(256)):
        targets = grid.expand(len(xs), *grid.shape)
        parts.append(net(xs, ys, targets) if isinstance(net, SirenPrior) else net(xs, ys, targets).mean)
    return torch.cat(parts)


class PCAGaussian(NamedTuple):
    """y = mean + A w + noise, w ~ N(0, I): the maximum-likelihood Gaussian of d dimensions and equal noise in the rest.

    mean [n,c], A [n,c,d], variance of the noise.  Tipping and Bishop, JRSS B 1999.
    """

    mean: Float[Tensor, "n c"]
    factor: Float[Tensor, "n c d"]
    variance: float

    @classmethod
    def fit(cls, pictures: Float[Tensor, "m n c"], d: int) -> "PCAGaussian":
        flat = pictures.flatten(1).double()
        values, vectors = torch.linalg.eigh(torch.cov(flat.T))
        d = min(d, len(values) - 1)
        variance = float(values[:-d].mean().clamp(min=1e-6))
        factor = vectors[:, -d:] * (values[-d:] - variance).clamp(min=0).sqrt()
        return cls(flat.mean(0).view(pictures.shape[1:]), factor.view(*pictures.shape[1:], d), variance)

    def complete(self, where: Int[Tensor, "b k"], y: Float[Tensor, "b k c"]) -> Float[Tensor, "b n c"]:
        """The conditional mean of all pixels given those at `where`."""
        a = self.factor[where].flatten(1, 2)
        precision = a.mT @ a + self.variance * torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        w = torch.linalg.solve(precision, a.mT @ (y.double() - self.mean[where]).flatten(1, 2).unsqueeze(-1))
        return (self.mean + (self.factor @ w.unsqueeze(1)).squeeze(-1)).to(y.dtype)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "m n c"]:
        """n pictures, without the noise."""
        w = torch.randn(n, self.factor.shape[-1], generator=generator, dtype=torch.float64).to(self.mean.device)
        return (self.mean + torch.einsum("ncd,md->mnc", self.factor, w)).float()


def nearest(where: Int[Tensor, "b k"], y: Float[Tensor, "b k c"], size: int, neighbours: int = 3) -> Tensor:
    """Each pixel [B,n,c] as the mean of the nearest few that are shown."""
    grid = pixel_grid(size, y.device)
    near = torch.cdist(grid.expand(len(y), -1, -1), grid[where]).topk(min(neighbours, y.shape[1]), largest=False)
    return torch.stack([take(y, near.indices[..., i]) for i in range(near.indices.shape[-1])]).mean(0)


def pixel_grid(size: int, device: Any = None) -> Float[Tensor, "n 2"]:
    return coordinate_grid((size, size), device=device)


def shuffled(pictures: int, pixels: int, generator: torch.Generator) -> Int[Tensor, "b n"]:
    """A random order of the pixels for each picture."""
    return torch.rand(pictures, pixels, generator=generator).argsort(-1)


def take(y: Float[Tensor, "b n c"], where: Int[Tensor, "b k"]) -> Float[Tensor, "b k c"]:
    return torch.gather(y, 1, where[..., None].expand(-1, -1, y.shape[-1]))


def permute(y: Float[Tensor, "b k c"], generator: torch.Generator) -> Float[Tensor, "b k c"]:
    """The values of each picture's context in a random order."""
    return take(y, shuffled(len(y), y.shape[1], generator).to(y.device))


def _cnp(channels: int, width: int, generator: torch.Generator) -> CNP:
    return CNP(2, channels, width, (width,) * 3, (width,) * 2, generator=generator)


@cache
def _cnp_width(channels: int, settings: Completion) -> int:
    prior: nn.Module = build("siren", channels, settings, torch.Generator())
    target = sum(p.numel() for p in prior.parameters())
    return match_width(lambda width: _cnp(channels, width, torch.Generator()), target)
