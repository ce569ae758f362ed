"""A sound or a clip as a function of time (and place): `audio` and `video`."""

from typing import Any

import numpy as np
import torch

from precis.data.animation import read_frames, write_animation
from precis.data.audio import read_wav, write_wav
from precis.data.images import Image, as_bytes, as_float, composite, shrink
from precis.fields.siren_fit import evaluate, evaluate_image, fit_values, to_values
from precis.lab.figures import contact_sheet, curves
from precis.nn.coordinates import coordinate_grid
from precis.papers.job import Work
from precis.papers.work import save

from .common import (
    Metrics,
    Scalars,
    batch_of,
    draw,
    file_bytes,
    finish,
    make_net,
    numpy,
    psnr_of,
    training,
    write_curve,
)  # fmt: skip
from .options import side

LONGEST_SECONDS = 60


def run_audio(job: Any, work: Work) -> Metrics:
    """Φ(t) = the samples, one output a channel; amplitude divided by its maximum, time in −1 … 1 under ω = 3,000."""
    sound = read_wav(job.input)
    channels, n = sound.samples.shape
    seconds = n / sound.rate
    if seconds > LONGEST_SECONDS:
        wide = int(np.ceil(256 * (seconds / LONGEST_SECONDS) ** 0.5 / 64) * 64 + 256)
        work.note(f"{seconds:.0f} s of sound is more than a net of width {job.width or 256} holds well: "
                  f"try --width {wide}, or cut it to {LONGEST_SECONDS} s")  # fmt: skip
    peak = float(np.abs(sound.samples).max()) or 1.0
    wanted = torch.from_numpy(sound.samples / peak).to(work.device)
    coords, values = coordinate_grid((n,), device=work.device), wanted.T.contiguous()
    net = make_net(job, work, 1, channels)
    run = fit_values(
        net, coords, values, batch=batch_of(job), generator=draw(job, "batches"),
        **training(job, work, lambda net: {"snr": snr(numpy(wanted), numpy(evaluate(net, (n,))))}),
    )
    made = numpy(evaluate(net, (n,)))
    truth = numpy(wanted)
    write_wav(work.folder / "reconstruction.wav", made * peak, sound.rate)
    if job.rate is not None:
        size = max(1, round(seconds * job.rate))
        write_wav(work.folder / f"reconstruction_{job.rate}hz.wav", numpy(evaluate(net, (size,))) * peak, job.rate)
    _pictures_of_sound(work, truth, made, sound.rate)
    write_curve(work, "snr.png", run, "snr", "SNR (dB)")
    metrics: Metrics = {"snr": snr(truth, made), "mse": float(np.mean((truth - made) ** 2))}
    metrics |= {"seconds": seconds, "rate": sound.rate, "channels": channels} | finish(work, net)
    return metrics | {"source_bytes": file_bytes(job.input)}


def snr(truth: np.ndarray, made: np.ndarray) -> float:
    """Signal-to-noise ratio in dB, −120 … 120."""
    power, noise = float(np.mean(truth.astype(float) ** 2)), float(np.mean((truth.astype(float) - made) ** 2))
    return float(np.clip(10 * np.log10(max(power, 1e-30) / max(noise, 1e-30)), -120, 120))


