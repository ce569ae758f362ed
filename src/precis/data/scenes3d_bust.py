"""A bust on a plinth, and its pictures: at rest from all sides, or moving in a niche.

The world is z up, the face looks towards −y, one unit is about the height of the head.  The moving scene is the same
bust at 0.24 of the size, so that points and cameras together have a diagonal of about 1.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float

from precis.data.scenes3d_trace import normals, trace
from precis.data.scenes3d_views import Capture, Scene, camera_rays, look_at, pinhole

Triple = tuple[float | int, ...]
OVER = 2  # rays a pixel and side
SMALL = 0.24
SUN = np.array([-0.45, -0.7, 0.56])
PARTS = ("head", "nose", "eye", "ear", "neck", "chest", "plinth", "niche", "box")
MOVING = 6  # the first parts turn and bend


@dataclass(frozen=True, eq=False)
class Bust:
    """Signed distances and colours; `turn`, `nod`, `bend` [F] and `shift` [F,3] move head, neck and chest.

    What a moving point x shows is what the bust at rest has at T_f(x) = bend_f(R_f⁻¹(x − c − shift_f)) + c.
    """

    colours: np.ndarray  # [parts,2,3]
    boxes: np.ndarray  # [n,2,3]: centres and half sides
    niche: bool
    turn: np.ndarray
    nod: np.ndarray
    bend: np.ndarray
    shift: np.ndarray

    def rest(self, x: Float[np.ndarray, "p 3"], frame: int) -> Float[np.ndarray, "p 3"]:
        """T_f(x)."""
        pivot = np.array([0.0, 0.0, -0.45], x.dtype)
        u = x - pivot - self.shift[frame].astype(x.dtype)
        u = u @ _rotation(self.turn[frame], self.nod[frame]).astype(x.dtype)
        bend = x.dtype.type(self.bend[frame])
        return np.asarray(np.stack([u[:, 0] + bend * u[:, 2] ** 2, u[:, 1], u[:, 2]], 1) + pivot)

    def parts(self, x: Float[np.ndarray, "p 3"], frame: int = 0) -> Float[np.ndarray, "parts p"]:
        """Distance to each part (to bent parts: about)."""
        u = self.rest(x, frame)
        sides = np.stack([np.abs(u[:, 0]), u[:, 1], u[:, 2]], 1)
        far = np.full(len(x), np.inf, x.dtype)
        boxes = np.min([_box(x, b[0], b[1]) for b in self.boxes], 0) if len(self.boxes) else far
        return np.stack([
            _ellipsoid(u, (0, 0, 0.3), (0.46, 0.52, 0.6)), _ellipsoid(u, (0, -0.54, 0.22), (0.1, 0.13, 0.16)),
            _ellipsoid(sides, (0.18, -0.44, 0.38), (0.09, 0.07, 0.07)),
            _ellipsoid(sides, (0.47, 0.02, 0.28), (0.07, 0.11, 0.15)), _capsule(u, -0.5, -0.1, 0.2),
            _ellipsoid(u, (0, 0.03, -0.62), (0.66, 0.3, 0.27)), _box(x, (0, 0.03, -1.05), (0.5, 0.36, 0.2)),
            np.maximum(1.4 - np.hypot(x[:, 0], x[:, 1]), -0.2 - x[:, 1]) if self.niche else far, boxes,
        ])  # fmt: skip

    def occupied(self, x: Float[np.ndarray, "p 3"], frame: int = 0) -> Bool[np.ndarray, "p"]:
        """Whether there is matter at x."""
        return np.asarray(self.parts(x, frame).min(0) < 0)

    def colour(self, x: Float[np.ndarray, "p 3"], part: np.ndarray, frame: int) -> Float[np.ndarray, "p 3"]:
        """Colour before shading of points on the surface of `part` [P]."""
        u = np.where((part < MOVING)[:, None], self.rest(x, frame), x)
        stripe = 0.5 + 0.5 * np.tanh(6 * np.sin(9 * np.arctan2(u[:, 0], u[:, 1] + 0.05) + 4 * u[:, 2]))
        tiles = np.sin(6 * np.arctan2(u[:, 0], u[:, 1])) * np.sin(6 * u[:, 2] + 0.7)
        squares = np.where(part == 7, tiles, np.sin(9 * u[:, 0]) * np.sin(9 * u[:, 2] + 0.7) * np.cos(9 * u[:, 1]))
        check = 0.5 + 0.5 * np.tanh(8 * squares)
        bands = 0.5 + 0.5 * np.tanh(6 * np.sin(14 * u[:, 2] + 6 * np.abs(u[:, 0])))
        hair = (u[:, 2] > 0.52) | ((u[:, 1] > 0.05) & (u[:, 2] > 0.05))
        share = np.select([part == 0, part == 5, part >= 6], [np.where(hair, stripe, 1.0), bands, check], 1.0)[:, None]
        c = self.colours[part, 0] * share + self.colours[part, 1] * (1 - share)
        bare = (part == 0) & ~hair
        c = np.where(bare[:, None], self.colours[4, 0], c)
        mouth = bare & (u[:, 1] < 0) & (np.abs(u[:, 2] + 0.02) < 0.035) & (np.abs(u[:, 0]) < 0.17)
        return np.asarray(np.where(mouth[:, None], [0.7, 0.15, 0.2], c))

    def look(self, o: np.ndarray, d: np.ndarray, near: float, far: float, frame: int) -> tuple[np.ndarray, ...]:
        """Of each ray: colour [R,3] in [0, 1], 0 where nothing is; distance (inf) and part (−1) [R]."""
        t = trace(lambda x: self.parts(x, frame).min(0), o, d, near, far, stride=0.8)
        hit = np.flatnonzero(np.isfinite(t))
        x = o[hit] + t[hit, None] * d[hit]
        part = np.full(len(o), -1)
        part[hit] = self.parts(x, frame).argmin(0)
        n = normals(lambda y: self.parts(y, frame).min(0), x)
        light = 0.45 + 0.5 * np.maximum(n @ SUN.astype(x.dtype), 0) + 0.1 * n[:, 2]
        colour = np.zeros((len(o), 3))
        colour[hit] = np.clip(self.colour(x, part[hit], frame) * light[:, None], 0, 1)
        return colour, t, part


def still_bust(views: int, size: int, seed: int) -> Scene:
    """RGBA views from the upper hemisphere of radius 4 (near 2, far 6), a fifth as many test views between."""
    bust = bust_world("static", views, seed)
    test = max(views // 5, 1)
    return Scene(*(_still_views(bust, *place, size) for place in (_around(views, 0.0), _around(test, 0.5))))


def moving_bust(views: int, size: int, seed: int, turn: float) -> Scene:
    """RGB views, one an instant, from a camera that sweeps ±35° at a distance of 0.75, and from one 10° further."""
    bust = bust_world("moving", views, seed, turn)
    beat = 2 * np.pi * np.arange(views) / views
    azimuth, height = np.radians(35) * np.sin(1.5 * beat) - np.pi / 2, np.radians(8) + np.radians(10) * np.sin(2 * beat)
    return Scene(*(_moving_views(bust, azimuth + np.radians(a), height, size, seed) for a in (0, 10)))


@lru_cache(maxsize=8)
def bust_world(kind: str, views: int, seed: int, turn: float = 14.0) -> Bust:
    """The shapes and motions behind a capture of that kind; the moving one in units of the bust (times 0.24)."""
    rng = np.random.default_rng([seed, 4])
    deep, bright = rng.uniform(0.05, 0.35, (len(PARTS), 3)), rng.uniform(0.45, 0.95, (len(PARTS), 3))
    colours = np.stack([bright, deep], 1)
    colours[0, 0], colours[4, 0], colours[3, 0] = [0.5, 0.28, 0.12], [0.93, 0.74, 0.6], [0.9, 0.65, 0.52]
    colours[1, 0], colours[2, 0] = [0.85, 0.45, 0.38], [0.1, 0.3, 0.75]
    colours[7] = 0.45 + 0.5 * colours[7]
    phase, beat = rng.uniform(0, 2 * np.pi, 5), 2 * np.pi * np.arange(views) / views
    wave = np.sin(beat[:, None] * [2, 3, 2, 1, 3] + phase) * (kind == "moving")
    boxes: np.ndarray = np.zeros((0, 2, 3))
    if kind == "moving":
        centres = np.array([[-0.95, 0.6, -0.6], [1.0, 0.55, 0.1], [-0.85, 0.75, 0.75], [0.95, 0.65, -0.8]])
        boxes = np.stack([centres + rng.uniform(-0.08, 0.08, (4, 3)), rng.uniform(0.16, 0.28, (4, 3))], 1)
    return Bust(
        colours, boxes, kind == "moving", np.radians(turn) * wave[:, 0], np.radians(8) * wave[:, 1], 0.12 * wave[:, 2],
        np.stack([0.14 * wave[:, 3], 0.06 * wave[:, 4], 0 * wave[:, 0]], 1),
    )  # fmt: skip


def _still_views(bust: Bust, azimuth: np.ndarray, elevation: np.ndarray, size: int) -> Capture:
    c2w = _orbit(azimuth, elevation, 4.0, np.array([0, 0, -0.2]))
    K = pinhole(len(azimuth), size, size, 36.0)
    rgb, alpha, depth, _ = _pictures(bust, c2w, K, size, 2.0, 6.0, 1.0, np.zeros(len(azimuth), np.int64))
    straight = rgb / np.maximum(alpha, 1e-6)[..., None]
    images = _bytes(np.concatenate([straight, alpha[..., None]], -1))
    aabb = np.array([[-0.9, -0.9, -1.35], [0.9, 0.9, 1.05]], np.float32)
    return Capture(images, c2w, K, (size, size), 2.0, 6.0, aabb, depth=depth)


def _moving_views(bust: Bust, azimuth: np.ndarray, elevation: np.ndarray, size: int, seed: int) -> Capture:
    frames = np.arange(len(azimuth))
    c2w = _orbit(azimuth, elevation, 0.75, np.array([0, 0, -0.04]))
    K = pinhole(len(azimuth), size, size, 45.0)
    near, far = 0.4, 1.4
    rgb, alpha, depth, moving = _pictures(bust, c2w, K, size, near, far, SMALL, frames)
    still = SMALL * _static_points(bust, 2048, seed)
    aabb = np.array([[-0.5, -0.25, -0.42], [0.5, 0.36, 0.42]], np.float32)
    time = (frames / max(len(frames) - 1, 1)).astype(np.float32)
    return Capture(
        _bytes(rgb + 1 - alpha[..., None]), c2w, K, (size, size), near, far, aabb, time, frames, moving > 0.5,
        depth, still.astype(np.float32),
    )  # fmt: skip


def _pictures(
    bust: Bust, c2w: np.ndarray, K: np.ndarray, size: int, near: float, far: float, scale: float, frames: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Premultiplied colour, opacity, mean depth (NaN where mostly nothing is), share of moving parts; [V,H,W,…]."""
    o, d = (x.astype(np.float32) for x in camera_rays(c2w, K, (size, size), OVER))
    found = []
    for v, frame in enumerate(frames):
        rays = o[v].reshape(-1, 3) / np.float32(scale), d[v].reshape(-1, 3)
        colour, t, part = bust.look(*rays, near / scale, far / scale, int(frame))
        there = part >= 0
        alpha = _mean(there, size)
        depth = scale * _mean(np.where(there, t, 0), size) / np.maximum(alpha, 1e-6)
        depth = np.where(alpha > 0.5, depth, np.nan).astype(np.float32)
        found.append((_mean(colour, size), alpha, depth, _mean(there & (part < MOVING), size)))
    return tuple(np.stack(each) for each in zip(*found, strict=True))


