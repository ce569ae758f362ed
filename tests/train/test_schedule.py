import math

import pytest
import torch
from torch import nn

from precis.train.schedule import constant, cosine, exponential, linear, sample, steps, warmup


@pytest.mark.parametrize(
    "schedule, values",
    [
        (constant(), [1, 1, 1, 1, 1]),
        (linear(), [1, 0.75, 0.5, 0.25, 0]),
        (linear(0.2), [1, 0.8, 0.6, 0.4, 0.2]),
        (cosine(), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        (cosine(0.5), [1, 0.5 + (1 + math.sqrt(0.5)) / 4, 0.75, 0.5 + (1 - math.sqrt(0.5)) / 4, 0.5]),
        (steps((0.5, 0.75), 0.1), [1, 1, 0.1, 0.01, 0.01]),
        (exponential(1 / 16), [1, 0.5, 0.25, 0.125, 0.0625]),
        (warmup(0.5), [0, 0.5, 1, 1, 1]),
        (warmup(0.5, linear()), [0, 0.5, 1, 0.5, 0]),
        (warmup(0, linear()), [1, 0.75, 0.5, 0.25, 0]),
    ],
)
def test_values(schedule, values):
    assert [schedule(p) for p in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(values, abs=1e-12)


def test_cosine_is_torchs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=0.1)
    rates = []
    for _ in range(10):
        rates.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    torch.testing.assert_close(sample(cosine(0.1), 10), torch.tensor(rates, dtype=torch.float64))


@pytest.mark.parametrize("make", [lambda: exponential(0), lambda: warmup(1)])
def test_bad_arguments(make):
    with pytest.raises(ValueError):
        make()
