"""Two claims of the full profile: pictures from features, and how much the settings matter."""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import pvariance
from typing import Any

import torch

from precis.data.embedded import digits
from precis.fields.deep_image_prior import dip_input, feature_inversion
from precis.fields.restoration import estimate_noise
from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder, Table
from precis.lab.hypotheses import Greater, NotWorse, Spread, Statistic
from precis.nn.backbones import ConvNet
from precis.train.classify import fit_classifier
from precis.train.loop import Budget

from .arms import make_net, psnr_in, restore
from .classical import best_of, non_local_means, total_variation
from .crops import Pictures, load_pictures
from .inversion import tv_inversion


@dataclass(frozen=True)
class Preimages:
    """Digits of size² pixels; epochs of the classifier, steps of either inversion, the network that draws."""

    size: int
    epochs: int
    steps: int
    width: int
    scales: int


class Preimage(Claim):
    """A classifier of digits; its activations after the first and the last block for a digit that it was not trained
    on.  Both inversions take the same steps; the weight of total variation is the best of five for the source (an
    oracle).  Feature errors are compared as log10 of the relative error: a factor of two more at most, so that a
    picture nearer to the source is not bought with features further from it.  Broken arms: output pixels permuted.
    """

    name = "preimage"
    statement = (
        "Inverting a layer of a network, early or late, a deep image prior comes closer to the source picture than "
        "pixels with total variation, at features equally close."
    )
    arms = ("dip_early", "dip_late", "tv_early", "tv_late", "permuted_early", "permuted_late")
    sabotaged = {"permuted_early": "dip_early", "permuted_late": "dip_late"}
    profiles = {
        "smoke": Profile(Preimages(16, 1, 8, 8, 2), seeds=2, scale="16×16, 8 steps"),
        "full": Profile(
            Preimages(32, 20, 1500, 32, 3), scale="digits at 32×32, 3 scales × 32, 1,500 steps", threads=1,
            cuda=Preimages(32, 20, 3100, 64, 3),
        ),
    }  # fmt: skip
    hypotheses = (
        Greater("psnr", "dip_early", "tv_early"), Greater("psnr", "dip_late", "tv_late"),
        NotWorse("log_error", "dip_early", "tv_early", math.log10(2), maximise=False),
        NotWorse("log_error", "dip_late", "tv_late", math.log10(2), maximise=False),
    )  # fmt: skip
    preconditions = (Precondition("accuracy", "dip_late", at_least=0.9, why="the classifier has not learned"),)
    untried = "Networks trained on photographs, whose inversions the paper shows, were not tried."

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        method, _, depth = arm.partition("_")
        train, test = (digits(settings.size, part) for part in ("train", "test"))
        classifier = ConvNet(1, 24, 3, classes=10, generator=record.streams["init"])
        fit_classifier(
            classifier, (torch.from_numpy(train.images), torch.from_numpy(train.labels)),
            budget=Budget(epochs=settings.epochs), generator=record.streams["data"], device=record.device,
        )  # fmt: skip
        classifier.eval().requires_grad_(False)
        images = torch.from_numpy(test.images).float().to(record.device) / 255
        right = classifier(images).argmax(1).cpu() == torch.from_numpy(test.labels)
        source = images[seed % len(images)][None]
        model = lambda x: classifier.stages(x)[0 if depth == "early" else -1]
        features = model(source)
        error = lambda x: float((model(x) - features).square().sum() / features.square().sum())
        if method == "tv":
            invert = lambda weight: tv_inversion(
                features, model, (1, settings.size, settings.size), weight, settings.steps,
                torch.Generator().manual_seed(seed),
            )  # fmt: skip
            made, _ = best_of(invert, (0.003, 0.01, 0.03, 0.1, 0.3), lambda x: psnr_in(x, source))
        else:
            size = (settings.size, settings.size)
            net = make_net(method, settings, size, record, channels=1)
            z = dip_input("noise", 32, size, generator=record.streams["init"]).to(record.device)
            made = feature_inversion(net, z, features, model, steps=settings.steps, lr=0.003, log=record.log).best
        record.image("source", source[0])
        record.image(arm, made[0])
        return {
            "psnr": psnr_in(made, source), "log_error": math.log10(max(error(made), 1e-12)),
            "accuracy": float(right.float().mean()),
        }  # fmt: skip


