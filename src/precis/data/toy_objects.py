"""Solid objects before a textured ground, in colour: pictures whose every factor is known.

Rays meet a sphere, box, cylinder, cone, torus, capsule, ellipsoid or octahedron by sphere tracing
(`precis.data.scenes3d_trace`).  An object's proportions stretch the axes: rays are traced in its own unstretched space,
where a straight line stays straight and the distance is exact.  Light: a fifth ambient, the rest Lambert's cosine.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from precis.data.scenes3d_trace import normals, trace
from precis.data.toy_shapes import DISTANCES, REACH, SHAPES
from precis.errors import InputError

DISTANCE = 4.0  # of the camera, which looks at the middle
HALF_ANGLE = 15.0, 20.0  # of its field of view: for one object, which then fills most of it, and for several
AMBIENT = 0.2


class ToyObjects(NamedTuple):
    """`images` uint8 [N,3,S,S]; `boxes` float32 [N,m,4]: x0, y0, x1, y1 in pixels (NaN: not seen); `factors`.

    factors: shape [N,m] int64; instance [N,m,4] (three proportions, hue); azimuth, elevation [N] in degrees;
    light_dir [N,2] (azimuth and elevation from the camera's), light_colour [N,3], occlusion [N], background [N,3].
    """

    images: UInt8[np.ndarray, "n 3 s s"]
    boxes: Float32[np.ndarray, "n m 4"]
    factors: dict[str, np.ndarray]


def toy_objects(
    n: int, shape: int | Sequence[int] | np.ndarray | None = None, instance: np.ndarray | None = None,
    azimuth: float | np.ndarray | None = None, elevation: float | np.ndarray | None = None,
    light_dir: np.ndarray | None = None, light_colour: np.ndarray | None = None,
    occlusion: float | int | np.ndarray = 0.0, scene: int = 1, generator: np.random.Generator | int = 0, *,
    size: int = 32, texture: float | int = 0.1,
) -> ToyObjects:  # fmt: skip
    """`n` pictures of `size` pixels with `scene` objects each; a factor that is None is drawn by `generator`.

    Given factors are one value for all, or an array as `ToyObjects.factors` describes.  `shape`: places in `SHAPES`; a
    sequence shorter than n is what to draw from.  `occlusion`: the share of each object's box that a striped card
    hides.  `texture`: strength of the pattern on ground and objects, 0: one colour each.  The same seed gives the same
    pictures.
    """
    if n < 1 or scene < 1 or size < 8:
        raise InputError(f"pictures of 8 pixels or more with an object or more: got {n} of {size} with {scene}")
    rng = np.random.default_rng(generator)
    f = _draw(n, scene, rng, shape, instance, azimuth, elevation, light_dir, light_colour, occlusion)
    eye, o, d = _rays(f["azimuth"], f["elevation"], size, scene)
    colour = _ground(n, size, f["background"], texture, rng)
    depth = np.full((n, size, size), np.inf, np.float32)
    boxes = np.full((n, scene, 4), np.nan, np.float32)
    centres = _centres(n, scene, rng)
    toward = _light(f, eye)
    for j in range(scene):
        t, normal, spots = _hit(f["shape"][:, j], f["instance"][:, j, :3], centres[:, j], o, d, scene)
        seen = np.isfinite(t)
        lit = AMBIENT + (1 - AMBIENT) * np.maximum((normal * toward[:, None, None]).sum(-1), 0)
        base = hue(f["instance"][:, j, 3], 0.75, 0.9)[:, None, None]
        shade = base * f["light_colour"][:, None, None] * (lit * (1 + texture * np.sin(9 * spots)))[..., None]
        nearer = seen & (t < depth)
        colour = np.where(nearer[..., None], shade, colour)
        depth = np.where(nearer, t, depth)
        boxes[:, j] = _boxes(seen)
    _cards(colour, boxes, f["occlusion"], rng)
    images = np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return ToyObjects(np.ascontiguousarray(images), boxes, f)


def hue(turn: np.ndarray, saturation: float, value: float) -> Float32[np.ndarray, "n 3"]:
    """Colours [N,3] of hues in turns."""
    k = (np.asarray(turn)[:, None] * 6 + np.array([5.0, 3.0, 1.0])) % 6
    return (value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)).astype(np.float32)


def _draw(n: int, m: int, rng: np.random.Generator, shape, instance, azimuth, elevation, light_dir, light_colour,
          occlusion) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]  # fmt: skip
    """Every factor drawn, so that giving one changes no other; then the given ones put in."""
    choice = np.arange(len(SHAPES)) if shape is None else np.atleast_1d(np.asarray(shape, np.int64))
    if choice.size == 0 or choice.min() < 0 or choice.max() >= len(SHAPES):
        raise InputError(f"shapes are 0 … {len(SHAPES) - 1}: {', '.join(SHAPES)}")
    drawn = choice.reshape(-1)[rng.integers(choice.size, size=(n, m))]
    f = {
        "shape": np.broadcast_to(choice.reshape(n, -1), (n, m)).copy() if len(choice) == n else drawn,
        "instance": np.concatenate([rng.uniform(0.6, 1.0, (n, m, 3)), rng.random((n, m, 1))], 2),
        "azimuth": rng.uniform(0, 360, n), "elevation": rng.uniform(10, 50, n),
        "light_dir": np.stack([rng.uniform(-70, 70, n), rng.uniform(10, 70, n)], 1),
        "light_colour": rng.uniform(0.8, 1.1, (n, 3)), "occlusion": np.zeros(n),
        "background": hue(rng.random(n), 0.5, 0.8) * rng.uniform(0.5, 1.0, (n, 1)),
    }  # fmt: skip
    given = {"instance": instance, "azimuth": azimuth, "elevation": elevation, "light_dir": light_dir,
             "light_colour": light_colour, "occlusion": occlusion}  # fmt: skip
    for name, value in given.items():
        if value is not None:
            f[name] = np.broadcast_to(np.asarray(value, np.float64), f[name].shape).copy()
    return {k: v if v.dtype == np.int64 else v.astype(np.float32) for k, v in f.items()}


def _rays(azimuth: np.ndarray, elevation: np.ndarray, size: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The camera's axes [N,3,3] (right, up, back), its places [N,3], and unit directions [N,S,S,3]."""
    a, e = np.radians(azimuth.astype(np.float64)), np.radians(elevation.astype(np.float64))
    back = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], 1)
    right = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)], 1)
    axes = np.stack([right, np.cross(back, right), back], 1)
    line = ((2 * np.arange(size) + 1) / size - 1) * np.tan(np.radians(HALF_ANGLE[m > 1]))
    x, y = np.meshgrid(line, -line)
    pixel = np.stack([x, y, -np.ones_like(x)], -1)
    pixel /= np.linalg.norm(pixel, axis=-1, keepdims=True)
    return axes, (DISTANCE * back).astype(np.float32), (pixel[None] @ axes[:, None]).astype(np.float32)


