"""Radii for norms that no training sees, fixed before methods were compared: `python -m precis.papers.rocl.radii`.

The larger of each pair takes 50 points from an ordinary classifier (seeds that no verdict uses, held-out training
pictures); the smaller is in the paper's proportion to it, 0.25 to 0.5 (ℓ2) and 7.84 to 12 (ℓ1).
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from precis.contrastive.robustness import AttackSpec, robust_correct
from precis.lab.recorder import TrialRecord
from precis.nn.attacks import Norm
from precis.papers.contrastive_sets import TUNING_SEEDS, Pool, load_pool, pool_of
from precis.papers.rocl.arms import Plan, train_encoder

LOSS = 50.0
SMALLER: dict[Norm, float] = {"l2": 0.25 / 0.5, "l1": 7.84 / 12}


def radius(nets: list[tuple[nn.Module, Pool]], norm: Norm, steps: int, highest: float) -> float:
    """By bisection: where the nets have lost 50 points in the mean."""
    low, high = 0.0, highest
    for _ in range(10):
        middle = (low + high) / 2
        lost = 0.0
        for net, pool in nets:
            starts = torch.Generator().manual_seed(0)
            attack = AttackSpec(norm, middle, norm, steps)
            clean, under = (robust_correct(net, pool.test_images, pool.test_labels, a, generator=starts).float().mean()
                            for a in (None, attack))  # fmt: skip
            lost += 100 * float(clean - under) / len(nets)
        low, high = (middle, high) if lost < LOSS else (low, middle)
    return (low + high) / 2


def main() -> None:
    s = replace(Plan(test=300, encoder="conv:16x3", batch=128, steps=80), eps=0.0)
    whole, nets = load_pool(s, None), []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(TUNING_SEEDS, TUNING_SEEDS + 2):
            pool = pool_of(whole, seed, "cpu")
            nets.append((train_encoder("at", s, pool, TrialRecord(Path(folder) / str(seed), seed)), pool))
    for norm, highest in (("l2", 3.0), ("l1", 20.0)):
        large = radius(nets, norm, s.test_steps, highest)  # type: ignore[arg-type]
        print(f"{norm}: {SMALLER[norm] * large:.2f}, {large:.2f}")  # type: ignore[index]


if __name__ == "__main__":
    main()
