"""Bodies as points: the layouts that pose estimators use, their normalisation, cameras, and points that are missing.

    3-D: (k − pelvis) / (|neck − spine| + |spine − pelvis|)
    2-D: ½ (k − middle of the hips) / largest distance among shoulders and hips

Liu et al. 2021, §3.1 (arXiv 2010.13321).  Axes in 3-D: x to the person's left, z up, the person looks along −y;
in 2-D: x to the right, y down, as in pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EPSILON = 1e-12


@dataclass(frozen=True)
class KeypointProfile:
    """A layout: the points' names in their order, how it is normalised, and the lines to draw.

    offset: points whose mean becomes the origin; scale_pairs: whose distances, reduced by `reduce`, become `unit`.
    """

    names: tuple[str, ...]
    offset: tuple[str, ...] = ()
    scale_pairs: tuple[tuple[str, str], ...] = ()
    reduce: Literal["sum", "max"] = "max"
    unit: float = 1.0
    segments: tuple[tuple[str, str], ...] = ()

    @property
    def flip_pairs(self) -> tuple[tuple[int, int], ...]:
        """Places of the left and the right point of every pair."""
        right = lambda name: name.replace("left", "right")
        return tuple((i, self.names.index(right(n))) for i, n in enumerate(self.names) if n != right(n))

    def index(self, names: tuple[str, ...]) -> list[int]:
        return [self.names.index(name) for name in names]

    def pick(self, points: Float[Tensor, "*batch j d"], other: "KeypointProfile") -> Float[Tensor, "*batch i d"]:
        """Points of this layout in the order of another; the head is the nose where there is one.

        Raises ValueError where this layout lacks a point.
        """
        found = [name if name in self.names else _SAME.get(name, name) for name in other.names]
        if "nose" in self.names and "head" in other.names:
            found[other.names.index("head")] = "nose"
        if missing := [name for name, own in zip(other.names, found) if own not in self.names]:
            raise ValueError(f"the layout has no {', '.join(missing)}")
        return points[..., self.index(tuple(found)), :]

    def mirrored(self, points: Float[Tensor, "*batch j d"]) -> Float[Tensor, "*batch j d"]:
        """The mirror image: x negated, left and right exchanged."""
        order = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return points[..., order, :] * torch.tensor([-1.0, *[1.0] * (points.shape[-1] - 1)]).to(points)


_SAME = {"neck": "thorax", "thorax": "neck", "pelvis": "mid_hip", "mid_hip": "pelvis"}
_TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
_LIMBS = tuple(
    (f"{side}_{a}", f"{side}_{b}") for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)  # fmt: skip


def _sides(*parts: str) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for part in parts for side in ("left", "right"))


STD13_2D = KeypointProfile(
    ("head", *_sides("shoulder", "elbow", "wrist", "hip", "knee", "ankle")), ("left_hip", "right_hip"),
    tuple(combinations(_TORSO, 2)), "max", 0.5,
    (("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
     ("right_shoulder", "right_hip"), *_LIMBS),
)  # fmt: skip
STD16_3D = KeypointProfile(
    ("head", "neck", *_sides("shoulder", "elbow", "wrist"), "spine", "pelvis", *_sides("hip", "knee", "ankle")),
    ("pelvis",), (("neck", "spine"), ("spine", "pelvis")), "sum", 1.0,
    (("head", "neck"), ("neck", "spine"), ("spine", "pelvis"), *((a, f"{s}_{b}") for s in ("left", "right")
     for a, b in (("neck", "shoulder"), ("pelvis", "hip"))), *_LIMBS),
)  # fmt: skip
H36M17 = KeypointProfile((
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "thorax",
    "nose", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
))  # fmt: skip
COCO17 = KeypointProfile(("nose", *_sides("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")))
BODY25 = KeypointProfile((
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye",
    "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
))  # fmt: skip
MEDIAPIPE33 = KeypointProfile((
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    *_sides("ear"), "left_mouth", "right_mouth",
    *_sides("shoulder", "elbow", "wrist", "pinky", "index", "thumb", "hip", "knee", "ankle", "heel", "foot_index"),
))  # fmt: skip
PROFILES = {"std13": STD13_2D, "std16": STD16_3D, "h36m17": H36M17, "coco17": COCO17, "body25": BODY25,
            "mediapipe33": MEDIAPIPE33}  # fmt: skip

GROUPS = {
    "left arm": ("left_elbow", "left_wrist"), "right arm": ("right_elbow", "right_wrist"),
    "left leg": ("left_knee", "left_ankle"), "right leg": ("right_knee", "right_ankle"), "head": ("head",),
    "lower body": _sides("hip", "knee", "ankle"),
}  # fmt: skip
GROUP_CHANCES = {"left arm": 0.25, "right arm": 0.25, "left leg": 0.25, "right leg": 0.25, "head": 0.15,
                 "lower body": 0.15}  # fmt: skip


def normalize_2d(
    k: Float[Tensor, "*batch 13 2"], mask: Bool[Tensor, "*batch 13"] | None = None
) -> Float[Tensor, "*batch 13 2"]:
    """2-D points as the network takes them; unchanged by a shift and by one scale for both axes, not by two.

    mask: which points are there; only they are looked at, and the others become 0.  Without a hip the middle of the
    shoulders is the origin (without those, of all points), and with fewer than two torso points the largest distance
    from there is the scale.
    """
    if mask is None:
        return _normalized(k, STD13_2D)
    there = mask.to(k.dtype)[..., None]
    k = k.where(mask[..., None], k.new_zeros(()))
    hips, torso = STD13_2D.index(STD13_2D.offset), STD13_2D.index(_TORSO)
    shoulders = STD13_2D.index(_TORSO[:2])
    mean = lambda at: (k[..., at, :] * there[..., at, :]).sum(-2) / there[..., at, :].sum(-2).clamp(min=1)
    any_of = lambda at: mask[..., at].any(-1, keepdim=True)
    centre = torch.where(any_of(hips), mean(hips), torch.where(any_of(shoulders), mean(shoulders), mean(slice(None))))
    moved = (k - centre[..., None, :]) * there
    pairs = _distances(moved, STD13_2D)
    both = torch.stack([mask[..., STD13_2D.index(pair)].all(-1) for pair in STD13_2D.scale_pairs], -1)
    from_torso = (pairs * both).amax(-1)
    scale = torch.where(mask[..., torso].sum(-1) >= 2, from_torso, moved.norm(dim=-1).amax(-1))
    return moved * (STD13_2D.unit / scale.clamp(min=EPSILON))[..., None, None]


def normalize_3d(k: Float[Tensor, "*batch 16 3"]) -> Float[Tensor, "*batch 16 3"]:
    """3-D points (`STD16_3D`) with the pelvis at the origin and neck–spine–pelvis of length 1."""
    return _normalized(k, STD16_3D)


def _normalized(k: Tensor, profile: KeypointProfile) -> Tensor:
    moved = k - k[..., profile.index(profile.offset), :].mean(-2, keepdim=True)
    pairs = _distances(moved, profile)
    scale = pairs.sum(-1) if profile.reduce == "sum" else pairs.amax(-1)
    return moved * (profile.unit / scale.clamp(min=EPSILON))[..., None, None]


def _distances(k: Tensor, profile: KeypointProfile) -> Tensor:
    first, second = (profile.index(names) for names in zip(*profile.scale_pairs))  # type: ignore[arg-type]
    return (k[..., first, :] - k[..., second, :]).norm(dim=-1)


def in_camera(
    k3d: Float[Tensor, "*batch j 3"], azimuth: Float[Tensor, "*batch"], elevation: Float[Tensor, "*batch"],
    roll: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch j 3"]:  # fmt: skip
    """Points as a camera sees them: x to its right, y away from it, z up.  Angles in radians.

    azimuth: the camera goes round to the person's left; elevation: it rises; roll: it turns about its axis.
    """
    (ca, sa), (ce, se), (cr, sr) = ((t.cos(), t.sin()) for t in (azimuth, elevation, roll))
    zero, one = torch.zeros_like(ca), torch.ones_like(ca)
    matrix = lambda *rows: torch.stack([torch.stack(torch.broadcast_tensors(*row), -1) for row in rows], -2)
    round_ = matrix((ca, sa, zero), (-sa, ca, zero), (zero, zero, one))
    rise = matrix((one, zero, zero), (zero, ce, -se), (zero, se, ce))
    turn = matrix((cr, zero, sr), (zero, one, zero), (-sr, zero, cr))
    return k3d @ (turn @ rise @ round_).mT


def project(
    k3d: Float[Tensor, "*batch j 3"], azimuth: Float[Tensor, "*batch"], elevation: Float[Tensor, "*batch"],
    roll: Float[Tensor, "*batch"], depth: float | int | Tensor = 2.0,
) -> Float[Tensor, "*batch j 2"]:  # fmt: skip
    """Perspective projection of normalised points from a camera `depth` torsos away from the pelvis.

    A point less than 0.1 in front of the camera, or behind it, is drawn as if it were at 0.1.
    """
    return perspective(in_camera(k3d, azimuth, elevation, roll), depth)


def perspective(seen: Float[Tensor, "*batch j 3"], depth: float | int | Tensor = 2.0) -> Float[Tensor, "*batch j 2"]:
    """The picture of points as `in_camera` gives them, x to the right and y down.  depth: one, or [*batch]."""
    away = (seen[..., 1] + (depth[..., None] if isinstance(depth, Tensor) else depth)).clamp(min=0.1)
    return torch.stack([seen[..., 0] / away, -seen[..., 2] / away], -1)


def missing_at_random(
    n: int, p_drop: float | int, p_apply: float | int = 1.0, *, generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Bool[Tensor, "n 13"]:  # fmt: skip
    """Which of 13 points are there: with `p_apply` a sample is affected, then each point is missing with `p_drop`."""
    draw = torch.rand(n, 14, generator=generator, device=device)
    return (draw[:, :13] >= p_drop) | (draw[:, 13:] >= p_apply)


def missing_groups(
    n: int, chances: Mapping[str, float] = GROUP_CHANCES, p_apply: float | int = 1.0, *,
    generator: torch.Generator | None = None, device: torch.device | str = "cpu",
) -> Bool[Tensor, "n 13"]:  # fmt: skip
    """Which of 13 points are there when limbs are missing as a whole: each group of `GROUPS` with its own chance."""
    draw = torch.rand(n, len(chances) + 1, generator=generator, device=device)
    gone = draw[:, :-1] < torch.tensor(list(chances.values()), device=device)
    member = torch.zeros(len(chances), 13, device=device)
    for row, group in zip(member, chances):
        row[STD13_2D.index(GROUPS[group])] = 1
    return (gone.float() @ member == 0) | (draw[:, -1:] >= p_apply)
