"""What a layer of a network still knows of a picture: the picture that the prior finds with the same activations."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from precis.data.images import resize
from precis.data.program import Program, load_program
from precis.errors import InputError
from precis.fields.deep_image_prior import SkipNet, dip_input, feature_inversion
from precis.fields.restoration import padded_size
from precis.lab.figures import curves, strip
from precis.nn.tape import feature_map, layers
from precis.papers.job import Work
from precis.papers.tiles import Window, kept, tell
from precis.papers.work import save

from .fitting import CHECKPOINT, network_of, save_net
from .options import TASKS, steps_of
from .pictures import load_picture, scores, shown
from .tasks import Metrics

MOST = {"cpu": 512 * 512, "cuda": 1024 * 1024}  # pixels: some 1.5 and 6 GB, with the user's network little more
SECONDS = 1.7e-5  # of a step on two cores, a pixel, whatever the size: the finest scales take the time


def run_invert(job: Any, work: Work) -> Metrics:
    picture = _bounded(load_picture(job.input, work).pixels, work).to(work.device)
    program = _network(job, work, picture.shape[1])
    if program.note:
        work.note(program.note)
    names = _layers(program, picture, job)
    layer = job.layer or names[len(names) // 2]
    if layer not in names:
        raise InputError(f"there is no layer {layer!r}; from the input: {', '.join(names)}")
    if job.layer is None:
        work.note(f"the layer {layer} was inverted (--layer); from the input there are {', '.join(names)}")
    model = _features(program, layer)
    features = model(picture).detach()
    if not features.any():
        raise InputError(f"all activations of {layer} are 0 for this picture; name another --layer")
    size, steps = (picture.shape[-2], picture.shape[-1]), steps_of(job, "invert", work.device)
    if work.device == "cpu" and steps is not None and job.minutes is None:
        minutes = SECONDS * math.prod(size) * steps / 60
        tell(work, [Window(0, 0, *size)], 1, minutes, "--steps, --minutes or a smaller picture")
    fit = kept(work.folder / CHECKPOINT / "invert", partial(_invert, job, work, picture, features, model))
    made, curve = fit["best"].to(work.device), fit["curve"]
    error = float((model(made) - features).square().sum() / features.square().sum())
    work.image("inverted", shown(made))
    save(work.folder / "overview.png", strip([shown(picture), shown(made)], ["the picture", f"from {layer}"], size=256))
    work.show("overview.png")
    work.curve("loss", *curve)
    series = {"relative error of features": tuple(curve)}
    save(work.folder / "curve.png", curves(series, x_label="step", y_label="relative error", log_y=True).png())
    return {"feature_error": error, **scores(made, picture), "features": features.numel()}


def _bounded(picture: Tensor, work: Work) -> Tensor:
    """The picture, reduced where the fit of one so large would take more memory than most machines have."""
    most, (h, w) = MOST["cpu" if work.device == "cpu" else "cuda"], picture.shape[-2:]
    if h * w <= most:
        return picture
    share = (most / (h * w)) ** 0.5
    size = (max(1, int(h * share)), max(1, int(w * share)))
    work.note(
        f"{w}×{h} pixels were reduced to {size[1]}×{size[0]}: features are inverted in one piece, and of more than "
        f"{most:,} pixels that takes too much memory; give a picture of the size that the network was made for"
    )
    return torch.from_numpy(resize(picture[0].numpy(), size)).clamp(0, 1)[None]


def _invert(
    job: Any, work: Work, picture: Tensor, features: Tensor, model: Callable[[Tensor], Tensor], place: Path
) -> dict[str, Any]:
    """One fit, that goes on from its checkpoint in `place`; its weights are written."""
    size, options = (picture.shape[-2], picture.shape[-1]), network_of(job, work)
    multiple = 2 ** len(options["down"])
    whole = padded_size((max(size[0], 2 * multiple), max(size[1], 2 * multiple)), multiple)
    init, noise = (torch.Generator().manual_seed(2 * job.seed + i) for i in range(2))
    arguments = {"in_ch": 32, "out_ch": picture.shape[1], **options}
    net = SkipNet(**arguments, generator=init).to(work.device)
    z = dip_input("noise", 32, whole, generator=init).to(work.device)
    fit = feature_inversion(
        net, z, features, model, steps=steps_of(job, "invert", work.device), lr=job.lr or TASKS["invert"].lr,
        minutes=job.minutes, crop=size, generator=noise, log=work.log, every=50, folder=place,
        resume=work.resume,
        callback=lambda step, out, average: work.image("inverted", shown(average)),
    )  # fmt: skip
    save_net(work.folder, net, arguments)
    return {"best": fit.best.cpu(), "curve": [list(fit.curve["loss"].steps), list(fit.curve["loss"].values)]}


def _network(job: Any, work: Work, channels: int) -> Program:
    if job.model is not None:
        return load_program(job.model, job.weights).to(work.device)
    work.note("no --model was named: a small convolutional network with random weights was inverted")
    return Program("eager", demonstration(channels, torch.Generator().manual_seed(0)).to(work.device))


def demonstration(channels: int, generator: torch.Generator) -> nn.Module:
    """Four convolutions of fixed random filters with ReLUs, each but the first halving the picture."""
    sizes = [channels, 16, 32, 64, 64]
    parts: list[nn.Module] = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        conv = nn.Conv2d(a, b, 3, 1 if i == 0 else 2, 1, device="meta").to_empty(device="cpu")
        nn.init.normal_(conv.weight, std=(2 / (9 * a)) ** 0.5, generator=generator)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        parts += [conv, nn.ReLU()]
    return nn.Sequential(*parts).requires_grad_(False).eval()


def _layers(program: Program, picture: Tensor, job: Any) -> list[str]:
    """Names from the input to the output; a layer that eager modules have is a name too."""
    try:
        found = [layer.name for layer in reversed(layers(program, picture))]
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        shape = "×".join(map(str, picture.shape))
        reason = str(error).strip().splitlines()[0][:120]
        raise InputError(f"the network does not take this picture, {shape} ({reason})", file=job.model) from error
    if not found:
        raise InputError("no layer with weights takes part in what this network computes", file=job.model)
    modules = dict(program.module.named_modules()) if program.kind == "eager" else {}
    return found + ([job.layer] if job.layer in modules and job.layer not in found and job.layer else [])


def _features(program: Program, layer: str) -> Callable[[Tensor], Tensor]:
    """The activation for one picture (a program of fixed batch repeats it)."""
    whole = feature_map(program, layer)
    return lambda x: whole(x)[:1]
