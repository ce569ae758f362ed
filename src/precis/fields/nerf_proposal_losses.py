"""What teaches a proposal where a ray's weight lies, and what keeps that weight together.

A histogram is edges s_0 < … < s_n on a ray and a weight for each interval between them.

    interlevel   Σ_i max(0, w_i − ŵ(I_i))² / (w_i + ε),   ŵ(I) = Σ ŵ_j over the proposal's intervals that touch I
    distortion   Σ_ij w_i w_j |m_i − m_j| + ⅓ Σ_i w_i² (s_{i+1} − s_i),   m: middles

ŵ(I) is the most that a proposal of those weights can hold in I; where the field holds more, the proposal is wrong.  The
interlevel loss moves the proposal alone: no gradient goes into w.
Barron et al., Mip-NeRF 360, CVPR 2022, §3 and §4 (arXiv 2111.12077).
"""

import torch
from jaxtyping import Float
from torch import Tensor

EPS = 1e-7


def outer(
    s: Float[Tensor, "*b n1"], s_hat: Float[Tensor, "*b m1"], w_hat: Float[Tensor, "*b m"]
) -> Float[Tensor, "*b n"]:
    """For each interval of the edges `s` the sum of the proposal's weights over its intervals that overlap it."""
    total = torch.cat([torch.zeros_like(w_hat[..., :1]), w_hat.cumsum(-1)], -1)
    last = w_hat.shape[-1]
    edges = s_hat.contiguous()
    # From the interval in which I begins to that in which it ends; what only touches at an edge does not overlap.
    low = (torch.searchsorted(edges, s[..., :-1].contiguous(), right=True) - 1).clamp(0, last)
    high = torch.searchsorted(edges, s[..., 1:].contiguous(), right=False).clamp(0, last)
    high = torch.maximum(high, low)
    return total.gather(-1, high) - total.gather(-1, low)


def interlevel_loss(
    s: Float[Tensor, "*b n1"], w: Float[Tensor, "*b n"], s_hat: Float[Tensor, "*b m1"], w_hat: Float[Tensor, "*b m"]
) -> Float[Tensor, ""]:
    """The mean over rays; 0 where the proposal's histogram bounds the field's everywhere."""
    w = w.detach()
    excess = (w - outer(s.detach(), s_hat.detach(), w_hat)).clamp(min=0)
    return (excess.square() / (w + EPS)).sum(-1).mean()


def distortion_loss(s: Float[Tensor, "*b n1"], w: Float[Tensor, "*b n"]) -> Float[Tensor, ""]:
    """The mean over rays, in one pass along each: Σ_ij w_i w_j |m_i − m_j| = 2 Σ_i w_i (m_i W_i − M_i), where W_i and
    M_i are the sums of w and of w m before i."""
    middle = (s[..., 1:] + s[..., :-1]) / 2
    before = w.cumsum(-1) - w
    moment = (w * middle).cumsum(-1) - w * middle
    between = 2 * (w * (middle * before - moment)).sum(-1)
    within = (w.square() * (s[..., 1:] - s[..., :-1])).sum(-1) / 3
    return (between + within).mean()
