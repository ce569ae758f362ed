"""What the claims train and how they judge it: poses, cameras, the arms, and retrieval across views."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.contrastive.prvipe import (
    STD13_2D,
    STD16_3D,
    Lifter3D,
    PoseEmbedder,
    PrVIPE,
    cancelled,
    match_matrix,
    normalize_2d,
    normalize_3d,
    pa_mpjpe_pairs,
)
from precis.contrastive.prvipe_keypoints import in_camera, missing_at_random, missing_groups, perspective
from precis.contrastive.prvipe_loss import hits, mine
from precis.data.poses import procedural_skeleton
from precis.lab.claim import Recorder
from precis.lab.trial import stream_seed, streams
from precis.train.checkpoint import load_state, save_state
from precis.train.loop import Budget
from precis.train.many import Many, fit_many
from precis.train.schedule import cosine

KAPPA = 0.1
TRAIN_SEED, TEST_SEED = 0, 1  # of the made poses: other performers for the test
SEEN, NEW = (0, 90, 180, 270), (45, 135, 225)  # azimuths, degrees, at the height of the pelvis
FAR, NEAR, TILT = 6.0, 2.0, 30.0  # distance of those cameras and of made ones, torsos; elevation and roll of made ones
MATCHES = 12_000  # from so many poses on, a batch's matches are computed on the way


@dataclass(frozen=True)
class Setting:
    """How many poses, how wide a net, how long; noise: of the 2-D points, where the torso's largest distance is 0.5."""

    poses: int = 3000
    test: int = 600
    hidden: int = 256
    batch: int = 128
    steps: int = 200
    lr: float = 1e-2
    samples: int = 20
    noise: float = 0.01
    performers: int = 8


class Pool(NamedTuple):
    """Normalised 3-D poses [N,16,3] (or clips [N,F,16,3]) for training and for the test, of other performers."""

    train: Tensor
    test: Tensor


@dataclass(frozen=True)
class Arm:
    """What one arm does otherwise.  missing: points left out in training; mining: see `miner`; mispaired: a pose's
    partner is another pose."""

    gaussian: bool = True
    augment: bool = True
    missing: Literal["", "random", "groups"] = ""
    mining: Literal["semi_hard", "random", "shuffled"] = "semi_hard"
    mispaired: bool = False
    lifter: bool = False
    pairwise: float = 0.005
    prior: float = 0.001


ARMS = {
    "prvipe": Arm(), "point": Arm(gaussian=False), "fixed_cameras": Arm(augment=False),
    "independent": Arm(missing="random"), "structured": Arm(missing="groups"),
    "random_negatives": Arm(mining="random"), "shuffled_negatives": Arm(mining="shuffled"),
    "mispaired": Arm(mispaired=True), "lifter": Arm(lifter=True), "triplet": Arm(pairwise=0.0, prior=0.0),
    "with_pairwise": Arm(prior=0.0), "with_prior": Arm(pairwise=0.0),
}  # fmt: skip


def load_pool(s: Setting, source: Path | None, frames: int = 1) -> Pool:
    """Made poses, or those of the user's motion capture, the last fifth of it for the test."""
    if source is not None:
        from .recorded import read_recorded

        poses = read_recorded(source, frames, s.poses + s.test)
        held = len(poses) // 5
        train, test = poses[:-held][: s.poses], poses[-held:][: s.test]
    else:
        train, test = (
            procedural_skeleton(n, seed=seed, frames=frames, performers=s.performers).poses
            for n, seed in ((s.poses, TRAIN_SEED), (s.test, TEST_SEED))
        )
    made = [normalize_3d(torch.from_numpy(poses)) for poses in (train, test)]
    return Pool(*(k[:, 0] if frames == 1 else k for k in made))


def matches(poses: Tensor, name: str, record: Recorder, settings: Any) -> Tensor | None:
    """The match matrix of the training poses, computed once for all claims; None where they are too many."""
    if len(poses) > MATCHES:
        return None

    def make(folder: Path) -> None:
        flat = poses.flatten(1, -2)
        save_state(folder / "matches.safetensors", match_matrix(flat, KAPPA).to(torch.uint8))

    folder = record.shared(f"matches_{name}", make, settings)
    return load_state(folder / "matches.safetensors").bool().to(record.device)  # type: ignore[no-any-return]


