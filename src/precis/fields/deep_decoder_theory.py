"""How much of white noise one layer of a decoder can fit: Proposition 1 of the Deep Decoder paper (arXiv 1810.03982).

    G(C) = relu(U B C_1) c_2,   C_1 [k,k], c_2 [k],  U [n, n₁], B [n₁, k] fixed.
    If k² log(n₁)/n ≤ 1/32 then, for η ~ N(0, I_n), with probability at least 1 − 2 n₁^(−k²),
    min_C ‖G(C) − η‖² ≥ ‖η‖² (1 − 20 k² log(n₁)/n).

No standardising of channels; for more layers the paper has no proof.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class OneLayerDecoder(nn.Module):
    """G, in `starts` copies with different C_1, of which the best counts, since the loss is not convex in C_1.

    u: U, a linear function of columns [n₁, m] to [n, m].  b1: B.  train_input: B is free as well, one for each copy,
    which breaks the proposition.
    """

    def __init__(
        self, u: Callable[[Tensor], Tensor], b1: Float[Tensor, "n1 k"], *, starts: int = 8,
        train_input: bool = False, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.u = u
        k = b1.shape[1]
        self.c1 = nn.Parameter(torch.randn(starts, k, k, generator=generator, dtype=b1.dtype) / math.sqrt(k))
        self.b1 = nn.Parameter(b1.expand(starts, -1, -1).clone()) if train_input else b1

    def features(self) -> Float[Tensor, "starts n k"]:
        """relu(U B C_1), the channels that c_2 mixes."""
        x = self.b1 @ self.c1
        copies, _, k = x.shape
        mapped = self.u(x.transpose(0, 1).flatten(1))
        return mapped.unflatten(1, (copies, k)).transpose(0, 1).relu()

    def fraction(self, eta: Float[Tensor, "n"]) -> Float[Tensor, "starts"]:
        """Share of ‖η‖² that is fitted with the best c_2, for each copy.

        c_2 solves the normal equations; a ridge of 1e-8 of their trace keeps channels that are zero out.
        """
        f = self.features()
        gram, towards = f.mT @ f, (f.mT @ eta)[..., None]
        k = gram.shape[-1]
        ridge = 1e-8 * gram.diagonal(dim1=-2, dim2=-1).sum(-1) + 1e-12
        gram = gram + ridge[:, None, None] * torch.eye(k, dtype=gram.dtype, device=gram.device)
        c2 = torch.linalg.solve(gram, towards)
        return 1 - (eta - (f @ c2)[..., 0]).square().sum(-1) / eta.square().sum()

    def fit_noise(self, eta: Float[Tensor, "n"], steps: int = 300, lr: float | int = 0.03) -> float:
        """The largest share of ‖η‖² fitted by any copy at any step: Adam on C_1, c_2 always at its best."""
        eta = eta / eta.square().mean().sqrt()
        optimizer, best = torch.optim.Adam(self.parameters(), lr=lr), 0.0
        for _ in range(steps):
            optimizer.zero_grad()
            shares = self.fraction(eta)
            best = max(best, float(shares.detach().max()))
            (-shares.sum()).backward()
            optimizer.step()
        with torch.no_grad():
            return max(best, float(self.fraction(eta).max()))


def bilinear(side: int) -> Callable[[Float[Tensor, "n1 m"]], Float[Tensor, "n m"]]:
    """U that doubles the sides of pictures of side² pixels, given as columns (row-major)."""
    eye = torch.eye(side, dtype=torch.float64)
    line = F.interpolate(eye[None], scale_factor=2, mode="linear", align_corners=False)[0].T  # [2 side, side]

    def double(x: Tensor) -> Tensor:
        each = line.to(x)
        return (each @ x.T.unflatten(1, (side, side)) @ each.T).flatten(1).T

    return double


def noise_bound(k: int, n1: int, n: int) -> float:
    """20 k² log(n₁)/n, the share of the noise that can be fitted at most; ValueError where the condition fails."""
    term = k * k * math.log(n1) / n
    if term > 1 / 32:
        raise ValueError(f"k² log(n₁)/n = {term:.3g} is above 1/32: the proposition says nothing there")
    return 20 * term
