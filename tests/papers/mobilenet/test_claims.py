"""The claims' experiments, small: arms differ in what they say, and the figures are what their names say."""

from pathlib import Path

import pytest
import torch
from torch import nn

from precis.lab.claim import Table
from precis.lab.recorder import TrialRecord
from precis.nn.cost import count
from precis.papers.mobilenet import claims_blocks, claims_convolutions
from precis.papers.mobilenet.claims import (
    BottleneckShortcut,
    Factorised,
    InvertedVsSeparable,
    LinearBottleneck,
    Manifold,
    Memory,
    ReluLosesInformation,
    Size,
)  # fmt: skip
from precis.papers.mobilenet.claims_blocks import ARMS, Body, make_net, mean_share, tensors_of
from precis.papers.mobilenet.claims_exact import Curve, Pictures
from precis.papers.mobilenet.memory import largest_output, peak_bytes
from precis.papers.pools import Pool
from precis.papers.small_nets import Task, load_pool

SMALL = Body(Task(train=64, test=64, epochs=1))
POOL = load_pool(SMALL.task, None)
COLOUR = Pool(torch.zeros(2, 3, 32, 32), torch.zeros(2).long(), 10, 1)


def record(folder: Path, seed: int = 0) -> TrialRecord:
    return TrialRecord(folder / "record" / str(seed), seed, tuned={"lr": 0.1})


def test_arms_of_a_seed_have_the_same_weights_and_differ_in_one_flag():
    nets = {arm: make_net(arm, SMALL, POOL, torch.Generator().manual_seed(1)).eval() for arm in ARMS}
    x = POOL.images[:4]
    for net in nets.values():
        for (name, a), b in zip(nets["linear"].state_dict().items(), net.state_dict().values(), strict=True):
            assert torch.equal(a, b), name
    assert len({count(net, x[:1]).macs for net in nets.values()}) == 1
    blocks = {arm: list(net.blocks) for arm, net in nets.items()}
    assert [len(blocks[arm]) for arm in ARMS] == [6] * 4
    assert [b.project.conv.out_channels for b in blocks["linear"]] == [4] * 6
    assert sum(b.adds for b in blocks["linear"]) == 4 and not any(b.adds for b in blocks["none"])
    assert sum(nets["expansion"].joins) == 3 and not any(b.adds for b in blocks["expansion"])
    assert isinstance(blocks["relu6"][0].project.act, nn.ReLU6)
    assert isinstance(blocks["linear"][0].project.act, nn.Identity)
    assert [tuple(m.shape[2:]) for m in nets["linear"].stages(x)] == [(8, 8), (4, 4)]


def test_a_seed_trains_as_it_would_alone_and_its_tensors_are_measured(tmp_path):
    claim, seeds = LinearBottleneck(), (0, 1)
    records = {("linear", s): record(tmp_path, s) for s in seeds}
    rows = {s: m for _, s, m in claim.batch(("linear",), seeds, SMALL, POOL, records)}
    alone = {s: m for _, s, m in claim.batch(("linear",), (1,), SMALL, POOL, records)}
    assert alone[1]["error"] == pytest.approx(rows[1]["error"], abs=100 / 64 + 1e-6)
    found = rows[0]
    assert found["expanded_minus_bottleneck"] == pytest.approx(found["expanded_share"] - found["bottleneck_share"])
    assert found["shuffled_expanded_share"] > found["expanded_share"] > 0
    assert 0.25 <= found["bottleneck_share"] <= 1 and 0 < found["untrained_expanded_share"] <= 1
    made = {s: found | {"expanded_share": 0.3 + s / 100, "expanded_minus_bottleneck": s / 100 - 0.2} for s in range(3)}
    table = Table({"linear": made}, (0, 1, 2))
    assert [h.outcome(table).holds for h in Manifold.hypotheses[:2]] == [True, True]
    assert {c.runs for c in (LinearBottleneck, BottleneckShortcut, Manifold)} == {"blocks"}


