"""The job: convert the model, train it with the bound, remove what is noise, and write what is left."""

import copy
import csv
import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.errors import InputError
from precis.nn.norm import BatchNorm, recalibrate
from precis.papers.job import Work
from precis.papers.labelled import Labelled, Part, read_labelled
from precis.papers.pruning import Net, export, open_net, right, weights_of
from precis.papers.work import writing
from precis.sparsity.masks import MaskedTraining
from precis.sparsity.variational_dropout import (
    bound,
    clip_log_alpha_,
    kl_ramp,
    model_kl,
    set_generator,
    sparsity,
    threshold_masks,
    to_dense,
    variational_layers,
    variationalize,
)
from precis.sparsity.variational_dropout_kl import Kind
from precis.train.classify import to_input
from precis.train.loop import Budget, fit, index_batches

from .pictures import draw_log_alpha, draw_pixels, draw_thresholds
from .training import hold_then_fall

Phase = tuple[str, int]  # name, epochs


def sparsify(job: Any, work: Work) -> dict[str, float | None]:
    if not job.ramp[0] < job.ramp[1]:
        raise InputError(f"--ramp {job.ramp[0]:g} {job.ramp[1]:g}: the weight rises from the first to the second share")
    data = read_labelled(job, work)
    net, data = open_net(job, work, data, torch.Generator().manual_seed(job.seed))
    names = [name.removesuffix(".weight") for name in weights_of(net, job)]
    noisy = _converted(job, copy.deepcopy(net.model), names, net.trained)
    left_out = sorted(set(names) - {name for name, _ in variational_layers(noisy)})
    if left_out:
        work.note(f"These weights stay as they are, since other layers read them: {', '.join(left_out[:6])}.")
    phases: list[Phase] = [("dense", 0 if net.trained else job.epochs), ("sparse", job.epochs),
                           ("finetune", job.finetune_epochs)]  # fmt: skip
    run = partial(_train, job, work, data, phases)
    dense = copy.deepcopy(net.model)
    if not net.trained:
        run("dense", dense, lambda x, y, _: {"loss": F.cross_entropy(dense(x), y)})
    _check_baseline(work, dense, data, net)
    noise = torch.Generator(work.device).manual_seed(job.seed)
    set_generator(noisy, noise)
    run("sparse", noisy, partial(_bound, job, noisy, len(data.train.y)), keep={"noise": noise})
    clip_log_alpha_(noisy)
    masks = threshold_masks(noisy)
    pruned = _recalibrated(to_dense(noisy), data)
    metrics = _describe(job, work, noisy, data)
    if job.finetune_epochs:
        with MaskedTraining(pruned, masks):
            run("finetune", pruned, lambda x, y, _: {"loss": F.cross_entropy(pruned(x), y)})
    metrics = export(work, net, dense, pruned, masks, data) | metrics
    _check_collapse(job, work, dense, pruned, data)
    return {name: None if value is None else float(value) for name, value in metrics.items()}


def _converted(job: Any, model: nn.Module, names: list[str], trained: bool) -> nn.Module:
    """The layers with their noise: log σ² begins at −10, and lower where that would remove a trained weight at once.

    In a net that has learned nothing yet no weight is worth sparing, and smaller noise would let more of them grow to
    where the clip of log α keeps them for good.
    """
    if job.original:
        return variationalize(model, names, log_sigma2=math.inf, clip=0.0, threshold=job.threshold,
                              parametrization="multiplicative", train_clip=job.train_clip)  # fmt: skip
    return variationalize(model, names, max_log_alpha=-3.0 if trained else None, threshold=job.threshold,
                          train_clip=job.train_clip)  # fmt: skip


