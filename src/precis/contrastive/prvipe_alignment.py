"""Distances between poses after the best alignment, and between sequences after the best warping of time.

    PA-MPJPE(x, y) = min over rotations R and scales s of mean_j |s R y_j + t − x_j|   (s, R, t: least squares)

With H = Σ y xᵀ of centred points and signed singular values s₁, s₂, ±s₃, the sum λ = s₁ + s₂ ± s₃ that decides the
least-squares error is the largest root of  λ⁴ − 2aλ² − 8dλ + 2b − a²  (a = tr HᵀH, b = tr (HᵀH)², d = det H), found by
Newton's method from above, and its gradient with respect to H is the rotation:

    R = [(λ² + a) H + 2λ cof H − 2 H HᵀH] / (λ³ − aλ − 2d)

so that no pair needs a singular value decomposition.  The quartic: Theobald 2005, Acta Cryst. A61.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

CLOSE = 1e-3
CHUNK = 1 << 18  # pairs at once: what their matrices take stays near the cache


def pa_mpjpe(
    target: Float[Tensor, "*batch j 3"], source: Float[Tensor, "*batch j 3"],
    mask: Bool[Tensor, "*batch j"] | None = None,
) -> Float[Tensor, "*batch"]:  # fmt: skip
    """Mean distance of the points after `source` has been moved, turned and scaled (not mirrored) onto `target`.

    In the units of `target`; by singular value decomposition.  mask: the points that count.
    """
    weight = (torch.ones_like(target[..., 0]) if mask is None else mask.to(target.dtype))[..., None]
    total = weight.sum(-2, keepdim=True).clamp(min=1)
    x, y = ((k - (k * weight).sum(-2, keepdim=True) / total) * weight for k in (target, source))
    u, s, vh = torch.linalg.svd(y.mT @ x)
    sign = torch.ones_like(s)
    sign[..., 2] = torch.linalg.det(u @ vh).sign()
    scale = (s * sign).sum(-1) / y.square().sum((-1, -2)).clamp(min=1e-12)
    moved = scale[..., None, None] * (y @ ((u * sign[..., None, :]) @ vh))
    return ((moved - x).norm(dim=-1) * weight[..., 0]).sum(-1) / total[..., 0, 0]


def pa_mpjpe_pairs(target: Float[Tensor, "n j 3"], source: Float[Tensor, "m j 3"]) -> Float[Tensor, "n m"]:
    """`pa_mpjpe` of all pairs, computed in float64 by the closed form above."""
    x, y = (_centred(k) for k in (target, source))
    rows = max(1, CHUNK // (16 * len(y)))
    return torch.cat([_exact(part, y, *_solved(part, y)) for part in x.split(rows)]).to(target.dtype)


def match_matrix(poses: Float[Tensor, "n j 3"], kappa: float | int = 0.1) -> Bool[Tensor, "n n"]:
    """Whether PA-MPJPE(target i, source j) ≤ kappa, for all pairs; exact.

    Most pairs are decided without a rotation: the root mean square after alignment needs none, and RMS/√J ≤ MPJPE ≤
    RMS; and joints p, q that a similarity of scale s leaves d_p and d_q off have d_p + d_q ≥ |s |y_p − y_q| −
    |x_p − x_q||, so that joints taken in pairs bound MPJPE from below.  Computed in float32; what lies within 10⁻³ of
    kappa, relative, is decided in float64.
    """
    exact = _centred(poses)
    x = exact.float()
    n, joints = x.shape[:2]
    energy, wide = x.square().sum((1, 2)).clamp(min=1e-12), kappa * (1 + CLOSE)
    apart = [(x[:, p] - x[:, q]).norm(dim=-1) for p, q in _pairings(joints, 5)]
    match = torch.eye(n, dtype=torch.bool, device=x.device)
    rows = max(1, CHUNK // n)
    for at in range(0, n, rows):
        h, root = _solved(x[at : at + rows], x[at:])
        above = torch.arange(root.shape[1], device=x.device) > torch.arange(len(root), device=x.device)[:, None]
        # the first of a pair as target, then the second: the same λ, the rotation transposed, another scale
        for swap in (False, True):
            target, source = energy[at : at + len(root), None], energy[at:]
            if swap:
                target, source = source, target
            left = target - root.square() / source
            i, j = (above & (left <= joints**2 * wide**2)).nonzero().unbind(1)
            for d in apart:
                s, (t, y) = root[i, j] / energy[at + (i if swap else j)], (at + j, at + i) if swap else (at + i, at + j)
                kept = (s[:, None] * d[y] - d[t]).abs().sum(1) <= joints * wide
                i, j = i[kept], j[kept]
            t, y = (at + j, at + i) if swap else (at + i, at + j)
            for some in torch.arange(len(i), device=x.device).split(CHUNK // 16):
                a, b, turn = t[some], y[some], h[:, :, i[some], j[some]].permute(2, 0, 1)
                found = _of_pairs(x[a], x[b], turn.mT if swap else turn, root[i[some], j[some]])
                match[a, b] = found <= kappa
                near = ((found - kappa).abs() <= CLOSE * kappa).nonzero()[:, 0]
                match[a[near], b[near]] = pa_mpjpe(exact[a[near]], exact[b[near]]) <= kappa
    return match


def procrustes_2d(target: Float[Tensor, "n j 2"], source: Float[Tensor, "m j 2"]) -> Float[Tensor, "n m"]:
    """Mean distance of 2-D points after the best shift, turn and scale of `source`, all pairs (in complex numbers)."""
    x, y = (torch.view_as_complex((k - k.mean(1, keepdim=True)).contiguous()) for k in (target, source))
    best = (x @ y.conj().T) / y.abs().square().sum(1).clamp(min=1e-12)
    parts = zip(best.split(64), x.split(64))
    return torch.cat([(c[..., None] * y - part[:, None]).abs().mean(-1) for c, part in parts])


class Warp(NamedTuple):
    """`path` [L,2]: pairs of frames from (0, 0) to the last ones; `cost`: the sum of their distances."""

    path: Int64[Tensor, "l 2"]
    cost: float


def dtw_align(a: Float[Tensor, "t d"], b: Float[Tensor, "s d"]) -> Warp:
    """Dynamic time warping of two sequences: the monotone path of least summed L2 distance, steps of one frame in one
    or both.  Antidiagonal by antidiagonal, so that each is one operation."""
    distance = torch.cdist(a.double(), b.double()).cpu()
    t, s = distance.shape
    total = torch.full((t + 1, s + 1), torch.inf, dtype=torch.float64)
    total[0, 0] = 0
    for k in range(2, t + s + 1):
        rows = torch.arange(max(1, k - s), min(t, k - 1) + 1)
        columns = k - rows
        before = torch.stack([total[rows - 1, columns - 1], total[rows - 1, columns], total[rows, columns - 1]])
        total[rows, columns] = distance[rows - 1, columns - 1] + before.amin(0)
    i, j, path = t, s, [(t - 1, s - 1)]
    while (i, j) != (1, 1):
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min(steps, key=lambda at: float(total[at]))
        path.append((i - 1, j - 1))
    return Warp(torch.tensor(path[::-1]), float(total[t, s]))


def _centred(k: Tensor) -> Tensor:
    k = k.double()
    return k - k.mean(1, keepdim=True)


def _pairings(joints: int, count: int) -> list[tuple[list[int], list[int]]]:
    """`count` ways to take the joints in pairs, no pair twice (a round-robin tournament)."""
    around = list(range(joints - joints % 2))
    rounds = []
    for _ in range(min(count, len(around) - 1)):
        half = len(around) // 2
        rounds.append((around[:half], around[half:][::-1]))
        around = [around[0], around[-1], *around[1:-1]]
    return rounds


def _solved(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """H [3,3,n,m] with H = Σ y xᵀ of every pair, and the largest root λ [n,m]."""
    n, m = len(x), len(y)
    h = (y.transpose(1, 2).reshape(3 * m, -1) @ x.permute(1, 0, 2).reshape(x.shape[1], 3 * n)).view(m, 3, n, 3)
    h = h.permute(1, 3, 2, 0).contiguous()
    a = h.square().sum((0, 1))
    b = sum((1 if p == q else 2) * (h[:, p] * h[:, q]).sum(0).square() for p in range(3) for q in range(p, 3))
    d = _det(h)
    twice_d, last = 2 * d, 2 * b - a.square()
    root = (3 * a).sqrt()
    eps = torch.finfo(root.dtype).eps
    for _ in range(40):
        square = root.square()
        slope = (root * (square - a)).sub_(twice_d).mul_(4).clamp_(min=1e-30)
        value = (square - 2 * a).mul_(square).sub_(root * twice_d, alpha=4).add_(last)
        value *= value > 2 * eps * square.square()  # at a double root (points on a line) the slope vanishes with it
        step = value.div_(slope)
        root = root - step
        if bool((step <= 4 * eps * root).all()):
            break
    return h, root


def _det(h: Tensor) -> Tensor:
    return ((h[0, 0] * (h[1, 1] * h[2, 2] - h[1, 2] * h[2, 1])) - h[0, 1] * (h[1, 0] * h[2, 2] - h[1, 2] * h[2, 0])
            + h[0, 2] * (h[1, 0] * h[2, 1] - h[1, 1] * h[2, 0]))  # fmt: skip


def _exact(x: Tensor, y: Tensor, h: Tensor, root: Tensor) -> Tensor:
    n, m = root.shape
    i, j = torch.arange(n, device=x.device).repeat_interleave(m), torch.arange(m, device=x.device).repeat(n)
    return _of_pairs(x[i], y[j], h.reshape(3, 3, -1).permute(2, 0, 1), root.reshape(-1)).view(n, m)


def _of_pairs(x: Tensor, y: Tensor, h: Tensor, root: Tensor) -> Tensor:
    """Mean distance of pairs x, y [p,J,3] after alignment, from H [p,3,3] and λ [p]."""
    a, d, lam = h.square().sum((1, 2)), _det(h.permute(1, 2, 0)), root
    cofactors = torch.stack([torch.linalg.cross(h[:, (r + 1) % 3], h[:, (r + 2) % 3]) for r in range(3)], 1)
    numerator = (lam.square() + a)[:, None, None] * h + 2 * lam[:, None, None] * cofactors - 2 * h @ (h.mT @ h)
    bottom = lam * (lam.square() - a) - 2 * d
    scale = lam / y.square().sum((1, 2)).clamp(min=1e-12)
    moved = (y @ numerator) * (scale / bottom.clamp(min=1e-30))[:, None, None]
    distance = (moved - x).norm(dim=2).mean(1)
    if (lost := bottom <= 1e-6 * lam.pow(3)).any():  # points on a line: the rotation is not determined
        distance[lost] = pa_mpjpe(x[lost], y[lost])
    return distance
