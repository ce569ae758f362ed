import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor
from torch.distributions import Normal

from precis.fields.neural_process_context import acquire, knn_predict, sample_context, take


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("order", ["random", "ordered", "half"])
def test_contexts_name_no_pixel_twice_and_as_many_as_asked(order):
    seen = set()
    for seed in range(20):
        rows, mask = sample_context(5, (4, 6), 2, 9, order, seeded(seed))
        assert rows.shape == mask.shape == (5, 9)
        assert all(len(set(r.tolist())) == 9 for r in rows)
        assert len(set(mask.sum(1).tolist())) == 1
        seen.add(int(mask[0].sum()))
    assert min(seen) >= 2 and max(seen) <= 9 and len(seen) > 3


def test_ordered_contexts_are_the_upper_rows_and_halves_are_halves():
    rows, _ = sample_context(3, (4, 4), 6, 6, "ordered")
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5]] * 3
    grid = torch.arange(16).view(4, 4)
    halves = [set(h.flatten().tolist()) for h in (grid[:2], grid[2:], grid[:, :2], grid[:, 2:])]
    rows, _ = sample_context(40, (4, 4), 8, 8, "half", seeded())
    found = [halves.index(set(r.tolist())) for r in rows]
    assert set(found) == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="8, got 0 and 9"):
        sample_context(1, (4, 4), 0, 9, "half")


def test_nearest_neighbours_are_those_of_scikit_learn():
    x, y, at = torch.rand(2, 9, 2, generator=seeded()), torch.rand(2, 9, 3, generator=seeded(1)), torch.rand(2, 5, 2)
    found = knn_predict(x, y, at, 4)
    for b in range(2):
        peer = KNeighborsRegressor(4).fit(x[b].numpy(), y[b].numpy()).predict(at[b].numpy())
        torch.testing.assert_close(found[b], torch.from_numpy(peer))
    mask = torch.arange(9).expand(2, 9) < 3
    torch.testing.assert_close(
        knn_predict(x, y.masked_fill(~mask[..., None], torch.nan), at, 4, mask), knn_predict(x[:, :3], y[:, :3], at, 4)
    )
    with pytest.raises(ValueError, match="at least one observation"):
        knn_predict(x[:, :0], y[:, :0], at)


def test_the_most_uncertain_pixel_is_asked_for_and_none_twice():
    sigma = torch.rand(3, 10, 1, generator=seeded()) + 0.1
    predict = lambda rows: Normal(torch.zeros_like(sigma), sigma)
    rows = acquire(predict, 3, 10, 6)
    assert torch.equal(rows, sigma[..., 0].argsort(1, descending=True)[:, :6])
    start = torch.tensor([[0], [1], [2]])
    chance = acquire(predict, 3, 10, 10, "random", seeded(), start=start)
    assert torch.equal(chance[:, :1], start)
    assert all(sorted(r.tolist()) == list(range(10)) for r in chance)
    permuted = acquire(predict, 3, 10, 10, "variance", seeded(), permute=True)
    assert all(sorted(r.tolist()) == list(range(10)) for r in permuted)
    assert not torch.equal(permuted[:, :6], rows)


def test_take_picks_rows_of_each_set():
    values = torch.arange(12.0).view(2, 3, 2)
    assert take(values, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
