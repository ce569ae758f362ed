"""Rigid motions from six numbers: the exponential maps of rotations and of screw motions, and their derivatives.

For w, v ∈ R³, θ = ‖w‖ and t = θ²:

    exp [w]× = I + f₁ [w]× + f₂ [w]×²,    exp of the twist (w, v) : x ↦ exp([w]×) x + (I + f₂ [w]× + f₃ [w]×²) v,

    f_m(t) = Σ_k (−t)ᵏ/(2k + m)!,  so that  f₁ = sin θ/θ,  f₂ = (1 − cos θ)/θ²,  f₃ = (θ − sin θ)/θ³.

Park et al., ICCV 2021, §3.2 (arXiv 2011.12948), with w and v not divided by θ.  The closed forms are 0/0 at θ = 0 and
lose digits near it, their derivatives more; below θ = ½ the series is summed to the last digit of float64.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_NEAR = 0.25  # t up to which the series is used: its ninth term is below 1e-20 there
_TERMS = 8


def coefficients(t: Float[Tensor, "*n"], slopes: bool = False) -> Float[Tensor, "*n k"]:
    """f₁, f₂, f₃ at t = θ² ≥ 0; with `slopes` also f₁', f₂', f₃', their derivatives by t: [..., 3] or [..., 6]."""
    far = t > _NEAR
    u = torch.where(far, 0.0, t).unsqueeze(-1)
    table = torch.tensor(_table(slopes), dtype=t.dtype, device=t.device)
    near = table[-1].expand(*t.shape, -1)
    for row in reversed(table[:-1].unbind()):
        near = torch.addcmul(row, near, u)
    s = torch.where(far, t, 1.0)  # where the series is used, any number whose closed form is smooth
    theta = s.sqrt()
    f0 = theta.cos()
    f1 = theta.sin() / theta
    f = [f0, f1, (1 - f0) / s, (1 - f1) / s]
    if slopes:
        f += [(f[m - 1] - m * f[m]) / (2 * s) for m in (1, 2, 3)]
    return torch.where(far.unsqueeze(-1), torch.stack(f[1:], -1), near)


def so3_exp(w: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Rotation about w by ‖w‖ radians."""
    f1, f2, _ = coefficients((w * w).sum(-1)).unsqueeze(-1).unbind(-2)
    cross = hat(w)
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    return eye + f1.unsqueeze(-1) * cross + f2.unsqueeze(-1) * (cross @ cross)


def so3_log(r: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3"]:
    """The w of so3_exp(w) = r with ‖w‖ ≤ π; at exactly π one of the two.

    From the unit quaternion q of r, taken where it is best conditioned: w = 2 atan2(‖q_xyz‖, q_w) q_xyz/‖q_xyz‖.
    """
    m = r.flatten(-2)
    trace = m[..., 0] + m[..., 4] + m[..., 8]
    # rows of 4 q qᵀ (order w, x, y, z): the one with the largest diagonal is a good multiple of q
    a, b, c = m[..., 7] - m[..., 5], m[..., 2] - m[..., 6], m[..., 3] - m[..., 1]
    d, e, f = m[..., 1] + m[..., 3], m[..., 2] + m[..., 6], m[..., 5] + m[..., 7]
    diagonal = [1 + trace, *(1 + 2 * m[..., i] - trace for i in (0, 4, 8))]
    outer = torch.stack([
        torch.stack([diagonal[0], a, b, c], -1), torch.stack([a, diagonal[1], d, e], -1),
        torch.stack([b, d, diagonal[2], f], -1), torch.stack([c, e, f, diagonal[3]], -1),
    ], -2)  # fmt: skip
    best = torch.stack(diagonal, -1).argmax(-1)
    q = outer.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    q = q / q.norm(dim=-1, keepdim=True)
    q = torch.where(q[..., :1] < 0, -q, q)
    xyz = q[..., 1:]
    sine = xyz.norm(dim=-1, keepdim=True)
    small = sine < 1e-7
    safe = torch.where(small, 1.0, sine)
    return xyz * torch.where(small, 2.0, 2 * torch.atan2(safe, q[..., :1]) / safe)


def se3_exp(w: Float[Tensor, "*n 3"], v: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 4 4"]:
    """The rigid motion exp of the twist (w, v): rotation about a screw axis and translation along it, homogeneous."""
    _, f2, f3 = coefficients((w * w).sum(-1)).unsqueeze(-1).unbind(-2)
    once = torch.linalg.cross(w, v)
    shift = v + f2 * once + f3 * torch.linalg.cross(w, once)
    top = torch.cat([so3_exp(w), shift.unsqueeze(-1)], -1)
    bottom = torch.tensor([0, 0, 0, 1], dtype=w.dtype, device=w.device).expand(*w.shape[:-1], 1, 4)
    return torch.cat([top, bottom], -2)


def se3_apply(motion: Float[Tensor, "*n 4 4"], x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """R x + p."""
    return (motion[..., :3, :3] @ x.unsqueeze(-1)).squeeze(-1) + motion[..., :3, 3]


def screw(w: Float[Tensor, "*n 3"], v: Float[Tensor, "*n 3"], x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """exp of the twist (w, v) at x, without the matrix: x + v + w × (f₁ x + f₂ v) + w × (w × (f₂ x + f₃ v))."""
    f1, f2, f3 = coefficients((w * w).sum(-1)).unsqueeze(-1).unbind(-2)
    inner = torch.addcmul(f1 * x, f2, v) + torch.linalg.cross(w, torch.addcmul(f2 * x, f3, v))
    return x + v + torch.linalg.cross(w, inner)


def screw_tangents(
    w: Float[Tensor, "n 3"], v: Float[Tensor, "n 3"], x: Float[Tensor, "n 3"], dw: Float[Tensor, "k n 3"],
    dv: Float[Tensor, "k n 3"], dx: Float[Tensor, "k n 3"],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "k n 3"]]:  # fmt: skip
    """`screw`, and its derivatives along k directions (dw, dv, dx), all at once."""
    f = coefficients((w * w).sum(-1), slopes=True).unsqueeze(-1)
    f1, f2, f3, g1, g2, g3 = f.unbind(-2)
    dt = 2 * (w * dw).sum(-1, keepdim=True)
    near = f2 * x + f3 * v
    inner = f1 * x + f2 * v + torch.linalg.cross(w, near)
    d_near = dt * (g2 * x + g3 * v) + f2 * dx + f3 * dv
    w_k = w.expand_as(dw)
    d_inner = dt * (g1 * x + g2 * v) + f1 * dx + f2 * dv
    d_inner = d_inner + torch.linalg.cross(dw, near.expand_as(dw)) + torch.linalg.cross(w_k, d_near)
    tangents = dx + dv + torch.linalg.cross(dw, inner.expand_as(dw)) + torch.linalg.cross(w_k, d_inner)
    return x + v + torch.linalg.cross(w, inner), tangents


def hat(w: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """[w]×, the matrix of the cross product with w."""
    x, y, z = w.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))


def _table(slopes: bool) -> list[list[float]]:
    """Coefficients of tᵏ in f₁, f₂, f₃ and their derivatives, a row a k."""
    rows = []
    for k in range(_TERMS):
        row = [(-1) ** k / math.factorial(2 * k + m) for m in (1, 2, 3)]
        if slopes:
            row += [(k + 1) * (-1) ** (k + 1) / math.factorial(2 * k + 2 + m) for m in (1, 2, 3)]
        rows.append(row)
    return rows
