"""The firing score against its definition in NumPy, as one would write it, and how fast pictures are rendered.

Score: a quantile of all units for each target, and the mean of what fires, base picture by base picture, with the best
units ranked and scored on the same pictures; ours sorts once.  Both give the same number.  `ratio` is theirs over ours.
Rendered: pictures a second, against `toy_objects`, whose grounds come from a generator.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks._measured import versus
from precis.contrastive.invariance import invariance_score
from precis.data.toy_clips import draw, render
from precis.data.toy_objects import toy_objects

CASES = ((8, 24, 8, 192), (20, 20, 8, 512))  # targets, bases, transforms, units
K, PICTURES = 10, 512


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    few = max(3, repeats // 2)
    return [*(_score(case, few) for case in CASES), _rendered(few)]


def _score(case: tuple[int, int, int, int], repeats: int) -> dict[str, Any]:
    targets, bases, transforms, units = case
    n = targets * bases * transforms
    f = torch.randn(n, units, generator=torch.Generator().manual_seed(0)).clamp(min=0)
    target = torch.arange(targets).repeat_interleave(bases * transforms)
    base = torch.arange(targets * bases).repeat_interleave(transforms)
    ours = lambda: float(invariance_score(f, target, base, k=(K,), select="same").mean[0])
    theirs = lambda: plain(f, target, base)
    if abs(ours() - theirs()) > 1e-3:
        raise AssertionError(f"ours {ours()}, theirs {theirs()}")
    return versus(f"score, {n:,} pictures of {targets} targets, {units} units", ours, theirs, repeats)


def plain(f: Tensor, target: Tensor, base: Tensor) -> float:
    """The definition, a quantile a target."""
    x, y, z, scores = f.numpy(), target.numpy(), base.numpy(), []
    for label in np.unique(y):
        mine = y == label
        fires = x[mine] > np.quantile(x, 1 - mine.mean(), axis=0, method="lower")
        local = np.mean([fires[z[mine] == b].mean(0) for b in np.unique(z[mine])], 0)
        scores.append(np.sort(local)[-K:].mean())
    return 100 * float(np.mean(scores))


def _rendered(repeats: int) -> dict[str, Any]:
    f = draw(PICTURES, 1, 0)
    row = versus(f"{PICTURES} pictures of 32×32 rendered", lambda: render(f, 32),
               lambda: toy_objects(PICTURES, generator=0, size=32), repeats)  # fmt: skip
    return row | {"pictures/s": 1e3 * PICTURES / row["ours ms"]}
