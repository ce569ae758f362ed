import pytest
import torch
from sklearn.neighbors import NearestCentroid
from tests.helpers import check_component

from precis.fields.neural_process_few_shot import ConvEmbed, FewShotCNP, nearest_class_mean, sample_episodes


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(g: torch.Generator) -> FewShotCNP:
    return FewShotCNP(ConvEmbed(1, 8, 4, g), 3, (16,), g)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, 1, 8, 8, generator=seeded(seed))


def test_component(tmp_path):
    check_component(build, images(4, 3, 2), images(4, 5, seed=1), call=lambda n, *a: n(*a).logits, tmp_path=tmp_path)


def test_logits_are_those_of_the_head_on_concatenated_class_means():
    net, support, query = build(seeded()), images(2, 3, 2), images(2, 5, seed=1)
    means = torch.stack([net.embed(support[:, k].flatten(0, 1)).view(2, 2, -1).mean(1) for k in range(3)], 1)
    r = torch.cat([means[:, k] for k in range(3)], -1)
    for q in range(5):
        joined = torch.cat([net.embed(query[:, q]), r], -1)
        weight = torch.cat([net.from_query.weight, net.from_classes.weight], 1)
        h = (joined @ weight.T + net.from_query.bias + net.from_classes.bias).relu()
        expected = net.linears[0](h).log_softmax(-1)
        torch.testing.assert_close(net(support, query).logits[:, q], expected, atol=1e-5, rtol=1e-5)


def test_order_of_examples_within_a_class_does_not_matter_and_that_of_classes_does():
    net, support, query = build(seeded()), images(2, 3, 4), images(2, 5, seed=1)
    torch.testing.assert_close(net(support[:, :, [2, 0, 3, 1]], query).logits, net(support, query).logits)
    assert not torch.allclose(net(support[:, [1, 0, 2]], query).logits, net(support, query).logits)
    with pytest.raises(ValueError, match="made for 3 classes, the episode has 2"):
        net(support[:, :2], query)


def test_episodes_are_what_they_say():
    labels = torch.tensor([0] * 4 + [1] * 7 + [-1] * 3 + [2] * 5 + [3] * 6 + [4] * 2)
    labels = labels[torch.randperm(27, generator=seeded())]
    e = sample_episodes(labels, 50, 3, 2, 2, seeded(1))
    assert not (e.classes == 4).any() and len(e.classes.unique()) == 4  # class 4 has too few pictures
    for b in range(50):
        assert len(set(e.classes[b].tolist())) == 3
        used = [*e.support[b].flatten().tolist(), *e.query[b].tolist()]
        assert len(set(used)) == len(used)
        assert (labels[e.support[b]] == e.classes[b][:, None]).all()
        assert (labels[e.query[b]] == e.classes[b][e.labels[b]]).all()
    assert not (e.classes.sort(1).values == e.classes).all()  # in random order
    with pytest.raises(ValueError, match="3 classes have 5 pictures or more"):
        sample_episodes(labels, 1, 4, 3, 2)


def test_nearest_class_mean_is_scikit_learns():
    support, query = torch.rand(2, 3, 4, 6, generator=seeded()), torch.rand(2, 7, 6, generator=seeded(1))
    for b in range(2):
        peer = NearestCentroid().fit(support[b].flatten(0, 1).numpy(), [0] * 4 + [1] * 4 + [2] * 4)
        assert nearest_class_mean(support, query)[b].tolist() == peer.predict(query[b].numpy()).tolist()


def test_sizes_of_the_embedding():
    for size in (5, 8, 14, 28, 33):
        assert ConvEmbed(3, size, 8, seeded())(torch.rand(2, 3, size, size)).shape == (2, 16)