def views(
    poses: Tensor, augment: bool, noise: float, generator: torch.Generator, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Every pose [n,*,16,3] by one camera, the same for all frames of a clip: normalised 2-D points [n,*,13,2] and the
    3-D points in that camera.

    The camera is one of `SEEN`; with `augment`, in half of the cases a made one (all azimuths, `TILT`, near).
    """
    n, clip = len(poses), poses.shape[1:-2]
    u = torch.rand(n, 5, generator=generator).to(poses.device)
    made = (u[:, 0] < 0.5) & augment
    fixed = torch.tensor(SEEN, device=u.device)[(u[:, 1] * len(SEEN)).long()].to(u)
    tilt = lambda column: (2 * u[:, column] - 1) * TILT * made
    azimuth = torch.where(made, 360 * u[:, 2] - 180, fixed)
    each = lambda t: t.view(n, *[1] * len(clip)).expand(n, *clip)
    seen = in_camera(poses, *(each(a.deg2rad()) for a in (azimuth, tilt(3), tilt(4))))
    return picture(seen, each(torch.where(made, NEAR, FAR)), noise, generator, mask), seen


def picture(
    seen: Tensor, depth: Tensor | float, noise: float, generator: torch.Generator, mask: Tensor | None = None
) -> Tensor:
    """Normalised 2-D points of 3-D points in a camera, with the noise of a detector."""
    flat = perspective(STD16_3D.pick(seen, STD13_2D), depth)
    error = torch.randn(flat.shape, generator=generator).to(flat.device)
    return normalize_2d(normalize_2d(flat) + noise * error, mask)


def feed(
    poses: Tensor, match: Tensor | None, s: Setting, arm: Arm, seeds: Sequence[int]
) -> Callable[[int, Sequence[torch.Generator]], dict[str, Tensor]]:
    """Batches for all copies: two views of each pose, which poses do not match, and the noise of their samples.

    The order of poses comes from `fit_many`'s generators; cameras, missing points, samples and the choice of negatives
    have a stream each, so that arms that draw more of one share the others.
    """
    purposes = ("cameras", "missing", "samples", "mining")
    drawn = [{p: torch.Generator().manual_seed(stream_seed(seed, p)) for p in purposes} for seed in seeds]
    count, dim = min(s.batch, len(poses)), 16 if poses.ndim == 3 else 32

    def draw(_: int, orders: Sequence[torch.Generator]) -> dict[str, Tensor]:
        rows: list[dict[str, Tensor]] = []
        for order, g in zip(orders, drawn):
            chosen = torch.randperm(len(poses), generator=order)[:count].to(poses.device)
            own = poses[chosen]
            partner = own[torch.randperm(count, generator=g["mining"]).to(own.device)] if arm.mispaired else own
            both = torch.cat([own, partner])
            mask = missing(arm.missing, len(both), g["missing"], own.device)
            k, seen = views(both, arm.augment, s.noise, g["cameras"], mask)
            row = {"k": k, "seen": seen}
            if not arm.lifter:
                near = match[chosen][:, chosen] if match is not None else _near(own)
                row = {"k": k.unflatten(0, (2, count)), "negative": ~near}
                if mask is not None:
                    row["mask"] = mask.unflatten(0, (2, count))
                if arm.gaussian:
                    row["noise"] = torch.randn(2, count, s.samples, dim, generator=g["samples"]).to(k.device)
                if arm.mining != "semi_hard":
                    row["scores"] = torch.rand(count, count, generator=g["mining"]).to(k.device)
            rows.append(row)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    return draw


def _near(own: Tensor) -> Tensor:
    flat = own.flatten(1, -2)
    return pa_mpjpe_pairs(flat, flat) <= KAPPA


def missing(kind: str, n: int, generator: torch.Generator, device: Any, p_apply: float = 0.5) -> Tensor | None:
    """Which points are there [n,13]: three in ten gone at random, or limbs as a whole; None: all are."""
    if not kind:
        return None
    if kind == "random":
        return missing_at_random(n, 0.3, p_apply, generator=generator).to(device)
    return missing_groups(n, p_apply=p_apply, generator=generator).to(device)


def step_of(arm: Arm, samples: int) -> Callable[[Any, dict[str, Tensor]], Any]:
    """The loss of one copy."""

    def lift(model: Any, batch: dict[str, Tensor]) -> Tensor:
        return F.mse_loss(model(batch["k"]), batch["seen"])

    def embed(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        mining: Any = "semi_hard"
        if arm.mining == "random":
            mining = lambda distance, negative: mine(distance, negative, "random", batch["scores"])
        elif arm.mining == "shuffled":  # the distances are those of other embeddings
            mining = lambda distance, negative: mine(distance[:, batch["scores"][0].argsort()], negative)
        return model.loss(  # type: ignore[no-any-return]
            batch["k"], batch["negative"], batch.get("mask"), pairwise=arm.pairwise, prior=arm.prior, mining=mining,
            samples=samples, noise=batch.get("noise"),
        )  # fmt: skip

    return lift if arm.lifter else embed


def train(
    poses: Tensor, match: Tensor | None, s: Setting, arm: Arm, seeds: Sequence[int], record: Recorder,
    build: Callable[[torch.Generator], nn.Module] | None = None,
) -> Many:  # fmt: skip
    """All seeds in one pass: Adam under a cosine, no dropout of units, no steps of biases that batch norm cancels.

    Arms of a seed share their initial trunk, the order of poses, cameras and noise.
    """
    drawn = {seed: streams(seed) for seed in seeds}
    make = build or (lambda generator: make_net(s, arm, generator))
    return fit_many(
        lambda seed: make(drawn[seed]["init"]).to(poses.device), seeds,
        feed(poses, match, s, arm, seeds), step_of(arm, s.samples),
        budget=Budget(steps=s.steps), lr=s.lr, schedule=cosine(), order=[drawn[seed]["data"] for seed in seeds],
        freeze=cancelled, log=record.log,
    )  # fmt: skip


def make_net(s: Setting, arm: Arm, generator: torch.Generator) -> nn.Module:
    if arm.lifter:
        return Lifter3D(hidden=s.hidden, dropout=0.0, generator=generator)
    embedder = PoseEmbedder(hidden=s.hidden, dropout=0.0, gaussian=arm.gaussian, mask_input=bool(arm.missing),
                            generator=generator)  # fmt: skip
    return PrVIPE(embedder)


class Test(NamedTuple):
    """The test poses in several cameras: points [cameras,N,*,13,2], which are there, and which poses match [N,N]."""

    k: Tensor
    mask: Tensor | None
    match: Tensor


def test_views(
    poses: Tensor, match: Tensor, azimuths: Sequence[int], noise: float, generator: torch.Generator, kind: str = ""
) -> Test:
    """The test poses as each camera sees them; `kind`: what is missing, in every picture."""
    found, masks = [], []
    for azimuth in azimuths:
        angle = torch.full(poses.shape[:-2], math.radians(azimuth), device=poses.device)
        mask = missing(kind, len(poses), generator, poses.device, p_apply=1.0)
        seen = in_camera(poses, angle, torch.zeros_like(angle), torch.zeros_like(angle))
        found.append(picture(seen, FAR, noise, generator, mask))
        masks.append(mask)
    return Test(torch.stack(found), None if masks[0] is None else torch.stack(masks), match)  # type: ignore[arg-type]


@torch.no_grad()
def across(views_of: Sequence[Any], match: Tensor, distance: Callable[[Any, Any], Tensor]) -> dict[str, float]:
    """Hit@1, 10 and 20 in per cent, mean over queries and ordered pairs of cameras."""
    found = [hits(distance(views_of[a], views_of[b]), match) for a, b in permutations(range(len(views_of)), 2)]
    means = [100 * sum(column) / len(found) for column in zip(*found)]
    return dict(zip(("hit1", "hit10", "hit20"), means))


def judge(net: nn.Module, t: Test) -> dict[str, float]:
    """`across` for an embedder, by the distance of means."""
    with torch.no_grad():
        means = net(t.k, t.mask).mean
    return across(list(means), t.match, torch.cdist)
