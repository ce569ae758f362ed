"""Wave and Helmholtz equation on a grid by finite differences: what a net's solution is held against.

Second order in time (leapfrog) and fourth in space for the wave equation; second order, in flux form, one sparse
factorisation for the Helmholtz equation with the same absorbing layers as `precis.fields.siren_losses`.
"""

import numpy as np
from scipy.sparse import diags
from scipy.sparse.linalg import spsolve


def wave_by_differences(initial: np.ndarray, speed: np.ndarray, until: float, frames: int) -> np.ndarray:
    """u [frames,n,n] of ∂²_t u = c² Δu at `frames` times 0 … until, at rest at t = 0, on [−1, 1]² without borders.

    initial, speed [n,n].  Outside, both go on as at the border, as far as waves could come back from.
    """
    n = len(initial)
    h, fastest = 2 / n, float(speed.max())
    pad = int(np.ceil(fastest * until / 2 / h)) + 3
    c2, now = np.pad(speed, pad, mode="edge") ** 2, np.pad(initial.astype(np.float64), pad, mode="edge")
    per_frame = int(np.ceil(until / max(frames - 1, 1) / (0.5 * h / fastest)))
    dt = until / max(frames - 1, 1) / per_frame
    before = now + 0.5 * dt**2 * c2 * _laplacian(now, h)  # velocity 0: u(−dt) = u(dt)
    out = [now]
    for _ in range(frames - 1):
        for _ in range(per_frame):
            before, now = now, 2 * now - before + dt**2 * c2 * _laplacian(now, h)
        out.append(now)
    return np.stack(out)[:, pad : pad + n, pad : pad + n]


def _laplacian(u: np.ndarray, h: float) -> np.ndarray:
    p = np.pad(u, 2, mode="edge")
    out = -5.0 * u
    for axis in (0, 1):
        for shift, weight in ((0, -1 / 12), (1, 4 / 3), (3, 4 / 3), (4, -1 / 12)):
            part = np.take(p, range(shift, shift + u.shape[axis]), axis)
            out += weight * np.take(part, range(2, 2 + u.shape[1 - axis]), 1 - axis)
    return np.asarray(out / h**2)


def helmholtz_by_differences(
    squared_slowness: np.ndarray, wavenumber: float, centre: tuple[float, float], variance: float = 1e-4,
    pml: float = 0.5, a0: float = 5.0,
) -> np.ndarray:  # fmt: skip
    """Φ [n,n], complex: ∂₁(e₂/e₁ ∂₁Φ) + ∂₂(e₁/e₂ ∂₂Φ) + e₁e₂ m k² Φ = f on [−1, 1]², Φ = 0 outside; m [n,n].

    centre: (row, column) of the source, (1 + i) times a Gaussian.
    """
    n = len(squared_slowness)
    h = 2 / n
    x = (np.arange(n) + 0.5) * h - 1
    edge = np.arange(n + 1) * h - 1
    e = lambda at: 1 - 1j * a0 * (np.maximum(np.abs(at) - (1 - pml), 0) / pml) ** 2
    down = e(x)[None, :] / e(edge)[:, None] / h**2  # between rows: e₂/e₁, [n+1,n]
    along = e(x)[:, None] / e(edge)[None, :] / h**2
    mass = e(x)[:, None] * e(x)[None, :] * squared_slowness * wavenumber**2
    middle = mass - down[:-1] - down[1:] - along[:, :-1] - along[:, 1:]
    right = along[:, 1:].copy()
    right[:, -1] = 0
    rows = down[1:].copy()
    rows[-1] = 0
    sides = [middle.ravel(), rows.ravel()[:-n], right.ravel()[:-1]]
    matrix = diags([sides[0], sides[1], sides[1], sides[2], sides[2]], [0, n, -n, 1, -1], format="csc")
    square = (x[:, None] - centre[0]) ** 2 + (x[None, :] - centre[1]) ** 2
    source = np.exp(-square / (2 * variance))
    source = (1 + 1j) * source / (source.sum() * h**2)
    return np.asarray(spsolve(matrix, source.ravel()).reshape(n, n))
