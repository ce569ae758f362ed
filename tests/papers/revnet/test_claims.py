"""The claims' experiments, small: what is paired is paired, and the figures are what their names say."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from precis.lab.claim import Table
from precis.lab.recorder import TrialRecord
from precis.papers.revnet.claims import FullyReversible, Memory, Overhead, Parity, RebuiltGradients, Stages
from precis.papers.revnet.claims_memory import Depths, _straight
from precis.papers.revnet.claims_reverse import _apart
from precis.papers.revnet.claims_training import CIFAR, LITTLE, Training, _plain, paired
from precis.papers.revnet.nets import Checkpointed, Forgetful, Mixed, break_blocks, gradient, parameters, set_save, twin
from precis.papers.small_nets import load_pool
from precis.vision.revnet import RevNet

SMALL = Training(replace(LITTLE, stages=(4, 4, 4)), (2, 2, 2))
POOL = load_pool(LITTLE, None)


def record(tmp_path: Path, seed: int = 0) -> TrialRecord:
    return TrialRecord(tmp_path / "record" / str(seed), seed)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("settings", [p.settings for p in Parity.profiles.values()], ids=list(Parity.profiles))
def test_arms_have_as_many_parameters(settings):
    pool = POOL if settings is not CIFAR else POOL._replace(images=torch.zeros(2, 3, 32, 32))
    plain = parameters(_plain(settings, pool, draw()))
    assert abs(parameters(paired(settings, pool, draw())) / plain - 1) < 0.03
    if settings is CIFAR:
        assert plain == 464_154 and paired(settings, pool, draw()).out_dim == 112  # the paper's ResNet-32 and RevNet-38


def test_modes_of_a_seed_start_from_the_same_weights_and_see_the_same_batches(tmp_path):
    nets = [paired(SMALL, POOL, draw(3), save) for save in ("output", "all")]
    assert all(torch.equal(a, b) for a, b in zip(*(n.state_dict().values() for n in nets)))
    claim, rows = RebuiltGradients(), {}
    for arm in claim.arms:
        rows[arm] = claim.trial(arm, 0, SMALL, POOL, record(tmp_path))
    assert rows["rebuilt"]["difference_float32"] < 1e-4 and rows["rebuilt"]["difference_float64"] < 1e-10
    assert rows["mixed"]["float64_at_start"] > 0.1 and rows["rebuilt"]["reconstruction_error"] < 1e-4
    assert abs(rows["rebuilt"]["error"] - rows["stored"]["error"]) <= 3  # two steps apart by rounding alone


def test_a_wrong_inverse_is_what_the_broken_arms_have():
    x = torch.rand(4, 3, 16, 16)
    y = torch.arange(4)
    net = RevNet((3, 3), (8, 8, 8), generator=draw())
    wanted = gradient(set_save(net, "all"), x, y)
    assert float((gradient(set_save(net, "output"), x, y) - wanted).norm() / wanted.norm()) < 1e-4
    break_blocks(net, Mixed)
    assert float((gradient(net, x, y) - wanted).norm() / wanted.norm()) > 0.1
    assert torch.allclose(gradient(set_save(net, "all"), x, y), wanted)  # only the way back is broken
    whole = RevNet((2, 2), fully_reversible=True, generator=draw())
    back = lambda: whole.picture(*whole.streams(x))
    assert _apart(back(), x) < 1e-4
    break_blocks(whole, Forgetful, only_first=True)
    assert sum(isinstance(b, Forgetful) for b in whole.body.blocks) == 1 and _apart(back(), x) > 0.01


def test_checkpointing_is_the_same_net():
    plain = twin((2, 2), (8, 8), classes=10, generator=draw())
    x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
    a, b = gradient(plain, x, y), gradient(Checkpointed(plain), x, y)
    assert torch.allclose(a, b, atol=1e-6)
    assert int(plain.stem[1].num_batches_tracked) == 2


def test_memory_is_counted_as_its_words_say(tmp_path):
    settings = Depths((1, 2, 4), side=8, batch=4)
    rows = {arm: Memory().trial(arm, 0, settings, None, record(tmp_path)) for arm in Memory.arms}
    assert rows["revnet"]["kept_per_block"] == pytest.approx(0, abs=1e-9)
    assert rows["revnet"]["allocated_per_block"] == pytest.approx(0, abs=1e-9)
    assert rows["checkpoint"]["kept_per_block"] == pytest.approx(1)
    assert 4 < rows["resnet"]["kept_per_block"] < 4.5 and rows["resnet"]["r_squared"] > 0.999
    assert rows["resnet"]["allocated_per_block"] == pytest.approx(rows["resnet"]["kept_per_block"], rel=0.03)
    outcomes = [h.outcome(Table({arm: {0: m} for arm, m in rows.items()}, (0,))) for h in Memory.hypotheses]
    assert all(o.holds for o in outcomes)
    swapped = {"revnet": rows["resnet"], "checkpoint": rows["checkpoint"], "resnet": rows["revnet"]}
    failed = [h.outcome(Table({arm: {0: m} for arm, m in swapped.items()}, (0,))).holds for h in Memory.hypotheses]
    assert failed[0] is False and failed[3] is False
    assert _straight(np.array([1, 2, 4]), np.array([1.0, 2.0, 4.0])) == pytest.approx(1)
    assert _straight(np.array([1, 2, 4]), np.array([1.0, 9.0, 2.0])) < 0.5


def test_stages_are_accounted_for_to_the_byte(tmp_path):
    found = Stages().trial("revnet", 0, Depths((1, 3), (8, 8, 16), 8, 4), None, record(tmp_path))
    assert found == {"unexplained": 0, "added_by_units": 0, "least_growth": 4 * 4 * 16 * 16}


def test_a_whole_net_keeps_its_output_alone(tmp_path):
    settings = FullyReversible.profiles["smoke"].settings
    rows = {arm: FullyReversible().trial(arm, 0, settings, None, record(tmp_path)) for arm in FullyReversible.arms}
    assert rows["bytes"]["spread"] == 0 and rows["bytes"]["saved"] == rows["bytes"]["picture"]
    assert rows["rebuilt"]["recovery_float64"] < 1e-9 < 1e-3 < rows["forgetful"]["recovery_float64"]
    assert rows["trained"] == {"compared": 0}
    two = [FullyReversible().accuracy(arm, 0, Training(LITTLE, (1, 1, 1)), POOL, record(tmp_path))
           for arm in ("trained", "trained_revnet")]  # fmt: skip
    assert two[1]["macs"] == pytest.approx(two[0]["macs"], rel=0.1) and two[0]["parameters"] != two[1]["parameters"]


def test_overhead_is_timed_against_the_same_net(tmp_path):
    settings = replace(Overhead.profiles["smoke"].settings, repeats=3)
    found = Overhead().trial("revnet", 0, settings, None, record(tmp_path))
    assert found["log_ratio"] == pytest.approx(math.log(found["ratio"])) and found["seconds"] > 0
