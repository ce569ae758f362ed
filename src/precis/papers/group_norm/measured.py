"""What a conversion does to answers: on pictures that γ and β were not set on, before and after, and fine-tuned."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from precis.data.program import tensor_of
from precis.errors import InputError
from precis.lab.words import counted
from precis.papers.class_folders import check_folders, stratified
from precis.papers.job import Work
from precis.papers.picture_sets import open_pictures, tell_skipped
from precis.papers.work import writing
from precis.train.classify import fit_classifier, score
from precis.train.loop import Budget

from .pictures import draw_conversion

CALIBRATE, MEASURE = 256, 1000  # pictures at most
GENTLER = 10  # a trained net is tuned at a tenth of --lr


class Pictures(NamedTuple):
    """As the net takes them, and their classes as its outputs count them, None where that is not known."""

    x: Tensor
    y: Tensor | None
    held: Tensor
    held_y: Tensor | None

    @property
    def sample(self) -> Tensor:
        """At most 256 of `x`, from all of it."""
        return self.x[:: -(-len(self.x) // CALIBRATE)]


@dataclass
class Point:
    """Accuracy (%) on the held-out pictures, with its exact 95 % interval; `batch` None: without fine-tuning."""

    norm: str
    batch: int | None
    value: float
    low: float
    high: float


class Logits(nn.Module):
    """The tensor in what a net returns, a row a picture."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return tensor_of(self.model(x)).flatten(1).float()


