"""The fast model on a claim's scene."""

import numpy as np
import torch

from precis.data.scenes3d import Capture
from precis.fields.nerf_fast import FastModel, fast_model, fast_renderer, fit_fast
from precis.fields.nerf_fit import Measure
from precis.lab.claim import Recorder

from .arms import Views, pictures, score
from .places import cameras_of, photos_of


def silhouettes(views: Capture) -> torch.Tensor | None:
    """Where photographs with opacity show anything."""
    return torch.from_numpy(views.images[..., 3] > 0) if views.images.shape[-1] == 4 else None


def make_model(views: Capture, record: Recorder, carved: bool = True) -> FastModel:
    box = torch.from_numpy(views.aabb)
    masks = silhouettes(views) if carved else None
    return fast_model(cameras_of(views, record), box, masks, generator=record.streams["init"])


def train_fast(
    model: FastModel, views: Capture, record: Recorder, *, steps: int, order: np.ndarray | None = None,
    measure: Measure | None = None, every: int = 100,
) -> None:  # fmt: skip
    fit_fast(
        model, photos_of(views, record, order), near=views.near, far=views.far, generator=record.streams["noise"],
        steps=steps, measure=measure, every=every, log=record.log,
    )  # fmt: skip


def fit_place(arm: str, views: Capture, test: Capture, settings: Views, record: Recorder) -> np.ndarray:
    """The fast model trained and its test views; "wrong_cameras" has cameras permuted, and no hull to betray it."""
    order = None
    if arm == "wrong_cameras":
        order = torch.randperm(len(views.c2w), generator=record.streams["data"]).numpy()
    model = make_model(views, record, carved=order is None)
    render = fast_renderer(model, near=views.near, far=views.far)
    curve: dict[str, list[float]] = {"step": [], "psnr": []}

    def measure(step: int) -> dict[str, float]:
        curve["step"].append(step)
        curve["psnr"].append(score(render, test, record))
        return {"psnr": curve["psnr"][-1]}

    train_fast(model, views, record, steps=settings.steps, order=order, measure=measure, every=settings.every)
    record.curve("psnr", curve["step"], curve["psnr"])
    return pictures(render, test, record)
