"""Toy objects of which every picture is given by numbers: clips in which things move, and sets of one change.

`draw` gives the numbers of N pictures (`precis.data.toy_objects` and its solids), `render` the pictures: equal numbers,
equal pictures, to the bit.  So a picture can be drawn again with one of its numbers changed, which `toy_objects`, whose
grounds come from a generator, does not allow.  Objects can also be *deformed*: the distance is asked at

    x + deform · u(x),   u = bend b (x·a)² + twist (x·c) c×x + e sin(ω·x + φ)

so that deform = 1 moves a point of the surface by a quarter of the object's size on the mean.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from precis.data.scenes3d_trace import normals, trace
from precis.data.toy_objects import AMBIENT, ToyObjects, _boxes, _centres, _draw, _light, _rays, hue
from precis.data.toy_shapes import DISTANCES, REACH, SHAPES
from precis.errors import InputError

Factors = dict[str, np.ndarray]

CHUNK = 512  # pictures rendered at once
MOVED = 0.5  # mean displacement by deform = 1: a quarter of the unit solids' size of 2
STEPS = 40  # of a ray to a deformed object, whose strides are shorter
CHANGES = ("occlusion", "viewpoint", "instance", "light_dir", "light_colour", "deformation")
APART = 1.25  # least ratio of an object's horizontal proportions where views are compared: none looks alike all around


class Clips(NamedTuple):
    """`frames` uint8 [N,T,3,S,S], `boxes` [N,T,m,4] in pixels (NaN: not seen) and the numbers of all N·T frames."""

    frames: UInt8[np.ndarray, "n t 3 s s"]
    boxes: Float32[np.ndarray, "n t m 4"]
    factors: Factors


class Changes(NamedTuple):
    """Pictures of `targets` (shapes): row j is the base picture `bases[j]` with one factor changed."""

    images: UInt8[np.ndarray, "n 3 s s"]
    targets: Int64[np.ndarray, "n"]
    bases: Int64[np.ndarray, "n"]


def draw(n: int, scene: int = 1, generator: np.random.Generator | int = 0, *, shape: Any = None) -> Factors:
    """The numbers of `n` pictures with `scene` objects each; none is occluded or deformed.

    Those of `ToyObjects.factors`, and centre [N,m,3], ground [N,5] (two waves, phase, two slopes), card [N,7] (side,
    two colours), deform [N], warp [N,m,19] (four directions and a wave vector, phase, three weights).
    `shape`: as in `toy_objects`.
    """
    if n < 1 or scene < 1:
        raise InputError(f"a picture or more with an object or more: got {n} with {scene}")
    rng = np.random.default_rng(generator)
    f = _draw(n, scene, rng, shape, None, None, None, None, None, 0.0)
    wave = rng.uniform(2, 8, (n, 2)) * rng.choice([-1, 1], (n, 2))
    ground = np.concatenate([wave, rng.uniform(0, 6.28, (n, 1)), rng.uniform(-1, 1, (n, 2))], 1)
    card = np.concatenate([rng.integers(4, size=(n, 1)), rng.random((n, 6))], 1)
    more = {"centre": _centres(n, scene, rng), "ground": ground, "card": card, "deform": np.zeros(n),
            "warp": _warps(n, scene, rng)}  # fmt: skip
    return f | {name: value.astype(np.float32) for name, value in more.items()}


def render(f: Factors, size: int = 24, texture: float | int = 0.1) -> ToyObjects:
    """The pictures of these numbers, `size` pixels wide; `texture` as in `toy_objects`."""
    if size < 8:
        raise InputError(f"pictures of 8 pixels or more are drawn, not {size}")
    n = len(f["azimuth"])
    parts = [_render({k: v[at : at + CHUNK] for k, v in f.items()}, size, texture) for at in range(0, n, CHUNK)]
    return ToyObjects(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), f)


def clips(
    n: int, frames: int, generator: np.random.Generator | int = 0, *, scene: int = 1, size: int = 24,
    deform: float | int = 0.0, moving: bool = True, texture: float | int = 0.1,
) -> Clips:  # fmt: skip
    """`n` clips in which camera and light go around the same objects, which bend by up to `deform` on their way.

    The camera turns by 3 to 8 degrees a frame; height and light swing.  moving=False: nothing moves.
    """
    rng = np.random.default_rng(generator)
    f = {k: np.repeat(v, frames, 0) for k, v in draw(n, scene, rng).items()}
    turn = rng.uniform(3, 8, n) * rng.choice([-1, 1], n)
    phase, rate = rng.uniform(0, 2 * np.pi, (6, n, 1)), rng.uniform(0.5, 1.5, (6, n, 1))
    if moving:
        t = np.arange(frames)[None]
        swing = np.sin(phase + rate * 2 * np.pi * t / max(frames, 20))
        f["azimuth"] = (f["azimuth"].reshape(n, frames) + turn[:, None] * t).ravel()
        f["elevation"] = (30 + 20 * swing[0]).ravel()
        f["light_dir"] = np.stack([60 * swing[1], 40 + 30 * swing[2]], 2).reshape(-1, 2)
        f["warp"] = f["warp"].copy()
        f["warp"][..., 16:] *= swing[3:].transpose(1, 2, 0).reshape(-1, 1, 3)
        f["deform"] = np.full(n * frames, deform)
    f = {k: v if v.dtype == np.int64 else v.astype(np.float32) for k, v in f.items()}
    made = render(f, size, texture)
    return Clips(made.images.reshape(n, frames, 3, size, size), made.boxes.reshape(n, frames, scene, 4), f)


def changes(
    factor: str, bases: int = 24, transforms: int = 8, generator: np.random.Generator | int = 0, *, size: int = 24,
    deform: float | int = 0.5, texture: float | int = 0.1,
) -> Changes:  # fmt: skip
    """For each of the eight shapes `bases` pictures, each shown `transforms` times with only `factor` drawn anew.

    occlusion: a card over 10 to 50 % of the object's box, from any side · viewpoint: azimuth within 60 degrees,
    elevation 10 to 50 · instance: proportions and hue · light_dir · light_colour: each channel 0.5 to 1.3 ·
    deformation: another bend of strength `deform`.
    """
    if factor not in CHANGES:
        raise InputError(f"a change is one of {', '.join(CHANGES)}, not {factor!r}")
    rng = np.random.default_rng(generator)
    n = len(SHAPES) * bases
    shape = np.repeat(np.arange(len(SHAPES)), bases)
    f = draw(n, 1, rng, shape=shape)
    if factor == "viewpoint":
        _unequal(f["instance"], rng)
    f = {k: np.repeat(v, transforms, 0) for k, v in f.items()}
    m = n * transforms
    fresh = draw(m, 1, rng, shape=np.repeat(shape, transforms))
    if factor == "occlusion":
        f["occlusion"], f["card"] = rng.uniform(0.1, 0.5, m), fresh["card"]
    elif factor == "viewpoint":
        f["azimuth"], f["elevation"] = f["azimuth"] + rng.uniform(-60, 60, m), fresh["elevation"]
    elif factor == "light_colour":
        f["light_colour"] = rng.uniform(0.5, 1.3, (m, 3))
    elif factor == "deformation":
        f["deform"], f["warp"] = np.full(m, deform), fresh["warp"]
    else:
        f[factor] = fresh[factor]
    f = {k: v if v.dtype == np.int64 else v.astype(np.float32) for k, v in f.items()}
    return Changes(render(f, size, texture).images, f["shape"][:, 0], np.repeat(np.arange(n), transforms))


def _unequal(instance: np.ndarray, rng: np.random.Generator) -> None:
    """Draw the two horizontal proportions again, in place, until they are `APART`."""
    while len(alike := np.argwhere(instance[..., :2].max(-1) < APART * instance[..., :2].min(-1))):
        instance[alike[:, 0], alike[:, 1], :2] = rng.uniform(0.6, 1.0, (len(alike), 2))


def _warps(n: int, m: int, rng: np.random.Generator) -> np.ndarray:
    """[N,m,19]: unit vectors a, b (at right angles), c, e, the wave vector ω, φ, and weights for a mean of MOVED."""
    v = rng.normal(size=(n, m, 5, 3))
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    v[:, :, 1] -= (v[:, :, 0] * v[:, :, 1]).sum(-1, keepdims=True) * v[:, :, 0]
    v[:, :, 1] /= np.linalg.norm(v[:, :, 1], axis=-1, keepdims=True)
    v[:, :, 4] *= 2.5
    weights = rng.uniform(0.5, 1, (n, m, 3)) * rng.choice([-1, 1], (n, m, 3))
    warp = np.concatenate([v.reshape(n, m, 15), rng.uniform(0, 2 * np.pi, (n, m, 1)), weights], 2)
    ball = rng.normal(size=(48, 3))
    ball *= 0.8 / np.linalg.norm(ball, axis=1, keepdims=True)
    each = np.repeat(warp.reshape(-1, 19), len(ball), 0).T
    moves = np.linalg.norm(_moved(np.tile(ball, (n * m, 1)), each), axis=1)
    warp[..., 16:] *= (MOVED / moves.reshape(n, m, -1).mean(2))[..., None]
    return warp


def _moved(x: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """u(x) [R,3] of points [R,3] with parameters [19,R]; coordinate by coordinate, which is several times faster."""
    p, w = x.T, warp.astype(x.dtype)
    a, b, c, e, omega = w[:3], w[3:6], w[6:9], w[9:12], w[12:15]
    dot = lambda v: v[0] * p[0] + v[1] * p[1] + v[2] * p[2]
    bend = w[16] * (dot(a) ** 2 - np.float32(1 / 3))
    twist = w[17] * dot(c)
    wave = w[18] * np.sin(dot(omega) + w[15])
    out = np.empty_like(x)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        out[:, i] = bend * b[i] + twist * (c[j] * p[k] - c[k] * p[j]) + wave * e[i]
    return out


def _render(f: Factors, size: int, texture: float | int) -> tuple[np.ndarray, np.ndarray]:
    n, m = f["shape"].shape
    axes, o, d = _rays(f["azimuth"], f["elevation"], size, m)
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    g = f["ground"].astype(np.float64)[:, :, None, None]
    light = 1 + texture * np.sin(g[:, 0] * x + g[:, 1] * y + g[:, 2])
    light = light * (1 + 1.5 * texture * (g[:, 3] * x + g[:, 4] * y))
    colour = (f["background"][:, None, None] * light[..., None]).astype(np.float32)
    depth = np.full((n, size, size), np.inf, np.float32)
    boxes = np.full((n, m, 4), np.nan, np.float32)
    toward = _light(f, axes)
    for j in range(m):
        t, normal, spots = _hit(f, j, o, d)
        lit = AMBIENT + (1 - AMBIENT) * np.maximum((normal * toward[:, None, None]).sum(-1), 0)
        base = hue(f["instance"][:, j, 3], 0.75, 0.9)[:, None, None] * f["light_colour"][:, None, None]
        nearer = t < depth
        colour = np.where(nearer[..., None], base * (lit * (1 + texture * np.sin(9 * spots)))[..., None], colour)
        depth = np.where(nearer, t, depth)
        boxes[:, j] = _boxes(np.isfinite(t))
    _cover(colour, boxes, f["occlusion"], f["card"])
    images = np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), boxes


def _hit(f: Factors, j: int, o: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each picture's object j: depth [N,S,S] (inf: missed), normal [N,S,S,3], a number along the surface [N,S,S]."""
    shape, m = f["shape"][:, j], f["shape"].shape[1]
    scale = (f["instance"][:, j, :3] * (1.0 if m == 1 else 0.55)).astype(np.float32)
    start = ((o - f["centre"][:, j]) / scale)[:, None, None]
    way = d / scale[:, None, None]
    length = np.linalg.norm(way, axis=-1)
    way = way / length[..., None]
    along = (start * way).sum(-1)
    reach = REACH + MOVED * f["deform"]
    near = np.flatnonzero(((start**2).sum(-1) - along**2 < (reach**2)[:, None, None]).ravel())
    depth = np.full(length.size, np.inf, np.float32)
    normal, spots = np.zeros((length.size, 3), np.float32), np.zeros(length.size, np.float32)
    picture = near // (length.size // len(shape))
    ahead = np.maximum(-along.ravel()[near] - reach[picture], 0)[:, None]
    begin = start.reshape(-1, 3)[picture] + ahead * way.reshape(-1, 3)[near]
    for kind in np.unique(shape):
        for bent in (False, True):
            mine = np.flatnonzero((shape[picture] == kind) & ((f["deform"][picture] > 0) == bent))
            if not len(mine):
                continue
            of, rays = picture[mine], near[mine]
            amount = f["deform"][of, None]
            distance, heading = DISTANCES[SHAPES[kind]], way.reshape(-1, 3)[rays]
            if bent:
                met, at, slope = _meet_bent(distance, begin[mine], heading, amount, f["warp"][of, j].T.copy())
            else:
                met, at, slope = _meet(distance, begin[mine], heading)
            ray, stretched = rays[met], slope / scale[of[met]]
            normal[ray] = stretched / np.linalg.norm(stretched, axis=1, keepdims=True).clip(1e-12)
            whole = np.linalg.norm(at - start.reshape(-1, 3)[of[met]], axis=1)
            depth[ray], spots[ray] = whole / length.ravel()[ray], at[:, 2] + 0.5 * at[:, 0]
    return depth.reshape(length.shape), normal.reshape(*length.shape, 3), spots.reshape(length.shape)


