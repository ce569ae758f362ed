"""Flatland: a world in the plane z = 0, seen by cameras whose pictures are one pixel high.

Everything that a radiance field has to learn is there (occlusion, texture, a highlight that moves with the eye, a
subject that turns and bends), at a hundredth of the rays.  A ray's colour is the integral of the true density and
colour along it, by the midpoint rule on 1,024 points.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

DENSITY = 60.0  # a unit of length, inside of every shape of the static world; in the moving one, whose unit is larger:
DENSER = 400.0
POINTS = 1024
LIGHT = np.array([0.6, -0.8])


@dataclass(frozen=True, eq=False)
class Shapes:
    """n discs and boxes: `half` [n,2] half sides (of a disc: the radius, twice), `turn` [n] radians, two colours
    [n,3] that alternate `stripes` [n] times around the centre, softly, and the strength of a highlight, `gloss` [n].
    """

    disc: np.ndarray
    centre: np.ndarray
    half: np.ndarray
    turn: np.ndarray
    colours: np.ndarray  # [n,2,3]
    stripes: np.ndarray
    phase: np.ndarray
    gloss: np.ndarray

    def owner(self, x: Float[np.ndarray, "p 2"]) -> Int64[np.ndarray, "p"]:
        """The shape that each point lies in, −1 for none."""
        found = np.full(len(x), -1)
        for i in range(len(self.turn)):
            offset = x - self.centre[i]
            reach = self.half[i, 0] if self.disc[i] else np.hypot(*self.half[i])
            near = np.flatnonzero((offset**2).sum(1) < reach**2)
            if not self.disc[i]:
                near = near[(np.abs(_turned(offset[near], -self.turn[i])) < self.half[i]).all(1)]
            found[near] = i
        return found

    def colour(
        self, x: Float[np.ndarray, "p 2"], d: Float[np.ndarray, "p 2"], which: np.ndarray
    ) -> Float[np.ndarray, "p 3"]:
        """Colour at points of the shapes `which` [P], seen along unit directions d."""
        u = _turned(x - self.centre[which], -self.turn[which])
        angle = np.arctan2(u[:, 1], u[:, 0])
        share = 0.5 + 0.5 * np.tanh(3 * np.sin(self.stripes[which] * angle + self.phase[which]))[:, None]
        c = self.colours[which, 0] * share + self.colours[which, 1] * (1 - share)
        normal = (x - self.centre[which]) / np.linalg.norm(x - self.centre[which], axis=1, keepdims=True).clip(1e-9)
        mirrored = d - 2 * (d * normal).sum(1, keepdims=True) * normal
        lobe = np.maximum(mirrored @ LIGHT, 0) ** 8
        return np.asarray(np.clip(c + (self.gloss[which] * lobe)[:, None], 0, 1))


@dataclass(frozen=True, eq=False)
class Head:
    """A disc with hair, two eyes and a nose, and how it moves: at frame f the point x shows what the head has, when at
    rest, at T_f(x) = bend_f(R(−turn_f)(x − centre − shift_f)), bend(u) = (u₁ + b u₂², u₂), which keeps areas.
    """

    centre: np.ndarray
    radius: float
    turn: np.ndarray  # [F] radians
    shift: np.ndarray  # [F,2]
    bend: np.ndarray  # [F] one over a length

    def rest(self, x: Float[np.ndarray, "p 2"], frame: int) -> Float[np.ndarray, "p 2"]:
        """T_f(x): where the head at rest, centred at 0, has what is at x."""
        u = _turned(x - self.centre - self.shift[frame], -self.turn[frame])
        return np.asarray(np.stack([u[:, 0] + self.bend[frame] * u[:, 1] ** 2, u[:, 1]], 1))

    def inside(self, u: Float[np.ndarray, "p 2"]) -> Bool[np.ndarray, "p"]:
        """Of points of the head at rest."""
        nose = np.hypot(u[:, 0], u[:, 1] + self.radius) < 0.22 * self.radius
        return np.asarray((np.hypot(u[:, 0], u[:, 1]) < self.radius) | nose)

    def colour(self, u: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "p 3"]:
        """Skin in front (towards −y) with two eyes and a nose, striped hair behind."""
        angle = np.arctan2(u[:, 0], -u[:, 1])  # 0 in front, to the right positive
        hair = 0.5 + 0.5 * np.tanh(3 * np.sin(9 * angle))[:, None]
        striped = hair * [0.45, 0.25, 0.1] + (1 - hair) * [0.12, 0.06, 0.04]
        c = np.where(np.abs(angle)[:, None] > 1.75, striped, [0.9, 0.7, 0.55])
        c = np.where((np.abs(angle - 0.62) < 0.2)[:, None], [0.1, 0.3, 0.75], c)
        c = np.where((np.abs(angle + 0.62) < 0.2)[:, None], [0.1, 0.55, 0.2], c)
        return np.asarray(np.where((np.abs(angle) < 0.26)[:, None], [0.85, 0.25, 0.2], c))


@dataclass(frozen=True, eq=False)
class World:
    """Shapes that stand still and, in front of what is behind it, perhaps a head that moves."""

    shapes: Shapes
    head: Head | None
    density: float

    def occupied(self, x: Float[np.ndarray, "p 2"], frame: int = 0) -> Bool[np.ndarray, "p"]:
        """Whether there is matter at x."""
        there, moving, _ = self._matter(x, frame)
        there[moving] = True
        return there

    def look(
        self, o: Float[np.ndarray, "r 2"], d: Float[np.ndarray, "r 2"], near: float, far: float, frame: int = 0,
        points: int = POINTS,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """Of each ray: premultiplied colour [R,3], opacity, mean depth × opacity, opacity of the moving part [R]."""
        step = (far - near) / points
        t = near + (np.arange(points) + 0.5) * step
        x = (o[:, None] + t[:, None] * d[:, None]).reshape(-1, 2)
        there, moving, u = self._matter(x, frame)
        thick = np.zeros(len(x))
        thick[there] = thick[moving] = self.density * step
        depth = thick.reshape(len(o), points)
        before = np.cumsum(depth, 1) - depth
        w = np.exp(-before) * -np.expm1(-depth)
        seen = np.flatnonzero(there & (w.reshape(-1) > 0))
        colour = np.zeros((len(x), 3))
        colour[seen] = self.shapes.colour(x[seen], d[seen // points], self.shapes.owner(x[seen]))
        if self.head is not None:
            colour[moving] = self.head.colour(u)
        mine = np.zeros(len(x), bool)
        mine[moving] = True
        return (
            np.einsum("rp,rpc->rc", w, colour.reshape(len(o), points, 3)), w.sum(1), w @ t,
            (w * mine.reshape(w.shape)).sum(1),
        )  # fmt: skip

    def _matter(self, x: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Whether a shape is at x, the numbers of the points in the head, and where the head at rest has these."""
        there = self.shapes.owner(x) >= 0
        if self.head is None:
            return there, np.zeros(0, np.int64), np.zeros((0, 2))
        reach = 1.6 * self.head.radius  # the bend moves by less than a fifth of the radius
        near = np.flatnonzero(((x - self.head.centre - self.head.shift[frame]) ** 2).sum(1) < reach**2)
        u = self.head.rest(x[near], frame)
        inside = self.head.inside(u)
        return there, near[inside], u[inside]