RATES, DEPTHS = (0.003, 0.01, 0.03), (3, 5)


def setting(seed: int) -> tuple[float, int]:
    """Rate and depth of a seed; five seeds have the same ones."""
    return RATES[seed % 3], DEPTHS[seed // 3 % 2]


def rate_share(table: Table) -> float:
    return _share(table, 0)


def depth_share(table: Table) -> float:
    return _share(table, 1)


def _share(table: Table, which: int) -> float:
    """Variance of the mean PSNRs of the settings over the variance of all."""
    values = table.values("psnr", "dip")
    groups: dict[float, list[float]] = {}
    for seed, value in values.items():
        groups.setdefault(setting(int(seed))[which], []).append(value)
    means = [mean for group in groups.values() for mean in [sum(group) / len(group)] * len(group)]
    return pvariance(means) / pvariance(values.values())


@dataclass(frozen=True)
class Grid:
    """One crop of size²; width of the network; steps."""

    size: int
    side: int
    steps: int
    width: int


class Sensitivity(Claim):
    """One noisy picture (25/255), the same for all; what a seed changes is the setting: the rate (0.003, 0.01 or
    0.03), the depth (3 or 5 scales) and the initialisation for the prior, stopped blind; for the classical methods
    their parameter, evenly in its logarithm over a threefold range about the best one.  It is no claim about a
    mechanism, so no arm is broken.
    """

    name = "sensitivity"
    statement = (
        "What a deep image prior restores varies more over ordinary rates, depths and initialisations than what "
        "classical methods restore over a threefold range of their parameter."
    )
    arms = ("dip", "tv", "nlm")
    takes = ("image", "images")
    profiles = {
        "smoke": Profile(Grid(32, 64, 6, 8), seeds=2, scale="32×32, 6 steps"),
        "full": Profile(Grid(96, 192, 400, 32), seeds=30, scale="96×96, 3 or 5 scales × 32, 400 steps, 30 settings"),
    }
    hypotheses = (
        Spread("psnr", "dip", "tv"), Spread("psnr", "dip", "nlm"),
        Statistic(rate_share, at_least=0, counts=False, text="share of the prior's variance between rates"),
        Statistic(depth_share, at_least=0, counts=False, text="share of the prior's variance between depths"),
    )  # fmt: skip
    untried = "One picture and one noise level; other widths and noise on z were left alone."
    sigma = 25 / 255

    def load(self, settings: Any, source: Path | None) -> Pictures:
        return load_pictures(source, settings.size, settings.side)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        fixed = torch.Generator().manual_seed(0)
        truth = data.crop(0, settings.size, fixed)
        noisy = truth + self.sigma * torch.randn(truth.shape, generator=fixed)
        if arm == "dip":
            rate, depth = setting(seed)
            if min(truth.shape[2:]) < 2 ** (depth + 1):
                depth = 3
            own = _Depth(settings.width, depth, settings.steps)
            level = estimate_noise(noisy)
            metrics = restore(arm, own, noisy, truth, record, sigma=1 / 30, lr=rate, noise=level).metrics
            return metrics | {"rate": rate, "depth": depth}
        position = 3 ** (seed % 30 / 29 - 0.5)
        score = lambda x: psnr_in(x, truth)
        method = total_variation if arm == "tv" else lambda x, h: non_local_means(x, h, self.sigma)
        grid = [0.02 * 1.25**i for i in range(15)] if arm == "tv" else [0.02 * 1.2**i for i in range(12)]
        _, best = best_of(lambda p: method(noisy, p), grid, score)
        return {"psnr": score(method(noisy, best * position)), "parameter": best * position}


@dataclass(frozen=True)
class _Depth:
    width: int
    scales: int
    steps: int
    ema: float = 0.97
