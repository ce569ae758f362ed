"""The fields that NeRF's claims compare, and how one arm is trained and scored.

nerf             the method: encoded position and direction, coarse and fine samples
raw_xyz          position and direction as they are, the width adjusted to as many parameters
half_bands, more_bands   half as many bands, and half as many more
uniform          as many network queries a ray, all of them evenly spread
no_direction     colour from position alone
wrong_cameras    broken: photographs have one another's cameras
foreign_bands    broken: the sines and cosines are those of another ray's point
foreign_weights  broken: fine samples follow the weights of another ray
foreign_direction  broken: colours see the direction of another ray
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from precis.data.scenes3d import Capture
from precis.fields.nerf import NerfMLP, tiny_nerf
from precis.fields.nerf_fit import Measure, Renderer, dense_renderer, fit_dense, render_view
from precis.lab.claim import Recorder
from precis.nn.cost import match_width

from .places import cameras_of, photos_of

CAP = 60.0
GOAL = 18.0  # dB, to be reached from another scene's weights or from none


@dataclass(frozen=True)
class Views:
    """A scene, its side in pixels, and the training: steps of `rays`, coarse and fine samples, rate, width, bands.

    deep: the paper's network, 8 layers and half as wide for the colour, in place of the small one of 4.
    watched: so many of the test views are rendered every so many steps, for the curves; 0: all.  The end is all views'.
    """

    scene: str
    size: int
    steps: int
    rays: int = 128
    coarse: int = 12
    fine: int = 24
    lr: float = 4e-3
    width: int = 64
    bands: int = 6
    dir_bands: int = 2
    every: int = 25
    fast: bool = False  # the fast model in place of the network, for the method itself
    deep: bool = False
    watched: int = 0

    @property
    def queries(self) -> int:
        """Of the network, a ray: the coarse pass, and the fine pass over all samples."""
        return 2 * self.coarse + self.fine


class ForeignBands(nn.Module):
    """Broken: each point keeps its coordinates and gets the sines and cosines of a point of another ray."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.out_dim = inner, inner.out_dim

    def forward(self, x: Tensor) -> Tensor:
        other = self.inner(x.roll(max(len(x) // 2, 1), 0))
        return torch.cat([x, other[..., x.shape[-1] :]], -1)


class ForeignDirection(nn.Module):
    """Broken: each ray's colour gets the direction of another ray."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.out_dim = inner, inner.out_dim

    def forward(self, d: Tensor) -> Tensor:
        out: Tensor = self.inner(d.roll(max(len(d) // 2, 1), 0))
        return out


def build(arm: str, settings: Views, generator: torch.Generator) -> NerfMLP:
    """The arm's network."""
    bands = {"raw_xyz": 0, "half_bands": settings.bands // 2, "more_bands": settings.bands * 3 // 2}
    n = bands.get(arm, settings.bands)
    if arm == "raw_xyz":
        target = sum(p.numel() for p in build("nerf", settings, torch.Generator()).parameters())
        make = lambda w, g: _net(settings, 0, 0, True, w, g)
        return make(match_width(lambda w: make(w, torch.Generator()), target), generator)
    net = _net(settings, n, settings.dir_bands, arm != "no_direction", settings.width, generator)
    if arm == "foreign_bands":
        net.position = ForeignBands(net.position)  # type: ignore[assignment]
    if arm == "foreign_direction":
        net.direction = ForeignDirection(net.direction)  # type: ignore[assignment]
    return net


def _net(
    settings: Views, bands: int, dir_bands: int, directed: bool, width: int, generator: torch.Generator
) -> NerfMLP:
    if settings.deep:
        return NerfMLP(8, width, 4, bands, dir_bands, directed, colour_width=width // 2, density="softplus",
                       generator=generator)  # fmt: skip
    return tiny_nerf(bands, dir_bands, directed, width=width, generator=generator)


def samples_of(arm: str, settings: Views) -> tuple[int, int]:
    """Coarse and fine samples a ray."""
    return (settings.queries, 0) if arm == "uniform" else (settings.coarse, settings.fine)


def train(
    arm: str, net: NerfMLP, views: Capture, settings: Views, record: Recorder, test: Capture | None = None, *,
    measure: Measure | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """Fit an arm's network; the curve of its PSNR on watched views of `test`, every so many steps (or by `measure`)."""
    order = None
    if arm == "wrong_cameras":
        order = torch.randperm(len(views.c2w), generator=record.streams["data"]).numpy()
    curve: dict[str, list[float]] = {"step": [], "psnr": []}

    def psnr_now(step: int) -> dict[str, float]:
        assert test is not None
        value = score(renderer(arm, net, views, settings), watched(test, settings), record)
        curve["step"].append(step)
        curve["psnr"].append(value)
        return {"psnr": value}

    coarse, fine = samples_of(arm, settings)
    fit_dense(
        net, photos_of(views, record, order), views.near, views.far, samples=coarse, fine_samples=fine,
        rays=settings.rays, lr=settings.lr, generator=record.streams["noise"], steps=settings.steps,
        shuffle=arm == "foreign_weights", measure=measure or (psnr_now if test is not None else None),
        every=settings.every, log=record.log,
    )  # fmt: skip
    return curve


def renderer(arm: str, net: Any, views: Capture, settings: Views) -> Renderer:
    return dense_renderer(net, views.near, views.far, *samples_of(arm, settings), shuffle=arm == "foreign_weights")


def watched(test: Capture, settings: Views) -> Capture:
    """The test views that curves are measured on."""
    n = settings.watched or len(test.images)
    return replace(test, images=test.images[:n], c2w=test.c2w[:n], K=test.K[:n], masks=None, depth=None)


def score(render: Renderer, test: Capture, record: Recorder) -> float:
    """Mean over the test views of the PSNR of each, on white, at most 60 dB."""
    return float(np.mean([psnr(made, truth) for made, truth in zip(pictures(render, test, record), test.rgb())]))


def pictures(render: Renderer, test: Capture, record: Recorder) -> np.ndarray:
    """Renderings of the test views [V,H,W,3]."""
    cameras = cameras_of(test, record)
    return np.stack([render_view(render, cameras, v).rgb.cpu().numpy() for v in range(len(cameras))])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return min(-10 * np.log10(error), CAP) if error > 0 else CAP


def shown(record: Recorder, name: str, made: np.ndarray, test: Capture) -> None:
    """Flatland: all test views as rows, rendered above true; else the first test view beside its truth."""
    truth = test.rgb()
    if made.shape[1] == 1:
        rows = np.concatenate([np.repeat(np.stack([made[:, 0], truth[:, 0]], 1), 4, 1).reshape(-1, *made.shape[2:])])
        record.image(name, np.moveaxis(rows, -1, 0))
    else:
        record.image(name, np.moveaxis(np.concatenate([made[0], truth[0]], 1), -1, 0))


def steps_to(curve: dict[str, list[float]], goal: float) -> float:
    """Steps at which the curve first reaches `goal`, between two measurements in proportion; one more than all that
    were taken, if it never does."""
    before = (0.0, 0.0)
    for step, value in zip(curve["step"], curve["psnr"]):
        if value >= goal:
            share = (goal - before[1]) / max(value - before[1], 1e-9)
            return max(before[0] + share * (step - before[0]), 1.0)
        before = (step, value)
    return before[0] + 1


def nearest_views(views: Capture, test: Capture) -> np.ndarray:
    """For each test camera the training photograph whose camera looks most nearly the same way from the same place."""
    place = views.c2w[:, :, 3] - test.c2w[:, None, :, 3]
    turn = np.arccos(np.clip((views.c2w[:, :, 2] * test.c2w[:, None, :, 2]).sum(-1), -1, 1))
    radius = np.linalg.norm(views.c2w[:, :, 3] - views.c2w[:, :, 3].mean(0), axis=1).mean()
    return np.asarray((np.linalg.norm(place, axis=-1) / radius + turn).argsort(1))


def blind(arm: str, views: Capture, test: Capture) -> np.ndarray:
    """Baselines that learn nothing: the nearest photograph, the mean colour."""
    seen = views.rgb()
    if arm == "nearest_view":
        return seen[nearest_views(views, test)[:, 0]]
    return np.broadcast_to(seen.mean((0, 1, 2)), test.rgb().shape).astype(np.float32)
