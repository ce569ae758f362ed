"""Train, measure, export, and write what the run leaves behind."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from precis.data.imageset import ImageSet
from precis.errors import InputError, need
from precis.nn.cost import count
from precis.nn.norm import recalibrate
from precis.papers.job import Work
from precis.papers.picture_sets import tell_skipped
from precis.papers.work import writing
from precis.train.augment import Augment
from precis.train.checkpoint import save_model
from precis.train.classify import Accuracy, fit_classifier, predict, score, to_input
from precis.train.loop import Budget
from precis.train.schedule import cosine, warmup
from precis.vision.mobilenet_export import for_inference

from .exporting import export_all
from .latency import milliseconds
from .pictures import draw_confusion, draw_predictions
from .reading import SMALL, Pictures, make_model, read_pictures, three_channels
from .traffic import in_parts, traffic

CHECKPOINT = ".checkpoint"
FORMATS = ("pt2", "onnx")
SHOWN = 24


def run_classifier(job: Any, work: Work) -> dict[str, float | None]:
    formats = _formats(job.export)
    pictures, found = read_pictures(job, work)
    others = None if job.predict is None else _others(job, pictures.images.shape[-1])
    size = pictures.images.shape[-1]
    model, arguments = make_model(job, len(pictures.classes), size, work)
    tell_skipped(found, work)
    cost = count(model, torch.zeros(1, 3, size, size))
    trained = recalibrate(_train(job, work, model, pictures), _batches(pictures, work.device))
    save_model(work.folder, trained, arguments)
    _write_labels(work, pictures.classes, size)
    logits = predict(trained, pictures.images[pictures.val], batch=256).cpu()
    scored = score(logits.argmax(1), pictures.labels[pictures.val], len(pictures.classes))
    metrics: dict[str, float | None] = {
        "accuracy": scored.value, "accuracy_low": scored.interval[0], "accuracy_high": scored.interval[1],
        "validation_pictures": float(len(pictures.val)), "parameters": float(cost.params),
        "million_macs": cost.macs / 1e6,
    }  # fmt: skip
    _write_predictions(work, pictures, logits, others, trained)
    _draw(work, pictures, logits, scored, others, trained)
    trained = trained.cpu()
    program = trained if job.expansion_chunks == 1 else in_parts(trained, job.expansion_chunks)
    metrics |= _traffic(trained, pictures.images[pictures.val[:1]], job.expansion_chunks, cost.macs, work)
    metrics |= _latency(program, pictures.images[pictures.val[:1]])
    metrics |= export_all(trained, program, formats, pictures.images[:: max(1, len(pictures.images) // 8)][:8], work)
    return metrics


def _formats(text: str) -> list[str]:
    found = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if found == ["none"]:
        return []
    if not found or set(found) - set(FORMATS):
        raise InputError(f"--export: pt2 and onnx are known, with commas, or none; got {text!r}")
    if "onnx" in found:
        need("onnx")
    return found


def _others(job: Any, size: int) -> ImageSet:
    return ImageSet.open(job.predict, size, keep_going=job.keep_going, background=job.background)


def _train(job: Any, work: Work, model: nn.Module, pictures: Pictures) -> nn.Module:
    """SGD with momentum, a warm-up and a cosine; weight decay 4e-5 and labels smoothed by 0.1 as the authors."""
    size = pictures.images.shape[-1]
    kind = job.augment if job.augment != "auto" else "shift" if size <= SMALL else "photo"
    augment = {
        "photo": Augment(size=size, crop=(0.35, 1), flip=0.5), "shift": Augment(shift_pad=max(1, size // 10)),
        "none": None,
    }[kind]  # fmt: skip
    lr = job.lr or (0.05 if job.weights is None else 0.01)
    with torch.random.fork_rng():  # dropout draws from the global generator
        torch.manual_seed(job.seed)
        return fit_classifier(
            model, (pictures.images[pictures.train], pictures.labels[pictures.train]), augment=augment,
            budget=Budget(epochs=job.epochs, minutes=job.minutes), lr=lr, schedule=warmup(0.05, cosine()),
            batch=job.batch, weight_decay=4e-5, label_smoothing=0.1, standardise=job.weights is None,
            generator=torch.Generator().manual_seed(2 * job.seed + 1), device=work.device, log=work.log,
            folder=work.folder / CHECKPOINT, resume=work.resume,
        ).model  # fmt: skip


def _batches(pictures: Pictures, device: str) -> Iterator[Tensor]:
    """Up to 4,096 training pictures as the net meets them later: without augmentation."""
    some = pictures.train[:: max(1, len(pictures.train) // 4096)]
    return (to_input(pictures.images[part].to(device)) for part in some.split(256))


def _write_labels(work: Work, classes: tuple[str, ...], size: int) -> None:
    """What a program that uses the net has to know beside it."""
    words = {
        "classes": list(classes), "size": size, "crop": "central square", "interpolation": "bicubic, antialiased",
        "input": "RGB, float [B,3,size,size] from 0 to 1; the net standardises it itself", "output": "logits",
    }  # fmt: skip
    with writing(work.folder / "labels.json") as beside:
        beside.write_text(json.dumps(words, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_predictions(
    work: Work, pictures: Pictures, logits: Tensor, others: ImageSet | None, model: nn.Module
) -> None:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["set", "name", "label", "predicted", "probability"])

    def write(kind: str, names: Any, labels: Any, logits: Tensor) -> None:
        for name, label, p in zip(names, labels, logits.softmax(1)):
            rows.writerow([kind, name, label, pictures.classes[int(p.argmax())], f"{float(p.max()):.4f}"])

    names = [pictures.names[i] for i in pictures.val]
    write("validation", names, [pictures.classes[i] for i in pictures.labels[pictures.val]], logits)
    if others is not None:
        labels = [""] * len(others) if others.labels is None else [
            others.classes[i] if i >= 0 else "" for i in others.labels
        ]
        write("predict", others.names, labels, predict(model, three_channels(others.images), batch=256).cpu())
        if others.skipped:
            work.note(f"{len(others.skipped)} pictures of --predict could not be read, such as {others.skipped[0][0]}")
    with writing(work.folder / "predictions.csv") as beside:
        beside.write_text(text.getvalue(), encoding="utf-8")


def _draw(
    work: Work, pictures: Pictures, logits: Tensor, found: Accuracy, others: ImageSet | None, model: nn.Module
) -> None:
    if others is None:
        shown = np.linspace(0, len(pictures.val) - 1, min(SHOWN, len(pictures.val))).round().astype(int)
        images, labels = pictures.images[pictures.val[shown]], pictures.labels[pictures.val[shown]].tolist()
        some = logits[torch.from_numpy(shown)]
    else:
        images = three_channels(others.images[:SHOWN])
        some, labels = predict(model, images, batch=256).cpu(), None
    with writing(work.folder / "predictions.png") as beside:
        beside.write_bytes(draw_predictions(images.numpy(), some.softmax(1).numpy(), pictures.classes, labels))
    with writing(work.folder / "confusion.png") as beside:
        beside.write_bytes(draw_confusion(found.confusion.numpy(), pictures.classes))
    work.show("predictions.png")


def _traffic(model: Any, picture: Tensor, chunks: int, macs: int, work: Work) -> dict[str, float | None]:
    """Bytes beside multiply–accumulates: they, not the MACs, limit a depthwise convolution."""
    found = traffic(model, to_input(picture), chunks)
    widest, moved, peak = (size / 2**20 for size in found)
    how = "whole" if chunks == 1 else f"in {chunks} parts"
    work.note(f"One picture takes {macs / 1e6:.4g} million multiply–accumulates, and depthwise filters read and write "
              f"{moved:.3g} MiB of wide tensors (float32), the widest of {widest:.3g} MiB; with wide tensors computed "
              f"{how} at most {peak:.3g} MiB live at once, weights apart.")  # fmt: skip
    return {"MiB_widest_tensor": widest, "MiB_through_depthwise": moved, "MiB_alive_at_most": peak}


def _latency(model: nn.Module, picture: Tensor) -> dict[str, float | None]:
    """Milliseconds for one picture on one thread, by `for_inference`: median and 90 % of 50 runs."""
    net, x = for_inference(model), to_input(picture)
    median, late = milliseconds(lambda: net(x))
    return {"milliseconds_a_picture": median, "milliseconds_90th_percentile": late}
