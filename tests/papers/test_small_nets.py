import torch

from precis.papers.small_nets import Task, error_name, load_pool, split, splits

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
