"""Keypoints for whoever has none at hand: made people whom training does not meet, by three cameras."""

import csv
import math
from pathlib import Path

import torch

from precis.contrastive.prvipe_keypoints import COCO17, STD13_2D, STD16_3D, normalize_3d, project
from precis.data.poses import procedural_skeleton

VIEWS = {"front": 0, "left": 75, "behind": 200}  # degrees
SEED, POSES, SIZE = 77, 40, 640


def three_views(path: Path) -> Path:
    """`POSES` poses as a CSV of pixels with columns id, view and pose; the points that made people lack are blank."""
    poses = normalize_3d(torch.from_numpy(procedural_skeleton(POSES, seed=SEED).poses[:, 0]))
    generator = torch.Generator().manual_seed(SEED)
    names = ["nose" if name == "head" else name for name in STD13_2D.names]
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["id", "view", "pose", *(f"{name}_{axis}" for name in COCO17.names for axis in "xy")])
        for view, degrees in VIEWS.items():
            angle = torch.full((POSES,), math.radians(degrees))
            flat = project(STD16_3D.pick(poses, STD13_2D), angle, torch.zeros(POSES), torch.zeros(POSES), 6.0)
            flat = SIZE * (0.5 + flat) + 2 * torch.randn(flat.shape, generator=generator)
            for i, points in enumerate(flat.tolist()):
                cells = {name: [f"{c:.1f}" for c in point] for name, point in zip(names, points)}
                row = [cell for name in COCO17.names for cell in cells.get(name, ["", ""])]
                out.writerow([f"{i + 1:02d} {view}", view, i + 1, *row])
    return path