def run_video(job: Any, work: Work) -> Metrics:
    """Φ(t, row, column) = the frames; random pixels of all of them a step."""
    frames, fps = _load_frames(job, work)
    array = torch.from_numpy(frames).to(work.device)
    shape = tuple(array.shape[1:])
    coords, values = to_values(array, align_corners=job.align_corners)
    net = make_net(job, work, 3, len(array))
    pick = np.unique(np.linspace(0, shape[0] - 1, min(8, shape[0])).round().astype(int))
    looked_at = coords.reshape(*shape, 3)[torch.from_numpy(pick).to(coords.device)].reshape(-1, 3)

    def measure(net: Any) -> Scalars:
        values = torch.cat([net(part) for part in looked_at.split(1 << 16)])
        made = numpy((values + 1) / 2).T.reshape(len(array), len(pick), *shape[1:])
        work.image("reconstruction", made[:, len(pick) // 2])
        return {"psnr": min(psnr_of(frames[:, pick], made.clip(0, 1)), 120.0)}

    options = training(job, work, measure)
    run = fit_values(net, coords, values, batch=batch_of(job), generator=draw(job, "batches"), **options)
    made = numpy(evaluate_image(net, shape, align_corners=job.align_corners)).clip(0, 1)
    rate = job.fps or fps
    count = max(1, round(shape[0] * rate / fps))
    shown = made
    if count != shape[0]:
        shown = numpy(evaluate_image(net, (count, *shape[1:]), align_corners=job.align_corners)).clip(0, 1)
    out = shown.swapaxes(0, 1)
    write_animation(work.folder / "reconstruction.webp", out, rate)
    write_animation(work.folder / "frames", out)
    error = np.clip(10 * np.abs(made - frames).mean(0), 0, 1)
    rows = [*frames.swapaxes(0, 1)[pick], *made.swapaxes(0, 1)[pick], *error[pick]]
    names = ("clip", "SIREN", "error × 10")
    header = [f"frame {i}" for i in pick]
    sheet = contact_sheet(rows, columns=len(pick), header=header, rows=names, size=128)
    save(work.folder / "overview.png", sheet)
    work.show("reconstruction.webp")
    work.show("overview.png")
    write_curve(work, "psnr.png", run, "psnr", "PSNR (dB)")
    rounded = as_float(as_bytes(made)), as_float(as_bytes(frames))
    metrics: Metrics = {"psnr": psnr_of(*rounded), "frames": count, "fps": rate}
    metrics |= finish(work, net)
    return metrics | {"pixels": float(np.prod(shape))}


def _load_frames(job: Any, work: Work) -> tuple[np.ndarray, float]:
    """float32 [C,T,H,W] in [0, 1] reduced to the working size, and frames a second."""
    clip = read_frames(job.input)
    if clip.pixels.dtype != np.uint8 and (clip.pixels.min() < 0 or clip.pixels.max() > 1):
        from precis.errors import InputError

        raise InputError("the frames hold values outside of 0 … 1", file=job.input)
    longest = side(job, 256 if work.device.startswith("cuda") else 64)
    if clip.alpha is not None:
        work.note(f"transparent pixels were laid on {job.background or 'white'} (--background)")
    frames = []
    for i, pixels in enumerate(clip.pixels):
        image = Image(pixels, None if clip.alpha is None else clip.alpha[i], {})
        frames.append(as_float(shrink(composite(image, job.background or "white"), longest).pixels).clip(0, 1))
    channels = max(len(frame) for frame in frames)
    stack = np.stack([np.broadcast_to(frame, (channels, *frame.shape[1:])) for frame in frames], 1)
    (t, h, w), (full_h, full_w) = stack.shape[1:], clip.pixels.shape[2:]
    if (h, w) != (full_h, full_w):
        work.note(f"{t} frames of {full_w}×{full_h} pixels were reduced to {w}×{h} (--size)")
    if clip.fps is None and job.fps is None:
        work.note("the frames say nothing of their rate: 25 a second were taken (--fps)")
    return np.ascontiguousarray(stack), clip.fps or job.fps or 25.0


def _pictures_of_sound(work: Work, truth: np.ndarray, made: np.ndarray, rate: int) -> None:
    """Spectrograms of both and of what is missing; a few milliseconds about the loudest place as curves."""
    pictures = [spectrogram(x[0], rate, reference=truth[0]) for x in (truth, made, truth - made)]
    top = f"0 … {rate / 2000:g} kHz"
    labels = [f"sound, {top}", f"SIREN, {snr(truth, made):.1f} dB", "what is missing"]
    save(work.folder / "overview.png", contact_sheet(pictures, labels, columns=3, size=256))
    work.show("overview.png")
    half = max(8, min(truth.shape[1] // 2, rate // 100))
    middle = int(np.clip(np.abs(truth[0]).argmax(), half, max(half, truth.shape[1] - half)))
    window = slice(middle - half, middle + half)
    time = 1000 * np.arange(truth.shape[1])[window] / rate
    lines = {"sound": (time, truth[0, window]), "SIREN": (time, made[0, window])}
    save(work.folder / "waveform.png", curves(lines, x_label="time (ms)", y_label="amplitude").png())


def spectrogram(x: np.ndarray, rate: int, reference: np.ndarray) -> np.ndarray:
    """Power over time (right) and frequency (up) [3,H,W], 80 dB below the reference's peak to the peak."""
    from matplotlib import colormaps
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    n = int(min(512, max(16, 2 ** int(np.log2(max(16, len(x) / 8))))))
    hop = max(1, len(x) // 384)
    transform = ShortTimeFFT(hann(n), hop, rate)
    pad = np.zeros(max(0, n - len(x)))
    power, top = (np.abs(transform.stft(np.concatenate([y, pad]))) for y in (x, reference))
    level = 20 * np.log10(np.maximum(power, 1e-12) / max(float(top.max()), 1e-12))
    colours = colormaps["magma"](np.clip(1 + level[::-1] / 80, 0, 1))
    return np.asarray(np.moveaxis(colours[..., :3], -1, 0))
