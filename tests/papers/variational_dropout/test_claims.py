"""The claims' experiments, small: what is paired is paired, and the figures are what their names say."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from precis.lab.recorder import TrialRecord
from precis.papers.variational_dropout import claims_noise, claims_removal
from precis.papers.variational_dropout.claims import AdditiveNoise, KlLimit, RandomLabels, Sparsity
from precis.papers.variational_dropout.claims_removal import SMOKE
from precis.papers.variational_dropout.digits import load_pool, splits
from precis.papers.variational_dropout.measures import (
    accuracy,
    density,
    full_bound,
    log_compression,
    log_removable,
    share_at_clip,
)
from precis.papers.variational_dropout.training import ARMS, Net, hold_then_fall, train
from precis.sparsity.variational_dropout import model_kl, variational_layers

POOL = load_pool(SMOKE, None)
LARGE = POOL._replace(images=torch.zeros(1, 1, 28, 28))


def record(tmp_path: Path, seed: int = 0) -> TrialRecord:
    return TrialRecord(tmp_path / "record" / str(seed), seed)


def net_of(arm: str, spec: str = "mlp:16", seed: int = 0) -> Net:
    return Net(ARMS[arm], spec, POOL, 100, torch.Generator().manual_seed(seed))


def test_arms_of_a_seed_share_pictures_and_first_weights():
    nets = {arm: net_of(arm) for arm in ARMS}
    for net in nets.values():
        assert torch.equal(net.net.head.weight, nets["dense"].net.head.weight)
    first, again, other = (splits(POOL, SMOKE, (seed,), "cpu") for seed in (0, 0, 1))
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, other.x)
    shuffled = splits(POOL, SMOKE, (0,), "cpu", permuted=True)
    assert torch.equal(shuffled.x, first.x) and torch.equal(shuffled.test_y, first.test_y)
    assert not torch.equal(shuffled.y, first.y)
    assert torch.equal(shuffled.y.sort(1).values, first.y.sort(1).values)


def test_no_picture_is_in_training_and_test():
    both = replace(SMOKE, train=0, test=0)
    data = splits(POOL, both, (3,), "cpu")
    assert data.x.shape[1] == 1438 and data.test_x.shape[1] == 359
    rows = lambda t: {bytes((16 * p).byte().flatten().tolist()) for p in t[0]}
    assert len(rows(data.x) & rows(data.test_x)) <= 2  # the set itself holds a few pictures twice


def test_both_forms_of_noise_start_as_the_same_posterior():
    additive, multiplicative = (
        [layer.log_alpha for _, layer in variational_layers(net_of(arm).net)] for arm in ("additive", "multiplicative")
    )
    for a, b in zip(additive, multiplicative):
        assert torch.allclose(a, b, atol=1e-4)
    for _, layer in variational_layers(net_of("sparse").net):
        assert torch.allclose(layer.spread, torch.tensor(-10.0), atol=1e-5)
    started = torch.cat([layer.log_alpha.flatten() for _, layer in variational_layers(net_of("original").net)])
    assert torch.allclose(started, torch.tensor(-3.0))


def test_first_weights_and_the_falling_rate_of_the_paper_at_full(tmp_path):
    draw = lambda: torch.Generator().manual_seed(0)
    lenet5, he = (Net(ARMS["dense"], "lenet5", LARGE, 100, draw(), first).net for first in ("paper", "he"))
    assert float(lenet5.hidden.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert float(lenet5.conv2.weight.abs().max().detach()) <= math.sqrt(6 / (25 * 70))
    assert float(he.conv2.weight.abs().max().detach()) > math.sqrt(6 / (25 * 70))
    full = Sparsity.profiles["full"].cuda  # the paper's scale; on a processor it is a smaller one
    assert (full.first, full.hold, full.second_hold) == ("paper", 0.5, 0.0)
    held = replace(SMOKE, second_net="mlp:16", second_hold=0.0)
    first, second = (train(ARMS["dense"], held, POOL, (0,), record(tmp_path), spec=s)[0] for s in (None, "mlp:16"))
    assert torch.equal(first.curves["loss"][0, 0], second.curves["loss"][0, 0])
    assert not torch.equal(first.curves["loss"], second.curves["loss"])


def test_a_seed_trains_alone_as_in_company(tmp_path):
    for arm in ("sparse", "original", "dropout"):
        together, _ = train(ARMS[arm], SMOKE, POOL, (0, 1), record(tmp_path))
        alone, _ = train(ARMS[arm], SMOKE, POOL, (1,), record(tmp_path))
        for name, value in alone.params.items():
            assert torch.allclose(together.params[name][1], value[0], atol=1e-4), (arm, name)


def test_on_permuted_labels_dropout_alone_has_longer_and_slower_training(tmp_path, monkeypatch):
    arms, given = RandomLabels.arms, {}

    def spy(arm, settings, *args, **options):
        many, split = train(arm, settings, *args, **options)
        given[arm.noise] = settings, next(iter(many.curves.values())).shape[1], split.y
        return many, split

    monkeypatch.setattr(claims_removal, "train", spy)
    rows = {
        arm: m for arm, _, m in RandomLabels().batch(arms, (0,), SMOKE, POOL, {(a, 0): record(tmp_path) for a in arms})
    }
    assert set(rows) == set(arms) and "density" in rows["sparse"] and "density" not in rows["dropout"]
    assert given["weights"][0] == given[""][0] == SMOKE and given["weights"][1] == SMOKE.steps
    slower, steps, labels = given["dropout"]
    assert slower == replace(SMOKE, steps=4 * SMOKE.steps, lr=0.3 * SMOKE.lr) and steps == 4 * SMOKE.steps
    assert torch.equal(labels, given[""][2])  # the same permuted labels
    assert not torch.equal(labels, splits(POOL, SMOKE, (0,), "cpu").y)


def test_the_weight_of_the_divergence_and_the_clip_are_kept(tmp_path):
    long = replace(SMOKE, steps=12, lr=0.5)
    sparse, _ = train(ARMS["sparse"], long, POOL, (0,), record(tmp_path))
    off = sparse.curves["loss"] - sparse.curves["nll"]
    assert off[0, 0] == pytest.approx(0, abs=1e-5)
    assert float(off[0, -1]) == pytest.approx(float(sparse.curves["kl"][0, -1]) / 100, rel=1e-3)
    without, _ = train(ARMS["sparse_without_kl"], long, POOL, (0,), record(tmp_path))
    assert torch.equal(without.curves["loss"], without.curves["nll"])
    original, _ = train(ARMS["original"], long, POOL, (0,), record(tmp_path))
    highest = max(float(p.max()) for name, p in original.params.items() if name.endswith("spread"))
    assert highest == 0.0 and 0 < share_at_clip(original.module(0)) < 1
    assert [hold_then_fall(0.5, p) for p in (0.0, 0.5, 0.75, 1.0)] == [1, 1, 0.5, 0]


def test_how_far_weights_can_be_removed():
    """A head of one weight a class, on pictures that light one pixel each: 10 of 640 weights are needed."""
    net = Net(ARMS["sparse"], "mlp:10", POOL, 100, torch.Generator().manual_seed(0)).eval()
    x, y = torch.eye(64)[:10].view(10, 1, 8, 8), torch.arange(10)
    with torch.no_grad():
        for _, layer in variational_layers(net):
            wanted = torch.eye(*layer.weight.shape) > 0
            layer.weight.copy_(torch.where(wanted, 1.0, 0.3 * torch.rand(layer.weight.shape)))
            log_alpha = torch.where(wanted, -5.0, 5.0 + torch.rand(layer.weight.shape))
            layer.spread.copy_(log_alpha + (layer.weight**2 + 1e-8).log())
    assert accuracy(net, x, y) == 100 and density(net) == pytest.approx(20 / 740)
    assert log_compression(net) == pytest.approx(math.log(37))
    found = log_removable(net, x, y)
    assert math.log(37 / 1.1) <= found <= math.log(37 * 1.1)  # the compressions tried are 1.1 apart
    with torch.no_grad():  # now the needed weights go first
        for _, layer in variational_layers(net):
            layer.spread.copy_(torch.where(torch.eye(*layer.weight.shape) > 0, 2.0, -5.0))
    assert log_removable(net, x, y) <= math.log(1.1) + 1e-9


def test_the_bound_is_that_of_the_paper():
    net = net_of("sparse").eval()
    x, y = POOL.images[:50], POOL.labels[:50]
    with torch.no_grad():
        for _, layer in variational_layers(net):
            layer.spread.fill_(-30.0)  # next to no noise
        wanted = -nn.functional.cross_entropy(net(x), y) - model_kl(net) / 100
    assert full_bound(net, x, y, torch.Generator().manual_seed(0)) == pytest.approx(float(wanted), rel=1e-3)


def test_gradients_of_both_forms_over_draws(tmp_path):
    found = claims_noise.compare(0, AdditiveNoise.profiles["smoke"].settings, POOL, record(tmp_path))
    assert all(found[f"outside_{level}"] < 3 for level in ("-3", "0", "3"))
    assert found["growth"] > 0 and found["log_variance_ratio_3"] > 0.3


def test_rows_of_a_batch_and_of_the_divergence(tmp_path):
    records = {("sparse", seed): record(tmp_path, seed) for seed in (0, 1)}
    found = {seed: m for _, seed, m in Sparsity().batch(("sparse",), (0, 1), SMOKE, POOL, records)}
    assert found[0].keys() == {"accuracy", "log_removable", "log_compression", "compression"}
    assert found[0]["compression"] == pytest.approx(math.exp(found[0]["log_compression"]), rel=1e-6)
    grid = KlLimit.profiles["smoke"].settings
    rows = {arm: KlLimit().trial(arm, 0, grid, None, record(tmp_path)) for arm in KlLimit.arms}
    assert 0.009 < rows["sigmoid"]["largest_error"] < 0.0094
    assert rows["kingma"]["distance_at_3"] == pytest.approx(4169, abs=1)
