"""Equations solved by a net that is told nothing but the equation: `helmholtz` and `wave`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from precis.data.animation import write_animation
from precis.data.images import resize
from precis.errors import InputError
from precis.fields.siren_fit import evaluate
from precis.fields.siren_pde import fit_helmholtz, fit_wave, map_lookup
from precis.lab.figures import contact_sheet
from precis.nn.coordinates import coordinate_grid
from precis.papers.job import Work
from precis.papers.work import save, writing

from .common import Metrics, batch_of, diverging, draw, finish, make_net, numpy, training, write_curve
from .differences import helmholtz_by_differences, wave_by_differences
from .options import pair, side
from .pictures import load_grey, size_of

FRAMES, SOURCE, PULSE = 25, 0.06, 0.1  # frames of a wave; widths of a source and of a first displacement


def run_helmholtz(job: Any, work: Work) -> Metrics:
    """(Δ + m k²) Φ = f with absorbing borders; m = 1/c² from the grey map; beside finite differences."""
    speed = load_speeds(job, work, "0.5,1")
    centre, k = _centre(job), job.wavenumber or 20.0
    m = torch.from_numpy(1 / speed**2).float().to(work.device)
    variance = (job.source_width or SOURCE) ** 2
    net = make_net(job, work, 2, 2, _width(work))
    run = fit_helmholtz(
        net, generator=draw(job, "batches"), wavenumber=k, squared_slowness=map_lookup(m), centre=centre,
        variance=variance, batch=batch_of(job), **training(job, work),
    )
    size = side(job, 256)
    slowness = 1 / _on_grid(speed, size) ** 2
    made = numpy(evaluate(net, (size, size)))
    field, exact = made[0] + 1j * made[1], helmholtz_by_differences(slowness, k, centre, variance)
    inside = np.abs(coordinate_grid((size, size)).numpy()).max(1).reshape(size, size) < 0.5
    away = np.hypot(*(coordinate_grid((size, size)).numpy() - centre).T).reshape(size, size) > 0.05
    free = inside & away  # outside of absorbing layers and source
    error = float(np.linalg.norm((field - exact)[free]) / np.linalg.norm(exact[free]))
    with writing(work.folder / "field.npz") as beside:
        np.savez_compressed(beside, field=field.astype(np.complex64), differences=exact.astype(np.complex64),
                            squared_slowness=slowness.astype(np.float32), wavenumber=k, centre=centre,
                            source_width=variance**0.5)  # fmt: skip
    top = float(np.percentile(np.abs(exact), 99.5))
    parts = [diverging(x, top) for z in (field, exact) for x in (z.real, z.imag)]
    strength = [np.clip(np.abs(z) / top, 0, 1) for z in (field, exact)]
    tiles = [parts[0], parts[1], strength[0], parts[2], parts[3], strength[1]]
    work.image("field", parts[0])
    save(work.folder / "overview.png", contact_sheet(
        tiles, columns=3, header=["real part", "imaginary part", "modulus"],
        rows=[f"SIREN ({100 * error:.0f} % off)", "finite differences"], size=256,
    ))  # fmt: skip
    work.show("overview.png")
    work.note("the outer half of the square absorbs: the field is meant for |x|, |y| < 0.5")
    write_curve(work, "loss.png", run, "loss", "residual", log_y=True)
    metrics: Metrics = {"relative_error": error, "residual": run.curves["loss"].values[-1]}
    return metrics | finish(work, net)


def run_wave(job: Any, work: Work) -> Metrics:
    """∂²_t Φ = c² ΔΦ from a displacement at rest; frames, and the error against finite differences."""
    speed = load_speeds(job, work, "0.5,2")
    if job.initial is not None and (job.source or job.source_width) is not None:
        raise InputError("--initial and --source both say where the wave starts; give one of them")
    start = _initial(job)
    until, look = job.until or 0.4, map_lookup(torch.from_numpy(start).float().to(work.device))
    c = map_lookup(torch.from_numpy(speed).float().to(work.device))
    net = make_net(job, work, 3, 1, _width(work))
    run = fit_wave(
        net, lambda x: look(x)[:, None], generator=draw(job, "batches"), speed=c, until=until, batch=batch_of(job),
        **training(job, work),
    )
    size = side(job, 256)
    made, exact, error = compare_waves(net, start, speed, until, size)
    top = float(np.abs(exact[0]).max()) or 1.0
    film = np.stack([np.concatenate([diverging(a, top), diverging(b, top)], 2) for a, b in zip(made, exact)])
    write_animation(work.folder / "wave.webp", film, FRAMES / 2.5)
    write_animation(work.folder / "frames", np.stack([diverging(a, top) for a in made]))
    pick = np.linspace(0, FRAMES - 1, 5).round().astype(int)
    tiles = [diverging(u[i], top) for u in (made, exact) for i in pick]
    header = [f"t = {until * i / (FRAMES - 1):.2g}" for i in pick]
    rows = ["SIREN", "finite differences"]
    save(work.folder / "overview.png", contact_sheet(tiles, columns=5, header=header, rows=rows, size=192))
    work.show("wave.webp")
    work.show("overview.png")
    work.note("wave.webp: SIREN on the left, finite differences on the right; no border condition is set, so that "
              "the solution is determined only where no wave can have come from outside")  # fmt: skip
    write_curve(work, "residual.png", run, "loss", "residual", log_y=True)
    metrics: Metrics = {"relative_error": error, "residual": run.curves["loss"].values[-1]}
    return metrics | {"frames": FRAMES, "until": until} | finish(work, net)


def compare_waves(
    net: Any, start: np.ndarray, speed: np.ndarray, until: float, size: int
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Frames [T,n,n] of the net and of finite differences; relative L2 error where the solution is determined."""
    like = next(net.parameters())
    place = coordinate_grid((size, size), device=like.device)
    times = np.linspace(0, until, FRAMES)
    frames = []
    with torch.no_grad():
        for t in times:
            x = torch.cat([torch.full_like(place[:, :1], float(t)), place], 1)
            frames.append(numpy(torch.cat([net(part) for part in x.split(1 << 16)])).reshape(size, size))
    made, c = np.stack(frames), _on_grid(speed, size)
    exact = wave_by_differences(_on_grid(start, size), c, until, FRAMES)
    border = 1 - np.abs(numpy(place)).max(1).reshape(size, size)
    known = border[None] > c.max() * times[:, None, None]
    norm = np.linalg.norm(exact[known])
    return made, exact, float(np.linalg.norm((made - exact)[known]) / norm) if norm > 0 else None


