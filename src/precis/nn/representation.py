"""Comparing representations, and counting the directions that one uses.

    CKA(X, Y) = ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖)     of centred X [N,p], Y [N,q]

Kornblith, Norouzi, Lee, Hinton, ICML 2019 (arXiv 1905.00414), eq. 3 with linear kernels; it does not change under
orthogonal maps and scale.  Memory grows as p² + q² + pq, never as N².
"""

import torch
from jaxtyping import Float
from torch import Tensor


def linear_cka(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"], *, unbiased: bool = False) -> Float[Tensor, ""]:
    """The similarity of two representations of the same N inputs, in [0, 1]; computed in float64.

    unbiased: with the unbiased estimate of HSIC (Song et al., JMLR 2012), which may be below 0 and needs N ≥ 4.
    """
    if unbiased:
        return _hsic(x, y) / (_hsic(x, x) * _hsic(y, y)).sqrt()
    streamed = CKA()
    streamed.update(x, y)
    return streamed.value()


class CKA:
    """Linear CKA of what was given to `update` so far, in batches: the same as `linear_cka` of all rows at once."""

    def __init__(self) -> None:
        self.n = 0
        self._sums: tuple[Tensor, ...] = ()

    def update(self, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> None:
        """Add rows of both representations."""
        x, y = x.detach().double(), y.detach().double()
        new = x.sum(0), y.sum(0), x.T @ x, y.T @ y, x.T @ y
        self._sums = tuple(a + b for a, b in zip(self._sums, new)) if self._sums else new
        self.n += len(x)

    def value(self) -> Float[Tensor, ""]:
        """ValueError before two rows were given; NaN where a representation is constant."""
        if self.n < 2:
            raise ValueError("CKA needs at least two rows")
        mean_x, mean_y, xx, yy, xy = self._sums
        xx, yy, xy = (p - torch.outer(a, b) / self.n for p, a, b in
                      ((xx, mean_x, mean_x), (yy, mean_y, mean_y), (xy, mean_x, mean_y)))  # fmt: skip
        return xy.norm().square() / (xx.norm() * yy.norm())


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased HSIC of linear kernels K = XXᵀ, L = YYᵀ without their diagonals, by products of X and Y alone."""
    n = len(x)
    if n < 4:
        raise ValueError("the unbiased estimate needs at least four rows")
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    k, l = x.square().sum(1), y.square().sum(1)
    rows_k, rows_l = x @ x.sum(0) - k, y @ y.sum(0) - l
    trace = (x.T @ y).norm().square() - k @ l
    return (trace + rows_k.sum() * rows_l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows_k @ rows_l)) / (n * (n - 3))


def effective_rank(h: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """exp of the entropy of the singular values σ/Σσ of centred h (Roy and Vetterli, 2007): from 1 to min(N−1, D).

    0 where all rows coincide.
    """
    h = h.double()
    s = torch.linalg.svdvals(h - h.mean(0))
    s = s[s > s.max() * 1e-12]
    if not len(s):
        return h.new_zeros(())
    p = s / s.sum()
    return torch.exp(-(p * p.log()).sum())