def _meet(distance: Any, begin: np.ndarray, way: np.ndarray) -> tuple[np.ndarray, ...]:
    """Which rays meet the solid, where, and its normals there."""
    t = trace(distance, begin, way, 0.0, 2 * REACH, close=2e-3, steps=24)
    met = np.flatnonzero(np.isfinite(t))
    met = met[distance(begin[met] + t[met, None] * way[met]) < 1e-2]  # not those still under way
    at = begin[met] + t[met, None] * way[met]
    return met, at, normals(distance, at)


def _meet_bent(
    distance: Any, begin: np.ndarray, way: np.ndarray, amount: np.ndarray, warp: np.ndarray
) -> tuple[np.ndarray, ...]:
    """As `_meet`, of solids whose space is bent by `amount` [R,1] of `warp` [19,R]; each ray has its own."""
    stride = 1 / (1 + 1.6 * amount[:, 0])  # the bent distance is too large by about so much
    t, going = np.zeros(len(begin), np.float32), np.arange(len(begin))
    o, d, much, bend, pace = begin, way, amount, warp, stride  # of the rays that are under way
    for _ in range(STEPS):
        x = o + t[going, None] * d
        left = distance(x + much * _moved(x, bend))
        t[going] += pace * left
        keep = (left >= 2e-3) & (t[going] < 2 * (REACH + MOVED))
        if keep.mean() < 0.8:
            going = going[keep]
            o, d, much, bend, pace = begin[going], way[going], amount[going], warp[:, going], stride[going]
        if not len(going):
            break
    at = begin + t[:, None] * way
    met = np.flatnonzero(np.abs(distance(at + amount * _moved(at, warp))) < 1e-2)
    at, bend, much = at[met], warp[:, met], amount[met]
    return met, at, normals(lambda x: distance(x + much * _moved(x, bend)), at)


def _cover(colour: np.ndarray, boxes: np.ndarray, share: np.ndarray, card: np.ndarray) -> None:
    """Cover `share` of each box from the card's side by stripes of its two colours, in place."""
    for i in np.flatnonzero(share > 0):
        tints = card[i, 1:].reshape(2, 3)
        for x0, y0, x1, y1 in boxes[i][np.isfinite(boxes[i][:, 0])]:
            w, h = (x1 - x0) * share[i], (y1 - y0) * share[i]
            sides = (x0, x0 + w, y0, y1), (x1 - w, x1, y0, y1), (x0, x1, y0, y0 + h), (x0, x1, y1 - h, y1)
            left, right, top, low = sides[int(card[i, 0])]
            rows, columns = np.arange(round(top), round(low)), np.arange(round(left), round(right))
            colour[i, rows[:, None], columns] = tints[(rows[:, None] + columns) // 2 % 2]
