"""Curves and other functions from a table: learn from most of them, predict the rest from a few points: `functions`."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.errors import InputError
from precis.fields.neural_process import CNP
from precis.fields.neural_process_fit import fit_functions, glorot_
from precis.fields.neural_process_variants import LatentCNP
from precis.lab.figures import curves
from precis.papers.job import Work
from precis.papers.work import save, writing
from precis.train.checkpoint import save_model

from .calibration import Calibration
from .charts import ASKED, asked_chart, predictions_chart
from .common import Metrics, batch_of, draw, size_of, training, width_of, write_curve
from .peers import Shared, alone, own_gp, shared_gp
from .reading import Function, Functions, read_functions

FEW, HELD, TARGETS = 20, 0.2, 64
CONTEXTS = (1, 3, 5, 10, 20)  # points shown when scoring
BANDS = {50: 0.6744897501960817, 90: 1.6448536269514722}


@dataclass(frozen=True)
class Scale:
    """Affine maps to zero mean and unit deviation over the training functions, computed in float64.

    sigma: what the network's standard deviations are multiplied by.
    """

    x_mean: np.ndarray
    x_std: np.ndarray
    y_mean: np.ndarray
    y_std: np.ndarray
    sigma: float = 1.0

    @classmethod
    def of(cls, functions: list[Function]) -> "Scale":
        x, y = (np.concatenate([getattr(f, name) for f in functions]) for name in ("x", "y"))
        spread = lambda v: np.where(v.std(0) > 1e-12 * np.abs(v).max(0).clip(1e-300), v.std(0), 1.0)
        return cls(x.mean(0), spread(x), y.mean(0), spread(y))

    def inputs(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy((x - self.x_mean) / self.x_std).float()

    def values(self, y: np.ndarray) -> Tensor:
        return torch.from_numpy((y - self.y_mean) / self.y_std).float()


def build(
    x_dim: int, y_dim: int, width: int = 128, min_sigma: float = 0.05, latent: bool = False, seed: int = 0
) -> CNP:  # fmt: skip
    """The neural process of the job, its weights drawn as in the paper's notebook."""
    generator = torch.Generator().manual_seed(seed)
    kind = LatentCNP if latent else CNP
    net = kind(x_dim, y_dim, width, (width,) * 3, (width,) * 2, min_sigma, generator)
    glorot_(net, generator)
    return net


def run_functions(job: Any, work: Work) -> Metrics:
    """Train on four fifths of the functions, score the others, predict where it is asked for."""
    found = read_functions(job.input)
    x_dim = len(found.x_names)
    if job.grid is not None and x_dim > 1:
        raise InputError(f"--grid is for functions of one variable, these have {x_dim}: leave rows of empty y instead")
    learnt_from = [f for f in found.items if len(f.x)]
    if len(learnt_from) == 1:
        if len(learnt_from[0].x) < 3:
            raise InputError("one function of so few points: give a table of many functions", file=job.input)
        raise InputError(f"one function is a GP's job: {alone(learnt_from[0])}", file=job.input)
    if all(len(f.x) == 1 for f in learnt_from):
        raise InputError("every function has one point: there is nothing to predict from anything", file=job.input)
    train, held = split(learnt_from, draw(job, "split"))
    if job.recalibrate and len(held) < 2:
        raise InputError(f"--recalibrate takes half of the held-out functions, and {len(held)} of the "
                         f"{len(learnt_from)} can be held out", file=job.input)  # fmt: skip
    _tell(work, found, train, held)
    scale = Scale.of(train)
    config = {"x_dim": x_dim, "y_dim": len(found.y_names), "width": width_of(job), "min_sigma": job.min_sigma or 0.05,
              "latent": job.latent, "seed": job.seed}  # fmt: skip
    net = build(**config).to(work.device)
    x, y, mask = (t.to(work.device) for t in padded(train, scale))
    run = fit_functions(
        net, x, y, mask, generator=draw(job, "batches"), batch=batch_of(job), context=shown(train), points=TARGETS,
        **training(job, work),
    )  # fmt: skip
    net.eval()
    save_model(work.folder, net, config, component=f"{__name__}:build")
    pooled = shared_gp(train, scale)
    if job.recalibrate:
        reserve, held = held[::2], held[1::2]
        scale = replace(scale, sigma=errors_of(net, scale, reserve, draw(job, "eval")).sigma_scale())
        work.note(f"--recalibrate: σ is multiplied by {scale.sigma:.3g}, the likeliest factor on {len(reserve)} of the "
                  "held-out functions; scores and coverage are those of the others.  model.safetensors has σ without "
                  "it.")  # fmt: skip
    metrics = score(work, net, scale, pooled, held, draw(job, "eval"))
    rows = write_predictions(job, work, net, scale, found)
    if x_dim == 1:
        asked = asked_of(job, found)
        held_out = "held_out.png" if asked else "predictions.png"
        save(work.folder / held_out, predictions_chart(net, scale, held, found, pooled).png())
        work.show(held_out)
        if asked:
            if len(asked) > ASKED:
                work.note(f"predictions.png has the first {ASKED} of the {len(asked)} functions that were asked for; "
                          "predictions.csv has them all")  # fmt: skip
            save(work.folder / "predictions.png", asked_chart(net, scale, asked, found, pooled).png())
            work.show("predictions.png")
    write_curve(work, run, "−log Q per target, standardised (nats)")
    counts = {"train_functions": len(train), "held_out_functions": len(held), "predictions": rows}
    return metrics | counts | ({"sigma_scale": scale.sigma} if job.recalibrate else {}) | size_of(net)