def _bound(job: Any, model: nn.Module, n: int, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
    clip_log_alpha_(model)
    weight = job.kl_weight * kl_ramp(progress, *job.ramp)
    kind: Kind = "kingma" if job.original else "sigmoid"
    return bound(model(x), y, model, n_train=n, kl_weight=weight, kind=kind)._asdict()


def _train(
    job: Any, work: Work, data: Labelled, phases: list[Phase], phase: str, model: nn.Module,
    loss: Callable[[Tensor, Tensor, float], dict[str, Tensor]], keep: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """One phase, with a checkpoint of its own; progress counts over all phases."""
    x, y = (t.to(work.device) for t in data.train)
    size = min(job.batch, len(y))
    order = index_batches(len(y), size, torch.Generator().manual_seed(job.seed), drop_last=True)
    steps = {name: epochs * len(order) for name, epochs in phases}
    done, whole = sum(list(steps.values())[: list(steps).index(phase)]), sum(steps.values())
    budget = Budget(steps=steps[phase])
    rate = job.lr or min(1e-2, max(1e-3, 6 / steps[phase]))
    if phase == "finetune":
        rate /= 10

    def step(chosen: Tensor) -> dict[str, Tensor]:
        chosen = chosen.to(x.device)
        return loss(to_input(x[chosen]), y[chosen], budget.progress)

    fit(
        step, order, budget=budget, schedule=partial(hold_then_fall, 0.5),
        optimizer=torch.optim.Adam(model.train().parameters(), rate, fused=x.device.type == "cpu"),
        log=lambda at, _, **scalars: work.log(done + at, whole, **scalars), folder=work.folder / f".{phase}",
        resume=work.resume, keep={"model": model} | (keep or {}),
    )  # fmt: skip
    model.eval()


def _check_baseline(work: Work, dense: nn.Module, data: Labelled, net: Net) -> None:
    if net.trained:
        work.note("Of the model, as it came trained, the dense accuracy is too good if it has seen the test examples; "
                  "a folder with train.parquet and test.parquet keeps them apart.")  # fmt: skip
    accuracy = right(dense, data.test).mean()
    chance = _chance(data.test)
    if accuracy <= chance:
        whose = "The given weights are" if net.trained else "The model trained without noise is"
        work.note(f"{whose} no better than guessing ({100 * accuracy:.1f} % of the test part, the commonest class "
                  f"{100 * chance:.1f} %): what is left after pruning means little.")  # fmt: skip


def _chance(part: Part) -> float:
    """The share of the commonest class."""
    return float(torch.bincount(part.y).max()) / len(part.y)


def _guesses(accuracy: float, part: Part) -> bool:
    """Whether an accuracy is that of a guess: not above the commonest class's share by two standard deviations."""
    share = _chance(part)
    return accuracy <= share + 2 * math.sqrt(share * (1 - share) / len(part.y))


def _check_collapse(job: Any, work: Work, dense: nn.Module, pruned: nn.Module, data: Labelled) -> None:
    """Say so, and what to do, where the dense network had learned and what is left of it guesses."""
    before, after = (float(right(model, data.test).mean()) for model in (dense, pruned))
    if not _guesses(after, data.test) or _guesses(before, data.test):
        return
    rows = f"more than --rows {job.rows}" if job.rows is not None else f"more than these {len(data.train.y)} examples"
    less = f", or --kl-weight below {job.kl_weight:g}, which is no variational bound" if job.kl_weight <= 1 else (
        f", or --kl-weight 1 instead of {job.kl_weight:g}")  # fmt: skip
    noise = f", or a higher --threshold than {job.threshold:g}" if job.threshold < 3 else ""
    work.note(f"The network collapsed: it guesses ({100 * after:.1f} % of the test part; dense {100 * before:.1f} %). "
              "The run was too short, or the KL term too strong, for the weights to pay.  Try more --epochs "
              f"({3 * job.epochs}, not {job.epochs}), {rows}, a later --ramp ({min(0.5, 2 * job.ramp[0] + 0.1):g} "
              f"{min(0.9, job.ramp[1] + 0.4):g}){less}{noise}.")  # fmt: skip


def _recalibrated(model: nn.Module, data: Labelled) -> nn.Module:
    """Batch norms saw noise in training: their statistics are taken anew."""
    if any(isinstance(m, BatchNorm) for m in model.modules()):
        device = next(model.parameters()).device
        recalibrate(model, (to_input(part.to(device)) for part in data.train.x.split(500)))
    return model


def _describe(job: Any, work: Work, noisy: nn.Module, data: Labelled) -> dict[str, float | None]:
    """Pictures and figures of the noise, before the network becomes an ordinary one."""
    with writing(work.folder / "log_alpha.png") as beside:
        beside.write_bytes(draw_log_alpha(noisy, job.threshold))
    work.show("log_alpha.png")
    first = variational_layers(noisy)[0][1]
    if len(data.shape) == 3 and first.weight.ndim == 2 and first.weight.shape[1] == math.prod(data.shape):
        kept = first.mask().sum(0).view(data.shape).sum(0)
        with writing(work.folder / "pixels.png") as beside:
            beside.write_bytes(draw_pixels(kept, data.train.x))
        work.note(f"{int((kept == 0).sum())} of {kept.numel()} pixels are not looked at by any unit of the first "
                  "layer.")  # fmt: skip
    if job.threshold_sweep:
        _sweep(job, work, noisy, data)
    kl, n = float(model_kl(noisy, "kingma" if job.original else "sigmoid").detach()), len(data.train.y)
    total, kept_weights = (sum(getattr(row, name) for row in sparsity(noisy)) for name in ("total", "kept"))
    words = "" if job.kl_weight == 1 else " (no variational bound, which has 1)"
    work.note(f"KL weight {job.kl_weight:g}{words}: {kl:.0f} nats for all weights, {kl / n:.3g} for each of {n} "
              "training examples.  Fewer examples make the KL term weigh more, and more weights go.")  # fmt: skip
    if not kept_weights:
        work.note("Every weight was removed: a constant is predicted.  Either the labels have nothing to do with the "
                  "inputs, or the training was too short or on too few examples for the weights to pay.")  # fmt: skip
    elif kept_weights == total:
        work.note("No weight was removed: train longer, or at a larger rate (log α has to travel from −3 or below to "
                  f"{job.threshold:g}).")  # fmt: skip
    return {"kl_nats": kl, "kl_weight": float(job.kl_weight), "threshold": float(job.threshold)}


def _sweep(job: Any, work: Work, noisy: nn.Module, data: Labelled) -> None:
    """Validation accuracy and compression at thresholds around the one that is used."""
    rows, some = [], Part(data.val.x[:2000], data.val.y[:2000])
    for threshold in sorted({*(t / 2 for t in range(-8, 17)), job.threshold}):
        layers = sparsity(noisy, threshold)
        kept, total = (sum(getattr(row, name) for row in layers) for name in ("kept", "total"))
        plain = _recalibrated(to_dense(noisy, threshold), data)
        rows.append((threshold, kept, total / max(1, kept), float(right(plain, some).mean())))
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["threshold", "surviving", "compression", "validation_accuracy"])
    table.writerows((f"{t:g}", kept, f"{c:.4g}", f"{a:.5f}") for t, kept, c, a in rows)
    with writing(work.folder / "thresholds.csv") as beside:
        beside.write_text(text.getvalue())
    with writing(work.folder / "thresholds.png") as beside:
        beside.write_bytes(draw_thresholds(rows, job.threshold))
    used = next(row for row in rows if row[0] == job.threshold)
    if _guesses(used[3], some):
        return  # nothing is gained by removing more of a network that guesses
    good = min(row for row in rows if row[3] >= used[3] - 0.005)
    if good[0] < used[0] and good[2] > 1.05 * used[2]:
        work.note(f"On the validation part --threshold {good[0]:g} would remove more, {good[2]:.3g}× instead of "
                  f"{used[2]:.3g}×, at {100 * good[3]:.1f} % instead of {100 * used[3]:.1f} %.")  # fmt: skip
