"""Made signals whose truth is known in closed form: an image with derivatives, surfaces with distances, sound, a clip.

Everything is NumPy and depends on `seed` alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8


@dataclass(frozen=True, eq=False)
class BandLimited:
    """f(x) = offset + Σ_j a_j cos(π k_j·x + φ_j) on [−1, 1]²: `frequencies` k [m,2] (periods a side), a and φ [m].

    `x` [..., 2] is (row, column) in [−1, 1]; float64 comes back.
    """

    frequencies: np.ndarray
    amplitudes: np.ndarray
    phases: np.ndarray
    offset: float

    def value(self, x: np.ndarray) -> Float64[np.ndarray, "*batch"]:
        """f [...]."""
        return np.asarray(self.offset + np.cos(self._phase(x)) @ self.amplitudes)

    def gradient(self, x: np.ndarray) -> Float64[np.ndarray, "*batch 2"]:
        """∇f [..., 2] = −π Σ_j a_j k_j sin(·)."""
        return np.asarray(-np.pi * np.sin(self._phase(x)) @ (self.amplitudes[:, None] * self.frequencies))

    def laplacian(self, x: np.ndarray) -> Float64[np.ndarray, "*batch"]:
        """Δf [...] = −π² Σ_j a_j |k_j|² cos(·)."""
        return np.asarray(-(np.pi**2) * np.cos(self._phase(x)) @ (self.amplitudes * (self.frequencies**2).sum(1)))

    def _phase(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.pi * np.asarray(x, np.float64) @ self.frequencies.T + self.phases)


def band_limited(size: int, seed: int, cutoff: float = 0.9, waves: int = 96) -> BandLimited:
    """A random image that a grid of `size` samples a side resolves: every |k| is below `cutoff` of that grid's Nyquist
    frequency, size / 2 periods a side.

    Amplitudes fall as 1 / |k|, as in photographs; the values lie in [0, 1], with a standard deviation of at most 0.2.
    """
    if size < 4 or not 0 < cutoff < 1:
        raise ValueError(f"size must be at least 4 and cutoff between 0 and 1, got {size} and {cutoff}")
    rng = np.random.default_rng(seed)
    highest = cutoff * size / 2
    radius = np.exp(rng.uniform(np.log(min(0.5, highest / 2)), np.log(highest), waves))
    radius[0] = highest * (1 - 1e-9)  # the band is used up to its edge
    angle = rng.uniform(0, np.pi, waves)
    k = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    made = BandLimited(k, rng.rayleigh(1, waves) / radius, rng.uniform(0, 2 * np.pi, waves), 0.0)
    line = np.linspace(-1, 1, 4 * size + 1)
    values = np.stack([made.value(np.stack(np.broadcast_arrays(row, line), -1)) for row in line])
    middle = (values.max() + values.min()) / 2
    # between samples 4 times denser than needed the peak exceeds theirs by at most 1 / cos²(π / 8) = 1.17
    scale = min(0.2 / values.std(), 0.42 / (values.max() - middle))
    return BandLimited(k, made.amplitudes * scale, made.phases, 0.5 - middle * scale)


class Surface(NamedTuple):
    """`points` [n,3] uniform on a surface, outward unit `normals` [n,3], and its exact signed distance (inside < 0)."""

    points: Float64[np.ndarray, "n 3"]
    normals: Float64[np.ndarray, "n 3"]
    sdf: Callable[[np.ndarray], np.ndarray]


def sphere(n: int, seed: int, radius: float = 0.7) -> Surface:
    """Sphere around the origin; sdf = |x| − radius."""
    directions = _directions(np.random.default_rng(seed), n)
    return Surface(radius * directions, directions, lambda x: np.linalg.norm(x, axis=-1) - radius)


def torus(n: int, seed: int, major: float = 0.6, minor: float = 0.25) -> Surface:
    """Torus about the z axis; sdf = |(|(x, y)| − major, z)| − minor.

    The angle of the tube is drawn with density ∝ major + minor cos θ, which makes the points uniform by area.
    """
    rng = np.random.default_rng(seed)
    theta: np.ndarray = np.empty(0)
    while len(theta) < n:
        tried = rng.uniform(0, 2 * np.pi, 2 * n)
        theta = np.concatenate([theta, tried[rng.random(2 * n) * (major + minor) < major + minor * np.cos(tried)]])
    theta, phi = theta[:n], rng.uniform(0, 2 * np.pi, n)
    normals = np.stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta)], 1)
    ring = major * np.stack([np.cos(phi), np.sin(phi), np.zeros(n)], 1)

    def sdf(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.hypot(np.hypot(x[..., 0], x[..., 1]) - major, x[..., 2]) - minor)

    return Surface(ring + minor * normals, normals, sdf)


def csg_box(n: int, seed: int, half: float = 0.6, radius: float = 0.7) -> Surface:
    """The cube [−half, half]³ minus the ball of `radius` < 2 half around its corner (half, half, half).

    Flat faces, sharp edges and a hollow: the surface is three whole faces, three faces without a quarter disc, and an
    eighth of the sphere.  The distance is the least of those to the seven pieces, hence exact (max(box, −ball) is not).
    """
    if not 0 < radius < 2 * half:
        raise ValueError(f"radius must lie between 0 and {2 * half}, got {radius}")
    rng = np.random.default_rng(seed)
    whole, cut, hollow = 4 * half**2, 4 * half**2 - np.pi * radius**2 / 4, np.pi * radius**2 / 2
    areas = np.array([whole] * 3 + [cut] * 3 + [hollow])
    piece = rng.choice(7, n, p=areas / areas.sum())
    points, normals = np.empty((n, 3)), np.zeros((n, 3))
    for axis in range(3):
        for side, index in ((-1, axis), (1, axis + 3)):
            here = np.flatnonzero(piece == index)
            flat = _square(rng, len(here), half, radius if side > 0 else 0.0)
            points[here[:, None], np.delete(np.arange(3), axis)] = flat
            points[here, axis], normals[here, axis] = side * half, side
    here = np.flatnonzero(piece == 6)
    inward = -np.abs(_directions(rng, len(here)))
    points[here], normals[here] = half + radius * inward, -inward
    return Surface(points, normals, lambda x: _csg_distance(np.asarray(x, np.float64), half, radius))


def _square(rng: np.random.Generator, n: int, half: float, radius: float) -> np.ndarray:
    """Uniform on the square [−half, half]² outside of the disc of `radius` about the corner (half, half)."""
    kept: np.ndarray = np.empty((0, 2))
    while len(kept) < n:
        tried = rng.uniform(-half, half, (2 * n + 16, 2))
        kept = np.concatenate([kept, tried[((tried - half) ** 2).sum(1) >= radius**2]])
    return kept[:n]


def _csg_distance(x: np.ndarray, half: float, radius: float) -> np.ndarray:
    from_corner = x - half
    nearest = np.linalg.norm(from_corner - radius * _into_octant(from_corner), axis=-1)  # the eighth of the sphere
    for axis in range(3):
        rest = np.delete(x, axis, -1)
        flat = np.clip(rest, -half, half)
        nearest = np.minimum(nearest, np.hypot(x[..., axis] + half, np.linalg.norm(rest - flat, axis=-1)))
        in_disc = ((flat - half) ** 2).sum(-1) < radius**2
        arc = half + radius * _into_octant(rest - half)  # in the disc that was cut out, its rim is nearest
        flat = np.where(in_disc[..., None], arc, flat)
        nearest = np.minimum(nearest, np.hypot(x[..., axis] - half, np.linalg.norm(rest - flat, axis=-1)))
    inside = (np.abs(x) < half).all(-1) & (np.linalg.norm(from_corner, axis=-1) > radius)
    return np.asarray(np.where(inside, -nearest, nearest))


def _into_octant(v: np.ndarray) -> np.ndarray:
    """The unit vector without positive entries that is nearest in angle to v."""
    clipped = np.minimum(v, 0)
    length = np.linalg.norm(clipped, axis=-1, keepdims=True)
    axis = -np.eye(v.shape[-1])[np.argmin(v, axis=-1)]
    return np.asarray(np.where(length > 1e-12, clipped / np.maximum(length, 1e-300), axis))


def _directions(rng: np.random.Generator, n: int) -> np.ndarray:
    v: np.ndarray = rng.normal(size=(n, 3))
    return np.asarray(v / np.linalg.norm(v, axis=1, keepdims=True))


class Sound(NamedTuple):
    """`samples` float32 [1, n] in −1 … 1, `rate` in samples a second."""

    samples: np.ndarray
    rate: int


def chirp(
    seconds: float | int = 1.0, rate: int = 8000, low: float | int = 100.0, high: float | int = 1600.0
) -> Sound:
    """A tone that rises exponentially from `low` to `high` hertz, faded in and out over 10 ms."""
    t = np.arange(round(seconds * rate)) / rate
    growth = np.log(high / low) / seconds
    tone = np.sin(2 * np.pi * low * np.expm1(growth * t) / growth)
    return Sound((0.8 * tone * _fade(t, seconds)).astype(np.float32)[None], rate)


def chord(seconds: float | int = 1.0, rate: int = 8000) -> Sound:
    """A plucked A minor chord: four tones of three harmonics each, decaying."""
    t = np.arange(round(seconds * rate)) / rate
    total = np.zeros_like(t)
    for tone in (220.0, 261.626, 329.628, 440.0):
        for harmonic in (1, 2, 3):
            total += np.exp(-2.5 * harmonic * t) / harmonic**1.5 * np.sin(2 * np.pi * tone * harmonic * t)
    return Sound((0.9 * total / np.abs(total).max() * _fade(t, seconds)).astype(np.float32)[None], rate)


def _fade(t: np.ndarray, seconds: float | int) -> np.ndarray:
    return np.asarray(np.clip(np.minimum(t, seconds - t) / 0.01, 0, 1))


def moving_shapes(frames: int = 16, size: int = 32) -> UInt8[np.ndarray, "{frames} 3 {size} {size}"]:
    """A clip uint8 [frames,3,size,size]: an orange disc on a circle and a blue square to and fro, on a grey slope."""
    line = (2 * np.arange(size) + 1) / size - 1
    y, x = np.meshgrid(line, line, indexing="ij")
    clip = np.empty((frames, 3, size, size))
    for i, turn in enumerate(np.arange(frames) * 2 * np.pi / frames):
        disc = np.hypot(x - 0.45 * np.cos(turn), y - 0.45 * np.sin(turn)) - 0.3
        square = np.maximum(np.abs(x - 0.5 * np.sin(turn)), np.abs(y)) - 0.2
        picture = np.broadcast_to(0.3 + 0.2 * y, (3, size, size))
        for distance, colour in ((disc, (0.95, 0.6, 0.1)), (square, (0.15, 0.35, 0.9))):
            cover = np.clip(0.5 - distance * size / 2, 0, 1)  # the edge is one pixel wide
            picture = picture * (1 - cover) + np.array(colour)[:, None, None] * cover
        clip[i] = picture
    return np.rint(clip * 255).astype(np.uint8)