def _ground(n: int, size: int, base: np.ndarray, texture: float | int, rng: np.random.Generator) -> np.ndarray:
    """One colour a picture, times a slanted wave and a slow slope."""
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    wave = rng.uniform(2, 8, (2, n, 1, 1)) * rng.choice([-1, 1], (2, n, 1, 1))
    slope = 1.5 * texture * rng.uniform(-1, 1, (2, n, 1, 1))
    light = 1 + texture * np.sin(wave[0] * x + wave[1] * y + rng.uniform(0, 6.28, (n, 1, 1)))
    light = light * (1 + slope[0] * x + slope[1] * y)
    return (base[:, None, None] * light[..., None]).astype(np.float32)


def _centres(n: int, m: int, rng: np.random.Generator) -> np.ndarray:
    """The middle for one object; for several, places on a ring, turned at random, so that they stay apart."""
    if m == 1:
        return np.zeros((n, 1, 3), np.float32)
    angle = 2 * np.pi * (np.arange(m) / m + rng.random((n, 1))) + rng.uniform(-0.2, 0.2, (n, m))
    return np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], 2).astype(np.float32)


def _light(f: dict[str, np.ndarray], axes: np.ndarray) -> np.ndarray:
    """Directions to the light [N,3], from angles about the camera's axes."""
    a, e = np.radians(f["light_dir"].astype(np.float64)).T
    local = np.stack([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], 1)
    return np.einsum("ni,nij->nj", local, axes).astype(np.float32)


