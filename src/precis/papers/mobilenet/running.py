"""Train, measure, export, and write what the run leaves behind."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from precis.data.imageset import ImageSet
from precis.errors import InputError, need
from precis.lab.words import counted
from precis.nn.cost import count
from precis.nn.norm import recalibrate
from precis.papers.job import Work
from precis.papers.picture_sets import tell_skipped
from precis.papers.told import Predicted, tell_guessing, write_predictions
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
    model, arguments = make_model(job, pictures.classes, size, work)
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
    tell_guessing(work.note, scored)
    said = None if others is None else predict(trained, three_channels(others.images), batch=256).cpu()
    _write_predictions(work, pictures, logits, others, said)
    truth = None if others is None else _truth(pictures.classes, others)
    if said is not None and truth is not None:
        metrics |= _score_others(said, truth)
    _draw(work, pictures, logits, scored, others, said, truth)
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
    work: Work, pictures: Pictures, logits: Tensor, others: ImageSet | None, said: Tensor | None
) -> None:
    truth = [pictures.classes[i] for i in pictures.labels[pictures.val].tolist()]
    parts = [Predicted("validation", [pictures.names[i] for i in pictures.val], truth, logits)]
    if others is not None and said is not None:
        labels = [""] * len(others) if others.labels is None else [
            others.classes[i] if i >= 0 else "" for i in others.labels
        ]
        parts.append(Predicted("predict", others.names, labels, said))
        if others.skipped:
            work.note(f"{counted(len(others.skipped), 'picture')} of --predict could not be read, such as "
                      f"{others.skipped[0][0]}")  # fmt: skip
    write_predictions(work.folder / "predictions.csv", parts, pictures.classes)


def _truth(classes: tuple[str, ...], others: ImageSet) -> Tensor:
    """Labels [N] of other pictures as the trained classes count them; −1 where there is none, or of another name."""
    if others.labels is None:
        return torch.full((len(others),), -1)
    at = [classes.index(name) if name in classes else -1 for name in others.classes]
    return torch.tensor([at[i] if i >= 0 else -1 for i in others.labels.tolist()])


def _score_others(said: Tensor, truth: Tensor) -> dict[str, float | None]:
    """Accuracy on the pictures of --predict whose class is one of the trained ones, if there are any."""
    if not (truth >= 0).any():
        return {}
    found = score(said.argmax(1), truth, said.shape[1])
    return {"accuracy_predict": found.value, "accuracy_predict_low": found.interval[0],
            "accuracy_predict_high": found.interval[1]}  # fmt: skip


def _draw(
    work: Work, pictures: Pictures, logits: Tensor, found: Accuracy, others: ImageSet | None, said: Tensor | None,
    truth: Tensor | None,
) -> None:  # fmt: skip
    if others is None or said is None or truth is None:
        images, some, truth = pictures.images[pictures.val], logits, pictures.labels[pictures.val]
    else:
        images, some = three_channels(others.images), said
    shown = torch.from_numpy(np.linspace(0, len(images) - 1, min(SHOWN, len(images))).round().astype(int))
    with writing(work.folder / "predictions.png") as beside:
        beside.write_bytes(draw_predictions(images[shown].numpy(), some[shown].softmax(1).numpy(), pictures.classes,
                                            truth[shown].tolist()))  # fmt: skip
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