def _mean(x: np.ndarray, size: int) -> np.ndarray:
    """Over the rays of each pixel."""
    return x.reshape(size, OVER, size, OVER, *x.shape[1:]).astype(np.float64).mean((1, 3))


def _static_points(bust: Bust, n: int, seed: int) -> np.ndarray:
    """Points on niche, boxes and plinth that a person in front could see, in units of the bust."""
    rng = np.random.default_rng([seed, 5])
    o = np.array([0.0, -3.0, 0.0]) + rng.uniform([-1.6, 0, -0.4], [1.6, 0, 1.0], (8 * n, 3))
    d = rng.uniform([-1.6, 1.0, -1.3], [1.6, 1.0, 1.3], (8 * n, 3)) - o
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    t = trace(lambda x: bust.parts(x)[MOVING:].min(0), o, d, 0.5, 8.0)
    return np.asarray((o + t[:, None] * d)[np.isfinite(t)][:n])


def _around(n: int, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Azimuths and elevations of n places on a golden spiral over the hemisphere, up to 65°."""
    i = np.arange(n) + 0.5
    return (i + offset) * np.pi * (3 - np.sqrt(5)), np.arcsin(0.05 + 0.85 * i / n)


def _orbit(azimuth: np.ndarray, elevation: np.ndarray, distance: float, target: np.ndarray) -> np.ndarray:
    flat = np.cos(elevation)
    place = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], 1)
    return look_at(target + distance * place, target, np.array([0.0, 0.0, 1.0]))


def _rotation(turn: float, nod: float) -> np.ndarray:
    """About the vertical, then about the axis from ear to ear; to be multiplied from the right it is the inverse."""
    c, s, k, m = np.cos(turn), np.sin(turn), np.cos(nod), np.sin(nod)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, k, -m], [0, m, k]])


def _ellipsoid(x: np.ndarray, centre: Triple, half: Triple) -> np.ndarray:
    """About the distance to an ellipsoid: k₀(k₀ − 1)/k₁ with k₀ = |x/r|, k₁ = |x/r²|."""
    u, r = x - np.asarray(centre, x.dtype), np.asarray(half, x.dtype)
    k0, k1 = np.sqrt(((u / r) ** 2).sum(1)), np.sqrt(((u / r**2) ** 2).sum(1))
    return np.asarray(k0 * (k0 - 1) / np.maximum(k1, 1e-6))


def _capsule(x: np.ndarray, low: float, high: float, radius: float) -> np.ndarray:
    """Upright, about the z axis."""
    z = x[:, 2] - np.clip(x[:, 2], low, high)
    return np.asarray(np.sqrt(x[:, 0] ** 2 + x[:, 1] ** 2 + z**2) - radius)


def _box(x: np.ndarray, centre: np.ndarray | Triple, half: np.ndarray | Triple) -> np.ndarray:
    q = np.abs(x - np.asarray(centre, x.dtype)) - np.asarray(half, x.dtype)
    return np.asarray(np.sqrt((np.maximum(q, 0) ** 2).sum(1)) + np.minimum(q.max(1), 0))


def _bytes(x: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
