"""The claims' experiments, small: what is paired is paired, and the figures are what their names say."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from precis.lab.claim import Table
from precis.lab.recorder import TrialRecord
from precis.papers.group_norm import claims_batches, claims_why
from precis.papers.group_norm.claims import Flat, GroupingArbitrary, LearningRate, Statistics
from precis.papers.group_norm.claims_groups import Conversion
from precis.papers.group_norm.claims_why import Rates, WrongStatistics, _bias_and_variance, _Layer
from precis.papers.group_norm.grouping import correlated_order, norm_inputs, permuted
from precis.papers.group_norm.training import make_net, positions, train, trained_bn
from precis.papers.small_nets import Residual, errors, load_pool, splits

SMALL = Residual(train=96, test=64, epochs=1)
POOL = load_pool(SMALL, None)


def record(tmp_path: Path, seed: int = 0) -> TrialRecord:
    return TrialRecord(tmp_path / "record" / str(seed), seed)


def test_arms_of_a_seed_share_pictures_weights_and_everything_but_the_norm(tmp_path):
    nets = {norm: make_net(norm, SMALL, POOL, torch.Generator().manual_seed(1)) for norm in ("bn", "gn", "ln", "in")}
    for net in nets.values():
        for (name, a), b in zip(nets["bn"].named_parameters(), net.parameters(), strict=True):
            assert torch.equal(a, b), name
    bare = make_net("none", SMALL, POOL, torch.Generator().manual_seed(1))
    assert torch.equal(bare.blocks[2][0].convs[1].weight, nets["bn"].blocks[2][0].convs[1].weight)
    assert [m.shape[-1] for m in nets["gn"].stages(POOL.images[:2])] == [4, 2, 1]
    assert positions(SMALL) == 1 and positions(replace(SMALL, strides=(2, 2, 1))) == 4
    assert {m.num_channels // m.num_groups for m in nets["gn"].modules() if isinstance(m, nn.GroupNorm)} == {8}


def test_a_row_does_not_depend_on_its_mates(tmp_path):
    short = replace(SMALL, train=32)
    for norm in ("gn", "bn"):
        three, data = train(norm, 8, short, POOL, (0, 1, 2), 0.2, record(tmp_path))
        one, alone = train(norm, 8, short, POOL, (1,), 0.2, record(tmp_path, 1))
        assert torch.equal(data.x[1], alone.x[0])
        # nets with few values a statistic magnify the last bit of a sum, step by step
        assert torch.allclose(three.curves["loss"][1, :2], one.curves["loss"][0, :2], atol=1e-4)
        assert three.steps.tolist() == [4, 4, 4]  # as many samples at any batch size: 32
    assert train("ln", 2, short, POOL, (0,), 0.2, record(tmp_path))[0].steps.tolist() == [16]


def test_the_net_that_two_claims_read_is_the_one_a_stack_trains(tmp_path):
    net = trained_bn(SMALL, POOL, 1, 0.2, record(tmp_path, 1))
    again = trained_bn(SMALL, POOL, 1, 0.2, record(tmp_path, 1))
    stack, data = train("bn", 32, SMALL, POOL, (0, 1), 0.2, record(tmp_path))
    for (name, a), b, c in zip(net.state_dict().items(), again.state_dict().values(),
                               stack.module(1).state_dict().values()):  # fmt: skip
        assert torch.equal(a, b)
        assert torch.allclose(a.float(), c.float(), atol=1e-4), name
    wrong = 100 * (net(data.test_x[1]).argmax(1) != data.test_y[1]).float().mean()
    assert float(errors(stack, data)[1]) == pytest.approx(float(wrong), abs=100 / 64)


def test_flatness_and_the_crossing_are_what_their_words_say():
    gn, bn = {2: 20, 4: 19, 8: 18, 16: 18, 32: 17}, {2: 50, 4: 40, 8: 25, 16: 10, 32: 5}
    rows = {f"{norm}_{n}": {s: {"error": e + s} for s in range(4)} for norm, values in (("gn", gn), ("bn", bn))
            for n, e in values.items()}  # fmt: skip
    table = Table(rows, (0, 1, 2, 3))
    assert claims_batches._flatter(table) == 45 - 3
    assert claims_batches._crossover(table) == pytest.approx(3 + 7 / 15)  # between 8 and 16
    outcomes = [h.outcome(table) for h in Flat.hypotheses]
    assert outcomes[0].holds and outcomes[0].effect == 42
    worse = Table({arm: {s: {"error": 50 - m["error"]} for s, m in seeds.items()} for arm, seeds in rows.items()},
                  (0, 1, 2, 3))  # fmt: skip
    assert math.isnan(claims_batches._crossover(worse))


def test_permuting_channels_and_weights_keeps_the_function_and_permuting_groups_does_not():
    claim = GroupingArbitrary()
    small = Conversion(SMALL, steps=3)
    x, y = splits(POOL, SMALL, (0,), "cpu")[:2]
    found = claim.exchange(small, POOL, 0, x[0, :16].double(), y[0, :16])
    assert found["difference"] < 1e-9 and found["difference_trained"] < 1e-6 and found["groups_only"] > 1e-3
    net = make_net("gn", SMALL, POOL, torch.Generator().manual_seed(0))
    moved = permuted(net, torch.Generator().manual_seed(1))
    assert not torch.equal(net.head.weight, moved.head.weight)
    assert torch.equal(net.head.weight.sort(1).values, moved.head.weight.sort(1).values)


def test_clusters_are_the_channels_that_vary_alike():
    sources = torch.randn(500, 3)
    x = sources[:, [0, 1, 2, 0, 1, 2]] * torch.tensor([1, 1, 1, -2, 3, 1.0]) + 0.1 * torch.randn(500, 6) + 5
    order = correlated_order(x, 3)
    assert sorted(sorted(order[i : i + 2].tolist()) for i in (0, 2, 4)) == [[0, 3], [1, 4], [2, 5]]


def test_estimates_on_numbers_whose_moments_are_known():
    n, channels = 4000, 8
    means = torch.arange(channels, dtype=torch.float64)
    given = torch.randn(n, channels, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = given + means.view(-1, 1, 1)
    layer = _Layer(given)
    mean, variance = layer.over_batches(4, 500, torch.Generator().manual_seed(1))
    bias, spread = _bias_and_variance((mean - layer.mean) / layer.variance.sqrt(), layer.live)
    assert bias == pytest.approx(0, abs=5e-3) and spread == pytest.approx(1 / 4, rel=0.1)
    assert float(variance.mean()) == pytest.approx(3 / 4, rel=0.05)  # biased by (N − 1)/N
    bias, spread = _bias_and_variance(layer.over_groups(1)[0] - layer.mean, layer.live)
    assert bias == pytest.approx(float(means.var(correction=0)), rel=0.05)  # all channels share one mean
    assert spread == pytest.approx(1 / 8, rel=0.1)
    bias, spread = _bias_and_variance(layer.over_groups(8)[0] - layer.mean, layer.live)
    assert bias == pytest.approx(0, abs=1e-3) and spread == pytest.approx(1, rel=0.1)


def test_statistics_of_a_net_that_is_trained(tmp_path):
    arms = ("bn_2", "bn_32", "gn_1", "gn_8")
    records = {(arm, 0): record(tmp_path) for arm in arms}
    for one in records.values():
        one.tuned = {"lr": 0.2}
    rows = {arm: metrics for arm, _, metrics in Statistics().batch(arms, (0,), SMALL, POOL, records)}
    assert rows["bn_2"]["mean_variance"] > 8 * rows["bn_32"]["mean_variance"]
    assert abs(rows["bn_2"]["mean_bias"]) < 0.05 < rows["gn_8"]["mean_bias"]
    assert rows["gn_8"]["equal_error_batch"] > 0 and rows["gn_8"]["error"] == rows["bn_2"]["error"]


def test_what_norms_are_given_is_seen_and_no_hook_stays():
    net = make_net("bn", SMALL, POOL, torch.Generator().manual_seed(0))
    found = norm_inputs(net, POOL.images[:5], nn.BatchNorm2d)
    assert found["blocks.2.0.norms.1"].shape == (5, 64, 1, 1) and len(found) == 10
    assert not any(m._forward_pre_hooks for m in net.modules())


def test_wrong_statistics_are_those_of_another_channel():
    x = torch.randn(6, 4, 3, 3) * torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1) + torch.arange(4.0).view(4, 1, 1)
    broken = WrongStatistics(nn.BatchNorm2d(4), torch.Generator().manual_seed(0))
    out, c = broken(x), 2
    d = int(broken.order[c])
    wanted = (x[:, c] - x[:, d].mean()) / (x[:, d].var(correction=0) + 1e-5).sqrt()
    assert torch.allclose(out[:, c], wanted, atol=1e-5) and broken.order.tolist() != [0, 1, 2, 3]
    broken.order.copy_(torch.arange(4))
    assert torch.allclose(broken(x), nn.BatchNorm2d(4)(x), atol=1e-5)
    group = WrongStatistics(nn.GroupNorm(2, 4), torch.Generator().manual_seed(0))
    group.order.copy_(torch.arange(4))
    assert torch.allclose(group(x), nn.GroupNorm(2, 4)(x), atol=1e-5)


def test_the_largest_rate_that_learns_is_found(tmp_path, monkeypatch):
    losses = torch.tensor([[[1.0, 1], [2, 2], [9, math.inf]], [[9, 9], [9, math.nan], [9, 9]]])
    monkeypatch.setattr(claims_why, "_at_all_rates", lambda *_: losses)
    records = {("bn", s): record(tmp_path, s) for s in (0, 1)}
    rows = LearningRate().batch(("bn",), (0, 1), Rates(SMALL, (0.1, 0.2, 0.4), 2, 2), POOL, records)
    assert [m["log2_rate"] for _, _, m in rows] == [math.log2(0.2), math.log2(0.05)]


def test_every_rate_of_a_seed_starts_alike_and_ends_apart(tmp_path):
    rates = Rates(SMALL, (0.01, 0.4), 3, 2)
    for arm in ("gn", "none", "bn_permuted"):
        curves = claims_why._at_all_rates(arm, rates, POOL, (0, 1), record(tmp_path))
        assert curves.shape == (2, 2, 3)
        assert torch.allclose(curves[:, 0, 0], curves[:, 1, 0], atol=1e-5)  # same weights, same first batch
        assert not torch.allclose(curves[:, 0, 2], curves[:, 1, 2])


def test_large_maps_are_trained_one_after_another_with_the_same_losses(tmp_path, monkeypatch):
    rates = Rates(SMALL, (0.01, 0.4, 1e12), 4, 2)
    together = claims_why._at_all_rates("bn", rates, POOL, (0, 1), record(tmp_path))
    monkeypatch.setattr(claims_why, "STACKED", 0)
    apart = claims_why._at_all_rates("bn", rates, POOL, (0, 1), record(tmp_path))
    assert torch.allclose(apart[:, :2], together[:, :2], atol=1e-4) and apart.shape == together.shape == (2, 3, 4)
    for losses in (apart, together):
        assert losses[:, 2].isnan().any() or (losses[:, 2, -1] > 10).all()
