"""How a run is doing: test views rendered, beside their photographs, before one background."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from precis.fields.nerf_fit import Renderer, render_view
from precis.papers.job import Work
from precis.papers.valid_pixels import psnr_of

from .loading import Place

WATCHED = 3  # test views that are rendered on the way


def watch(work: Work, place: Place, render: Renderer) -> tuple[Callable[[int], dict[str, float]], list[float],
                                                                 list[float]]:  # fmt: skip
    """A measurement on a few test views, a picture for those who look on; seconds of training and PSNR so far."""
    seconds: list[float] = []
    values: list[float] = []
    clock = [time.perf_counter(), 0.0]  # since when, and what was spent before
    cameras = place.cameras.to(work.device)
    scored = [v for v in place.test if (count := counted(place, v)) is None or count.any()]
    looks = scored[:: max(len(scored) // WATCHED, 1)][:WATCHED]
    name = "psnr" if len(looks) == len(scored) else f"psnr of {len(looks)} views"

    def measure(step: int) -> dict[str, float]:
        clock[1] += time.perf_counter() - clock[0]
        scores: list[float | None] = []
        for v in looks:
            made = picture(render, cameras, v, place)
            scores.append(psnr_of(made, truth_of(place, v), counted(place, v)))
        if looks:
            work.image("latest", np.concatenate([np.moveaxis(x, -1, 0) for x in (made, truth_of(place, v))], 2))
            seconds.append(clock[1])
            values.append(float(np.mean([s for s in scores if s is not None])))
        clock[0] = time.perf_counter()
        return {name: values[-1]} if values else {}

    return measure, seconds, values


def picture(render: Renderer, cameras: Any, view: int, place: Place) -> np.ndarray:
    """One view [H,W,3] on the run's background."""
    made = render_view(render, cameras, view)
    return laid(made.rgb.cpu().numpy(), made.opacity.cpu().numpy(), place)


def laid(rgb: np.ndarray, opacity: np.ndarray, place: Place) -> np.ndarray:
    """Premultiplied colours on the run's background."""
    return np.asarray((rgb + (1 - opacity[..., None]) * place.background).clip(0, 1))


def truth_of(place: Place, view: int) -> np.ndarray:
    """A photograph [H,W,3] on the run's background."""
    x = place.files.images[view].astype(np.float32) / 255
    return x if x.shape[-1] == 3 else laid(x[..., :3] * x[..., 3:], x[..., 3], place)


def counted(place: Place, view: int) -> np.ndarray | None:
    """Which pixels [H,W] of a photograph count, by its `mask_path`; None: all of them."""
    return None if place.files.valid is None else place.files.valid[view]
