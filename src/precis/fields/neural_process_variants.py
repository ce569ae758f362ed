"""Other heads and a latent variable for conditional neural processes: labels in place of values, coherent samples.

    categorical   Q(label at x | O) = softmax g(x, r),           values of the context given one-hot
    latent        z ~ q(z|O) = N(μ(r), diag σ(r)²),               p(y | O, x) = N(y; μ(x, r, z), σ(x, r, z)²)
                  L = −E_{z~q(z|T)} [log p(y_T | x_T, r_C, z)] / |T| + KL(q(z|T) ‖ q(z|C)) / |T|

Predictions of a CNP at different targets are independent given r, so that drawing them one by one gives noise, not a
function.  With a latent z, one draw of z is one function at all targets.  Garnelo et al., ICML 2018, §2.2 and §4.2
(latent model; arXiv 1807.01613), with the objective of Garnelo et al., Neural Processes (1807.01622), eq. 9.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence

from precis.fields.neural_process import CNP, SetEncoder

LEAST, MOST = 0.1, 0.9  # of the standard deviation of z: from 0.1 to 1


class CategoricalCNP(nn.Module):
    """A CNP whose targets have one of `classes` labels: `forward(ctx_x, ctx_labels, tgt_x, ctx_mask) -> Categorical`.

    ctx_x [B,n,dx], ctx_labels [B,n] in 0 … classes−1, tgt_x [B,m,dx]; logits [B,m,classes].
    """

    def __init__(
        self, x_dim: int, classes: int, latent: int = 128, encoder: Sequence[int] = (128, 128, 128),
        decoder: Sequence[int] = (128, 128), generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes must be at least 2, got {classes}")
        self.classes = classes
        # The trunk of a CNP: its two outputs a value are read as logits, of which the first `classes` are kept.
        self.trunk = CNP(x_dim, classes, latent, encoder, decoder, generator=generator)
        last = self.trunk.linears[-1]
        assert isinstance(last, nn.Linear)
        head = nn.utils.skip_init(nn.Linear, last.in_features, classes)
        with torch.no_grad():
            head.weight.copy_(last.weight[:classes])
            head.bias.copy_(last.bias[:classes])
        self.trunk.linears[-1] = head

    def forward(
        self, ctx_x: Float[Tensor, "b n dx"], ctx_labels: Int[Tensor, "b n"], tgt_x: Float[Tensor, "b m dx"],
        ctx_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Categorical:
        labels = F.one_hot(ctx_labels, self.classes).to(ctx_x)
        r = self.trunk.encode(ctx_x, labels, ctx_mask)
        return Categorical(logits=_decode(self.trunk, tgt_x, r))

    def loss(
        self, ctx_x: Float[Tensor, "b n dx"], ctx_labels: Int[Tensor, "b n"], tgt_x: Float[Tensor, "b m dx"],
        tgt_labels: Int[Tensor, "b m"], ctx_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Cross-entropy per target, in nats."""
        return -self(ctx_x, ctx_labels, tgt_x, ctx_mask).log_prob(tgt_labels).mean()


class LatentCNP(CNP):
    """A CNP with a global latent z beside r: one z, one function.

    `forward(…, generator=) -> Normal` draws one z for each set of the batch; `draw(…, samples)` gives whole functions.
    The posterior of z reads the same code r as the decoder; for the empty context it is N(0, I)-like, learned.
    """

    def __init__(
        self, x_dim: int, y_dim: int, latent: int = 128, encoder: Sequence[int] = (128, 128, 128),
        decoder: Sequence[int] = (128, 128), min_sigma: float = 0.1, generator: torch.Generator | None = None, *,
        z_dim: int = 32,
    ) -> None:
        super().__init__(x_dim, y_dim, latent, encoder, decoder, min_sigma, generator)
        self.z_dim = z_dim
        self.posterior_encoder = SetEncoder(x_dim + y_dim, 2 * z_dim, encoder, generator=generator)
        self.from_z = nn.utils.skip_init(nn.Linear, z_dim, self.from_x.out_features, bias=False)
        nn.init.uniform_(self.from_z.weight, -(z_dim**-0.5), z_dim**-0.5, generator=generator)

    def posterior(
        self, x: Float[Tensor, "b n dx"], y: Float[Tensor, "b n dy"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Normal:
        """q(z | set), of shape [B,z_dim]; σ = 0.1 + 0.9 sigmoid(s)."""
        mean, s = self.posterior_encoder(x, y, mask).chunk(2, -1)
        return Normal(mean, LEAST + MOST * torch.sigmoid(s))

    def forward(
        self, ctx_x: Float[Tensor, "b n dx"], ctx_y: Float[Tensor, "b n dy"], tgt_x: Float[Tensor, "b m dx"],
        ctx_mask: Bool[Tensor, "b n"] | None = None, z: Float[Tensor, "b z"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Normal:
        """Given z, or one drawn from q(z|context); the mean of q in evaluation mode without a generator."""
        if z is None:
            q = self.posterior(ctx_x, ctx_y, ctx_mask)
            z = q.mean if generator is None and not self.training else _draw(q, generator)
        r = self.encode(ctx_x, ctx_y, ctx_mask)
        shift = self.from_r(r) + self.from_z(z)
        mean, s = _decode(self, tgt_x, r, shift).chunk(2, -1)
        return Normal(mean, self.min_sigma + (1 - self.min_sigma) * F.softplus(s))

    def draw(
        self, ctx_x: Float[Tensor, "b n dx"], ctx_y: Float[Tensor, "b n dy"], tgt_x: Float[Tensor, "b m dx"],
        samples: int, generator: torch.Generator, ctx_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "s b m dy"]:
        """Mean functions of `samples` draws of z, each one function over all targets."""
        q = self.posterior(ctx_x, ctx_y, ctx_mask)
        means = [self(ctx_x, ctx_y, tgt_x, ctx_mask, z=_draw(q, generator)).mean for _ in range(samples)]
        return torch.stack(means)

    def loss(
        self, ctx_x: Float[Tensor, "b n dx"], ctx_y: Float[Tensor, "b n dy"], tgt_x: Float[Tensor, "b m dx"],
        tgt_y: Float[Tensor, "b m dy"], ctx_mask: Bool[Tensor, "b n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The negative evidence bound per target point, in nats, with one draw of z from q(z|targets)."""
        q, prior = self.posterior(tgt_x, tgt_y), self.posterior(ctx_x, ctx_y, ctx_mask)
        fit = self(ctx_x, ctx_y, tgt_x, ctx_mask, z=_draw(q, generator)).log_prob(tgt_y).sum(-1).mean()
        return kl_divergence(q, prior).sum(-1).mean() / tgt_x.shape[-2] - fit


def _decode(trunk: CNP, x: Tensor, r: Tensor, shift: Tensor | None = None) -> Tensor:
    h = trunk.from_x(x) + (trunk.from_r(r) if shift is None else shift)[..., None, :]
    for linear in trunk.linears:
        h = linear(h.relu())
    return h


def _draw(q: Normal, generator: torch.Generator | None) -> Tensor:
    return q.mean + q.stddev * torch.randn(q.mean.shape, generator=generator).to(q.mean)
