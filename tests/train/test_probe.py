import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from torch import nn

from precis.errors import InputError
from precis.nn.backbones import backbone
from precis.train.probe import RIDGES, LinearProbe, embed, first_of_each, knn_predict, nearest


def clouds(n=120, d=6, k=4, spread=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % k
    return torch.randn(k, d, generator=g)[y] + spread * torch.randn(n, d, generator=g), y


def test_it_is_scikit_learns_logistic_regression():
    x, y = clouds()
    ridge = 0.01
    probe = LinearProbe(ridge).fit(x, y)
    z = ((x.double() - x.double().mean(0)) / x.double().std(0, correction=0)).numpy()
    peer = LogisticRegression(C=1 / (ridge * len(x)), tol=1e-10, max_iter=5000).fit(z, y.numpy())
    assert np.abs(probe.weight.numpy() - peer.coef_).max() < 1e-3
    penalty = lambda w: ridge / 2 * float((w**2).sum())
    loss = lambda w, b: float(F.cross_entropy(torch.from_numpy(z @ w.T + b), y)) + penalty(w)
    mine, theirs = loss(probe.weight.numpy(), probe.bias.numpy()), loss(peer.coef_, peer.intercept_)
    assert mine == pytest.approx(theirs, abs=1e-4) and mine < theirs + 1e-8
    found = probe.accuracy(x, y)
    assert found.accuracy == pytest.approx(peer.score(z, y.numpy()), abs=0.005)
    assert found.interval[0] < found.accuracy < found.interval[1] and int(found.confusion.sum()) == len(x)
    assert torch.equal(probe.predict(x), probe.logits(x).argmax(1))


def test_scale_and_offset_of_features_do_not_matter_and_constant_ones_do_no_harm():
    x, y = clouds()
    a = LinearProbe(0.1).fit(x, y).logits(x)
    stretched = torch.cat([x * torch.tensor([1.0, 10, 100, 0.1, 3, 7]) + 5, torch.full((len(x), 1), 2.0)], 1)
    b = LinearProbe(0.1).fit(stretched, y).logits(stretched)
    assert b.isfinite().all()
    torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_folded_weights_take_rows_as_they_are():
    x, y = clouds()
    x = 3 * x.double() + 7
    probe = LinearProbe(0.1).fit(x, y)
    weight, bias = probe.folded()
    torch.testing.assert_close(x @ weight.T + bias, probe.logits(x))


def test_the_ridge_is_chosen_on_held_out_rows():
    g = torch.Generator().manual_seed(1)
    noise, y = torch.randn(60, 30, generator=g), torch.arange(60) % 3
    assert LinearProbe().fit(noise, y).chosen == max(RIDGES)
    x, y = clouds(spread=0.2)
    probe = LinearProbe().fit(x, y)
    assert probe.chosen < max(RIDGES) and probe.accuracy(x, y).accuracy > 0.95
    many, y = clouds(5200, 4, 2, spread=0.2)
    assert LinearProbe().fit(many, y).accuracy(many, y).accuracy > 0.9


def test_rows_without_a_label_are_left_out_and_absent_classes_may_be_named():
    x, y = clouds()
    hidden = y.clone()
    hidden[::2] = -1
    a, b = LinearProbe(0.1).fit(x, hidden), LinearProbe(0.1).fit(x[1::2], y[1::2])
    assert torch.equal(a.weight, b.weight)
    wide = LinearProbe(0.1, classes=6).fit(x, y)
    assert wide.logits(x).shape == (120, 6) and int(wide.predict(x).max()) < 4
    with pytest.raises(InputError, match="two classes"):
        LinearProbe().fit(x, torch.zeros(len(x), dtype=torch.long))
    with pytest.raises(ValueError, match="positive"):
        LinearProbe(0.0)


def by_scikit(bank, labels, query, k, temperature, classes):
    distance, index = NearestNeighbors(n_neighbors=k, metric="cosine").fit(bank).kneighbors(query)
    votes = np.zeros((len(query), classes))
    for row, (d, i) in enumerate(zip(distance, index)):
        np.add.at(votes[row], labels[i], np.exp((1 - d) / temperature))
    return votes / votes.sum(1, keepdims=True)


@pytest.mark.parametrize("chunk", [7, 50, 4096])
def test_the_vote_is_that_of_scikit_learns_neighbours(chunk):
    x, y = clouds(90, 5, 3)
    query, _ = clouds(11, 5, 3, seed=5)
    got = knn_predict(x.double(), y, query.double(), 9, 0.2, 3, chunk)
    expected = by_scikit(x.double().numpy(), y.numpy(), query.double().numpy(), 9, 0.2, 3)
    assert np.allclose(got.numpy(), expected, atol=1e-9)


def test_votes_of_the_unlabelled_do_not_count_and_small_temperatures_stay_finite():
    x, y = clouds(40, 5, 2)
    hidden = y.clone()
    hidden[:10] = -1
    torch.testing.assert_close(knn_predict(x, hidden, x[:5], 4), knn_predict(x[10:], y[10:], x[:5], 4))
    assert knn_predict(x, y, x[:5], 500, 0.001, 4).isfinite().all()
    with pytest.raises(InputError, match="vote"):
        knn_predict(x, torch.full((40,), -1), x[:2])


def test_nearest_come_in_order():
    x, _ = clouds(30, 4)
    cosine, index = nearest(x, x[:3], 30, chunk=8)
    assert index[:, 0].tolist() == [0, 1, 2] and bool((cosine.diff(dim=1) <= 0).all())
    assert sorted(index[0].tolist()) == list(range(30))
    with pytest.raises(ValueError, match="k must lie"):
        nearest(x, x, 31)


def test_the_first_of_each_class():
    y = torch.tensor([2, 0, 0, -1, 2, 0, 2, 1])
    assert first_of_each(y, 2).tolist() == [0, 1, 2, 4, 7]


def test_embedding_takes_features_tuples_layers_and_maps():
    net = backbone("conv:4x2", (1, 8, 8), 3, generator=torch.Generator().manual_seed(0)).train()
    x = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    before = net.blocks[0][1].running_mean.clone()
    h = embed(net, x, batch=2)
    assert h.shape == (5, 8) and net.training and torch.equal(before, net.blocks[0][1].running_mean)
    net.eval()
    torch.testing.assert_close(h, net.features(x).detach())
    torch.testing.assert_close(embed(net, x, layer="blocks.1", batch=2), h)
    torch.testing.assert_close(embed(net, x.float() / 255), h)

    class Both(nn.Module):
        def forward(self, x):
            return x.flatten(1), None

    assert embed(Both(), x.float()).shape == (5, 64)
    assert embed(nn.Identity(), torch.ones(4, 3, 2, 2)).tolist() == [[1.0, 1.0, 1.0]] * 4
