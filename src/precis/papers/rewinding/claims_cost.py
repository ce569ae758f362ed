"""Claims about the length of retraining, the price of the search."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from precis.lab.claim import Claim, Metrics, Precondition, Recorder, Table
from precis.lab.hypotheses import Greater, NotWorse, Statistic
from precis.papers.pools import Pool

from .claims_retrain import PROFILES, TUNED, TUNED_ARM, TUNING_SEEDS, not_tuned, trained_as
from .setting import is_stacked, load_pool, split
from .training import Copy, dense, dense_accuracy, retrain_one, retrain_stack

TS = (0.1, 0.5, 0.9, 1.0)
SAME = 0.25  # share of the steps that the schedule ends with at its last rate
AHEAD = 0.5  # points


class Lengths(Claim):
    """The setting of the claims before, at one density, retrained for several shares t of the first training.

    At t = 1 weight rewinding goes back to the first weights, and learning-rate rewinding repeats the whole schedule.
    Up to t = 0.25 the replayed rates are all the last one, so that learning-rate rewinding *is* fine-tuning there.
    Tuned fine-tuning has the best of the same three constant rates as there, by the mean accuracy over all t.
    """

    runs = "lengths"
    takes = ("images",)
    tuning = TUNED
    profiles = PROFILES
    preconditions = (Precondition("accuracy_dense", "lr_rewind", at_least=85, why="the dense net did not learn"),)

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        yield from (rows := list(not_tuned(arms, seeds)))
        arms = tuple(arm for arm in arms if arm not in {row[0] for row in rows})
        if not arms:
            return
        first = records[arms[0], seeds[0]]
        histories = {seed: dense(settings, data, seed, records[arms[0], seed]) for seed in seeds}
        splits = {seed: split(data, settings, seed, first.device) for seed in seeds}
        found: dict[tuple[str, int], list[float]] = {(arm, seed): [] for arm in arms for seed in seeds}
        for t in settings.ts:
            copies = [Copy(seed, trained_as(arm, records[arm, seed]), settings.density_t, t) for arm, seed in found]
            if is_stacked(settings):
                values = retrain_stack(copies, histories, splits, settings, data, first.log)
            else:
                values = [retrain_one(c, histories[c.seed], splits[c.seed], settings, data, records[row].log)
                          for c, row in zip(copies, found, strict=True)]  # fmt: skip
            for so_far, value in zip(found.values(), values, strict=True):
                so_far.append(value)
        for (arm, seed), values in found.items():
            records[arm, seed].curve("accuracy over t", settings.ts, values)
            base = dense_accuracy(histories[seed], settings, data, splits[seed])
            metrics: Metrics = {f"accuracy_t{t:g}": value for t, value in zip(settings.ts, values)}
            mean = sum(values) / len(values)
            metrics |= {"validation": mean} if seed >= TUNING_SEEDS else {}
            yield arm, seed, {**metrics, "accuracy_mean": mean, "accuracy_dense": base}


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


def crossing(table: Table, other: str = "fine_tune") -> float:
    """The t from which on the mean accuracy of learning-rate rewinding is half a point or more above that of `other`.

    Linear between the lengths that were tried, and t = 0.25, up to which it is the same run as fine-tuning at the last
    rate.  The least of them if it is ahead at all.  NaN: at t = T it is not half a point ahead, so that there is no
    such t among those that were tried; the hypothesis then says that the statistic is not finite.
    """
    gaps = {}
    for t in TS:
        a, b = (table.values(f"accuracy_t{t:g}", arm) for arm in ("lr_rewind", other))
        gaps[t] = sum(a[seed] - b[seed] for seed in a) / len(a) - AHEAD
    if other == "fine_tune":
        gaps[SAME] = -AHEAD
    ts = sorted(gaps)
    if not gaps[ts[-1]] >= 0:
        return math.nan
    for s, t in reversed(list(pairwise(ts))):
        if not gaps[s] >= 0:
            return s + (t - s) * gaps[s] / (gaps[s] - gaps[t])
    return ts[0]


def crossing_tuned(table: Table) -> float:
    return crossing(table, TUNED_ARM)


class SearchCost(Lengths):
    """At t = 0.1 T fine-tuning is not worse than weight rewinding by a point (against learning-rate rewinding it would
    be the same run there); from half of T on it is behind learning-rate rewinding.  Beside it, without counting: the
    same against tuned fine-tuning; and the t from which on learning-rate rewinding is half a point ahead of either, of
    the curves of means, with the interval of the jackknife over seeds.  Where it never is, there is no such t, and
    nothing is said.  A claim about where two curves cross: there is no mechanism to break.

    Before, the crossing was a straight line from t = 0.1 to 0.5, though up to 0.25 the two are one run; that gave 0.12,
    where they cannot differ.
    """

    name = "search_cost"
    statement = "Fine-tuning keeps up only when retraining is very short; with more epochs rewinding is more accurate."
    arms = ("lr_rewind", "weight_rewind", "fine_tune", TUNED_ARM)
    hypotheses = (
        NotWorse("accuracy_t0.1", "fine_tune", "weight_rewind", margin=1.0),
        *(Greater(f"accuracy_t{t:g}", "lr_rewind", "fine_tune") for t in TS[1:]),
        *(Greater(f"accuracy_t{t:g}", "lr_rewind", TUNED_ARM, counts=False) for t in TS[1:]),
        Statistic(crossing, at_most=0.5, counts=False,
                  text="t/T from which on, if at all, rewinding the rate is half a point ahead of fine-tuning"),
        Statistic(crossing_tuned, at_most=0.5, counts=False,
                  text="t/T from which on, if at all, it is half a point ahead of tuned fine-tuning"),
    )  # fmt: skip
    untried = "Retraining for longer than the first training was not tried."