def load_speeds(job: Any, work: Work, default: str) -> np.ndarray:
    """Speeds [h,w] of the grey map."""
    low, high = pair("--speeds", job.speeds or default)
    if min(low, high) <= 0:
        raise InputError(f"--speeds must be above 0, got {low:g},{high:g}")
    grey = load_grey(job.input)
    if grey.shape[0] != grey.shape[1]:
        work.note(f"the map is {grey.shape[1]}×{grey.shape[0]}: either side is stretched to −1 … 1")
    return np.asarray(low + (high - low) * grey)


def _initial(job: Any) -> np.ndarray:
    """The first displacement [h,w]: a picture, or a Gaussian about --source."""
    if job.initial is None:
        line = (2 * np.arange(256) + 1) / 256 - 1
        row, column = _centre(job)
        square = (line[:, None] - row) ** 2 + (line[None, :] - column) ** 2
        return np.asarray(np.exp(-square / (2 * (job.source_width or PULSE) ** 2)))
    (h, w), (y, x) = size_of(job.input), size_of(job.initial)
    if (h, w) != (y, x):
        words = f"it is {x}×{y} pixels, and the map of speeds {w}×{h}; make them equal"
        raise InputError(words, file=Path(job.initial))
    return load_grey(job.initial)


def _centre(job: Any) -> tuple[float, float]:
    """--source X,Y as (row, column)."""
    x, y = pair("--source", job.source or "0,0")
    if max(abs(x), abs(y)) > 1:
        raise InputError(f"--source must lie within −1 … 1, got {x:g},{y:g}")
    return y, x


def _on_grid(array: np.ndarray, size: int) -> np.ndarray:
    return array if array.shape == (size, size) else np.asarray(resize(array[None].astype(np.float32), (size, size))[0])


def _width(work: Work) -> int:
    return 256 if work.device.startswith("cuda") else 128
