from unittest.mock import create_autospec

import pytest
import torch

from precis.errors import RunFailed
from precis.lab.claim import Recorder
from precis.lab.trial import streams
from precis.nn.resnet import ResNet
from precis.papers import small_nets
from precis.papers.small_nets import Task, error_name, errors, load_pool, split, splits, train

SMALL = Task(train=96, test=64, epochs=1)
POOL = load_pool(SMALL, None)


def test_splits_are_a_seeds_own_and_tuning_sees_no_test_picture():
    parts = {seed: split(POOL, SMALL, seed, torch.Generator().manual_seed(seed), "cpu") for seed in (0, 1, 10_000)}
    assert parts[0].x.shape == (96, 1, 8, 8) and parts[0].test_x.shape == (64, 1, 8, 8)
    assert not torch.equal(parts[0].x, parts[1].x)
    keys = lambda x: {tuple(p.flatten().tolist()) for p in x}
    assert not keys(parts[0].x) & keys(parts[0].test_x)
    tuning = split(POOL, SMALL, 10_000, torch.Generator().manual_seed(0), "cpu")
    training = split(POOL, SMALL, 0, torch.Generator().manual_seed(0), "cpu")
    assert len(tuning.x) == 76 and len(tuning.test_x) == 20
    assert keys(tuning.x) | keys(tuning.test_x) == keys(training.x)
    assert error_name((10_000,)) == "validation_error" and error_name((0, 1)) == "error"


def test_stacked_splits_are_those_of_each_seed():
    both, second = splits(POOL, SMALL, (0, 1), "cpu"), splits(POOL, SMALL, (1,), "cpu")
    assert both.x.shape == (2, 96, 1, 8, 8)
    for together, alone in zip(both, second):
        assert torch.equal(together[1], alone[0])


def recorder():
    return create_autospec(Recorder, instance=True, device="cpu")


def build(generator):
    return ResNet((1, 1), (8, 8), strides=(2, 2), stem_width=8, in_channels=1, classes=10, norm="batch",
                  generator=generator)  # fmt: skip


def test_copies_one_after_another_are_those_of_one_pass(monkeypatch):
    together, data = train(build, 16, SMALL, POOL, (0, 1), 0.1, recorder())
    monkeypatch.setattr(small_nets, "STACKED", 4)
    told = recorder()
    apart, same = train(build, 16, SMALL, POOL, (0, 1), 0.1, told)
    assert torch.equal(data.x, same.x) and together.curves["loss"].shape == apart.curves["loss"].shape == (2, 6)
    torch.testing.assert_close(apart.curves["loss"], together.curves["loss"], rtol=1e-3, atol=1e-4)
    for name, p in together.params.items():
        torch.testing.assert_close(apart.params[name], p, rtol=1e-2, atol=1e-4)
    for name, p in together.buffers.items():
        torch.testing.assert_close(apart.buffers[name], p, rtol=1e-2, atol=1e-4)
    assert (errors(apart, data) - errors(together, data)).abs().max() <= 2 and apart.steps.tolist() == [6, 6]
    assert told.log.call_args.args == (12, 12) and not apart.diverged.any()


@pytest.mark.parametrize("stacked", [4, 16])
def test_a_copy_that_diverges_stays_as_it_was_and_the_other_goes_on(monkeypatch, stacked):
    monkeypatch.setattr(small_nets, "STACKED", stacked)

    def broken(generator):
        net = build(generator)
        if broken.built == 0:
            torch.nn.init.constant_(net.head.weight, torch.inf)
        broken.built += 1
        return net

    broken.built = 0
    many, _ = train(broken, 16, SMALL, POOL, (0, 1), 0.1, recorder())
    assert many.diverged.tolist() == [True, False] and many.steps.tolist() == [0, 6]
    first = build(streams(0)["init"])
    torch.testing.assert_close(many.module(0).stem[0].weight, first.stem[0].weight)
    assert many.curves["loss"].shape == (2, 6) and many.curves["loss"][0].isnan().all()


@pytest.mark.parametrize("step", [1, 3])
def test_a_copy_that_runs_out_of_memory_says_so(monkeypatch, step):
    monkeypatch.setattr(small_nets, "STACKED", 4)
    passes = 0

    def full(module, inputs):
        nonlocal passes
        passes += 1
        if passes == step:
            raise MemoryError

    def large(generator):
        net = build(generator)
        net.register_forward_pre_hook(full)
        return net

    with pytest.raises(RunFailed, match=f"out of memory at step {step}"):
        train(large, 16, SMALL, POOL, (0, 1), 0.1, recorder())
