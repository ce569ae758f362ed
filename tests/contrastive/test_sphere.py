import pytest
import torch
from torch.nn.functional import normalize

from precis.contrastive.sphere import (
    check_chunk,
    check_negatives,
    check_pair,
    check_temperature,
    full_precision,
    unit,
    wide,
)


def test_rows_have_length_one_and_zeros_stay():
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z[2] = 0
    found = unit(z)
    torch.testing.assert_close(found, normalize(z, dim=1))
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1, 0, 1]) and unit(z, False) is z
    torch.autograd.gradcheck(unit, z[:2].requires_grad_())


def test_half_precision_is_widened_and_nothing_else():
    for kind, wanted in ((torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64,) * 2):
        assert wide(torch.ones(2, 3, 4, dtype=kind)).dtype == wanted
    x = torch.full((2, 2), 1 + 2**-10)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision(x):
            assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize(("call", "words"), [
    (lambda: check_temperature(0), "the temperature must be positive, got 0"),
    (lambda: check_negatives(1), "a batch of one picture has no negatives"),
    (lambda: check_chunk(0), "chunk must be at least 1, got 0"),
    (lambda: check_pair(torch.ones(2, 3), torch.ones(3, 3), 1), r"one shape, got \(2, 3\) and \(3, 3\)"),
    (lambda: check_pair(torch.ones(2, 3), torch.ones(2, 3), -1.0), "must be positive, got -1.0"),
])  # fmt: skip
def test_what_no_loss_takes(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_every_loss_takes():
    check_chunk(None)
    check_chunk(1)
    check_negatives(2)
    check_pair(torch.ones(2, 3), torch.zeros(2, 3), 0.1)
