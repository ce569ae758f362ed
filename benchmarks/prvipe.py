"""Pr-VIPE against what one would otherwise write; `ratio` is theirs over ours.

Matches of all pairs of poses against one singular value decomposition a pair; a training step that samples distances at
the mined pairs only against one that fills the matrix of all sampled distances, as the authors' code does; and three
seeds in one pass against one after another.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from benchmarks._measured import versus
from precis.contrastive.prvipe import PoseEmbedder, PrVIPE, match_matrix, matching_distance, normalize_3d, pa_mpjpe
from precis.contrastive.prvipe_loss import PoseEmbedding, pairwise_l2, prior_kl
from precis.data.poses import procedural_skeleton
from precis.papers.prvipe.training import ARMS, Setting, train

POSES, BATCH, SAMPLES, HIDDEN = 600, 128, 20, 256


class _Quiet:
    device = "cpu"

    def log(self, *_: Any, **__: Any) -> None: ...


def rows(repeats: int = 5) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    poses = normalize_3d(torch.from_numpy(procedural_skeleton(POSES, seed=0).poses[:, 0]))
    return [
        versus(f"matches of {POSES}² pairs, against a decomposition a pair", lambda: match_matrix(poses),
               lambda: _by_decomposition(poses), repeats),
        versus(f"training step, {BATCH} poses, against all sampled distances", *_steps(), repeats),
        versus("three seeds of 10 steps, against one after another", *_seeds(poses), repeats),
    ]  # fmt: skip


def _by_decomposition(poses: torch.Tensor) -> torch.Tensor:
    n = len(poses)
    return torch.stack([pa_mpjpe(pose.expand(n, -1, -1), poses) <= 0.1 for pose in poses])


def _steps() -> tuple[Callable[[], None], Callable[[], None]]:
    g = torch.Generator().manual_seed(0)
    views, apart = torch.randn(2, BATCH, 13, 2, generator=g), ~torch.eye(BATCH, dtype=torch.bool)

    def make(loss: Callable[[PrVIPE], torch.Tensor]) -> Callable[[], None]:
        model = PrVIPE(PoseEmbedder(hidden=HIDDEN, dropout=0.0, generator=torch.Generator().manual_seed(1)))
        solver = torch.optim.AdamW(model.parameters(), 1e-3, foreach=True)

        def step() -> None:
            solver.zero_grad()
            loss(model).backward()
            solver.step()

        return step

    def full(model: PrVIPE) -> torch.Tensor:
        both = model(views.flatten(0, 1))
        a, p = (PoseEmbedding(m, s) for m, s in zip(both.mean.chunk(2), both.std.chunk(2)))
        distance = matching_distance(a.sample(SAMPLES)[:, None], p.sample(SAMPLES)[None], model.sigmoid)
        means = pairwise_l2(a.mean, p.mean).detach()
        allowed = apart & (means > means.diagonal()[:, None])
        place = means.masked_fill(~allowed, math.inf).argmin(1, keepdim=True)
        own = distance.diagonal()
        violation = (own - distance.gather(1, place)[:, 0] + math.log(2)).clamp(min=0) * allowed.any(1)
        return violation.sum() / (violation > 0).sum().clamp(min=1) + 0.005 * own.mean() + 0.001 * prior_kl(*both)

    return make(lambda model: model.loss(views, apart, samples=SAMPLES)["loss"]), make(full)


def _seeds(poses: torch.Tensor) -> tuple[Callable[[], None], Callable[[], None]]:
    s, match, record = Setting(steps=10), match_matrix(poses), _Quiet()
    run = lambda seeds: train(poses, match, s, ARMS["prvipe"], seeds, record)  # type: ignore[arg-type]

    def singly() -> None:
        for seed in range(3):
            run((seed,))

    return lambda: run((0, 1, 2)), singly