def read(job: Any, work: Work, preprocess: Any, outputs: Callable[[Tensor], Tensor]) -> Pictures:
    """The pictures of --calibrate: a part (--val) held out, of every class alike if there are classes."""
    options = {"keep_going": job.keep_going, "background": job.background}
    found = open_pictures(job.calibrate, job.size or 32, job.labels, **options)
    if Path(job.calibrate).is_dir() and job.labels == "auto":
        check_folders(Path(job.calibrate))
    tell_skipped(found, work)
    if len(found) < 4:
        raise InputError(f"{len(found)} pictures are too few: two to calibrate on and two to measure on are the least",
                         file=job.calibrate)  # fmt: skip
    draw = torch.Generator().manual_seed(job.seed)
    chosen = torch.randperm(len(found), generator=draw)[: job.pictures].sort().values
    ready = preprocess or (lambda x: x)
    x: Tensor = ready(torch.from_numpy(found.images[chosen.numpy()]).float() / 255)
    classes = outputs(x[:2]).shape[1]
    y = None if found.labels is None else torch.from_numpy(found.labels)[chosen]
    y = None if y is None else _as_outputs(y, found.classes, classes, work.note)
    if y is None:
        order = torch.randperm(len(x), generator=draw)
        held = min(max(2, round(job.val * len(x))), len(x) - 2)
        return Pictures(x[order[held:]], None, x[order[:held]][:MEASURE], None)
    x, y = x[y >= 0], y[y >= 0]
    kept, apart = stratified(y, job.val, draw)
    apart = apart[:: -(-len(apart) // MEASURE)]
    if min(len(kept), len(apart)) < 2:
        raise InputError(f"{len(y)} labelled pictures are too few to calibrate on some and measure on others",
                         file=job.calibrate)  # fmt: skip
    return Pictures(x[kept], y[kept], x[apart], y[apart])


def _as_outputs(y: Tensor, names: tuple[str, ...], outputs: int, tell: Callable[[str], None]) -> Tensor | None:
    """Classes by the net's outputs: names that are numbers say which, else they stand in their order."""
    if len(names) == outputs:
        more = " …" if outputs > 12 else ""
        tell(f"The net's {outputs} outputs were taken to be the classes in this order: {', '.join(names[:12])}{more}")
        return y
    if all(name.isdecimal() and int(name) < outputs for name in names):
        return torch.where(y < 0, -1, torch.tensor([int(name) for name in names])[y])
    tell(f"No accuracy was measured: the pictures are of {len(names)} classes, the net has {outputs} outputs.")
    return None


def compare(
    job: Any, work: Work, old: nn.Module, new: nn.Module, data: Pictures, sizes: list[int],
    save: Callable[[nn.Module, int], None],
) -> dict[str, float | None]:  # fmt: skip
    """Accuracies of the net as it was (`old`), converted (`new`), and of both after fine-tuning at every batch size;
    `save` is given the tuned group norm nets.  A picture, a note, metrics.
    """
    assert data.y is not None and data.held_y is not None
    points = [_point("bn", None, old, data), _point("gn", None, new, data)]
    rate, epochs = job.lr / GENTLER, job.epochs if sizes else 0
    planned = [(norm, model, size) for size in sizes for norm, model in (("bn", old), ("gn", new))]
    for i, (norm, model, size) in enumerate(planned):
        tuned = copy.deepcopy(model)

        def log(step: int, total: int, at: int = i, size: int = size, **scalars: float) -> None:
            share = (at + step / max(total, 1)) / len(planned)
            work.log(round(100 * share), 100, batch=float(size), **scalars)

        with torch.random.fork_rng():  # dropout draws from the global generator
            torch.manual_seed(job.seed)
            fit_classifier(
                Logits(tuned), (data.x, data.y), budget=Budget(epochs=epochs), batch=size, lr=rate * size / 32,
                weight_decay=1e-4, skip_decay=(), standardise=False, device=work.device, log=log,
                generator=torch.Generator().manual_seed(job.seed),
            )  # fmt: skip
        tuned = tuned.cpu().eval()
        points.append(_point(norm, size, tuned, data))
        if norm == "gn":
            save(tuned, size)
    with writing(work.folder / "converted.png") as beside:
        beside.write_bytes(draw_conversion(points, len(data.held), epochs, rate))
    work.show("converted.png")
    before, after = points[:2]
    span = lambda p: f"{p.value:.1f} % ({p.low:.1f} to {p.high:.1f} %)"
    work.note(f"Of {len(data.held)} held-out pictures are answered rightly (and 95 % intervals): with batch norm "
              f"{span(before)}, just converted {span(after)}.")  # fmt: skip
    for size in sizes:
        bn, gn = (next(p for p in points if p.batch == size and p.norm == norm) for norm in ("bn", "gn"))
        work.note(f"Fine-tuned at {size} pictures a batch: batch norm {bn.value:.1f} %, group norm {gn.value:.1f} %.")
    if sizes:
        stem = str(job.convert).removesuffix(".safetensors")
        work.note(f"{stem}-batch{sizes[0]}.safetensors and the like hold the converted net tuned at that batch size; "
                  "the tuned nets with batch norm are not kept.")  # fmt: skip
        work.note(
            f"Fine-tuning: {counted(epochs, 'epoch')}, once each, at a rate of {rate:g} for 32 pictures (a tenth of "
            "--lr) in proportion to the batch, not tuned for either; intervals are of the held-out pictures alone."
        )
    metrics: dict[str, float | None] = {"accuracy_before": before.value / 100, "accuracy_converted": after.value / 100}
    names = {"bn": "batch_norm", "gn": "group_norm"}
    return metrics | {f"accuracy_{names[p.norm]}_tuned_at_{p.batch}": p.value / 100 for p in points[2:]}


@torch.no_grad()
def answers(model: nn.Module, x: Tensor) -> Tensor:
    """Outputs [N,K] in evaluation mode."""
    net = Logits(model).eval()
    try:
        return torch.cat([net(part) for part in x.split(128)])
    except (RuntimeError, ValueError) as error:  # torch says a shape mismatch in either way
        first = str(error).strip().splitlines()[0][:160]
        raise InputError(f"the net takes no pictures {list(x.shape[1:])} ({first}); --size N gives others") from error


def _point(norm: str, batch: int | None, model: nn.Module, data: Pictures) -> Point:
    logits = answers(model, data.held)
    assert data.held_y is not None
    found = score(logits.argmax(1), data.held_y, logits.shape[1])
    return Point(norm, batch, 100 * found.value, *(100 * end for end in found.interval))
