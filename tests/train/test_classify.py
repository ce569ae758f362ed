import math

import numpy as np
import pytest
import torch
from torch import nn

from precis.data.embedded import digits
from precis.errors import InputError, Stopped
from precis.nn.backbones import backbone
from precis.train.augment import preset
from precis.train.classify import accuracy, fit_classifier, predict, score
from precis.train.loop import Budget


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    found = digits()
    return torch.from_numpy(found.images) * 15, torch.from_numpy(found.labels)


def fitted(data, **options):
    net = backbone("conv:12x3", (1, 8, 8), 10, generator=seeded(1))
    given = {"budget": Budget(epochs=4), "batch": 64, "generator": seeded(2)} | options
    return fit_classifier(net, (data[0][:1200], data[1][:1200]), **given)


def test_it_learns_digits_and_says_how_well(data):
    made = fitted(data)
    found = accuracy(made.model, (data[0][1200:], data[1][1200:]))
    assert found.value > 0.9 and found.interval[0] < found.value < found.interval[1]
    assert found.confusion.sum() == 597 and found.confusion.diagonal().sum() == round(found.value * 597)
    assert torch.allclose(found.per_class, found.confusion.diagonal() / found.confusion.sum(1))
    assert made.steps == 4 * (1200 // 64)  # the incomplete batch is left out
    assert made.curves["loss"].values[-1] < made.curves["loss"].values[0]
    assert not made.model.training and made.model.input.std != 1  # standardised by its own data
    logits = predict(made.model, data[0][1200:], batch=100)
    assert torch.allclose(logits, predict(made.model, data[0][1200:]), atol=1e-5)


def test_the_same_seed_gives_the_same_bits_and_augmentation_another(data):
    short = {"budget": Budget(steps=5)}
    first, again = fitted(data, **short), fitted(data, **short)
    other = fitted(data, augment=preset("cifar", 8, flip=False), **short)
    for a, b in zip(first.model.parameters(), again.model.parameters()):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(first.model.parameters(), other.model.parameters()))


def test_one_step_is_torchs_sgd_on_the_same_batch(data):
    net = backbone("conv:6x2", (1, 8, 8), 10, generator=seeded(1))
    peer = backbone("conv:6x2", (1, 8, 8), 10, generator=seeded(1))
    images, labels = data[0][:32], data[1][:32]
    fit_classifier(net, (images, labels), budget=Budget(steps=1), batch=32, lr=0.3, weight_decay=0.01, skip_decay=(),
                   standardise=False)  # fmt: skip
    solver = torch.optim.SGD(peer.parameters(), lr=0.3, momentum=0.9, nesterov=True, weight_decay=0.01)
    nn.functional.cross_entropy(peer.train()(images / 255), labels).backward()
    solver.step()
    for a, b in zip(net.parameters(), peer.parameters()):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(data, tmp_path):
    augment = preset("cifar", 8, flip=False)
    whole = fitted(data, budget=Budget(steps=30), augment=augment)

    def stop(step, total, **scalars):
        if step >= 8:
            raise Stopped

    with pytest.raises(Stopped):
        fitted(data, budget=Budget(steps=30), augment=augment, folder=tmp_path, log=stop)
    resumed = fitted(data, budget=Budget(steps=30), augment=augment, folder=tmp_path, resume=True)
    assert resumed.steps == 30
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(a, b), name


def test_unlabelled_pictures_are_left_out_and_averages_are_another_model(data):
    labels = data[1][:200].clone()
    labels[::2] = -1
    net = backbone("conv:6x2", (1, 8, 8), 10, generator=seeded(1))
    made = fit_classifier(net, (data[0][:200], labels), budget=Budget(epochs=1), batch=50, ema=0.9)
    assert made.steps == 2 and made.model is not net
    assert score(torch.zeros(200, dtype=torch.long), labels, 10).confusion.sum() == 100


def test_features_and_floats_do_as_well():
    x = torch.randn(300, 5, generator=seeded())
    labels = (x[:, 0] > 0).long()
    made = fit_classifier(nn.Linear(5, 2), (x, labels), budget=Budget(epochs=20), batch=50)
    assert accuracy(made.model, (x, labels)).value > 0.95


def test_the_interval_is_the_exact_one():
    from scipy.stats import binomtest

    found = score(torch.tensor([0, 0, 1, 1, 0]), torch.tensor([0, 0, 1, 0, -1]), 3)
    wanted = binomtest(3, 4).proportion_ci(method="exact")
    assert found.value == 0.75
    assert np.allclose(found.interval, (wanted.low, wanted.high))
    assert math.isnan(float(found.per_class[2])) and found.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert score(torch.tensor([1]), torch.tensor([1]), 2).interval[1] == 1


def test_predict_puts_modes_back(data):
    net = backbone("conv:4x2", (1, 8, 8), 10).train()
    net.blocks[0].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    predict(net, data[0][:5])
    assert net.training and not net.blocks[0].training and net.blocks[1].training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    "images, labels, words",
    [(torch.zeros(3, 1, 8, 8), torch.zeros(2).long(), "3 pictures and 2 labels"),
     (torch.zeros(3, 1, 8, 8), -torch.ones(3).long(), "no picture has a label")],
)  # fmt: skip
def test_bad_data_are_told(images, labels, words):
    with pytest.raises(InputError, match=words):
        fit_classifier(backbone("conv:4x2", (1, 8, 8), 2), (images, labels), budget=Budget(steps=1))
