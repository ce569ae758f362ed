"""Conditional neural process: a set of observations in, a predictive distribution at any target out.

    r_i = h(x_i, y_i),   r = (1/n) Σ_i r_i,   φ_t = g(x_t, r),   Q(y | O) = Π_t N(y_t; μ_t, σ_t²)

with σ = σ_min + (1 − σ_min) softplus(s).  Cost is linear in observations and targets; predictions at different targets
are independent given r.  Garnelo et al., ICML 2018, §2 (arXiv 1807.01613).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Normal


class SetEncoder(nn.Module):
    """Mean over a set of a perceptron of each (location, value) pair: x [B,n,dx], y [B,n,dy], mask [B,n] -> [B,latent].

    activation "sine": sin(ωh) with ω = 30, and weights U(±√(6/n)/ω) in every layer, the first too, as in SIREN's code.
    last_activation: whether the embeddings pass the activation before the mean, as there.  A conditional neural process
    has them linear.  The empty set has a code of its own, learned, 0 to begin with.
    """

    def __init__(
        self, in_dim: int, latent: int = 128, hidden: Sequence[int] = (128, 128, 128),
        activation: str = "relu", generator: torch.Generator | None = None, *,
        last_activation: bool = False, omega: float | int = 30.0,
    ) -> None:
        super().__init__()
        if activation not in ("relu", "sine"):
            raise ValueError(f'activation must be "relu" or "sine", got {activation!r}')
        sizes = (in_dim, *hidden, latent)
        linears = [_linear(a, b, generator) for a, b in zip(sizes[:-1], sizes[1:])]
        if activation == "sine":
            for linear in linears:
                bound = math.sqrt(6 / linear.in_features) / omega
                nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
        self.linears: Sequence[nn.Linear] = nn.ModuleList(linears)  # type: ignore[assignment]
        self.activation, self.last_activation, self.omega = activation, last_activation, float(omega)
        self.empty = nn.Parameter(torch.zeros(latent))

    def forward(
        self, x: Float[Tensor, "b n dx"], y: Float[Tensor, "b n dy"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b latent"]:
        """`mask` is true where a pair is observed; masked pairs change nothing, whatever they hold."""
        codes = torch.cat([x, y], -1)
        if mask is not None:
            codes = codes.masked_fill(~mask[..., None], 0.0)
        for i, linear in enumerate(self.linears):
            active = i < len(self.linears) - 1 or self.last_activation
            if self.activation == "relu":
                codes = linear(codes).relu() if active else linear(codes)
            else:  # ω on the few weights, not on the many activations
                omega = self.omega if active else 1.0
                codes = nn.functional.linear(codes, omega * linear.weight, omega * linear.bias)
                codes = codes.sin() if active else codes
        weight = torch.ones_like(codes[..., :1]) if mask is None else mask[..., None].to(codes)
        n = weight.sum(-2)
        mean = (codes * weight).sum(-2) / n.clamp(min=1)
        return torch.where(n > 0, mean, self.empty)


class CNP(nn.Module):
    """Regression with a Gaussian head: `forward(ctx_x, ctx_y, tgt_x, ctx_mask=None) -> Normal` of shape [B,m,y_dim]."""

    def __init__(
        self, x_dim: int, y_dim: int, latent: int = 128, encoder: Sequence[int] = (128, 128, 128),
        decoder: Sequence[int] = (128, 128), min_sigma: float = 0.1, generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 < min_sigma < 1:
            raise ValueError(f"min_sigma must lie in (0, 1), got {min_sigma}")
        self.min_sigma = min_sigma
        self.encode = SetEncoder(x_dim + y_dim, latent, encoder, generator=generator)
        sizes = (*decoder, 2 * y_dim)
        # The first decoder layer is split, so that r is never tiled over the targets: W [x; r] = W_x x + W_r r.
        self.from_x = _linear(x_dim, sizes[0], generator)
        self.from_r = nn.utils.skip_init(nn.Linear, latent, sizes[0], bias=False)
        nn.init.uniform_(self.from_r.weight, -(latent**-0.5), latent**-0.5, generator=generator)
        self.linears = nn.ModuleList(_linear(a, b, generator) for a, b in zip(sizes[:-1], sizes[1:]))

    def forward(
        self, ctx_x: Float[Tensor, "b n dx"], ctx_y: Float[Tensor, "b n dy"], tgt_x: Float[Tensor, "b m dx"],
        ctx_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Normal:
        h = self.from_x(tgt_x) + self.from_r(self.encode(ctx_x, ctx_y, ctx_mask))[..., None, :]
        for linear in self.linears:
            h = linear(torch.relu(h))
        mean, s = h.chunk(2, -1)
        return Normal(mean, self.min_sigma + (1 - self.min_sigma) * nn.functional.softplus(s))

    def loss(
        self, ctx_x: Float[Tensor, "b n dx"], ctx_y: Float[Tensor, "b n dy"], tgt_x: Float[Tensor, "b m dx"],
        tgt_y: Float[Tensor, "b m dy"], ctx_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """−log Q of the targets (which in training contain the context), per target point, in nats."""
        return -self(ctx_x, ctx_y, tgt_x, ctx_mask).log_prob(tgt_y).sum(-1).mean()


def _linear(n_in: int, n_out: int, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out)  # which draws nothing from the global generator
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(n_in**-0.5), n_in**-0.5, generator=generator)
    return layer
