"""Claims on curves drawn from a Gaussian process, whose exact predictive is known: accuracy, and initialisation."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from precis.fields.neural_process import CNP
from precis.fields.neural_process_fit import glorot_
from precis.fields.neural_process_gp import RBF, gp_log_likelihood, gp_marginals, sample_gp
from precis.fields.neural_process_stacked import StackedCNP
from precis.fields.siren_fit import losses, train
from precis.lab.claim import Claim, Metrics, Profile, Recorder, Table
from precis.lab.hypotheses import AtLeast, AtMost, Between, Less, Statistic
from precis.train.schedule import cosine

CONTEXTS = (3, 6, 10)
DRAWN = 200  # batches of curves drawn at once
NOISES = tuple(0.02 * 1.25**k for k in range(16))  # for the kernel of the wrong length
PREDICT = Callable[[Tensor, Tensor, Tensor], Normal]


@dataclass(frozen=True)
class Curves:
    """`points` of a curve are scored in training, of which at most `context` are shown; `reach`: x in ±reach.

    test: curves that are scored, at `targets` places each beside the ten of the context.
    """

    steps: int
    batch: int = 32
    width: int = 64
    lr: float = 3e-3
    points: int = 20
    context: int = 10
    reach: float = 2.0
    length: float = 0.4
    noise: float = 0.02
    test: int = 500
    targets: int = 50


class _OnCurves(Claim):
    """Curves from GP(0, RBF(0.4)) with noise 0.02, as in the paper's notebook; two claims read the trials.

    x lies in [−2, 2] there and at `full`.  At `quick` it is [−1, 1]: in trials on [−2, 2], on seeds that no verdict
    reads, a network had learnt so little after 3,000 steps (0.97 nats at ten points; the prior has 1.42, the oracle
    −0.68; the paper takes 200,000 steps) that there was nothing to compare.

    cnp            a conditional neural process, σ ≥ 0.1
    cnp_free       the same with σ ≥ 0.01 (context: what the floor costs)
    oracle         the exact predictive of each target: true kernel, true noise
    gp_wrong       a GP whose length scale is fixed at 0.8, twice the true one, and whose noise is fitted to training
                   curves by marginal likelihood, as one would
    gp_overconfident  the same with the true noise (context)
    prior          N(0, 1 + noise²), which no context changes
    permuted       the cnp arm, trained and scored with the values of the context at each other's places
    """

    runs = "curves"
    by_arm = True
    profiles = {
        "smoke": Profile(
            Curves(4, batch=8, width=16, reach=1.0, test=20, targets=10), seeds=2, scale="width 16, 4 steps"
        ),
        "quick": Profile(Curves(2500, reach=1.0), scale="x in ±1, width 64, 2,500 steps of 32 curves"),
        "full": Profile(
            Curves(10_000, batch=64, width=128, lr=1e-3, test=1000), cuda=Curves(200_000, 64, 128, 1e-3, test=1000),
            scale="x in ±2, width 128, 10,000 steps of 64 curves (GPU: 200,000)",
        ),
        "paper": Profile(
            Curves(200_000, 64, 128, 1e-4, test=1000), scale="x in ±2, width 128, 200,000 steps of 64 curves"
        ),
    }  # fmt: skip

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        for arm in arms:
            of_arm = [records[arm, seed] for seed in seeds]
            trained = train_curves(arm, settings, of_arm) if arm in ("cnp", "cnp_free", "permuted") else []
            for i, (seed, record) in enumerate(zip(seeds, of_arm, strict=True)):
                found = trained[i] if trained else known_predictive(arm, settings, record)
                yield arm, seed, score(found, settings, record)


class GPRegression(_OnCurves):
    """Metric: −log likelihood per target (nats) of targets that are not in the context, at 3, 6 and 10 points; at 10 it
    counts.

    Margins, in nats: 0.5 below the prior, since permuted values still tell the level and the spread of a curve, which
    may be worth 0.3; 0.1 below the GP of the wrong length, a tenth of the deviation for a Gaussian.  Uncertainty
    shrinks: mean σ falls by a quarter or more from 3 to 10 points.
    The gap to the oracle is a row that does not count, and so is coverage: with σ ≥ 0.1, five times the noise, 90 %
    bands hold more than 90 % where a curve is known well.
    The broken arm has the context's values at each other's places.
    """

    name = "gp_regression"
    statement = (
        "A conditional neural process approaches the exact Gaussian process on curves drawn from it, and its "
        "uncertainty shrinks as it sees more of a curve."
    )
    arms = ("cnp", "cnp_free", "oracle", "gp_wrong", "gp_overconfident", "prior")
    sabotaged = {"permuted": "cnp"}
    hypotheses = (
        Less("nll_10", "cnp", "prior", by=0.5),
        Less("nll_10", "cnp", "gp_wrong", by=0.1),
        AtLeast("log_sigma_drop", "cnp", math.log(4 / 3)),
        Less("nll_10", "cnp", "gp_overconfident", counts=False),
        Less("nll_10", "oracle", "cnp", counts=False),
        Less("nll_10", "oracle", "cnp_free", counts=False),
        AtMost("nll_all_10", "cnp", 0, counts=False),
        Between("coverage_90", "cnp", 0.85, 0.95, counts=False),
    )
    untried = (
        "Curves whose kernel changes on the way, the second set of the paper, and its 200,000 steps were not tried; "
        "one kernel with one length scale."
    )


class Initialisation(_OnCurves):
    """Standard deviation over seeds of the target NLL at 10 points, over the distance from the prior to the oracle.

    A seed draws the weights, the training curves and the test curves anew, so this holds all three: it is at least what
    initialisation alone does.  Bound 0.1, a tenth of what there is to gain.  Nothing is broken here: no mechanism is
    claimed.
    """

    name = "initialisation"
    statement = "The result of a training depends little on the initialisation."
    arms = ("cnp", "oracle", "prior")
    hypotheses = (  # fmt: skip
        Statistic(
            # statistics.stdev stumbles over NaN, which is what a missing trial gives
            lambda table: spread_over_gap(table) if all([
                math.isfinite(v) for arm in ("cnp", "oracle", "prior") for v in table.values("nll_10", arm).values()
            ]) else math.nan,
            at_most=0.1, text="spread over seeds, as a share of the gap",
        ),
    )
    untried = "Initialisations of other kinds (only the notebook's was drawn), and other architectures, were not tried."


def spread_over_gap(table: Table) -> float:
    """Standard deviation of the cnp arm over seeds, divided by the mean distance from prior to oracle."""
    found, prior, oracle = (list(table.values("nll_10", arm).values()) for arm in ("cnp", "prior", "oracle"))
    return stdev(found) / (fmean(prior) - fmean(oracle))


def train_curves(arm: str, settings: Curves, records: list[Recorder]) -> list[PREDICT]:
    """One stack of networks, a copy a record, on curves of its own; the counts of context points are all alike."""
    generators = [record.streams["init"] for record in records]
    curves = [record.streams["data"] for record in records]
    noises = [record.streams["noise"] for record in records]
    if len(records) == 1:  # one matrix alone goes another way than a batch and rounds otherwise: a mate for it
        generators, curves = [*generators, torch.Generator()], [*curves, torch.Generator()]
        noises = [*noises, torch.Generator()]
    device, floor = records[0].device, 0.01 if arm == "cnp_free" else 0.1
    net = StackedCNP([_build(settings.width, floor, g) for g in generators]).to(device)
    counts = torch.Generator().manual_seed(0)
    drawn: list[tuple[Tensor, Tensor]] = []

    def step(_: Any) -> dict[str, Tensor]:
        if not drawn:
            drawn.extend(_draw(settings, curves))
        x, y = (t.to(device) for t in drawn.pop())
        n = int(torch.randint(0, settings.context + 1, (), generator=counts))
        shown = permuted(y[:, :, :n], noises) if arm == "permuted" else y[:, :, :n]
        return losses(net.losses(x[:, :, :n], shown, x, y))

    run = train(net, step, [None], steps=settings.steps, lr=settings.lr, schedule=cosine(0.03), log=records[0].log)
    singles = net.to_modules()[: len(records)]
    for m, record in enumerate(records):
        record.curve("training loss", *run.curves[f"loss/{m}"])
    return [_predictive(one, record if arm == "permuted" else None) for one, record in zip(singles, records)]


def known_predictive(arm: str, settings: Curves, record: Recorder) -> PREDICT:
    """Arms that are not trained, and the noise of the wrong kernel from training curves."""
    true, wrong = RBF(settings.length), RBF(2 * settings.length)
    if arm == "prior":
        spread = math.sqrt(1 + settings.noise**2)
        return lambda x, y, at: Normal(torch.zeros_like(at), torch.full_like(at, spread))
    if arm == "oracle":
        return lambda x, y, at: gp_marginals(true, x, y, at, settings.noise)
    noise = settings.noise
    if arm == "gp_wrong":
        curves = _draw(settings, [record.streams["data"]])
        x, y = (torch.stack([pair[i] for pair in curves])[:, 0].flatten(0, 1)[:500].double() for i in range(2))
        noise = max(NOISES, key=lambda s: float(gp_log_likelihood(wrong, x, y, s).mean()))
        record.note(f"noise {noise:.3g} fitted to the kernel of length {2 * settings.length:g}")
    return lambda x, y, at: gp_marginals(wrong, x, y, at, noise)


@torch.no_grad()
def score(predict: PREDICT, settings: Curves, record: Recorder) -> Metrics:
    """NLL of the targets, and with the context among them (as in the paper's loss), spread and coverage."""
    g, most = record.streams["eval"], max(CONTEXTS)
    x = settings.reach * (2 * torch.rand(settings.test, most + settings.targets, 1, generator=g) - 1)
    y = sample_gp(RBF(settings.length), x, settings.noise, g)
    x, y = x.to(record.device), y.to(record.device)
    metrics: Metrics = {}
    sigma: dict[int, float] = {}
    for n in CONTEXTS:
        found = predict(x[:, :n], y[:, :n], x)
        logs = found.log_prob(y.to(found.mean))
        metrics[f"nll_{n}"] = -float(logs[:, most:].mean())
        metrics[f"nll_all_{n}"] = -float(torch.cat([logs[:, :n], logs[:, most:]], 1).mean())
        sigma[n] = float(found.stddev[:, most:].mean())
        inside = (y.to(found.mean) - found.mean).abs() < 1.6448536 * found.stddev
        metrics["coverage_90"] = float(inside[:, most:].float().mean())
    metrics["log_sigma_drop"] = math.log(sigma[CONTEXTS[0]] / sigma[most])
    rows = [{"points": n, "NLL": metrics[f"nll_{n}"], "σ": sigma[n]} for n in CONTEXTS]
    record.table("by context", rows)
    return metrics


def permuted(y: Tensor, generators: list[torch.Generator]) -> Tensor:
    """The values [M,B,n,1] of each context in a random order."""
    order = torch.stack([torch.rand(y.shape[1:3], generator=g).argsort(-1) for g in generators])
    return torch.gather(y, 2, order[..., None].to(y.device))


def _predictive(net: CNP, shuffle: Recorder | None) -> PREDICT:
    def predict(x: Tensor, y: Tensor, at: Tensor) -> Normal:
        shown = y if shuffle is None else permuted(y[None], [shuffle.streams["noise"]])[0]
        return net(x, shown, at)

    return predict


def _build(width: int, floor: float, generator: torch.Generator) -> CNP:
    net = CNP(1, 1, width, (width,) * 3, (width,) * 2, floor, generator)
    glorot_(net, generator)
    return net


def _draw(settings: Curves, generators: list[torch.Generator]) -> list[tuple[Tensor, Tensor]]:
    """`DRAWN` batches (x, y), each [M,B,points,1], copy m from generator m."""
    drawn = []
    for g in generators:
        x = settings.reach * (2 * torch.rand(DRAWN * settings.batch, settings.points, 1, generator=g) - 1)
        y = sample_gp(RBF(settings.length), x, settings.noise, g)
        drawn.append([t.unflatten(0, (DRAWN, settings.batch)) for t in (x, y)])
    x, y = (torch.stack([pair[i] for pair in drawn], 1) for i in range(2))
    return list(zip(x, y, strict=True))
