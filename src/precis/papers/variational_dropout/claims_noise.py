"""The claim about the additive form of the noise: the same outputs, a quieter gradient, and where that leads."""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder
from precis.lab.hypotheses import AtLeast, AtMost, Greater, Trend
from precis.lab.trial import streams
from precis.sparsity.variational_dropout import Variational, given_noise, variationalize
from precis.train.checkpoint import load_state, save_state

from .claims_removal import MNIST, SMOKE
from .digits import Pool, Setting, load_pool, splits
from .measures import accuracy, full_bound, log_compression, rows
from .training import ARMS, Net, train

LEVELS = {"log_alpha_-3": -3.0, "log_alpha_0": 0.0, "log_alpha_3": 3.0}
CHUNK = 50


class AdditiveNoise(Claim):
    """Two forms of one noise: its standard deviation σ is learned (additive), or α = σ²/θ² (multiplicative).

    The arms log_alpha_…: the second layer (300 to 100) of a dense net trained on digits gets that log α for every
    weight, in either form, without removal; 20 training digits and 2,000 draws of the noise a form.  `outside`: the
    percentage of outputs whose mean or variance over the draws differs between the forms by more than three standard
    errors (0.27 expected; bound 1, since variances of 2,000 draws are not quite normal).  `log_variance_ratio`: log of
    the trace of the covariance of ∂L/∂θ, multiplicative over additive; it should be above 0 and grow with log α.

    The arms additive and multiplicative train from the same posterior for 400 steps by the setting of `sparsity`, with
    the same KL term and no clipping of gradients; the end is compared by log compression and by the bound in nats a
    digit (KL weight 1, ten draws).  No broken arm: the multiplicative form is the method without the mechanism.
    """

    name = "additive_noise"
    statement = (
        "Learning the noise's own variance instead of α leaves the forward pass as it is and lowers the variance of "
        "the gradient, the more so the larger α, and training ends sparser and with a better bound."
    )
    arms = (*LEVELS, "additive", "multiplicative")
    takes = ("images",)
    profiles = {
        "smoke": Profile(replace(SMOKE, net="mlp:16-12", draws=50), seeds=3, scale="100 digits, 4 steps"),
        "quick": Profile(Setting(steps=400), seeds=3, scale="1,437 digits, 400 steps, 64-300-100-10, 2,000 draws"),
        "full": Profile(replace(MNIST, second_net=""), seeds=3, scale="MNIST, 100 epochs, LeNet-300-100, 2,000 draws"),
    }
    hypotheses = (
        *(AtMost("outside", level, 1.0) for level in LEVELS),
        AtLeast("log_variance_ratio", "log_alpha_-3", 0.0),
        Trend("log_variance_ratio", tuple(LEVELS), x=tuple(LEVELS.values()), steps=0.0),
        Greater("log_compression", "additive", "multiplicative"),
        Greater("bound", "additive", "multiplicative"),
    )
    preconditions = (
        Precondition("dense_accuracy", "log_alpha_-3", at_least=90, why="the dense network was not fitted"),
    )
    untried = "Other rates than 10⁻² for the multiplicative form, other layers and convolutions were not tried."

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        for arm in arms:
            if arm in LEVELS:
                for seed in seeds:
                    yield arm, seed, _compare(LEVELS[arm], seed, settings, data, records[arm, seed])
                continue
            many, split = train(ARMS[arm], settings, data, seeds, records[arm, seeds[0]])
            for i, seed in enumerate(seeds):
                net: Any = many.module(i)
                records[arm, seed].table("layers", rows(net))
                yield arm, seed, {
                    "log_compression": log_compression(net),
                    "accuracy": accuracy(net, split.test_x[i], split.test_y[i]),
                    "bound": full_bound(net, split.x[i], split.y[i], streams(seed, records[arm, seed].device)["eval"]),
                }  # fmt: skip


def _compare(level: float, seed: int, settings: Setting, pool: Pool, record: Recorder) -> Metrics:
    dense, split = _trained_dense(settings, pool, seed, record)
    x, y = split.x[0, :20], split.y[0, :20]
    generator = streams(seed, record.device)["noise"]
    moments, traces = [], []
    for parametrization in ("multiplicative", "additive"):
        net = copy.deepcopy(dense)
        variationalize(net.net, ("layers.1",), log_sigma2=math.inf, max_log_alpha=level, train_clip=False,
                       parametrization=parametrization)  # type: ignore[arg-type]  # fmt: skip
        outputs, trace = _over_draws(net.net, x, y, settings.draws, generator)
        moments.append(outputs)
        traces.append(trace)
    (mean, variance), (other_mean, other_variance) = moments
    n = settings.draws
    off = (mean - other_mean).abs() / ((variance + other_variance) / n).sqrt()
    off_variance = (variance - other_variance).abs() / (2 * (variance**2 + other_variance**2) / n).sqrt()
    return {
        "outside": 100 * float(torch.stack([off > 3, off_variance > 3]).float().mean()),
        "log_variance_ratio": math.log(traces[0] / traces[1]),
        "dense_accuracy": accuracy(dense, split.test_x[0], split.test_y[0]),
    }  # fmt: skip


def _over_draws(
    net: Any, x: Tensor, y: Tensor, draws: int, generator: torch.Generator
) -> tuple[tuple[Tensor, Tensor], float]:  # fmt: skip
    """Mean and variance of the noisy layer's outputs, and tr Var[∂L/∂θ], over draws of its noise."""
    layer: Variational = net.layers[1].train()
    weight = layer.weight.detach()

    def run(w: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(net.layers[0](net.input(x).flatten(1)))
        with given_noise(net, [noise]):
            out = functional_call(layer, {"weight": w}, (h,))
        return F.cross_entropy(net.head(F.relu(out)), y), out

    one = grad(run, has_aux=True)
    sums: list[Any] = [0.0] * 4
    for _ in range(0, draws, CHUNK):
        noise = torch.randn(CHUNK, len(x), len(weight), generator=generator, device=x.device)
        gradients, outputs = vmap(one, in_dims=(None, 0))(weight, noise)
        for i, value in enumerate((outputs, gradients)):
            value = value.detach().double()
            sums[2 * i] += value.sum(0)
            sums[2 * i + 1] += value.square().sum(0)
    n = math.ceil(draws / CHUNK) * CHUNK
    mean, gradient = sums[0] / n, sums[2] / n
    variance = (sums[1] / n - mean**2) * n / (n - 1)
    return (mean, variance), float((sums[3] / n - gradient**2).sum()) * n / (n - 1)


def _trained_dense(settings: Setting, pool: Pool, seed: int, record: Recorder) -> tuple[nn.Module, Any]:
    """A dense net of one seed, trained once for all levels, and its pictures."""

    def make(folder: Path) -> None:
        many, _ = train(ARMS["dense"], settings, pool, (seed,), record)
        save_state(folder / "net.safetensors", dict(many.module(0).state_dict()))

    folder = record.shared("dense", make, settings)
    data = splits(pool, settings, (seed,), record.device)
    net = Net(ARMS["dense"], settings.net, pool, data.x.shape[1], torch.Generator().manual_seed(0)).to(record.device)
    net.load_state_dict(load_state(folder / "net.safetensors"))
    return net.eval(), data