def split(functions: list[Function], generator: torch.Generator) -> tuple[list[Function], list[Function]]:
    """Four fifths to train, and of the rest those with two points or more to score; at least one of each."""
    order = torch.randperm(len(functions), generator=generator).tolist()
    order.sort(key=lambda i: len(functions[i].x) < 2)  # functions that cannot be scored go to the training
    count = max(1, round(HELD * len(functions)))
    held = [functions[i] for i in order[:count] if len(functions[i].x) > 1]
    return [functions[i] for i in order[count:]], held


def shown(functions: list[Function]) -> int:
    """The most context points in training: half of the longest function's, at least 10 and at most 50."""
    longest = max(len(f.x) for f in functions)
    return max(min(10, longest), min(50, longest // 2))


def padded(functions: list[Function], scale: Scale) -> tuple[Tensor, Tensor, Tensor]:
    """x [F,P,dx], y [F,P,dy], both standardised, and the mask [F,P] of what is there."""
    longest = max(len(f.x) for f in functions)
    x = torch.zeros(len(functions), longest, functions[0].x.shape[1])
    y, mask = torch.zeros(*x.shape[:2], functions[0].y.shape[1]), torch.zeros(x.shape[:2], dtype=torch.bool)
    for i, f in enumerate(functions):
        x[i, : len(f.x)], y[i, : len(f.x)], mask[i, : len(f.x)] = scale.inputs(f.x), scale.values(f.y), True
    return x, y, mask


@torch.no_grad()
def predict(net: CNP, scale: Scale, x: np.ndarray, y: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [m,dy], in the table's units, at places [m,dx] given observations x, y."""
    device = next(net.parameters()).device
    found = net(*(t[None].to(device) for t in (scale.inputs(x), scale.values(y), scale.inputs(at))))
    mean, std = (t[0].double().cpu().numpy() for t in (found.mean, found.stddev))
    return mean * scale.y_std + scale.y_mean, std * scale.y_std * scale.sigma


def questions(
    functions: list[Function], generator: torch.Generator
) -> Iterator[tuple[Function, np.ndarray, np.ndarray]]:  # fmt: skip
    """(function, rows shown, rows asked for), of at most 50 functions, for each of CONTEXTS that is less than all."""
    for f in functions[:50]:
        order = torch.randperm(len(f.x), generator=generator).numpy()[:500]
        for n in [c for c in CONTEXTS if c < len(order)]:
            yield f, order[:n], order[n:]


def errors_of(net: CNP, scale: Scale, functions: list[Function], generator: torch.Generator) -> Calibration:
    """The network's standardised errors on functions."""
    found = Calibration()
    for f, known, rest in questions(functions, generator):
        mean, std = predict(net, scale, f.x[known], f.y[known], f.x[rest])
        found.add(len(known), (f.y[rest] - mean) / std)
    return found


def score(
    work: Work, net: CNP, scale: Scale, pooled: Shared, held: list[Function], generator: torch.Generator
) -> Metrics:  # fmt: skip
    """NLL, RMSE and coverage of held-out functions by number of points shown, beside Gaussian processes.

    coverage_50 and coverage_90 are those of bands at one count; calibration.png has all levels for few, some and many.
    """
    methods = {"CNP": lambda x, y, at: predict(net, scale, x, y, at), "GP, shared kernel": pooled.predict,
               "GP, own kernel": own_gp}  # fmt: skip
    table: dict[tuple[str, int], list[list[float]]] = {}
    bands = Calibration()
    for f, known, rest in questions(held, generator):
        for name, method in methods.items():
            if name == "GP, own kernel" and len(known) < 3:
                continue
            mean, std = method(f.x[known], f.y[known], f.x[rest])
            table.setdefault((name, len(known)), []).append(_scores(f.y[rest], mean, std))
            if name == "CNP":
                bands.add(len(known), (f.y[rest] - mean) / std)
    rows = [
        {"method": name, "points shown": n, "functions": len(found), **dict(zip(NAMES, np.mean(found, 0)))}
        for (name, n), found in sorted(table.items(), key=lambda item: (item[0][1], item[0][0]))
    ]
    with writing(work.folder / "scores.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, ["method", "points shown", "functions", *NAMES])
        out.writeheader()
        out.writerows(rows)
    lines: dict[str, Any] = {}
    for name in methods:
        mine = [r for r in rows if r["method"] == name]
        if mine:
            lines[name] = ([r["points shown"] for r in mine], [r["nll"] for r in mine])
    chart = curves(lines, x_label="points shown", y_label="−log likelihood per point (nats)")
    save(work.folder / "scores.png", chart.png())
    if not rows:
        work.note("no held-out function has two points: nothing could be scored")
        return {"nll": None}
    save(work.folder / "calibration.png", bands.chart().png())
    for note in bands.notes("points", mended=scale.sigma != 1):
        work.note(note)
    scored = {r["points shown"]: r["functions"] for r in rows if r["method"] == "CNP"}
    most = max(n for n, functions in scored.items() if 2 * functions >= max(scored.values()))
    last = {r["method"]: r for r in rows if r["points shown"] == most}
    metrics: Metrics = {name: last["CNP"][name] for name in NAMES}
    metrics |= {"calibration_error": bands.error(most), "points_shown": most}
    for peer, short in (("GP, shared kernel", "gp_shared"), ("GP, own kernel", "gp_own")):
        if peer in last:
            metrics |= {f"{name}_{short}": last[peer][name] for name in NAMES}
    return metrics


NAMES = ("nll", "rmse", "coverage_50", "coverage_90")


def _scores(y: np.ndarray, mean: np.ndarray, std: np.ndarray) -> list[float]:
    z = (y - mean) / std
    nll = (0.5 * z**2 + np.log(std) + 0.5 * math.log(2 * math.pi)).sum(1).mean()
    inside = [float((np.abs(z) <= width).mean()) for width in BANDS.values()]
    return [float(nll), float(np.sqrt(((y - mean) ** 2).mean())), *inside]


def grid_of(job: Any, found: Functions) -> np.ndarray:
    """Evenly spread places [m,1] over the range of x of all functions."""
    every = np.concatenate([f.x for f in found.items] + [f.ask for f in found.items])
    return np.linspace(every.min(), every.max(), job.grid or 100)[:, None]


def asked_of(job: Any, found: Functions) -> list[tuple[Function, np.ndarray]]:
    """Functions of one variable, and the places [m,1] where they were asked for: empty y, or --grid."""
    if job.grid is not None:
        return [(f, grid_of(job, found)) for f in found.items]
    return [(f, f.ask) for f in found.items if len(f.ask)]


def write_predictions(job: Any, work: Work, net: CNP, scale: Scale, found: Functions) -> int:
    """predictions.csv: mean, deviation and bands where y is empty, else (or with --grid) on a grid; rows written."""
    grid = None
    if len(found.x_names) == 1 and (job.grid is not None or not found.asked):
        grid = grid_of(job, found)
    header = ["id", *found.x_names]
    for name in found.y_names:
        header += [f"{name}_mean", f"{name}_std", *(f"{name}_{end}{b}" for b in BANDS for end in ("low", "high"))]
    count = 0
    with writing(work.folder / "predictions.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(header)
        for f in found.items:
            at = grid if grid is not None else f.ask if found.asked else f.x
            if not len(at):
                continue
            mean, std = predict(net, scale, f.x, f.y, at)
            for place, m, s in zip(at, mean, std):
                cells = [v for a, b in zip(m, s) for v in (a, b, *(a + sign * w * b for w in BANDS.values()
                                                                for sign in (-1, 1)))]  # fmt: skip
                out.writerow([f.name, *(repr(float(v)) for v in place), *(f"{v:.6g}" for v in cells)])
                count += 1
    return count


def _tell(work: Work, found: Functions, train: list[Function], held: list[Function]) -> None:
    for note in found.notes:
        work.note(note)
    if len(train) + len(held) < FEW:
        work.note(
            f"{len(train) + len(held)} functions are few to learn from: every step takes other points of them, and "
            "beside it a Gaussian process is the first thing to try"
        )
    for name, spread in zip(found.y_names, np.concatenate([f.y for f in train]).std(0)):
        if spread == 0:
            work.note(f"{name} is the same everywhere in the training functions: there is nothing to learn")