def _hit(
    shape: np.ndarray, proportions: np.ndarray, centre: np.ndarray, o: np.ndarray, d: np.ndarray, m: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth [N,S,S] (inf: missed), normal [N,S,S,3] and a number along the surface for the texture [N,S,S]."""
    scale = (proportions * (1.0 if m == 1 else 0.55)).astype(np.float32)
    start = ((o - centre) / scale)[:, None, None]
    way = d / scale[:, None, None]
    length = np.linalg.norm(way, axis=-1)
    way = way / length[..., None]
    along = (start * way).sum(-1)
    apart = (start**2).sum(-1) - along**2
    near = np.flatnonzero((apart < REACH**2).ravel())  # only these rays can meet the shape
    depth = np.full(length.size, np.inf, np.float32)
    normal, spots = np.zeros((length.size, 3), np.float32), np.zeros(length.size, np.float32)
    picture = near // (length.size // len(shape))
    ahead = np.maximum(-along.ravel()[near] - REACH, 0)[:, None]  # free space up to the ball around the shape
    begin = start.reshape(-1, 3)[picture] + ahead * way.reshape(-1, 3)[near]
    for kind in np.unique(shape):
        mine = np.flatnonzero(shape[picture] == kind)
        distance = DISTANCES[SHAPES[kind]]
        way_here = way.reshape(-1, 3)[near[mine]]
        t = trace(distance, begin[mine], way_here, 0.0, 2 * REACH, close=2e-3, steps=24)
        met = np.flatnonzero(np.isfinite(t))
        met = met[distance(begin[mine[met]] + t[met, None] * way_here[met]) < 1e-2]  # not those still under way
        at, ray = begin[mine[met]] + t[met, None] * way_here[met], near[mine[met]]
        stretched = normals(distance, at) / scale[picture[mine[met]]]
        normal[ray] = stretched / np.linalg.norm(stretched, axis=1, keepdims=True)
        whole = np.linalg.norm(at - start.reshape(-1, 3)[picture[mine[met]]], axis=1)
        depth[ray], spots[ray] = whole / length.ravel()[ray], at[:, 2] + 0.5 * at[:, 0]
    return depth.reshape(length.shape), normal.reshape(*length.shape, 3), spots.reshape(length.shape)


def _boxes(seen: np.ndarray) -> np.ndarray:
    """x0, y0, x1, y1 around the true pixels of each [N,S,S]; NaN where there are none."""
    out = np.full((len(seen), 4), np.nan, np.float32)
    for at, line in ((0, np.any(seen, axis=1)), (1, np.any(seen, axis=2))):
        some = np.any(line, axis=1)
        out[some, at] = line[some].argmax(1)
        out[some, at + 2] = line.shape[1] - line[some, ::-1].argmax(1)
    return out


def _cards(colour: np.ndarray, boxes: np.ndarray, share: np.ndarray, rng: np.random.Generator) -> None:
    """Cover `share` of each box from a random side by stripes, in place."""
    side, tint = rng.integers(4, size=len(boxes)), rng.random((len(boxes), 2, 3))
    for i in np.flatnonzero(share > 0):
        for x0, y0, x1, y1 in boxes[i][np.isfinite(boxes[i][:, 0])]:
            w, h = (x1 - x0) * share[i], (y1 - y0) * share[i]
            left, right, top, low = ((x0, x0 + w, y0, y1), (x1 - w, x1, y0, y1), (x0, x1, y0, y0 + h),
                                     (x0, x1, y1 - h, y1))[side[i]]  # fmt: skip
            rows, columns = np.arange(round(top), round(low)), np.arange(round(left), round(right))
            stripe = (rows[:, None] + columns) // 2 % 2
            colour[i, rows[:, None], columns] = tint[i][stripe]
