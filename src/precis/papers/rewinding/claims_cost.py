"""Claims about the length of retraining, the price of the search."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from precis.lab.claim import Claim, Metrics, Precondition, Recorder, Table
from precis.lab.hypotheses import Greater, NotWorse, Statistic
from precis.papers.pools import Pool

from .claims_retrain import PROFILES
from .setting import is_stacked, load_pool, split
from .training import Copy, dense, dense_accuracy, retrain_one, retrain_stack

TS = (0.1, 0.5, 0.9, 1.0)


class Lengths(Claim):
    """The setting of the claims before, at one density, retrained for several shares t of the first training.

    At t = 1 weight rewinding goes back to the first weights, and learning-rate rewinding repeats the whole schedule.
    Up to t = 0.25 the replayed rates are all the last one, so that learning-rate rewinding *is* fine-tuning there.
    """

    runs = "lengths"
    takes = ("images",)
    profiles = PROFILES
    preconditions = (Precondition("accuracy_dense", "lr_rewind", at_least=85, why="the dense net did not learn"),)

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        first = records[arms[0], seeds[0]]
        histories = {seed: dense(settings, data, seed, records[arms[0], seed]) for seed in seeds}
        splits = {seed: split(data, settings, seed, first.device) for seed in seeds}
        found: dict[tuple[str, int], list[float]] = {(arm, seed): [] for arm in arms for seed in seeds}
        for t in settings.ts:
            copies = [Copy(seed, arm, settings.density_t, t) for arm, seed in found]
            if is_stacked(settings):
                values = retrain_stack(copies, histories, splits, settings, data, first.log)
            else:
                values = [retrain_one(c, histories[c.seed], splits[c.seed], settings, data, records[c.arm, c.seed].log)
                          for c in copies]  # fmt: skip
            for copy, value in zip(copies, values):
                found[copy.arm, copy.seed].append(value)
        for (arm, seed), values in found.items():
            records[arm, seed].curve("accuracy over t", settings.ts, values)
            base = dense_accuracy(histories[seed], settings, data, splits[seed])
            metrics: Metrics = {f"accuracy_t{t:g}": value for t, value in zip(settings.ts, values)}
            yield arm, seed, {**metrics, "accuracy_mean": sum(values) / len(values), "accuracy_dense": base}


class LrVsWeight(Lengths):
    """The mean over all t of the difference in points, as the summary words it: superior, no margin.  The published
    difference is a tenth of a point with changes of sign, so it may well stay open.  Beside it, without counting:
    not worse by half a point, and the difference at t = T alone.  The arms differ in the one thing that is claimed
    about, the weights that are kept or put back: no broken arm.
    """

    name = "lr_vs_weight"
    statement = "For a given search cost, learning-rate rewinding is more accurate than weight rewinding."
    arms = ("lr_rewind", "weight_rewind")
    hypotheses = (
        Greater("accuracy_mean", "lr_rewind", "weight_rewind"),
        NotWorse("accuracy_mean", "lr_rewind", "weight_rewind", margin=0.5, counts=False),
        Greater("accuracy_t1", "lr_rewind", "weight_rewind", counts=False),
    )
    untried = "Search cost was counted in retraining epochs of one-shot pruning; rounds were not tried at this profile."


def _crossover(table: Table) -> float:
    """The t at which the mean accuracy of learning-rate rewinding passes that of fine-tuning by half a point."""
    gap = {t: 0.0 for t in TS}
    for t in TS:
        a, b = (table.values(f"accuracy_t{t:g}", arm) for arm in ("lr_rewind", "fine_tune"))
        gap[t] = sum(a[seed] - b[seed] for seed in a) / len(a) - 0.5
    for s, t in pairwise(TS):
        if gap[s] < 0 <= gap[t]:
            return s + (t - s) * gap[s] / (gap[s] - gap[t])
    return math.nan


class SearchCost(Lengths):
    """At t = 0.1 T fine-tuning is not worse than weight rewinding by a point (against learning-rate rewinding it would
    be the same run there); from half of T on it is behind learning-rate rewinding.  Beside it, without counting: where
    learning-rate rewinding gets half a point ahead, linear between the lengths that were tried.  A claim about where
    two curves cross: there is no mechanism to break.
    """

    name = "search_cost"
    statement = "Fine-tuning keeps up only when retraining is very short; with more epochs rewinding is more accurate."
    arms = ("lr_rewind", "weight_rewind", "fine_tune")
    hypotheses = (
        NotWorse("accuracy_t0.1", "fine_tune", "weight_rewind", margin=1.0),
        *(Greater(f"accuracy_t{t:g}", "lr_rewind", "fine_tune") for t in TS[1:]),
        Statistic(_crossover, at_least=0.25, counts=False, text="t/T where rewinding the rate is half a point ahead"),
    )
    untried = "Retraining for longer than the first training was not tried."
