import pytest
import torch

from precis.nn.representation import CKA, effective_rank, linear_cka


def pair(n=30, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=g, dtype=torch.float64) + 3
    mixing, noise = (torch.randn(rows, 7, generator=g, dtype=torch.float64) for rows in (5, n))
    return x, x @ mixing + noise


def hsic(k, l):
    h = torch.eye(len(k), dtype=k.dtype) - 1 / len(k)
    return torch.trace(k @ h @ l @ h)


def test_it_is_the_form_with_kernels():
    x, y = pair()
    k, l = x @ x.T, y @ y.T
    expected = hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt()
    torch.testing.assert_close(linear_cka(x, y), expected, atol=1e-8, rtol=1e-8)


def test_the_unbiased_form_is_song_s():
    x, y = pair(12)

    def estimate(k, l):
        n = len(k)
        k, l = k - k.diag().diag(), l - l.diag().diag()
        rest = k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ l).sum()
        return (torch.trace(k @ l) + rest) / (n * (n - 3))

    k, l = x @ x.T, y @ y.T
    expected = estimate(k, l) / (estimate(k, k) * estimate(l, l)).sqrt()
    torch.testing.assert_close(linear_cka(x, y, unbiased=True), expected, atol=1e-8, rtol=1e-8)
    g = torch.Generator().manual_seed(3)
    apart = [torch.randn(20, 15, generator=g) for _ in range(2)]
    assert abs(float(linear_cka(*apart, unbiased=True))) < 0.25 < float(linear_cka(*apart))
    with pytest.raises(ValueError, match="four rows"):
        linear_cka(x[:3], y[:3], unbiased=True)


def test_orthogonal_maps_scale_and_offsets_do_not_matter_and_batches_add_up():
    x, y = pair()
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    torch.testing.assert_close(linear_cka(3 * x @ turn - 7, y), linear_cka(x, y))
    assert float(linear_cka(x, x)) == pytest.approx(1)
    streamed = CKA()
    for some in torch.arange(30).split(7):
        streamed.update(x[some].float(), y[some])
    torch.testing.assert_close(streamed.value(), linear_cka(x, y), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="two rows"):
        CKA().value()


def test_the_effective_rank_counts_directions():
    axes = torch.cat([torch.eye(4), -torch.eye(4)])
    assert float(effective_rank(axes)) == pytest.approx(4)
    assert float(effective_rank(axes[:, :1] @ torch.ones(1, 6) + 9)) == pytest.approx(1)
    assert float(effective_rank(torch.ones(5, 3))) == 0
    unequal = axes * torch.tensor([1.0, 1, 1, 0.1])
    assert 3 < float(effective_rank(unequal)) < 4
