"""Claims about single poses, all read from one set of runs: what retrieves a pose across views, and why."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from precis.contrastive.prvipe import match_matrix, pa_mpjpe_pairs, procrustes_2d
from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder
from precis.lab.hypotheses import Greater, NotWorse
from precis.lab.trial import streams

from .training import (
    ARMS,
    KAPPA,
    NEW,
    SEEN,
    Pool,
    Setting,
    across,
    judge,
    load_pool,
    matches,
    test_views,
    train,
)  # fmt: skip

LEARNED = Precondition("hit1", "prvipe", at_least=10, why="the net has learned little: guessing gives about 1 %")


class _Poses(Claim):
    """Hit@1 in per cent: 600 test poses of performers that training did not see, by three cameras that it did not see
    (45°, 135°, 225°); queries in one view, the index in another; a hit if the nearest has PA-MPJPE ≤ 0.1 to the query.

    Training: 3,000 made poses by four cameras 90° apart at the height of the pelvis, in half of the cases by a made
    camera instead (the paper's augmentation); 2-D noise of σ = 0.01 everywhere.  All arms of a seed have the same
    poses, order, cameras and initial trunk, no dropout of units, Adam under a cosine; the poses are one data set, and
    seeds differ in weights, order, cameras and noise.

    The rate was chosen before any verdict among 0.001, 0.003 and 0.01 on pilot seeds and other test performers: 0.01 is
    best of them for the method and for the lifter, and all arms have it.
    """

    runs = "poses"
    takes = ("poses",)
    profiles = {
        "smoke": Profile(Setting(poses=120, test=40, hidden=16, batch=16, steps=3), seeds=2, scale="120 poses"),
        "quick": Profile(Setting(), seeds=3, scale="3,000 made poses, width 256, 200 steps of 2×128"),
        "full": Profile(
            Setting(poses=8000, test=1000, batch=256, steps=3000, lr=3e-3, performers=24), seeds=3, threads=2,
            scale="8,000 made poses, width 256, 3,000 steps of 2×256 (GPU: 100,000, width 1,024, 20,000 steps)",
            cuda=Setting(poses=100_000, test=2000, hidden=1024, batch=256, steps=20_000, lr=1e-3, performers=100),
        ),
    }  # fmt: skip

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        s, first = settings, records[arms[0], seeds[0]]
        pool = Pool(*(k.to(first.device) for k in data))
        same = match_matrix(pool.test, KAPPA)
        match = matches(pool.train, "poses", first, s)
        seen_by = lambda seed, azimuths, kind="": test_views(
            pool.test, same, azimuths, s.noise, streams(seed)["eval"], kind
        )
        for arm in arms:
            if arm == "procrustes_2d":
                for seed in seeds:
                    yield arm, seed, {**across(list(seen_by(seed, NEW).k), same, procrustes_2d)}
                continue
            many = train(pool.train, match, s, ARMS[arm], seeds, records[arm, seeds[0]])
            for m, seed in enumerate(seeds):
                _curve(records[arm, seed], many.curves["loss"][m])
                net = many.module(m)
                if ARMS[arm].lifter:
                    with torch.no_grad():
                        lifted = net(seen_by(seed, NEW).k)
                    yield arm, seed, {**across(list(lifted), same, pa_mpjpe_pairs)}
                    continue
                found = judge(net, seen_by(seed, NEW))
                known = judge(net, seen_by(seed, SEEN))["hit1"]
                random, groups = (judge(net, seen_by(seed, NEW, kind))["hit1"] for kind in ("random", "groups"))
                yield arm, seed, {
                    **found, "hit1_seen": known, "new_less_seen": found["hit1"] - known, "hit1_random": random,
                    "hit1_limbs": groups, "limbs_less_random": groups - random,
                }  # fmt: skip


class Retrieval(_Poses):
    """Two baselines: 2-D points compared after the best shift, turn and scale, which needs no training; and the same
    trunk with the same budget trained to lift to 3-D, its poses compared by PA-MPJPE as the matches are.  No margin.

    On made poses the lifter can win, as there is little ambiguity of depth in so few actions; so performers differ and
    points are noisy for all arms, and a contradiction would be a result.  The broken arm is
    trained on wrong pairs: a pose's partner is another pose.
    """

    name = "retrieval"
    statement = "Across views it retrieves the same pose better than 2-D keypoints and than lifting to 3-D do."
    arms = ("prvipe", "procrustes_2d", "lifter")
    sabotaged = {"mispaired": "prvipe"}
    hypotheses = (
        Greater("hit1", "prvipe", "procrustes_2d"),
        Greater("hit1", "prvipe", "lifter"),
        Greater("hit10", "prvipe", "lifter", counts=False),
    )
    preconditions = (LEARNED,)
    untried = "Real people (Human3.6M, MPI-INF-3DHP) and detected keypoints, with their own errors, were not tried."


class Probabilistic(_Poses):
    """The same net with one head and distances of points, trained by the same loss (without the prior, which it has no
    distribution for).  No margin.  The baseline is the method without its mechanism, so there is no broken arm.
    """

    name = "probabilistic"
    statement = "Embedding a pose as a Gaussian retrieves better than embedding it as a point."
    arms = ("prvipe", "point")
    hypotheses = (Greater("hit1", "prvipe", "point"), Greater("hit10", "prvipe", "point", counts=False))
    preconditions = (LEARNED,)
    untried = "Real pictures, where some views hide more than others, were not tried."


class CameraAugmentation(_Poses):
    """Made cameras in half of the training views against the four real cameras alone.  Counted: the gain on cameras
    that training did not see, and that it is larger there than on the four (`new_less_seen` is Hit@1 on the new cameras
    less that on the four).  Whether it costs something on the four is shown beside it.  No margin.
    """

    name = "camera_aug"
    statement = "Made cameras in training help on cameras not seen in training, and more there than on those seen."
    arms = ("prvipe", "fixed_cameras")
    hypotheses = (
        Greater("hit1", "prvipe", "fixed_cameras"),
        Greater("new_less_seen", "prvipe", "fixed_cameras"),
        Greater("hit1_seen", "fixed_cameras", "prvipe", counts=False),
    )
    preconditions = (Precondition("hit1_seen", "fixed_cameras", at_least=10, why="the net has learned little"),)
    untried = "Cameras at other heights in the test, lenses, and real pictures were not tried."


class Dropout(_Poses):
    """Two kinds of test: every point missing with probability 0.3 (`hit1_random`), or limbs as a whole (`hit1_limbs`);
    always another draw for query and index.  In training half of the samples are affected, by single points
    (`independent`) or by limbs (`structured`), and the net is told which points are there; `prvipe` has seen whole
    poses only, and missing points are 0 for it, as in the paper's code.  All normalise by the points that are there.

    Counted: independent dropout against none where points are missing, in either way (`hit1_missing`, the mean of both
    tests); structured dropout against independent where limbs are missing; and that its advantage is larger there than
    where single points are (`limbs_less_random`).  Each test by itself is shown.  No margin.

    The first recorded run counted, of the gain by independent dropout, single points only (5.5 points over none), and
    was supported; where limbs are missing it was 3.7 points below none.
    """

    name = "dropout"
    statement = (
        "Keypoint dropout improves retrieval with missing points, structured dropout most where limbs are missing."
    )
    runs = "dropout"
    arms = ("independent", "structured", "prvipe")
    hypotheses = (
        Greater("hit1_missing", "independent", "prvipe"),
        Greater("hit1_limbs", "structured", "independent"),
        Greater("limbs_less_random", "structured", "independent"),
        Greater("hit1_random", "independent", "prvipe", counts=False),
        Greater("hit1_limbs", "independent", "prvipe", counts=False),
        Greater("hit1_missing", "structured", "prvipe", counts=False),
        Greater("hit1_limbs", "structured", "prvipe", counts=False),
    )
    preconditions = (LEARNED,)
    untried = "Occlusion by real objects and the paper's own table of occlusions were not tried."

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        for arm, seed, found in super().batch(arms, seeds, settings, data, records):
            missing = (found["hit1_random"] + found["hit1_limbs"]) / 2  # type: ignore[operator]
            yield arm, seed, found | {"hit1_missing": missing}


class Mining(_Poses):
    """Semi-hard negatives (the closest that are farther than the own positive) against true negatives drawn alike from
    the batch.  No margin.  In the broken arm the negative is chosen by the distances of other embeddings.
    """

    name = "mining"
    statement = "Hard negatives from the batch train a better embedding than negatives drawn at random."
    arms = ("prvipe", "random_negatives")
    sabotaged = {"shuffled_negatives": "prvipe"}
    hypotheses = (Greater("hit1", "prvipe", "random_negatives"),)
    preconditions = (LEARNED,)
    untried = "Batches larger than 256 and other rules of mining were not tried."


class Terms(_Poses):
    """The triplet loss alone, with the pairwise term, with the prior, with both.  Not worse by a point: the paper
    weights both lightly (0.005 and 0.001), so little is expected.  No mechanism is claimed, so there is no broken arm.
    """

    name = "terms"
    statement = "The pairwise term and the prior do not make retrieval worse than the triplet loss alone."
    arms = ("prvipe", "triplet", "with_pairwise", "with_prior")
    profiles = {name: _Poses.profiles[name] for name in ("smoke", "full")}
    hypotheses = (
        NotWorse("hit1", "prvipe", "triplet", margin=1.0),
        Greater("hit1", "with_pairwise", "triplet", counts=False),
        Greater("hit1", "with_prior", "triplet", counts=False),
    )
    preconditions = (LEARNED,)
    untried = "Other weights of the two terms were not tried."


def _curve(record: Recorder, loss: Tensor) -> None:
    parts = loss.tensor_split(min(100, len(loss)))
    record.curve("training loss", torch.linspace(0, len(loss), len(parts)), torch.stack([p.mean() for p in parts]))
