"""How likely two embedded poses are the same, and the losses that make it so.

    P(z₁, z₂) = (1 − s) σ(−a ‖z₁ − z₂‖₂ + b) + s/2,   D_m = −log mean_{jk} P(z₁⁽ʲ⁾, z₂⁽ᵏ⁾)
    triplet ratio   max(0, D_m(anchor, positive) − D_m(anchor, negative) + log β)

A pose is a Gaussian, and D_m averages the probability over K samples of each.  Liu et al. 2021, §3.2–3.3
(arXiv 2010.13321); Sun et al., ECCV 2020.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

SAMPLES = 20


class PoseEmbedding(NamedTuple):
    """A Gaussian a pose: mean and standard deviation [*, D]; of a point embedding, `std` is None."""

    mean: Tensor
    std: Tensor | None

    def sample(
        self, k: int = SAMPLES, generator: torch.Generator | None = None, *, noise: Tensor | None = None
    ) -> Float[Tensor, "*batch k d"]:
        """k samples of each, or the mean alone where there is no deviation; `noise` [*, k, D] are standard normals."""
        if self.std is None:
            return self.mean[..., None, :]
        if noise is None:
            shape = (*self.mean.shape[:-1], k, self.mean.shape[-1])
            noise = torch.randn(shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean[..., None, :] + self.std[..., None, :] * noise


class MatchingSigmoid(nn.Module):
    """Distance to matching probability, strictly falling from below 1 − s/2 to s/2; a = ELU(a_raw) + 1 > 0, and b.

    At the start a = exp(−0.65) = 0.522 and b = −0.5.
    """

    def __init__(self, smoothing: float | int = 0.1) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.a_raw, self.b = nn.Parameter(torch.tensor(-0.65)), nn.Parameter(torch.tensor(-0.5))

    @property
    def a(self) -> Tensor:
        return F.elu(self.a_raw) + 1

    def forward(self, distance: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return (1 - self.smoothing) * torch.sigmoid(self.b - self.a * distance) + self.smoothing / 2


def pairwise_l2(x: Float[Tensor, "*batch n d"], y: Float[Tensor, "*batch m d"]) -> Float[Tensor, "*batch n m"]:
    """Distances of all pairs by one product; the square is kept above 10⁻¹², where the root has a finite slope."""
    square = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT
    return square.clamp(min=1e-12).sqrt()


def matching_distance(
    z1: Float[Tensor, "*batch k d"], z2: Float[Tensor, "*batch l d"], sigmoid: nn.Module
) -> Float[Tensor, "*batch"]:
    """D_m: minus the logarithm of the mean matching probability over all pairs of samples (nats)."""
    return -sigmoid(pairwise_l2(z1, z2)).mean((-1, -2)).log()


class Mined(NamedTuple):
    """For every anchor the place of its negative, and whether there was one."""

    place: Int64[Tensor, "n"]
    found: Bool[Tensor, "n"]


def mine(
    distance: Float[Tensor, "n n"], negative_mask: Bool[Tensor, "n n"],
    mining: Literal["semi_hard", "hard", "random"] = "semi_hard", scores: Float[Tensor, "n n"] | None = None,
) -> Mined:  # fmt: skip
    """Choose a negative among the batch's positives; distance[i, j] is of anchor i and positive j, [i, i] its own.

    negative_mask: which positives are other poses.  semi_hard: the closest of them that is farther than the own
    positive; hard: the closest; random: the one with the least of `scores` (uniform numbers: drawn alike).
    """
    if mining not in ("semi_hard", "hard", "random"):
        raise ValueError(f"mining is semi_hard, hard or random, not {mining!r}")
    if mining == "random":
        if scores is None:
            raise ValueError("random mining needs scores")
        ranked, allowed = scores, negative_mask
    else:
        ranked = distance
        farther = distance > distance.diagonal(dim1=-2, dim2=-1)[..., None]
        allowed = negative_mask & farther if mining == "semi_hard" else negative_mask
    return Mined(ranked.masked_fill(~allowed, math.inf).argmin(-1), allowed.any(-1))


class TripletLoss(NamedTuple):
    """`loss`: summed over triplets that violate the margin and divided by their number `active` (which carries no
    gradient); `positive`: mean D_m(anchor, positive), the pairwise term."""

    loss: Tensor
    positive: Tensor
    active: Tensor


def triplet_ratio_loss(
    anchor: PoseEmbedding, positive: PoseEmbedding, negative_mask: Bool[Tensor, "n n"], sigmoid: nn.Module, *,
    beta: float | int = 2.0, mining: Literal["semi_hard", "hard"] | Callable[[Tensor, Tensor], Mined] = "semi_hard",
    samples: int = SAMPLES, noise: Float[Tensor, "2 n k d"] | None = None, generator: torch.Generator | None = None,
) -> TripletLoss:  # fmt: skip
    """Ask that an anchor matches its positive β times as probably as its mined negative.

    anchor, positive: n poses each, pose i of both in two views.  Negatives are mined among the positives by distances
    of means, and sampled distances are computed for the mined pairs only.  Anchors without a negative give nothing.
    mining: or a function of distances and negative_mask.  noise: normals for anchors and positives, else drawn.

    Raises ValueError for a single pose: it has no negative.
    """
    if len(negative_mask) < 2:
        raise ValueError("a triplet needs a negative: at least two poses")
    with torch.no_grad():
        distance = pairwise_l2(anchor.mean, positive.mean)
        negative = mine(distance, negative_mask, mining) if isinstance(mining, str) else mining(distance, negative_mask)
    eps_a, eps_p = (None, None) if noise is None else noise.unbind(0)
    z_a, z_p = anchor.sample(samples, generator, noise=eps_a), positive.sample(samples, generator, noise=eps_p)
    to_positive = matching_distance(z_a, z_p, sigmoid)
    to_negative = matching_distance(z_a, z_p[negative.place], sigmoid)
    violation = (to_positive - to_negative + math.log(beta)).clamp(min=0) * negative.found
    active = (violation.detach() > 0).sum()
    return TripletLoss(violation.sum() / active.clamp(min=1), to_positive.mean(), active)


def prior_kl(mean: Float[Tensor, "n d"], std: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """KL(N(mean, std²) ‖ N(0, 1)) summed over dimensions, mean over poses (nats)."""
    variance = std.square().clamp(min=1e-12)
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1).mean()


def hits(distance: Float[Tensor, "q n"], match: Bool[Tensor, "q n"], k: tuple[int, ...] = (1, 10, 20)) -> list[float]:
    """Share of queries with a match among their k nearest, for each k; k above n counts all."""
    order = distance.topk(min(max(k), distance.shape[1]), largest=False).indices
    right = match.gather(1, order)
    return [float(right[:, :n].any(1).float().mean()) for n in k]


def hit_at_k(
    query: Float[Tensor, "q d"], index: Float[Tensor, "n d"], match: Bool[Tensor, "q n"],
    k: tuple[int, ...] = (1, 10, 20),
) -> list[float]:  # fmt: skip
    """`hits` by L2 between means, which ranks as the matching probability of the means does."""
    return hits(torch.cdist(query, index), match, k)
