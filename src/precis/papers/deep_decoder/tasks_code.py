"""A picture as a `.pdd` file, and back: `compress` and `decompress`."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precis.errors import InputError
from precis.fields.deep_decoder import DeepDecoder, layers_for, width_for_ratio
from precis.fields.deep_decoder_code import decode, noise_schedule, pack, read_header, width_for_bytes
from precis.fields.restoration import Fit, centre_crop, fit_untrained
from precis.nn.image import psnr
from precis.papers.job import Work
from precis.papers.work import save
from precis.train.schedule import cosine

from .codecs import FORMS, at_bytes, jpeg_bytes
from .pictures import (
    Metrics,
    compare,
    draw,
    finish,
    load,
    longest_of,
    numpy,
    options_of,
    rounded,
    sheet,
    watch,
    write_curves,
)  # fmt: skip

RATIO = 0.031


class Fitted(NamedTuple):
    """The bytes of a code, the decoder as it was fitted, and its fit."""

    data: bytes
    net: DeepDecoder
    fit: Fit


def run_compress(job: Any, work: Work) -> Metrics:
    """Fit a decoder, round its weights, and say what JPEG, JPEG 2000 and WebP make of as many bytes."""
    picture = load(job, work, job.input, longest_of(job, work))
    image = picture.tensor(work.device).clamp(0, 1)
    if job.rates is not None:
        from .tasks_rates import run_rates

        return run_rates(job, work, image)
    size, channels = (int(image.shape[-2]), int(image.shape[-1])), image.shape[1]
    width = _width(job, size, layers_for(size), channels, job.bits or 8)
    data, net, fit = fit_code(job, work, image, width)
    save(work.folder / "code.pdd", data)
    made = decode(data).float()[None]
    shown = torch.from_numpy(rounded(made))[None].float() / 255
    work.image("decoded", numpy(shown))
    with torch.no_grad():
        whole = net(net.input_for(size, job.seed))
    before = centre_crop(whole, size)
    truth = image.cpu()
    values = channels * size[0] * size[1]
    metrics: Metrics = compare("", shown, truth)
    metrics |= {"bytes": len(data), "psnr_unrounded": float(psnr(before.cpu(), truth))}
    metrics |= finish(job, work.folder, net)
    weights = metrics["parameters"]
    assert weights is not None
    metrics |= {"ratio": weights / values, "bytes_per_pixel": len(data) / (size[0] * size[1]), "raw_bytes": values}
    tiles, labels = [numpy(truth), numpy(shown)], ["picture", _label("Deep Decoder", metrics["psnr"], len(data))]
    for name, form in FORMS.items():
        found = at_bytes(rounded(truth), len(data), name)
        if found is None:
            work.note(f"this build of Pillow writes no {form}: not compared with it")
            continue
        file, other = found
        metrics |= {f"psnr_{name}": float(psnr(other, truth)), f"bytes_{name}": len(file)}
        tiles.append(numpy(other))
        labels.append(_label(form, metrics[f"psnr_{name}"], len(file)))
        if len(file) > len(data):
            work.note(f"{form} has no file of {len(data)} bytes for this picture: its shortest, {len(file)}, was taken")
    metrics["bytes_jpeg_at_equal_psnr"] = jpeg_bytes(rounded(truth), truth, metrics["psnr"])
    work.image("error", np.clip(10 * np.abs(numpy(shown) - numpy(truth)).mean(0), 0, 1))
    save(work.folder / "overview.png", sheet(tiles, labels))
    work.show("overview.png")
    write_curves(work, fit.curve)
    return metrics


def fit_code(job: Any, work: Work, image: Tensor, width: int, name: str = "decoded", **options: Any) -> Fitted:
    """The code of `image` [1,C,H,W] by a decoder of `width` channels, seen on the way as the picture `name`.

    options: in place of `options_of`'s.
    """
    size, channels = (int(image.shape[-2]), int(image.shape[-1])), image.shape[1]
    net = DeepDecoder(width, layers_for(size), channels, order=job.order, generator=draw(job, "init")).to(work.device)
    rate = 0.005 if work.device.startswith("cuda") else 0.01
    options = options_of(job, work, steps_of(job, work), rate) | options
    fit = fit_untrained(
        net, net.input_for(size, job.seed), image, crop=size, stop="loss", generator=draw(job, "noise"),
        input_noise=noise_schedule(0.005, options["steps"] or 20_000), schedule=cosine(0.05),
        callback=watch(work, name, image), every=max(1, (options["steps"] or 1000) // 20), **options,
    )  # fmt: skip
    return Fitted(pack(net, size, job.seed, job.bits or 8), net, fit)


def steps_of(job: Any, work: Work) -> int:
    """Steps of a compression that no clock limits."""
    return int(job.steps or (20_000 if work.device.startswith("cuda") else 1500))


def run_decompress(job: Any, work: Work) -> Metrics:
    """The picture of a code, from its bytes alone."""
    data = Path(job.input).read_bytes()
    try:
        header = read_header(data)
        made = decode(data)
    except ValueError as error:
        raise InputError(str(error), file=job.input) from error
    work.image("decoded", rounded(made))
    work.show("decoded.png")
    return {
        "bytes": len(data), "height": header.size[0], "image_width": header.size[1], "channels": header.channels,
        "width": header.width, "layers": header.layers, "bits": header.bits,
    }  # fmt: skip


def _width(job: Any, size: tuple[int, int], layers: int, channels: int, bits: int) -> int:
    if job.width is not None:
        return int(job.width)
    try:
        if job.bytes is not None:
            return width_for_bytes(job.bytes, size, layers, channels, bits)
        return width_for_ratio(job.ratio or RATIO, size, layers, channels)
    except ValueError as error:
        raise InputError(f"--{'bytes' if job.bytes is not None else 'ratio'}: {error}") from error


def _label(name: str, decibel: float | int | None, size: int) -> str:
    shown = "identical" if decibel is not None and math.isinf(decibel) else f"{decibel:.1f} dB"
    return f"{name}, {shown}, {size:,} bytes"
