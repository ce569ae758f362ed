"""A picture as a `.pdd` file, and back: `compress` and `decompress`."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.errors import InputError
from precis.fields.deep_decoder import DeepDecoder, layers_for, width_for_ratio
from precis.fields.deep_decoder_code import decode, noise_schedule, pack, read_header, width_for_bytes
from precis.fields.restoration import centre_crop, fit_untrained
from precis.nn.image import psnr
from precis.papers.job import Work
from precis.papers.work import save
from precis.train.schedule import cosine

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


def run_compress(job: Any, work: Work) -> Metrics:
    """Fit a decoder, round its weights, and say what JPEG and JPEG 2000 make of as many bytes."""
    picture = load(job, work, job.input, longest_of(job, work))
    image = picture.tensor(work.device).clamp(0, 1)
    size = (image.shape[-2], image.shape[-1])
    layers, channels, bits = layers_for(size), image.shape[1], job.bits or 8
    width = _width(job, size, layers, channels, bits)
    net = DeepDecoder(width, layers, channels, order=job.order, generator=draw(job, "init")).to(work.device)
    cuda = work.device.startswith("cuda")
    options = options_of(job, work, 20_000 if cuda else 1500, 0.005 if cuda else 0.01)
    fit = fit_untrained(
        net, net.input_for(size, job.seed), image, crop=size, stop="loss", generator=draw(job, "noise"),
        input_noise=noise_schedule(0.005, options["steps"] or 20_000), schedule=cosine(0.05),
        callback=watch(work, "decoded", image), every=max(1, (options["steps"] or 1000) // 20), **options,
    )  # fmt: skip
    data = pack(net, size, job.seed, bits)
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
    metrics |= finish(job, work, net)
    weights = metrics["parameters"]
    assert weights is not None
    metrics |= {"ratio": weights / values, "bytes_per_pixel": len(data) / (size[0] * size[1]), "raw_bytes": values}
    tiles, labels = [numpy(truth), numpy(shown)], ["picture", _label("Deep Decoder", metrics["psnr"], len(data))]
    for name, form in (("jpeg", "JPEG"), ("jpeg2000", "JPEG 2000")):
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


def at_bytes(pixels: np.ndarray, most: int, name: str) -> tuple[bytes, Tensor] | None:
    """The best file of not more than `most` bytes (else the shortest), and its picture [1,C,H,W]; None: no encoder."""
    if name == "jpeg":
        files = [encoded(pixels, "JPEG", quality=q, optimize=True) for q in range(1, 96)]
        fitting = [file for file in files if len(file) <= most]
        best = max(fitting, key=len) if fitting else min(files, key=len)
    else:
        from PIL import features

        if not features.check("jpg_2000"):
            return None
        best = b""
        for slack in (0, 60, 120, 200, 300):  # the rate that is asked for leaves out the headers
            rate = pixels.size / max(most - slack, 16)
            options = {"quality_mode": "rates", "quality_layers": [rate], "irreversible": True, "no_jp2": True}
            best = encoded(pixels, "JPEG2000", **options)
            if len(best) <= most:
                break
    return best, decoded(best)


def jpeg_bytes(pixels: np.ndarray, truth: Tensor, decibel: float | int | None) -> int | None:
    """Bytes of the shortest JPEG that is not worse; None if none is as good."""
    files = (encoded(pixels, "JPEG", quality=q, optimize=True) for q in range(1, 101))
    good = [len(file) for file in files if decibel is not None and float(psnr(decoded(file), truth)) >= decibel]
    return min(good) if good else None


def encoded(pixels: np.ndarray, form: str, **options: Any) -> bytes:
    from precis.data.images import to_pillow

    out = io.BytesIO()
    to_pillow(pixels).save(out, form, **options)
    return out.getvalue()


def decoded(file: bytes) -> Tensor:
    from precis.data.images import as_float, read_image

    return torch.from_numpy(as_float(read_image(file).pixels))[None]


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
