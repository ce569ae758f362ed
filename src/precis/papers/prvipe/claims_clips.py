"""The claim about clips: one embedding of seven frames against seven embeddings side by side."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from precis.contrastive.prvipe import PrVIPE, TemporalPoseEmbedder, match_matrix
from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder
from precis.lab.hypotheses import Greater
from precis.lab.trial import streams

from .training import ARMS, KAPPA, NEW, Pool, Setting, Test, across, judge, load_pool, matches, test_views, train

FRAMES, DIM = 7, 32


@dataclass(frozen=True)
class Clips(Setting):
    """As for poses, counted in clips; a step sees as many frames in either arm, and an anchor as many negatives."""

    poses: int = 1000
    test: int = 400
    batch: int = 32
    frame_dim: int = 32


class Temporal(Claim):
    """Hit@1 in per cent, of clips of seven frames by cameras and performers that training did not see; two clips match
    if PA-MPJPE ≤ 0.1 after one alignment of all their points together.

    `temporal`: a trunk shared by the frames, its features put side by side, a layer, a Gaussian of 32 dimensions.
    `stacked`: the means of a net for single poses (16 dimensions) of all seven frames, 112 dimensions, by L2.  Both see
    32 × 7 frames in two views a step, the same clips, cameras and steps; the single poses are frames 1, 4 and 7 of the
    clips.  A clip is told from the 31 others of its step; so the 224 single poses stand in seven groups of 32, and each
    is told from the 31 others of its group.  No margin.  In the broken arm the temporal net is given the middle frame
    seven times, in training and test: what it gains over stacking would not come from the frames.

    In the first recorded run a single pose was told from all 223 others, seven times as many negatives as a clip had:
    65 % for the clips' embedding and 89 % stacked, so that the claim was contradicted.
    """

    name = "temporal"
    statement = "One embedding of seven frames retrieves clips better than the seven frames' embeddings side by side."
    arms = ("temporal", "stacked")
    sabotaged = {"still": "temporal"}
    takes = ("poses",)
    profiles = {
        "smoke": Profile(Clips(poses=60, test=30, hidden=16, batch=8, steps=2), seeds=2, scale="60 clips"),
        "quick": Profile(Clips(), seeds=3, scale="1,000 made clips of 7 frames, width 256, 200 steps of 2×32 clips"),
        "full": Profile(
            Clips(poses=3000, test=1000, batch=64, steps=2000, lr=3e-3, performers=24), seeds=3, threads=2,
            scale="3,000 made clips, width 256, 2,000 steps of 2×64 (GPU: 30,000, width 1,024, 20,000 steps)",
            cuda=Clips(poses=30_000, test=2000, hidden=1024, batch=128, steps=20_000, lr=1e-3, performers=100,
                       frame_dim=64),
        ),
    }  # fmt: skip
    hypotheses = (Greater("hit1", "temporal", "stacked"), Greater("hit10", "temporal", "stacked", counts=False))
    preconditions = (
        Precondition("hit1", "temporal", at_least=10, why="the net has learned little: guessing gives about 1 %"),
    )
    untried = "Recorded motion, and clips longer than seven frames, were not tried."

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source, FRAMES)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        # Imported here: imports of a module are part of the key of all its paper's claims, and poses are not grouped.
        from precis.contrastive.prvipe import PoseEmbedder

        from .grouped import Grouped

        s, first = settings, records[arms[0], seeds[0]]
        alone = lambda g: Grouped(PoseEmbedder(hidden=s.hidden, dropout=0.0, generator=g), s.batch)
        pool = Pool(*(k.to(first.device) for k in data))
        same = match_matrix(pool.test.flatten(1, 2), KAPPA)
        for arm in arms:
            if arm == "stacked":
                single = pool.train[:, [0, FRAMES // 2, -1]].flatten(0, 1)
                one = Setting(len(single), s.test, s.hidden, s.batch * FRAMES, s.steps, s.lr, s.samples, s.noise)
                many = train(single, matches(single, "frames", first, s), one, ARMS["prvipe"], seeds,
                             records[arm, seeds[0]], alone)  # fmt: skip
            else:
                clips = pool.train if arm == "temporal" else _still(pool.train)
                many = train(clips, matches(clips, arm, first, s), s, ARMS["prvipe"], seeds, records[arm, seeds[0]],
                             lambda g: _net(s, g))  # fmt: skip
            for m, seed in enumerate(seeds):
                net = many.module(m)
                t = test_views(pool.test, same, NEW, s.noise, streams(seed)["eval"])
                if arm == "stacked":
                    with torch.no_grad():
                        means = net(t.k).mean.flatten(2)
                    yield arm, seed, {**across(list(means), same, torch.cdist)}
                else:
                    k = t.k if arm == "temporal" else t.k[:, :, FRAMES // 2 : FRAMES // 2 + 1].expand_as(t.k)
                    yield arm, seed, {**judge(net, Test(k, None, same))}


def _still(clips: Tensor) -> Tensor:
    return clips[:, FRAMES // 2 : FRAMES // 2 + 1].expand_as(clips)


def _net(s: Clips, generator: torch.Generator) -> PrVIPE:
    return PrVIPE(TemporalPoseEmbedder(FRAMES, dim=DIM, hidden=s.hidden, dropout=0.0, frame_dim=s.frame_dim,
                                       generator=generator))  # fmt: skip
