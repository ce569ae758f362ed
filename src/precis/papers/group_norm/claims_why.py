"""Claims about why: the bias and the noise of the statistics, and the rates at which a net trains."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import Differs, Greater, Less, Trend
from precis.lab.trial import streams
from precis.nn.norm import pick_groups
from precis.papers.pools import Pool
from precis.papers.small_nets import STACKED, TUNED, Residual, cross_entropy, error_name, error_of, load_pool, splits
from precis.train.loop import Budget
from precis.train.many import ManySGD, fit_many

from .claims_batches import CIFAR, CIFAR_CPU, SIZES
from .grouping import norm_inputs
from .training import make_net, trained_bn

GROUPS = (1, 2, 4, 8)
EPS = 1e-5


class Statistics(Claim):
    """The mean and the variance that a layer would use, against those of the channel over all test pictures.

    On the trained batch norm net of `large_batch`, at every batch norm: for batch statistics over N pictures (200
    random batches) and group statistics of G groups (every test picture) the squared bias and the variance of the
    estimated mean, in units of the channel's variance, averaged over channels and layers; the same of
    log(variance + ε), in layers with more than one position.  The sampling part of a squared bias is taken off.  Batch
    statistics should have a variance ∝ 1/N (slope between −1.2 and −0.8), group statistics a bias that falls with the
    number of groups (no step up by more than 0.01), and less of it at 8 groups than at one.  Shown beside: the N at
    which the mean squared error of batch statistics passes that of the groups (`equal_error_batch`), for comparison
    with the crossing in `flat`.  No broken arm: nothing is trained, these are properties of the estimates.
    """

    name = "statistics"
    statement = (
        "Batch statistics are noisy at small batches, with a variance that falls as 1/N, and group statistics are less "
        "biased the fewer channels share a group."
    )
    arms = (*(f"bn_{size}" for size in SIZES), *(f"gn_{groups}" for groups in GROUPS), "gn_c")
    tuning = TUNED
    takes = ("images",)
    profiles = {
        "smoke": Profile(Residual(train=40, test=40, epochs=1), seeds=2, scale="digits, 40 pictures, 1 epoch"),
        "quick": Profile(Residual(), scale="the batch norm net of large_batch, 797 test digits, 200 batches"),
        "full": Profile(CIFAR_CPU, seeds=3, cuda=CIFAR,
                        scale="the batch norm net of large_batch, CIFAR-10, 200 batches"),
    }  # fmt: skip
    hypotheses = (
        Trend("mean_variance", arms[:5], x=SIZES, log=True, between=(-1.2, -0.8)),
        Trend("mean_bias", arms[5:], falling=True, steps=0.01),
        Less("mean_bias", "gn_8", "gn_1"),
        Trend("log_variance_variance", arms[:5], x=SIZES, log=True, between=(-1.5, -0.5), counts=False),
        Less("log_variance_bias", "gn_8", "gn_1", counts=False),
        Greater("equal_error_batch", "gn_8", "gn_1", counts=False),
    )
    untried = "The statistics of other nets, and along a training, were not measured."

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        for seed in seeds:
            _, _, x, y = (t[0] for t in splits(data, settings, (seed,), records[arms[0], seed].device))
            for arm in arms:
                record = records[arm, seed]
                net = trained_bn(settings, data, seed, record.tuned["lr"], record)
                metrics: Metrics = {error_name(seeds): error_of(net, x, y)}
                if error_name(seeds) == "error":
                    layers = [_Layer(given) for given in norm_inputs(net, x, nn.BatchNorm2d).values()]
                    metrics |= _estimates(arm, layers, streams(seed)["eval"])
                yield arm, seed, metrics


class _Layer:
    """First and second moments of every picture and channel [n,C] of what a layer is given, and the channels' own."""

    def __init__(self, given: Tensor) -> None:
        wide = given.double().flatten(2)
        self.first, self.second = wide.mean(2), wide.square().mean(2)
        self.mean = self.first.mean(0)
        self.variance = self.second.mean(0) - self.mean.square()
        self.live = self.variance > 1e-8
        self.positions = wide.shape[2]

    def over_batches(self, size: int, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Means and variances [draws,C] over random batches of `size` pictures."""
        n = len(self.first)
        order = torch.rand(draws, n, generator=generator).argsort(1)[:, : min(size, n)].to(self.first.device)
        mean = self.first[order].mean(1)
        return mean, self.second[order].mean(1) - mean.square()

    def over_groups(self, groups: int) -> tuple[Tensor, Tensor]:
        """Means and variances [n,C] of every picture's groups."""
        n, channels = self.first.shape
        shared = lambda t: t.view(n, groups, -1).mean(2).repeat_interleave(channels // groups, 1)
        mean = shared(self.first)
        return mean, shared(self.second) - mean.square()


def _estimates(arm: str, layers: Sequence[_Layer], generator: torch.Generator) -> Metrics:
    kind, number = arm.split("_")
    found: dict[str, list[float]] = {}
    for layer in layers:
        channels = len(layer.mean)
        if kind == "bn":
            mean, variance = layer.over_batches(int(number), 200, generator)
        else:
            mean, variance = layer.over_groups(pick_groups(channels, channels if number == "c" else int(number)))
        scaled = (mean - layer.mean) / layer.variance.clamp(min=1e-8).sqrt()
        bias, spread = _bias_and_variance(scaled, layer.live)
        parts = {"mean_bias": bias, "mean_variance": spread}
        if layer.positions > 1:
            off = (variance.clamp(min=0) + EPS).log() - (layer.variance + EPS).log()
            bias, spread = _bias_and_variance(off, layer.live)
            parts |= {"log_variance_bias": bias, "log_variance_variance": spread}
        for name, value in parts.items():
            found.setdefault(name, []).append(value)
    metrics: Metrics = {name: sum(values) / len(values) for name, values in found.items()}
    error = float(metrics["mean_bias"]) + float(metrics["mean_variance"])  # type: ignore[arg-type]
    if kind == "gn":
        one = sum(_noise_of_one(layer) for layer in layers) / len(layers)
        metrics["equal_error_batch"] = one / error
    return metrics | {"mean_squared_error": error}


def _bias_and_variance(off: Tensor, live: Tensor) -> tuple[float, float]:
    """Squared mean over draws, less its sampling part, and variance over draws, averaged over live channels."""
    variance = off.var(0)
    squared = off.mean(0).square() - variance / len(off)
    return float(squared[live].mean()), float(variance[live].mean())


def _noise_of_one(layer: _Layer) -> float:
    """Variance of one picture's channel mean in units of the channel's variance: N pictures have 1/N of it."""
    return float((layer.first.var(0) / layer.variance.clamp(min=1e-8))[layer.live].mean())


@dataclass(frozen=True)
class Rates:
    """Rates tried, and how long: the loss is that of the last `tail` of `steps`."""

    net: Residual = field(default_factory=Residual)
    rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    steps: int = 60
    tail: int = 10
    batch: int = 32


class LearningRate(Claim):
    """log₂ of the largest of six rates at which the mean loss of the last ten of 60 steps is finite and below that of
    guessing, ln 10; one step below the smallest if there is none.  32 samples a batch, momentum 0.9, constant rate.

    Without normalisation the convolutions have biases, He-normal weights, and residual branches scaled by 1/√blocks, so
    that it is no straw man.  No margin.  In the broken arms each channel gets the mean and the deviation of another
    one, by a permutation that is drawn with the weights: the net is normalised, but not by what it is given.
    """

    name = "learning_rate"
    statement = "Batch norm and group norm let a network train at larger learning rates than no normalisation."
    arms = ("bn", "gn", "none")
    sabotaged = {"bn_permuted": "bn", "gn_permuted": "gn"}
    takes = ("images",)
    by_arm = True
    profiles = {
        "smoke": Profile(
            Rates(Residual(train=40, test=40), (0.05, 1.6), 4, 2), seeds=2, scale="digits, 4 steps, 2 rates"
        ),
        "quick": Profile(Rates(), seeds=3, scale="8×8 digits, 60 steps of 32, six rates from 0.05 to 1.6"),
        "full": Profile(Rates(CIFAR_CPU), seeds=3, cuda=Rates(CIFAR),
                        scale="CIFAR-10, ResNet-14 (GPU: ResNet-20), 60 steps of 32, six rates"),
    }  # fmt: skip
    hypotheses = (
        Greater("log2_rate", "bn", "none"),
        Greater("log2_rate", "gn", "none"),
        Differs("log2_rate", "bn", "gn", margin=0.5, counts=False),
    )
    untried = "Rates above 1.6, longer trainings, warm-up and other optimisers were not tried."

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings.net, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        for arm in arms:
            curves = _at_all_rates(arm, settings, data, seeds, records[arm, seeds[0]])
            for seed, losses in zip(seeds, curves):
                tails = losses[:, -settings.tail :].mean(1)
                learned = tails.isfinite() & (tails < math.log(data.classes))
                passed = [rate for rate, good in zip(settings.rates, learned.tolist()) if good]
                records[arm, seed].curve("loss over log2 rate", [math.log2(r) for r in settings.rates],
                                         tails.nan_to_num(99, 99).clamp(max=99))  # fmt: skip
                yield arm, seed, {"log2_rate": math.log2(max(passed, default=settings.rates[0] / 2))}


def _at_all_rates(arm: str, settings: Rates, data: Pool, seeds: Sequence[int], record: Recorder) -> Tensor:
    """Losses [seeds, rates, steps]: every seed at every rate, in one pass, or, where the maps are large and a processor
    is faster so, one after another; NaN after one that is not finite.
    """
    parts = splits(data, settings.net, seeds, record.device)
    copies = [(m, rate) for m in range(len(seeds)) for rate in settings.rates]
    together = 1 if record.device == "cpu" and settings.net.size > STACKED else len(copies)
    passes = [copies[i : i + together] for i in range(0, len(copies), together)]
    curves = []
    for k, copied in enumerate(passes):
        of, rates = [m for m, _ in copied], [rate for _, rate in copied]
        many = fit_many(
            lambda seed: _net(arm, settings.net, data, seed).to(record.device), [seeds[m] for m in of],
            (parts.x[of], parts.y[of]), cross_entropy, own=(0, 1), size=settings.batch, drop_last=True,
            order=[streams(seeds[m])["noise"] for m in of], budget=Budget(steps=settings.steps),
            lr=torch.tensor(rates).to(record.device), optimizer=partial(ManySGD, momentum=0.9, weight_decay=1e-4),
            log=lambda step, total, k=k, **scalars: record.log(k * total + step, len(passes) * total, **scalars),
        )  # fmt: skip
        loss = many.curves["loss"]
        curves.append(F.pad(loss, (0, settings.steps - loss.shape[1]), value=math.nan))
    return torch.cat(curves).view(len(seeds), len(settings.rates), -1)


def _net(arm: str, settings: Residual, data: Pool, seed: int) -> nn.Module:
    drawn = streams(seed)
    net = make_net(arm.removesuffix("_permuted"), settings, data, drawn["init"])
    if arm.endswith("_permuted"):
        for name, module in list(net.named_modules()):
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                parent, _, leaf = name.rpartition(".")
                setattr(net.get_submodule(parent), leaf, WrongStatistics(module, drawn["eval"]))
    return net


class WrongStatistics(nn.Module):
    """A normalisation broken on purpose: channel c is normalised with the mean and deviation of channel order[c]."""

    order: Tensor

    def __init__(self, norm: Any, generator: torch.Generator) -> None:
        super().__init__()
        channels = len(norm.weight)
        self.groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else None
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("order", torch.randperm(channels, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        if self.groups is None:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        else:
            shared = x.reshape(len(x), self.groups, -1)
            size = x.shape[1] // self.groups
            mean = shared.mean(2).repeat_interleave(size, 1)
            variance = shared.var(2, correction=0).repeat_interleave(size, 1)
        mean, variance = (t.index_select(-1, self.order)[..., None, None] for t in (mean, variance))
        out = (x - mean) / (variance + EPS).sqrt()
        return out * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
