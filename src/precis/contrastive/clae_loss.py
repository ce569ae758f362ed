"""Two further contrastive losses that CLAE is added to: a plain one, and one that pushes every wrong identity down.

    plain   −log softmax_j( z1_i·z2_j/τ )_i                                 in one direction, without one's own view
    UEL     −1/(2N) Σ_i ( log P_{i,p(i)} + Σ_{j ≠ p(i)} log(1 − P_ij) ),    P_ij = softmax_{j≠i}( z_i·sg(z_j)/τ )

UEL: Ye, Zhang, Yuen, Chang, CVPR 2019 (arXiv 1904.03436); both as Ho and Vasconcelos use them, NeurIPS 2020 (arXiv
2010.12050).  In float32 at least; rows are put on the sphere.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from precis.contrastive.sphere import Number, check_negatives, check_pair, full_precision, unit, wide

ALMOST_ONE = 1e-7


def plain_info_nce(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], temperature: Number = 0.1) -> Float[Tensor, ""]:
    """Cross-entropy, in nats, of finding row i of z2 (N,D) among all of its rows from row i of z1.

    ValueError for less than two pictures and τ ≤ 0.
    """
    check_pair(z1, z2, temperature)
    check_negatives(len(z1))
    with full_precision(z1):
        a, b = (unit(wide(z)) for z in (z1, z2))
        loss = F.cross_entropy(a @ b.T / temperature, torch.arange(len(a), device=a.device))
    return loss.to(z1.dtype)


def uel_loss(
    z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], temperature: Number = 0.1, negative_weight: Number = 1.0
) -> Float[Tensor, ""]:
    """The equation above over the 2N rows of two views (N,D), in nats; `negative_weight` of its second sum.

    P is kept below 1 − 1e-7.  The second factor of the similarities carries no gradient.  ValueError as above.
    """
    check_pair(z1, z2, temperature)
    check_negatives(len(z1))
    n = len(z1)
    with full_precision(z1):
        z = unit(wide(torch.cat([z1, z2])))
        itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)
        log_p = (z @ z.detach().T / temperature).masked_fill(itself, -torch.inf).log_softmax(1)
        partner = itself.roll(n, 1)
        right = log_p[partner].sum()
        p = log_p.masked_fill(itself | partner, -torch.inf).exp().clamp(max=1 - ALMOST_ONE)
        loss = -(right + negative_weight * torch.log1p(-p).sum()) / (2 * n)
    return loss.to(z1.dtype)