def still_world(seed: int, specular: bool = True) -> World:
    """Three discs and three boxes inside the disc of radius 1.25, apart from one another; the first disc is glossy."""
    rng = np.random.default_rng([seed, 1])
    disc = np.array([True, False] * 3)
    half = np.where(disc[:, None], rng.uniform(0.17, 0.3, (6, 1)), rng.uniform(0.12, 0.32, (6, 2)))
    reach = np.where(disc, half[:, 0], np.hypot(half[:, 0], half[:, 1]))
    glossy = np.arange(6) == 0
    shapes = Shapes(
        disc, _apart(rng, reach, 1.25), half, rng.uniform(0, np.pi, 6), _contrasts(rng, 6, dark=glossy),
        rng.integers(2, 6, 6), rng.uniform(0, 2 * np.pi, 6), np.where(glossy, 0.8 if specular else 0.0, 0.0),
    )  # fmt: skip
    return World(shapes, None, DENSITY)


def moving_world(seed: int, frames: int, turn: float = 12.0) -> World:
    """A head of radius 0.13 near the origin, before and between five boxes; cameras are to stand at y ≈ −0.7.

    It turns by ± `turn` degrees, bends, and wanders by ±0.04 (six pixels of 48, there and back, seen from there), each
    at its own pace, so that the motion does not go with a camera that sweeps.
    """
    rng = np.random.default_rng([seed, 2])
    places = np.array([[-0.24, 0.16], [-0.09, 0.24], [0.08, 0.21], [0.24, 0.15], [-0.27, -0.06]])
    half = rng.uniform([0.035, 0.03], [0.06, 0.05], (5, 2))
    shapes = Shapes(
        np.zeros(5, bool), places + rng.uniform(-0.015, 0.015, (5, 2)), half, rng.uniform(-0.5, 0.5, 5),
        _contrasts(rng, 5), rng.integers(1, 3, 5), rng.uniform(0, 2 * np.pi, 5), np.zeros(5),
    )  # fmt: skip
    phase, beat = rng.uniform(0, 2 * np.pi, 4), 2 * np.pi * np.arange(frames) / frames
    wave = np.sin(beat[:, None] * [2, 1, 3, 2] + phase)
    head = Head(
        np.array([0.01, -0.05]), 0.13, np.radians(turn) * wave[:, 0], wave[:, 1:3] * [0.04, 0.02], 1.2 * wave[:, 3]
    )
    return World(shapes, head, DENSER)


