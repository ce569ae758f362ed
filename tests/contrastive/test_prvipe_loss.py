import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from precis.contrastive.prvipe_loss import (
    MatchingSigmoid,
    PoseEmbedding,
    hit_at_k,
    hits,
    matching_distance,
    mine,
    pairwise_l2,
    prior_kl,
    triplet_ratio_loss,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def embedded(n=6, d=4, seed=0, std=0.3):
    return PoseEmbedding(normal(n, d, seed=seed), std * (0.5 + normal(n, d, seed=seed + 50).abs()))


APART = ~torch.eye(6, dtype=torch.bool)


def test_the_sigmoid_begins_where_the_paper_s_does_and_falls():
    sigmoid = MatchingSigmoid().double()
    assert float(sigmoid.a.detach()) == pytest.approx(math.exp(-0.65)) and float(sigmoid.b.detach()) == -0.5
    d = torch.linspace(0, 40, 200).double()
    p = sigmoid(d).detach()
    assert (p.diff() < 0).all() and p.min() > 0.05 and p.max() < 0.95
    assert float(p[0]) == pytest.approx(0.9 / (1 + math.exp(0.5)) + 0.05)


def test_distance_is_the_logarithm_of_the_mean_over_pairs_of_samples():
    sigmoid, x, y = MatchingSigmoid().double(), normal(3, 5, 4), normal(3, 7, 4, seed=1)
    slow = [-math.log(sum(float(sigmoid((a - b).norm()).detach()) for a in x[i] for b in y[i]) / 35) for i in range(3)]
    torch.testing.assert_close(matching_distance(x, y, sigmoid), torch.tensor(slow).double())
    same = normal(2, 4).requires_grad_()
    pairwise_l2(same, same).sum().backward()
    assert same.grad.isfinite().all()


def test_samples_come_together_as_the_deviation_shrinks():
    sigmoid = MatchingSigmoid().double()
    a, b = embedded(std=1e-7), embedded(seed=9, std=1e-7)
    g = torch.Generator().manual_seed(0)
    sampled = matching_distance(a.sample(20, g), b.sample(20, g), sigmoid)
    of_means = matching_distance(a.mean[:, None], b.mean[:, None], sigmoid)
    torch.testing.assert_close(sampled, of_means, atol=1e-5, rtol=0)
    many = PoseEmbedding(torch.ones(1, 2), torch.full((1, 2), 0.5)).sample(20_000, g)
    assert abs(float(many.mean()) - 1) < 0.02 and abs(float(many.std()) - 0.5) < 0.02


def test_mining_against_a_loop():
    d = normal(6, 6).abs()
    allowed = APART & (normal(6, 6, seed=1) > -0.8)
    scores = normal(6, 6, seed=2)
    for how in ("semi_hard", "hard", "random"):
        found = mine(d, allowed, how, scores)
        for i in range(6):
            wanted = [j for j in range(6) if allowed[i, j] and (how != "semi_hard" or d[i, j] > d[i, i])]
            assert bool(found.found[i]) == bool(wanted)
            if wanted:
                rank = scores if how == "random" else d
                assert int(found.place[i]) == min(wanted, key=lambda j: float(rank[i, j]))
    with pytest.raises(ValueError, match="needs scores"):
        mine(d, allowed, "random")


@pytest.mark.parametrize("mining", ["semi_hard", "hard"])
def test_loss_is_that_of_the_full_matrix_of_sampled_distances(mining):
    sigmoid, a, p = MatchingSigmoid().double(), embedded(), embedded(seed=1)
    noise = normal(2, 6, 20, 4, seed=3)
    found = triplet_ratio_loss(a, p, APART, sigmoid, mining=mining, noise=noise)
    za, zp = (e.mean[:, None] + e.std[:, None] * n for e, n in zip((a, p), noise))
    full = torch.stack([torch.stack([matching_distance(za[i], zp[j], sigmoid) for j in range(6)]) for i in range(6)])
    full = full.detach()
    means = torch.cdist(a.mean, p.mean)
    terms = []
    for i in range(6):
        wanted = [j for j in range(6) if j != i and (mining == "hard" or means[i, j] > means[i, i])]
        if wanted:
            j = min(wanted, key=lambda j: float(means[i, j]))
            terms.append(max(0.0, float(full[i, i] - full[i, j]) + math.log(2)))
    assert float(found.loss.detach()) == pytest.approx(sum(terms) / sum(t > 0 for t in terms))
    assert int(found.active) == sum(t > 0 for t in terms) and found.loss >= 0 and not found.active.requires_grad
    assert float(found.positive.detach()) == pytest.approx(float(full.diagonal().mean()))


def test_no_negative_no_loss_and_one_pose_no_triplet():
    sigmoid, a, p = MatchingSigmoid().double(), embedded(), embedded(seed=1)
    found = triplet_ratio_loss(a, p, torch.zeros(6, 6, dtype=torch.bool), sigmoid)
    assert float(found.loss.detach()) == 0 and int(found.active) == 0
    one = PoseEmbedding(a.mean[:1], a.std[:1])
    with pytest.raises(ValueError, match="two poses"):
        triplet_ratio_loss(one, one, APART[:1, :1], sigmoid)


def test_gradients_and_a_generator_that_makes_it_repeatable():
    sigmoid = MatchingSigmoid().double()
    mean, other, std = normal(4, 3), normal(4, 3, seed=1), 0.3 + normal(4, 3, seed=2).abs()
    noise = normal(2, 4, 5, 3, seed=3)
    apart = ~torch.eye(4, dtype=torch.bool)

    def loss(m, o, s):
        return triplet_ratio_loss(PoseEmbedding(m, s), PoseEmbedding(o, s), apart, sigmoid, noise=noise).loss

    assert torch.autograd.gradcheck(loss, tuple(t.requires_grad_() for t in (mean, other, std)))
    seeded = lambda: torch.Generator().manual_seed(5)
    again = [triplet_ratio_loss(embedded(), embedded(seed=1), APART, sigmoid, generator=seeded()) for _ in range(2)]
    assert torch.equal(again[0].loss, again[1].loss)


def test_equal_poses_and_no_deviation_stay_finite():
    sigmoid = MatchingSigmoid()
    mean = torch.zeros(6, 4, requires_grad=True)
    std = torch.zeros(6, 4, requires_grad=True)
    e = PoseEmbedding(mean, std)
    g = torch.Generator().manual_seed(0)
    loss = triplet_ratio_loss(e, e, APART, sigmoid, generator=g).loss + prior_kl(mean, std)
    loss.backward()
    assert loss.isfinite() and mean.grad.isfinite().all() and std.grad.isfinite().all()


def test_prior_is_torch_s_divergence():
    e = embedded(9, 5)
    there = kl_divergence(Normal(e.mean, e.std), Normal(torch.zeros(5).double(), torch.ones(5).double()))
    torch.testing.assert_close(prior_kl(e.mean, e.std), there.sum(1).mean())
    assert float(prior_kl(torch.zeros(3, 4), torch.ones(3, 4))) == 0


def test_hits_against_brute_force():
    q, x, match = normal(12, 3), normal(30, 3, seed=1), normal(12, 30, seed=2) > 1.2
    order = torch.cdist(q, x).argsort(1)
    for k, found in zip((1, 10, 20), hit_at_k(q, x, match)):
        assert found == pytest.approx(sum(bool(match[i, order[i, :k]].any()) for i in range(12)) / 12)
    assert hits(torch.cdist(q, x[:4]), match[:, :4], (1, 50))[1] == float(match[:, :4].any(1).float().mean())