def test_tensors_are_those_of_the_blocks_and_no_hook_stays():
    net = make_net("linear", SMALL, POOL, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        wide, thin = tensors_of(net, POOL.images[:3])
    assert [t.shape for t in wide[:3]] == [(192, 48), (192, 24), (48, 24)]  # 3 pictures of 8² pixels; then of 4²
    assert [t.shape for t in thin[:2]] == [(192, 4), (48, 4)] and len(wide) == len(thin) == 6
    assert not any(m._forward_hooks for m in net.modules())
    plane = torch.randn(100, 2) @ torch.randn(2, 8)
    assert mean_share([plane, torch.eye(4)]) == pytest.approx((2 / 8 + 3 / 4) / 2)


def test_nets_of_equal_cost_cost_the_same():
    for claim, profile, pool, a, b in (
        (Factorised(), "quick", POOL, "wide", "standard"), (Factorised(), "full", COLOUR, "wide", "standard"),
        (InvertedVsSeparable(), "full", COLOUR, "v1", "v2"),
    ):  # fmt: skip
        made = claim.nets(claim.profiles[profile].settings, pool)
        macs = {arm: count(made[arm](torch.Generator()).eval(), pool.images[:1]).macs for arm in (a, b)}
        assert abs(macs[a] - macs[b]) <= 0.03 * macs[b]
        assert set(claim.arms) | set(claim.sabotaged) == set(made)


def test_centre_taps_mix_no_positions():
    settings = Factorised.profiles["quick"].settings
    made = Factorised().nets(settings, POOL)
    net, whole = (made[arm](torch.Generator().manual_seed(3)).eval() for arm in ("centre", "separable"))
    kernel = whole.layers[0].depthwise.conv.weight
    assert torch.equal(net.layers[0].depthwise.conv.weight[:, :, 0, 0], kernel[:, :, 1, 1])
    x = torch.rand(1, 24, 8, 8)
    y = x.clone()
    y[0, :, 3, 3] += 1
    changed = [(layer(x) - layer(y)).abs().sum(1)[0].nonzero().tolist() for layer in (net.layers[0], whole.layers[0])]
    assert changed[0] == [[3, 3]] and len(changed[1]) == 9


def test_errors_costs_and_the_layers_figures_are_recorded(tmp_path):
    settings = Factorised.profiles["smoke"].settings
    arms = ("separable", "standard", "centre")
    records = {(arm, 0): record(tmp_path) for arm in arms}
    rows = {arm: m for arm, _, m in Factorised().batch(arms, (0,), settings, POOL, records)}
    table = Table({arm: {0: metrics} for arm, metrics in rows.items()}, (0,))
    assert [h.outcome(table).holds for h in Factorised.hypotheses[:2]] == [True, True]
    broken = Table(table.rows, (0,), stands_in={"separable": "centre"})
    assert Factorised.hypotheses[0].outcome(broken).holds is False  # the centre tap costs less: a broken arm that loses
    assert rows["separable"]["macs"] < rows["standard"]["macs"] / 5 and 0 <= rows["standard"]["error"] <= 100


def test_what_relu_loses_falls_with_dimensions_and_a_linear_map_loses_nothing(tmp_path):
    claim, settings = ReluLosesInformation(), Curve(60, 8)
    arms = (*claim.arms, *claim.sabotaged)
    rows = {arm: {s: claim.trial(arm, s, settings, None, record(tmp_path, s)) for s in range(4)} for arm in arms}
    assert all(h.outcome(Table(rows, (0, 1, 2, 3))).holds for h in claim.hypotheses)
    broken = claim.hypotheses[0].outcome(Table(rows, (0, 1, 2, 3), stands_in={"n_2": "linear_2"}))
    assert broken.holds is False and rows["linear_2"][0]["log10_loss"] == -16


def test_sizes_and_memory_come_out_exactly(tmp_path):
    size, memory = Size(), Memory()
    rows = {"width_1.4": {0: size.trial("width_1.4", 0, Pictures(), None, record(tmp_path))}}
    mine = [h for h in size.hypotheses if h.a in rows]
    held = [h.outcome(Table(rows, (0,))).holds for h in mine if h.counts]
    assert held == [True] * 4
    assert [h.outcome(Table(rows, (0,))).holds for h in mine if not h.counts] == [False]  # 6.9 M in the paper
    small = Pictures(10, 64)
    rows = {arm: memory.trial(arm, 0, small, None, record(tmp_path)) for arm in ("chunks_1", "chunks_4")}
    assert rows["chunks_1"]["peak_bytes"] > 2 * rows["chunks_4"]["peak_bytes"]
    assert rows["chunks_1"]["difference"] == 0 < rows["chunks_4"]["difference"] < 1e-5
    whole = {arm: {0: memory.trial(arm, 0, Pictures(), None, record(tmp_path))} for arm in ("v1", "v2")}
    assert [h.outcome(Table(whole, (0,))).holds for h in memory.hypotheses[:2]] == [True, True]


def test_the_most_that_lives_at_once():
    x = torch.zeros(1000)

    def freed():
        y = x + 1  # 4,000 bytes
        y = y * 2  # both live for a moment
        return y[:10].view(2, 5).sum()

    assert peak_bytes(freed) == 8000

    def kept():
        ys = [x + i for i in range(5)]
        return ys

    assert peak_bytes(kept) == 20_000
    assert peak_bytes(lambda: x.add_(1)) == 0  # nothing new
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1))
    assert largest_output(net, torch.zeros(1, 1, 8, 8), list(net)) == 4 * 64
    assert claims_blocks.CIFAR.width == claims_convolutions.CIFAR.width == 0.35
