import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component

from precis.contrastive.invariance import FrameTemporalMoCo, firing_thresholds, frame_pairs, invariance_score
from precis.contrastive.moco import MoCo
from precis.contrastive.ntxent import ProjectionHead
from precis.nn.backbones import backbone


def table(targets=3, bases=4, transforms=5, d=12, seed=0, relu=True):
    g = torch.Generator().manual_seed(seed)
    target = torch.arange(targets).repeat_interleave(bases * transforms)
    base = torch.arange(targets * bases).repeat_interleave(transforms)
    noise, means = torch.randn(len(target), d, generator=g, dtype=torch.float64), torch.randn(targets, d, generator=g)
    f = noise + 0.4 * means[target]
    return (f.clamp(min=0) if relu else f), target, base


def ranked(rank, rate, k):
    """Mean rate of the k first, over all orders of equal ranks."""
    last = np.sort(rank)[::-1][k - 1]
    first = [r for a, r in zip(rank, rate) if a > last]
    equal = [r for a, r in zip(rank, rate) if a == last]
    return (sum(first) + (k - len(first)) * np.mean(equal)) / k


def rates_by_loops(f, target, base):
    """The local rates [T,D], unit by unit, base by base."""
    rates = np.zeros((len(np.unique(target)), f.shape[1]))
    for row, y in enumerate(np.unique(target)):
        share = (target == y).mean()
        for i in range(f.shape[1]):
            threshold = np.quantile(f[:, i], 1 - share, method="lower")
            parts = [f[(target == y) & (base == z), i] for z in np.unique(base[target == y])]
            rates[row, i] = np.mean([sum(v > threshold for v in part) / len(part) for part in parts])
    return rates


