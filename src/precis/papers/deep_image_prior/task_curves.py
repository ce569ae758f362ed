"""Figure 2 for a picture of one's own: how fast the network fits it, it with noise, its pixels shuffled, and noise."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from precis.fields.deep_image_prior import SkipNet, dip_input
from precis.fields.restoration import centre_crop, fit_untrained, padded_size
from precis.lab.figures import contact_sheet, curves
from precis.papers.job import Work
from precis.papers.tiles import kept
from precis.papers.work import save

from .fitting import CHECKPOINT, network_of
from .options import TASKS, steps_of
from .pictures import load_picture, shown
from .targets import KINDS, SPREAD, targets
from .tasks import Metrics

LARGEST = 128  # pixels a side: the middle of a larger picture is taken


def run_curves(job: Any, work: Work) -> Metrics:
    picture = load_picture(job.input, work).pixels
    if max(picture.shape[-2:]) > LARGEST:
        h, w = (min(n, LARGEST) for n in picture.shape[-2:])
        picture = centre_crop(picture, (h, w))
        work.note(f"the middle {w}×{h} pixels were taken")
    found, sheet, metrics = {}, [], {}
    for kind in KINDS:
        fit = kept(work.folder / CHECKPOINT / kind, partial(_fit, job, work, picture, kind))
        steps, losses = fit["curve"]
        found[kind] = (steps, [loss / SPREAD**2 for loss in losses])
        work.curve(kind, *found[kind])
        sheet += [shown(fit["target"]), shown(fit["last"])]
        metrics[f"log_error_{kind}"] = sum(math.log(x) for x in found[kind][1]) / len(losses)
    names = {"natural": "picture", "noisy": "picture and noise", "shuffled": "pixels shuffled", "noise": "noise"}
    figure = curves({names[k]: v for k, v in found.items()}, x_label="step", y_label="MSE / variance", log_y=True)
    save(work.folder / "curves.png", figure.png())
    overview = contact_sheet(sheet, columns=2, header=["target", "fitted"], rows=list(names.values()))
    save(work.folder / "overview.png", overview)
    work.show("curves.png")
    work.note("no weights were written: the four networks were fitted to be compared, and restore nothing")
    gap = metrics["log_error_shuffled"] - metrics["log_error_natural"]
    return {"shuffled_over_natural": math.exp(gap), **metrics}


def _fit(job: Any, work: Work, picture: Tensor, kind: str, place: Path) -> dict[str, Any]:
    """One of the four, that goes on from its checkpoint in `place`: its target, last output and losses."""
    size, options, turn = (picture.shape[-2], picture.shape[-1]), network_of(job, work), KINDS.index(kind)
    multiple = 2 ** len(options["down"])
    whole = padded_size((max(size[0], 2 * multiple), max(size[1], 2 * multiple)), multiple)
    generator = torch.Generator().manual_seed(job.seed)
    _, target = targets(kind, picture, generator)
    net = SkipNet(32, picture.shape[1], **options, generator=generator).to(work.device)
    z = dip_input("noise", 32, whole, generator=generator).to(work.device)
    fit = fit_untrained(
        net, z, target.to(work.device), crop=size, steps=steps_of(job, "curves", work.device), stop="steps",
        minutes=None if job.minutes is None else job.minutes / len(KINDS), lr=job.lr or TASKS["curves"].lr,
        log=lambda step, total, **more: work.log(turn * total + step, len(KINDS) * total, **more),
        folder=place, resume=work.resume,
    )  # fmt: skip
    steps, losses = fit.curve["loss"]
    return {"target": target, "last": fit.last.cpu(), "curve": [list(steps), list(losses)]}
