"""Segment operations against loops, gradients, and what must hold for empty segments and long lists."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precis.nn import segment as S

LENGTHS = torch.tensor([3, 0, 1, 4, 0])


def rows(ptr, i):
    return slice(int(ptr[i]), int(ptr[i + 1]))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=7), st.integers(0, 9))
def test_every_operation_equals_a_loop(lengths, seed):
    ptr = S.ptr_of(torch.tensor(lengths))
    x = torch.randn(int(ptr[-1]), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
    parts = [x[rows(ptr, i)] for i in range(len(lengths))]
    loops = {
        S.segment_sum: torch.stack([p.sum(0) for p in parts]),
        S.segment_mean: torch.stack([p.sum(0) / max(len(p), 1) for p in parts]),
        S.segment_max: torch.stack([p.amax(0) if len(p) else torch.full((2,), -math.inf).double() for p in parts]),
        S.segment_logsumexp: torch.stack([p.logsumexp(0) for p in parts]),
        S.segment_softmax: torch.cat([p.softmax(0) for p in parts]),
    }
    index = S.segment_index(ptr)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    for f, expected in loops.items():
        torch.testing.assert_close(f(x, ptr), expected)
        shuffled = f(x[order], index[order], len(lengths))
        torch.testing.assert_close(shuffled, expected[order] if f is S.segment_softmax else expected)
    running = torch.cat([p.cumsum(0) for p in parts])
    torch.testing.assert_close(S.segment_cumsum(x, ptr), running)
    torch.testing.assert_close(S.segment_cumsum(x, ptr, exclusive=True), running - x)
    torch.testing.assert_close(S.segment_logcumsumexp(x, ptr), torch.cat([p.logcumsumexp(0) for p in parts]))


@pytest.mark.parametrize("f", [S.segment_sum, S.segment_mean, S.segment_softmax, S.segment_max, S.segment_cumsum,
                               S.segment_logcumsumexp])  # fmt: skip
def test_gradients(f):
    ptr = S.ptr_of(LENGTHS)
    x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    finite = lambda y: torch.where(y.isfinite(), y, 0.0)
    assert torch.autograd.gradcheck(lambda x: finite(f(x, ptr)), x)


def test_logsumexp_has_a_finite_gradient_beside_empty_segments():
    x = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    out = S.segment_logsumexp(x, S.ptr_of(LENGTHS))
    assert out[1] == -math.inf and out[4] == -math.inf
    torch.where(out.isfinite(), out, 0.0).sum().backward()
    torch.testing.assert_close(x.grad, S.segment_softmax(x.detach(), S.ptr_of(LENGTHS)))


def test_small_differences_survive_in_a_long_list():
    x = torch.full((1 << 20,), 100.0)
    x[-3:] = torch.tensor([1e-3, 2e-3, 3e-3])
    out = S.segment_cumsum(x, torch.tensor([0, len(x) - 3, len(x)]))
    torch.testing.assert_close(out[-3:], torch.tensor([1e-3, 3e-3, 6e-3]), atol=1e-6, rtol=0)


def test_large_values_do_not_overflow():
    x = torch.tensor([1000.0, 1000.0, -1000.0])
    ptr = torch.tensor([0, 2, 3])
    torch.testing.assert_close(S.segment_logsumexp(x, ptr), torch.tensor([1000 + math.log(2), -1000]))
    torch.testing.assert_close(S.segment_softmax(x, ptr), torch.tensor([0.5, 0.5, 1.0]))