def by_loops(f, target, base, k, order=None):
    """The definition; `order`: for each target, its bases in the order of the split."""
    f, target, base = f.numpy(), target.numpy(), base.numpy()
    if order is None:
        return 100 * np.mean([np.sort(r)[::-1][:k].mean() for r in rates_by_loops(f, target, base)])
    first = np.isin(base, [z for bases in order for z in bases[: (len(bases) + 1) // 2]])
    a, b = (rates_by_loops(f[rows], target[rows], base[rows]) for rows in (first, ~first))
    return 100 * np.mean([ranked(x.round(12), y, k) for p, q in ((a, b), (b, a)) for x, y in zip(p, q)])


@pytest.mark.parametrize("relu", [True, False])
def test_the_score_is_the_definition_s(relu):
    f, target, base = table(relu=relu)
    same = invariance_score(f, target, base, k=(2, 5), select="same")
    for i, k in enumerate((2, 5)):
        assert float(same.mean[i]) == pytest.approx(by_loops(f, target, base, k), abs=1e-9)
    split = invariance_score(f, target, base, k=(4,), generator=torch.Generator().manual_seed(1))
    g = torch.Generator().manual_seed(1)
    order = [y * 4 + torch.randperm(4, generator=g).numpy() for y in range(3)]
    assert float(split.mean[0]) == pytest.approx(by_loops(f, target, base, 4, order), abs=1e-9)


@pytest.mark.parametrize("rate", [0.125, 0.3, 0.5])
def test_thresholds_are_numpy_s(rate):
    f = torch.randn(41, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = firing_thresholds(f, rate)
    assert np.array_equal(found.numpy(), np.quantile(f.numpy(), 1 - rate, axis=0, method="lower"))
    assert ((f > found).double().mean(0) - rate).abs().max() < 1 / 41
    for wrong in (0.0, 1.0, -1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            firing_thresholds(f, wrong)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["split", "same"]))
def test_what_leaves_the_score_alone(seed, select):
    f, target, base = table(seed=seed, relu=False)
    score = lambda f, t=target, b=base: invariance_score(
        f, t, b, k=(3,), select=select, generator=torch.Generator().manual_seed(0)
    ).mean
    first = score(f)
    assert torch.equal(first, score(f**3 + 2 * f))  # increasing in each unit
    assert torch.allclose(first, score(f[:, torch.randperm(12, generator=torch.Generator().manual_seed(seed))]))
    twice = lambda x: torch.cat([x, x])
    assert torch.allclose(first, score(twice(f), twice(target), twice(base)))  # a copy is one more transform


def test_a_unit_that_fires_exactly_on_its_target_scores_nearly_all_and_noise_its_rate():
    _, target, base = table(targets=4, bases=10, transforms=10)
    little = 0.01 * torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.functional.one_hot(target, 4) + little
    assert float(invariance_score(exact, target, base, k=(1,)).mean[0]) == pytest.approx(100)
    low = invariance_score(-exact, target, base, k=(1,), two_sided=True)
    assert float(low.mean[0]) == pytest.approx(100) and (low.units[:, 0] >= 4).all()
    split, same = [], []
    for seed in range(20):
        noise = torch.rand(400, 64, generator=torch.Generator().manual_seed(seed))
        split.append(float(invariance_score(noise, target, base, k=(5,)).mean[0]))
        same.append(float(invariance_score(noise, target, base, k=(5,), select="same").mean[0]))
    error = np.std(split, ddof=1) / 20**0.5
    assert abs(np.mean(split) - 25) < 3 * error and np.mean(same) > np.mean(split) + 5


def test_units_that_are_mostly_zero_are_told():
    f, target, base = table(targets=2)
    f[:, :6] = 0
    f[0, :6] = 1
    assert invariance_score(f, target, base, k=(2,)).short == pytest.approx(0.5, abs=0.3)
    assert invariance_score(torch.rand(len(f), 12), target, base, k=(2,)).short == 0


def test_what_cannot_be_scored_is_told():
    f, target, base = table()
    with pytest.raises(ValueError, match="two targets"):
        invariance_score(f, torch.zeros_like(target), base, k=(2,))
    with pytest.raises(ValueError, match="12 units"):
        invariance_score(f, target, base, k=(10, 25))
    with pytest.raises(ValueError, match="two base pictures"):
        invariance_score(f, target, target, k=(2,))


def test_pairs_stay_in_their_clip_and_a_gap_apart():
    pairs = frame_pairs([5, 2, 4], 2)
    assert pairs.tolist() == [[0, 2], [1, 3], [2, 4], [7, 9], [8, 10]]
    assert frame_pairs([3, 2], 0).tolist() == [[i, i] for i in range(5)] and frame_pairs([2], 2).shape == (0, 2)
    moved = frame_pairs([40, 30], 6, torch.Generator().manual_seed(0), jitter=3)
    distance = moved[:, 1] - moved[:, 0]
    assert len(moved) == 58 and set(distance.tolist()) == set(range(3, 10))
    assert (moved[:, 0] // 40).equal(moved[:, 1] // 40)
    with pytest.raises(ValueError, match="jitter"):
        frame_pairs([5], 1, jitter=2)


def parts(generator):
    encoder = backbone("conv:4x2", (3, 8, 8), generator=generator)
    return encoder, ProjectionHead(8, dim_out=6, generator=generator)


def frame_model(views, seed=1):
    encoder, head = parts(torch.Generator().manual_seed(0))
    return FrameTemporalMoCo(encoder, head, views, 16, generator=torch.Generator().manual_seed(seed))


def test_without_a_gap_it_is_moco_batch_by_batch():
    noisy = lambda x, g: x + 0.1 * torch.randn(x.shape, generator=g)
    ours, g = frame_model(noisy), torch.Generator().manual_seed(1)
    theirs = MoCo(*parts(torch.Generator().manual_seed(0)), 16, generator=g)
    frames = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    pairs = frame_pairs([10], 0)
    for rows in pairs.split(4):
        x, y = frames[rows[:, 0]], frames[rows[:, 1]]
        views = noisy(torch.cat([x, x]), g)
        assert torch.equal(ours.loss(x, y), theirs.loss(*views.split(len(x))))
    assert torch.equal(ours.queue.keys, theirs.queue.keys)
    same, other = (frame_model(lambda x, g: x).loss(frames[:4], frames[i : i + 4]) for i in (0, 4))
    assert same.item() < other.item()


def test_it_is_a_component(tmp_path):
    build = lambda g: FrameTemporalMoCo(*parts(g), lambda x, _: x, 16, generator=g)
    check_component(build, torch.rand(4, 3, 8, 8), tmp_path=tmp_path)