def surface_points(shapes: Shapes, n: int, seed: int) -> Float[np.ndarray, "{n} 2"]:
    """Points on the outlines of boxes, each side in proportion to its length."""
    rng = np.random.default_rng([seed, 3])
    lengths = shapes.half[:, [1, 0]].reshape(-1)
    side = rng.choice(len(lengths), n, p=lengths / lengths.sum())
    which, axis = side // 2, side % 2
    u = rng.uniform(-1, 1, (n, 2)) * shapes.half[which]
    u[np.arange(n), axis] = np.where(rng.random(n) < 0.5, -1, 1) * shapes.half[which, axis]
    return shapes.centre[which] + _turned(u, shapes.turn[which])


def _apart(rng: np.random.Generator, reach: np.ndarray, radius: float) -> np.ndarray:
    """Centres inside a disc, such that no two shapes of these reaches touch."""
    while True:
        centres: list[np.ndarray] = []
        for r in reach:
            for _ in range(200):
                angle, length = rng.uniform(0, 2 * np.pi), (radius - r) * np.sqrt(rng.random())
                c = length * np.array([np.cos(angle), np.sin(angle)])
                if all(np.linalg.norm(c - e) > r + s + 0.06 for e, s in zip(centres, reach)):
                    centres.append(c)
                    break
        if len(centres) == len(reach):
            return np.stack(centres)


def _contrasts(rng: np.random.Generator, n: int, dark: np.ndarray | None = None) -> np.ndarray:
    """Two colours a shape, one of them bright; `dark` ones stay low, so that a highlight shows."""
    bright, deep = rng.uniform(0.45, 0.95, (n, 3)), rng.uniform(0.02, 0.4, (n, 3))
    colours = np.stack([bright, deep], 1)
    return colours if dark is None else np.where(dark[:, None, None], 0.4 * colours, colours)


def _turned(u: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Vectors [...,2] turned counter-clockwise by angles [...]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * u[..., 0] - s * u[..., 1], s * u[..., 0] + c * u[..., 1]], -1)
