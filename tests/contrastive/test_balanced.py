import pytest
import torch

from precis.contrastive.balanced import BalancedBatches
from precis.errors import InputError


def batches(labels, size, seed=0):
    return BalancedBatches(labels, size, torch.Generator().manual_seed(seed))


def test_every_batch_holds_as_many_of_each_of_its_classes_and_all_come_equally_often():
    labels = torch.arange(100) % 10
    made = batches(labels, 16)
    assert (made.classes, made.each, made.size, len(made)) == (4, 4, 16, 6)
    seen = torch.zeros(10)
    for _ in range(5):  # 5 epochs of 6 batches of 4 classes: 120 turns
        for chosen in made:
            classes, counts = labels[chosen].unique(return_counts=True)
            assert counts.tolist() == [4] * 4 and len(chosen.unique()) == 16
            seen[classes] += 1
    assert seen.tolist() == [12] * 10


def test_small_classes_repeat_and_unlabelled_pictures_stay_out():
    labels = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 1, -1, -1, 7])
    for chosen in batches(labels, 15):
        counts = torch.bincount(labels[chosen], minlength=8)
        assert (labels[chosen] >= 0).all() and counts[[0, 1, 7]].tolist() == [5, 5, 5]
        assert len(chosen[labels[chosen] == 1].unique()) == 5
        assert set(chosen[labels[chosen] == 0].tolist()) == {0, 1}


def test_it_goes_on_where_it_stopped():
    labels = torch.arange(60) % 6
    whole = batches(labels, 16)
    expected = [b.clone() for _ in range(3) for b in whole]
    part, again = batches(labels, 16), batches(labels, 16, seed=9)
    done = list(part)
    walk = iter(part)
    done.append(next(walk))
    again.load_state_dict(part.state_dict())
    done += [*again, *again]
    assert len(done) == len(expected) and all(torch.equal(a, b) for a, b in zip(done, expected))


@pytest.mark.parametrize(("labels", "size"), [(torch.zeros(20, dtype=torch.long), 16), (torch.arange(20) % 2, 7)])
def test_what_cannot_be_balanced(labels, size):
    with pytest.raises(InputError, match="two classes and a size of 8"):
        batches(labels, size)
