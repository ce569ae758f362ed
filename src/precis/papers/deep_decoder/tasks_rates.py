"""Rate and distortion: one picture as codes of several sizes, each beside other files of as many bytes."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from precis.errors import InputError
from precis.fields.deep_decoder import layers_for, width_for_ratio
from precis.fields.deep_decoder_code import decode
from precis.nn.image import psnr
from precis.papers.job import Work
from precis.papers.tiles import kept
from precis.papers.work import save, save_table

from .codecs import FORMS, at_bytes, ladder
from .options import rates_of
from .pictures import CHECKPOINT, Metrics, compare, numpy, rounded, sheet
from .tasks_code import fit_code, steps_of

PIXEL = 3e-8  # seconds of a step on a core, a pixel and a channel, of 20 channels at the least


def run_rates(job: Any, work: Work, image: Tensor) -> Metrics:
    """A decoder for every ratio of --rates; PSNR against bytes, as a chart and a table."""
    size, channels = (int(image.shape[-2]), int(image.shape[-1])), image.shape[1]
    widths = _widths(job, work, size, channels)
    _tell(job, work, size, widths)
    truth, rows = image.cpu(), []
    pixels = rounded(truth)
    files = {name: ladder(pixels, name) for name in ("jpeg", "webp")}
    tiles, labels, curve = [numpy(truth)], ["picture"], {}
    for k, width in enumerate(widths):
        fit = partial(_fit, job, work, image, width, (k, len(widths)))
        part = kept(work.folder / CHECKPOINT / f"k{width}", fit)
        data = bytes(part["data"].numpy())
        save(work.folder / f"code_k{width}.pdd", data)
        shown = torch.from_numpy(rounded(decode(data).float()[None]))[None].float() / 255
        work.image(f"decoded_k{width}", numpy(shown))
        row: dict[str, Any] = {"width": width, "parameters": part["parameters"], "bytes": len(data)}
        row |= {"bits_per_pixel": 8 * len(data) / (size[0] * size[1]), **compare("", shown, truth)}
        for name in FORMS:
            found = at_bytes(pixels, len(data), name, files.get(name))
            if found is not None:
                row |= {f"bytes_{name}": len(found[0]), f"psnr_{name}": float(psnr(found[1], truth))}
        rows.append(row)
        tiles.append(numpy(shown))
        labels.append(f"k {width}, {row['psnr']:.1f} dB, {len(data):,} bytes")
        curve[f"{width} channels"] = part["loss"]
    _write(work, rows, curve)
    for name, (steps, values) in curve.items():
        work.curve(name, steps, values)
    work.note("the weights are in the codes: code_k*.pdd, rounded")
    save(work.folder / "overview.png", sheet(tiles, labels))
    work.show("overview.png")
    work.show("rate.png")
    return _metrics(work, rows)


def _fit(job: Any, work: Work, image: Tensor, width: int, turn: tuple[int, int], place: Path) -> dict[str, Any]:
    k, of = turn
    log = lambda step, total, **more: work.log(k * total + step, of * total, **more)
    minutes = None if job.minutes is None else job.minutes / of
    data, net, fit = fit_code(job, work, image, width, f"decoded_k{width}", folder=place, log=log, minutes=minutes)
    loss, weights = fit.curve["loss"], sum(p.numel() for p in net.parameters())
    return {
        "data": torch.frombuffer(bytearray(data), dtype=torch.uint8), "parameters": weights,
        "loss": [list(loss.steps), list(loss.values)],
    }  # fmt: skip


def _widths(job: Any, work: Work, size: tuple[int, int], channels: int) -> list[int]:
    """Channels for each ratio, ascending, each once."""
    try:
        found = [width_for_ratio(ratio, size, layers_for(size), channels) for ratio in rates_of(job.rates)]
    except ValueError as error:
        raise InputError(f"--rates: {error}") from error
    widths = sorted(set(found))
    if len(widths) < len(found):
        work.note(f"some of the {len(found)} ratios mean the same decoder for so few pixels; each was fitted once")
    return widths


def _tell(job: Any, work: Work, size: tuple[int, int], widths: list[int]) -> None:
    what = f"{len(widths)} decoders of {', '.join(map(str, widths))} channels are fitted one after the other (--rates)"
    if job.minutes is not None:
        work.note(f"{what}, each for {job.minutes / len(widths):.2g} minutes")
    elif work.device == "cpu":
        minutes = PIXEL * steps_of(job, work) * size[0] * size[1] * sum(max(20, width) for width in widths) / 60
        span = "a minute" if minutes < 1.5 else f"{math.ceil(minutes):,} minutes"
        work.note(f"{what}: about {span} on an idle core; --steps or --minutes make it shorter")
    else:
        work.note(what)


def _write(work: Work, rows: list[dict[str, Any]], curve: dict[str, Any]) -> None:
    """rate.csv, rate.png (PSNR against bytes) and loss.png."""
    from precis.lab.figures import curves

    head = list(rows[0])
    save_table(work.folder / "rate.csv", head, [[row[name] for name in head] for row in rows])
    lines = {"Deep Decoder": ([row["bytes"] for row in rows], [row["psnr"] for row in rows])}
    for name, form in FORMS.items():
        if f"psnr_{name}" not in head:
            work.note(f"this build of Pillow writes no {form}: not compared with it")
            continue
        points = dict((row[f"bytes_{name}"], row[f"psnr_{name}"]) for row in rows)  # its shortest file may come twice
        lines[form] = (list(points), list(points.values()))
    chart = curves(lines, x_label="bytes of the file", y_label="PSNR (dB)", marks=True)
    save(work.folder / "rate.png", chart.png())
    chart = curves({name: tuple(line) for name, line in curve.items()}, y_label="training loss", log_y=True)
    save(work.folder / "loss.png", chart.png())


def _metrics(work: Work, rows: list[dict[str, Any]]) -> Metrics:
    """Every number of the table by the decoder's width; where a format has no file so short, a note."""
    metrics: Metrics = {"codes": len(rows)}
    for row in rows:
        metrics |= {f"k{row['width']}_{name}": value for name, value in row.items() if name != "width"}
    for name, form in FORMS.items():
        longer = [row for row in rows if row.get(f"bytes_{name}", 0) > row["bytes"]]
        if longer:
            work.note(f"{form} has no file as short as {len(longer)} of the codes: its shortest was taken")
    return metrics
