"""Pictures whose classes are sub-folders: no class without a picture, and every class on both sides of a split."""

from pathlib import Path

import torch
from torch import Tensor

from precis.errors import InputError


def check_folders(path: Path) -> None:
    """InputError for a class that holds no picture, where classes are sub-folders."""
    folders = [f for f in sorted(path.iterdir()) if f.is_dir() and not f.name.startswith((".", "__"))]
    empty = [f for f in folders if not any(p.is_file() for p in f.rglob("*"))]
    if empty and len(folders) > 1:
        raise InputError("the class folder is empty: put pictures into it, or remove it", file=empty[0])


def stratified(labels: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices to learn from and to measure on: `share` of every class, but at least one on either side."""
    train, val = [], []
    for k in labels.unique():
        mine = (labels == k).nonzero().flatten()
        mine = mine[torch.randperm(len(mine), generator=generator)]
        held = min(max(round(share * len(mine)), 1), len(mine) - 1)
        val.append(mine[:held])
        train.append(mine[held:])
    return torch.cat(train).sort().values, torch.cat(val).sort().values
