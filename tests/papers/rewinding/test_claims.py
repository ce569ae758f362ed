"""The claims' experiments, small: what is paired is paired, and a stack retrains as single networks would."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from precis.errors import InputError
from precis.lab.claim import Table
from precis.lab.recorder import TrialRecord
from precis.papers.pools import Pool
from precis.papers.rewinding.claims import Elastic, LrVsFinetune, LrVsWeight, SearchCost, WeightVsFinetune
from precis.papers.rewinding.claims_cost import crossing, crossing_tuned
from precis.papers.rewinding.claims_retrain import CIFAR, MNIST, PROFILES, TUNED, TUNED_ARM
from precis.papers.rewinding.setting import Replay, Setting, load_pool, rates_of, split
from precis.papers.rewinding.training import (
    Copy,
    dense,
    dense_accuracy,
    method_of,
    retrain_one,
    retrain_rounds,
    retrain_stack,
)  # fmt: skip
from precis.sparsity.rewinding import retrain_plan

SMALL = Setting(train=120, test=80, model="mlp:24-12", batch=20, steps=40, every=4)
POOL = load_pool(SMALL, None)


def record(tmp_path: Path, seed: int = 0, rate: float = 0.003) -> TrialRecord:
    return TrialRecord(tmp_path / "record" / str(seed), seed, tuned={"last_rate": rate})


def test_rates_fall_at_half_and_three_quarters():
    rates = rates_of(Setting())
    assert rates[[0, 249, 250, 374, 375, 499]].tolist() == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert len(rates_of(CIFAR)) == 23_400


def test_at_full_every_length_starts_at_a_checkpoint_and_a_processor_has_a_smaller_net():
    full = PROFILES["full"]
    assert (full.settings, full.cuda) == (MNIST, CIFAR) and MNIST.densities == CIFAR.densities
    for setting in (MNIST, CIFAR):
        assert all(round(t * setting.steps) % setting.every == 0 for t in (setting.t, *setting.ts))
        assert setting.iterative and setting.steps % (setting.train // setting.batch) == 0


def test_splits_are_a_seeds_own_and_standardised_by_their_training_part():
    a, b = split(POOL, SMALL, 0, "cpu"), split(POOL, SMALL, 1, "cpu")
    assert a.x.shape == (120, 64) and a.test_x.shape == (80, 64) and not torch.equal(a.x, b.x)
    assert float(a.x.mean()) == pytest.approx(0, abs=1e-5) and float(a.x.std()) == pytest.approx(1, abs=1e-5)
    rows = lambda x: {tuple(r.tolist()) for r in x}
    assert not rows(a.x) & rows(a.test_x)


def test_a_batch_depends_on_seed_pruning_and_step_alone():
    x, y = torch.arange(50.0)[:, None], torch.arange(50)
    one, other = Replay(x, y, 8, 3), Replay(x, y, 8, 3)
    other(0, 0), other(13, 2)
    assert one.steps_per_epoch == 6 and torch.equal(one(40, 1)[1], other(40, 1)[1])
    assert len({int(i) for k in range(6) for i in one(k, 0)[1]}) == 48  # an epoch repeats nothing
    assert not torch.equal(one(0, 0)[1], one(6, 0)[1]) and not torch.equal(one(0, 0)[1], one(0, 1)[1])
    assert not torch.equal(one(0, 0)[1], Replay(x, y, 8, 4)(0, 0)[1])
    noisy = Replay(x, y, 8, 3, lambda x, generator: x + torch.rand(x.shape, generator=generator))
    assert torch.equal(noisy(5, 0)[0], noisy(5, 0)[0]) and not torch.equal(noisy(5, 0)[0], noisy(5, 1)[0])


def test_the_dense_net_is_trained_once_and_rewinding_all_of_it_gives_it_again(tmp_path):
    first = dense(SMALL, POOL, 0, record(tmp_path))
    again = dense(SMALL, POOL, 0, record(tmp_path))
    assert list(first.checkpoints) == list(range(0, 41, 4))
    assert all(torch.equal(v, again.at(40).model_state[k]) for k, v in first.at(40).model_state.items())
    data = split(POOL, SMALL, 0, "cpu")
    base = dense_accuracy(first, SMALL, POOL, data)
    assert base > 50
    whole = retrain_stack([Copy(0, "weight_rewind", 1.0, 1.0)], {0: first}, {0: data}, SMALL, POOL)
    assert whole == [pytest.approx(base)]


def test_rows_do_not_depend_on_their_mates_and_arms_are_what_their_names_say(tmp_path):
    histories = {seed: dense(SMALL, POOL, seed, record(tmp_path, seed)) for seed in (0, 1)}
    splits = {seed: split(POOL, SMALL, seed, "cpu") for seed in (0, 1)}
    arms = ("lr_rewind", "weight_rewind", "fine_tune", "weight_rewind_low_lr", "fine_tune_0.01")
    copies = [Copy(seed, arm, 0.1, 0.9) for arm in arms for seed in (0, 1)]
    together = dict(zip(copies, retrain_stack(copies, histories, splits, SMALL, POOL)))
    for copy in (copies[2], copies[9]):
        alone = retrain_stack([copy], {copy.seed: histories[copy.seed]}, {copy.seed: splits[copy.seed]}, SMALL, POOL)
        assert alone == [pytest.approx(together[copy], abs=1.3)]  # one answer of 80
    short = [Copy(0, arm, 0.1, 0.1) for arm in ("lr_rewind", "fine_tune")]
    same = retrain_stack(short, {0: histories[0]}, {0: splits[0]}, SMALL, POOL)
    assert same[0] == same[1]  # the tail of the schedule is the last rate: one and the same
    method, other = method_of("fine_tune_0.01", histories[0])
    assert set(retrain_plan(method, other, 36).rates.tolist()) == {0.01}
    assert set(retrain_plan("fine_tune", histories[0], 36).rates.tolist()) == {histories[0].rates[-1].item()}


def test_residual_nets_are_retrained_one_by_one_and_in_rounds(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    images = (torch.rand(90, 3, 8, 8, generator=generator) * 100).byte() + (50 * labels).view(-1, 1, 1, 1).byte()
    pool = Pool(images, labels, 3, 60)
    setting = replace(SMALL, model="small_resnet:width=4", train=60, test=30, batch=12, steps=10, every=1,
                      augment="cifar", densities=(0.7, 0.5), iterative=True)  # fmt: skip
    history, data = dense(setting, pool, 0, record(tmp_path)), split(pool, setting, 0, "cpu")
    assert data.x.dtype == torch.uint8 and len(data.test_x) == 30
    base = dense_accuracy(history, setting, pool, data)
    assert retrain_one(Copy(0, "weight_rewind", 1.0, 1.0), history, data, setting, pool) == base
    rounds = retrain_rounds(Copy(0, "lr_rewind", 0.5, 0.3), history, data, setting, pool)
    assert set(rounds) == {0.7, 0.5} and all(0 <= value <= 100 for value in rounds.values())
    rows = {(arm, seed): m for arm, seed, m in WeightVsFinetune().batch(
        ("fine_tune",), (0,), setting, pool, {("fine_tune", 0): record(tmp_path)})}  # fmt: skip
    found = rows["fine_tune", 0]
    assert set(found) == {"accuracy_0.7", "accuracy_0.5", "rounds_0.7", "rounds_0.5", "accuracy_dense", "lost"}
    assert found["lost"] == pytest.approx(found["accuracy_dense"] - found["accuracy_0.5"])


@pytest.mark.parametrize("claim", [WeightVsFinetune, LrVsFinetune, Elastic, LrVsWeight, SearchCost])
def test_every_metric_that_a_hypothesis_reads_is_made(claim, tmp_path):
    setting = replace(SMALL, steps=10, every=1)
    arms = (*claim.arms, *claim.sabotaged)
    records = {(arm, seed): record(tmp_path, seed) for arm in arms for seed in (0, 1)}
    rows: dict = {arm: {} for arm in arms}
    for arm, seed, metrics in claim().batch(arms, (0, 1), setting, POOL, records):
        rows[arm][seed] = metrics
    table = Table(rows, (0, 1))
    for hypothesis in claim.hypotheses:
        if (hypothesis.profiles is None or "quick" in hypothesis.profiles) and hasattr(hypothesis, "metric"):
            assert hypothesis.outcome(table).n == 2 and "missing" not in hypothesis.outcome(table).note
    for condition in claim.preconditions:
        assert all(np.isfinite(v) for v in table.values(condition.metric, condition.arm).values())


def test_tuned_fine_tuning_has_the_rate_of_the_pilot_seed_and_no_other_arm_is_tuned(tmp_path):
    setting = replace(SMALL, densities=(0.5, 0.3, 0.2), density_t=0.2)
    for claim in (WeightVsFinetune, SearchCost):
        pilot, arms = 10_000, claim.arms
        rows = {}
        for rate in TUNED.grid["last_rate"]:
            records = {(arm, pilot): record(tmp_path / f"{rate}", pilot, rate) for arm in arms}
            rows[rate] = {arm: m for arm, _, m in claim().batch(arms, (pilot,), setting, POOL, records)}
            assert set(rows[rate]) == set(arms)
            assert all(rows[rate][arm] == {"validation": 0.0} for arm in arms if arm != TUNED_ARM)
        names = [f"accuracy_{d:g}" for d in (0.3, 0.2)] if claim is WeightVsFinetune else ["accuracy_mean"]
        chosen = rows[0.01][TUNED_ARM]
        assert chosen["validation"] == pytest.approx(sum(chosen[name] for name in names) / len(names))
        records = {(arm, 0): record(tmp_path, 0, 0.001) for arm in arms}
        found = {arm: m for arm, _, m in claim().batch(arms, (0,), setting, POOL, records)}
        assert found[TUNED_ARM] == found["fine_tune"] and "validation" not in found[TUNED_ARM]  # 0.001 is the last rate
        records[TUNED_ARM, 0] = record(tmp_path, 0, 0.01)
        other = {arm: m for arm, _, m in claim().batch(arms, (0,), setting, POOL, records)}
        assert other[TUNED_ARM] != other["fine_tune"] == found["fine_tune"]
    same = [claim.tuning for claim in (WeightVsFinetune, LrVsFinetune, Elastic, LrVsWeight, SearchCost)]
    assert all(tuning is TUNED for tuning in same)  # claims of one set of runs have to be tuned alike


def _curves(**arms: tuple[float, ...]) -> Table:
    ts = (0.1, 0.5, 0.9, 1.0)
    return Table({arm: {s: {f"accuracy_t{t:g}": v + s for t, v in zip(ts, values)} for s in range(5)}
                  for arm, values in arms.items()}, tuple(range(5)))  # fmt: skip


def test_where_the_curves_cross():
    lr, fine = (80.0, 90.0, 92.0, 92.0), (80.0, 88.5, 88.0, 88.0)
    table = _curves(lr_rewind=lr, fine_tune=fine, fine_tune_tuned=(81.0, 91.5, 92.0, 91.0))
    assert crossing(table) == pytest.approx(0.25 + 0.25 * 0.5 / 1.5)  # up to 0.25 the two are one run
    assert crossing_tuned(table) == pytest.approx(0.95)  # from −0.5 at 0.9 to 0.5 at 1
    assert crossing_tuned(_curves(lr_rewind=lr, fine_tune_tuned=(79.0, 88.0, 91.0, 91.0))) == 0.1
    assert crossing(_curves(lr_rewind=(80.0, 90.0, 88.0, 92.0), fine_tune=fine)) == pytest.approx(0.9 + 0.1 * 0.5 / 4)
    assert np.isnan(crossing(_curves(lr_rewind=lr, fine_tune=(80.0, 88.0, 91.0, 91.9))))
    stated = {h.fn: h for h in SearchCost.hypotheses if hasattr(h, "fn")}
    found = stated[crossing].outcome(table)
    assert found.interval == pytest.approx((found.effect, found.effect)) and not stated[crossing].counts
    never = stated[crossing_tuned].outcome(_curves(lr_rewind=lr, fine_tune_tuned=lr))
    assert never.holds is None and never.note == "the statistic is not finite"


def test_own_pictures_can_be_the_data(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (300, 1, 10, 10)).astype(np.uint8),
             labels=rng.integers(3, size=300))  # fmt: skip
    pool = load_pool(SMALL, tmp_path / "set.npz")
    assert pool.images.shape == (300, 1, 8, 8) and pool.classes == 3 and len(split(pool, SMALL, 0, "cpu").x) == 120
    np.savez(tmp_path / "few.npz", images=np.zeros((50, 1, 8, 8), np.uint8), labels=np.arange(50) % 2)
    with pytest.raises(InputError, match="at least 200 labelled pictures"):
        load_pool(SMALL, tmp_path / "few.npz")
