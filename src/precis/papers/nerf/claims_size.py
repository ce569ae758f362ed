"""A claim about bytes: a trained network against grids, photographs, and stored image planes."""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.data.scenes3d import Capture, Scene
from precis.fields.nerf import NerfMLP
from precis.fields.nerf_fit import dense_renderer, fit_dense
from precis.fields.nerf_lookup import corners, lookup, ticks
from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import AtMost

from .arms import Views, build, renderer, score, train
from .places import load_place, photos_of, place_of

PAPER_SCENE = (100, 800, 800)  # views, height, width
PLANES = 32  # of an image of planes, at the least; RGBA bytes


@dataclass(frozen=True)
class Sizes:
    """The views and training of the network, and grids of growing resolution with their own steps and rate."""

    views: Views
    resolutions: tuple[int, ...]
    steps: int
    lr: float = 0.1


class DenseGrid(nn.Module):
    """Density and colour on an N×N (or N³) grid over a box, interpolated linearly: what a network is smaller than."""

    def __init__(self, aabb: Tensor, n: int, flat: bool) -> None:
        super().__init__()
        self.size = (n, n, 1 if flat else n)
        self.register_buffer("aabb", aabb.float())
        self.table = nn.Parameter(torch.zeros(math.prod(self.size), 4))

    def forward(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        box: Any = self.aabb
        u = (x - box[0]) / (box[1] - box[0])
        inside = ((u >= 0) & (u <= 1)).all(-1)
        low, share = ticks(u.reshape(-1, 3).clamp(0, 1), self.size)
        raw = lookup(self.table, *corners(low, share, (0, 1, 2), self.size)).reshape(*x.shape[:-1], 4)
        return F.softplus(raw[..., 0] - 1) * inside, raw[..., 1:].sigmoid()


class Compression(Claim):
    """Bytes of the network's float32 weights, as a log ratio to those of a dense float32 grid of density and colour:
    the smallest of the listed ones whose PSNR is not more than 0.5 dB below the network's (if none is, the largest,
    whose bytes are then too few and the ratio too large).  In flatland the grid has two dimensions.  The grids get 48
    evenly spread samples a ray, as many queries as the network, and Adam at a rate chosen on other seeds.

    And arithmetic at the paper's scale: its two networks against 32 stored planes of RGBA bytes for each of 100 views
    of 800×800 (LLFF; the paper counts 15 GB).  No margin, and no broken arm: bytes are counted.
    Shown, not counted: the network against the PNG files of its own photographs at this scale, and at the paper's
    (there 1 byte a pixel, what its compressed scenes take at the least).
    """

    name = "compression"
    statement = (
        "The network takes fewer bytes than a dense grid of equal quality, and thousands of times fewer than the "
        "stored image planes of LLFF."
    )
    arms = ("nerf",)
    takes = ("scene",)
    hypotheses = (
        AtMost("log_bytes_over_grid", "nerf", 0),
        AtMost("log_bytes_over_planes_at_paper_scale", "nerf", -math.log(1000)),
        AtMost("log_bytes_over_png", "nerf", 0, counts=False),
        AtMost("log_bytes_over_png_at_paper_scale", "nerf", 0, counts=False),
    )
    profiles = {
        "smoke": Profile(Sizes(Views("flatland", 16, 2, 32, 6, 6), (4,), 2), seeds=2, scale="flatland, 16 px, 2 steps"),
        "quick": Profile(
            Sizes(Views("flatland", 64, 350, 96, lr=8e-3, bands=7), (16, 32, 64, 128), 350), seeds=3,
            scale="flatland, 64 px, tiny network, grids of 16² to 128², 350 steps",
        ),
        "full": Profile(
            Sizes(Views("lego", 100, 1500, 128, 32, 32, 4e-3, 64, 10, 4), (32, 64, 128), 1500), seeds=3,
            scale="lego, 100×100, 4 × 64, grids of 32³ to 128³, 1,500 steps of 128 rays (GPU: 5,000 of 256)",
            cuda=Sizes(Views("lego", 100, 5000, 256, 32, 64, 1e-3, 64, 10, 4), (32, 64, 128), 5000),
        ),
    }  # fmt: skip
    untried = "Rounding of weights, sparse grids and octrees, and compressed MPIs were not tried."

    def load(self, settings: Any, source: Path | None) -> Scene | None:
        return load_place(settings.views.scene, settings.views.size, source)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        own = settings.views
        views, test = place_of(seed, own.scene, own.size, data)
        net = build("nerf", own, record.streams["init"]).to(record.device)
        train("nerf", net, views, own, record)
        reached = score(renderer("nerf", net, views, own), test, record)
        rows = []
        for n in settings.resolutions:
            grid = DenseGrid(torch.from_numpy(views.aabb), n, own.scene == "flatland").to(record.device)
            rows.append({"resolution": n, "bytes": 4 * grid.table.numel(), "psnr": _fit(grid, views, test, settings,
                                                                                       record)})  # fmt: skip
            if rows[-1]["psnr"] >= reached - 0.5:
                break
        else:
            record.note(f"no grid came within 0.5 dB of the network's {reached:.1f} dB; the largest is counted")
        weights = 4 * _count(net)
        record.table("grids", [{"resolution": 0, "bytes": weights, "psnr": reached}, *rows])
        pair = 4 * 2 * _count(NerfMLP(generator=torch.Generator()))
        v, h, w = PAPER_SCENE
        return {
            "psnr": reached, "psnr_grid": rows[-1]["psnr"], "bytes": weights, "bytes_grid": rows[-1]["bytes"],
            "log_bytes_over_grid": math.log(weights / rows[-1]["bytes"]),
            "log_bytes_over_png": math.log(weights / _png_bytes(views)),
            "log_bytes_over_planes_at_paper_scale": math.log(pair / (v * PLANES * w * h * 4)),
            "log_bytes_over_png_at_paper_scale": math.log(pair / (v * w * h)),
        }  # fmt: skip


def _fit(grid: DenseGrid, views: Capture, test: Capture, settings: Sizes, record: Recorder) -> float:
    queries = settings.views.queries
    fit_dense(
        grid, photos_of(views, record), views.near, views.far, samples=queries, fine_samples=0,
        rays=settings.views.rays, lr=settings.lr, generator=record.streams["noise"], steps=settings.steps,
        log=record.log,
    )  # fmt: skip
    return score(dense_renderer(grid, views.near, views.far, queries, 0), test, record)


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _png_bytes(views: Capture) -> int:
    """Of all photographs as PNG; flatland's, which are one pixel high, as the rows of one."""
    from PIL import Image as Pillow

    pictures = [np.concatenate(list(views.images))] if views.images.shape[1] == 1 else list(views.images)
    total = 0
    for picture in pictures:
        file = io.BytesIO()
        Pillow.fromarray(picture).save(file, "PNG", optimize=True)
        total += len(file.getvalue())
    return total
