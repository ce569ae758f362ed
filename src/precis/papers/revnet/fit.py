"""The job: choose batch or depth by the memory that there is, train, and say what it took."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from precis.data.imageset import ImageSet
from precis.errors import InputError
from precis.lab.sheets import contact_sheet, strip
from precis.lab.words import counted
from precis.nn.reversible import reconstruction_error
from precis.papers.class_folders import check_folders, stratified
from precis.papers.job import Work
from precis.papers.picture_sets import open_pictures, tell_skipped
from precis.papers.told import Predicted, tell_guessing, write_predictions
from precis.papers.work import write_json, writing
from precis.train.augment import Augment
from precis.train.checkpoint import save_model
from precis.train.classify import Accuracy, fit_classifier, predict, score
from precis.train.loop import Budget
from precis.vision.revnet import RevNet

from .budget import DEPTHS, MOST, Form, Need, by_depth, deepest, measure, parse_bytes, seconds_of, show_bytes
from .nets import parameters
from .pictures import draw_errors, draw_memory

CHECKPOINT = ".checkpoint"
FEW = 100  # steps
LONG = 5  # minutes
BATCHES = (16, 32, 64, 128, 256)


class Pictures(NamedTuple):
    """Training and validation part, uint8 [N,C,S,S], with labels, and the names of the latter."""

    x: Tensor
    y: Tensor
    val_x: Tensor
    val_y: Tensor
    classes: tuple[str, ...]
    val_names: tuple[str, ...]


def run_fit(job: Any, work: Work) -> dict[str, float | None]:
    data = read(job, work)
    shape = tuple(data.x.shape[1:])
    limit = None if job.memory is None else parse_bytes(job.memory)
    units, batch = _choose(job, work, data, limit)
    net, other = (_net(job, units, shape[0], len(data.classes)) for _ in range(2))  # measuring moves running averages
    need = measure(other, shape, work.device)
    _tell_choice(job, work, data, other, units, batch)
    augment = Augment(flip=0.5, shift_pad=max(1, shape[1] // 16), padding="zeros") if job.augment else None
    run = fit_classifier(
        net.to(work.device), (data.x, data.y), budget=Budget(epochs=job.epochs, minutes=job.minutes), batch=batch,
        augment=augment, lr=job.lr * batch / 100, weight_decay=2e-4, log=work.log, folder=work.folder / CHECKPOINT,
        generator=torch.Generator().manual_seed(job.seed + 1), resume=work.resume,
    )  # fmt: skip
    logits = predict(net, data.val_x, batch=256).cpu()
    found = score(logits.argmax(1), data.val_y, len(data.classes))
    drift = _drift(net, data.val_x[: min(64, len(data.val_x))].to(work.device))
    _write(job, work, net, units, data, logits)
    if drift:
        with writing(work.folder / "reconstruction.png") as beside:
            beside.write_bytes(draw_errors(drift, whole=job.fully_reversible))
    form = _form(job, shape[0], len(data.classes))
    lines = by_depth(form, (shape[1], shape[2]), work.device, peak=False)
    with writing(work.folder / "memory.png") as beside:
        beside.write_bytes(draw_memory(lines, form, batch, (units, need), limit))
    work.show("memory.png")
    _tell(work, found, need, batch, units, limit, lines, form)
    return {
        "accuracy": found.value, "accuracy_low": found.interval[0], "accuracy_high": found.interval[1],
        "MiB_kept_for_backward": need.kept(batch) / 2**20, "MiB_of_a_step": need.total(batch) / 2**20,
        "batch": float(batch), "units": float(units),
        "seconds_per_step": run.seconds / max(1, run.steps), "steps": float(run.steps),
        "reconstruction_error": max((float(e.max()) for e in drift), default=None),
        "parameters": float(parameters(net)),
    }  # fmt: skip


def run_plan(job: Any, work: Work) -> dict[str, float | None]:
    """The table depth × batch for each kind of net, as plan.csv, a picture and lines; nothing is trained."""
    if job.units is not None:
        raise InputError(f"--plan tells of {_list(DEPTHS)} units a stage: leave --units out")
    found = open_(job, work)
    shape, classes = found.images.shape[1:], max(2, len(found.classes))
    limit = None if job.memory is None else parse_bytes(job.memory)
    form = _form(job, shape[0], classes)
    lines = by_depth(form, (shape[1], shape[2]), work.device, peak=True)
    rows = ["net,units,batch,kept_bytes,step_bytes"]
    for kind, needs in lines.items():
        for units, need in needs.items():
            rows += [f"{kind},{units},{b},{need.kept(b)},{need.total(b)}" for b in BATCHES]
    with writing(work.folder / "plan.csv") as beside:
        beside.write_text("\n".join(rows) + "\n")
    batch = job.batch or 64
    with writing(work.folder / "memory.png") as beside:
        beside.write_bytes(draw_memory(lines, form, batch, limit=limit, steps=True))
    work.show("memory.png")
    work.show("plan.csv")
    beyond = "8 and 16 units lie on the line through 2 and 4" + (", of the RevNet they are measured" * (form.every > 0))
    work.note("Memory of a training step by units a stage (residual nets have two blocks for each unit, and so about "
              f"as many parameters) and pictures a batch; {beyond}.")  # fmt: skip
    _tell_form(work, form)
    for kind, needs in lines.items():
        kept, step = ([show_bytes(size(need)) for need in needs.values()] for size in (
            lambda need: need.kept(batch), lambda need: need.total(batch)))  # fmt: skip
        work.note(f"{form.name(kind)} of {_list(needs)} units a stage at {batch} pictures a batch: a step takes "
                  f"{_list(step)}, of which {_list(kept)} are kept for the backward pass.")  # fmt: skip
        if limit is not None:
            most = [need.batch(limit) for need in needs.values()]
            work.note(f"Within {show_bytes(limit)} it can have batches of up to {_list(most)} pictures.")
    work.note(f"plan.csv has the same for batches of {_list(BATCHES)}.")
    metrics: dict[str, float | None] = {}
    for kind, needs in lines.items():
        metrics |= {f"MiB_kept_{kind}_{units}_units": need.kept(batch) / 2**20 for units, need in needs.items()}
        if limit is not None:
            fits = {units: float(need.batch(limit)) for units, need in needs.items()}
            metrics |= {f"pictures_that_fit_{kind}_{units}_units": most for units, most in fits.items()}
    return metrics


def open_(job: Any, work: Work) -> ImageSet:
    """The pictures as they are read, with or without classes, which the net can take."""
    size = job.size or 32
    as_it_is = job.size is None and str(job.input).endswith((".npy", ".npz"))
    options = {"keep_going": job.keep_going, "background": job.background}
    found = open_pictures(job.input, None if as_it_is else size, job.labels, **options)
    if as_it_is and max(found.images.shape[2:]) > 64:
        found = open_pictures(job.input, size, job.labels, **options)
    tell_skipped(found, work)
    _check_net(job, found.images.shape[1:])
    return found


def read(job: Any, work: Work) -> Pictures:
    """Labelled pictures, split class by class."""
    found = open_(job, work)
    if Path(job.input).is_dir() and job.labels == "auto":
        check_folders(Path(job.input))
    counts = [] if found.labels is None else [int((found.labels == k).sum()) for k in range(len(found.classes))]
    if sum(n > 0 for n in counts) < 2:
        raise InputError("at least two classes are wanted: a sub-folder each, or a column of labels", file=job.input)
    if alone := [found.classes[k] for k, n in enumerate(counts) if n == 1]:
        raise InputError(f"class {alone[0]!r} has one picture; two are the least, one to train and one to measure on",
                         file=job.input)  # fmt: skip
    assert found.labels is not None
    known = found.labels >= 0
    if not known.all():
        work.note(f"{counted(int((~known).sum()), 'picture')} without a label left out")
    images, labels = torch.from_numpy(found.images[known]), torch.from_numpy(found.labels[known])
    kept, held = stratified(labels, job.val, torch.Generator().manual_seed(job.seed))
    names = [name for name, one in zip(found.names, known) if one]
    return Pictures(images[kept], labels[kept], images[held], labels[held], found.classes,
                    tuple(names[i] for i in held))  # fmt: skip


def _check_net(job: Any, shape: tuple[int, ...]) -> None:
    if len(job.filters) < 2:
        raise InputError(f"--filters {' '.join(map(str, job.filters))}: the stem's channels and at least one stage's "
                         "are wanted, such as 32 32 64")  # fmt: skip
    try:
        net = _net(job, 1, shape[0], 2)
        with torch.no_grad():
            net.eval()(torch.zeros(1, *shape))
    except ValueError as error:
        hint = "; --size gives other pictures" if job.fully_reversible else ""
        raise InputError(f"--filters {' '.join(map(str, job.filters))}, pictures of {shape[1]}×{shape[2]}: "
                         f"{error}{hint}") from None  # fmt: skip


def _form(job: Any, channels: int, classes: int) -> Form:
    return Form(tuple(job.filters), channels, classes, job.fully_reversible, job.keep_every)


def _tell_form(work: Work, form: Form) -> None:
    if form.fully_reversible:
        widths = " ".join(str(form.channels * 4 ** (i + 1)) for i in range(form.stages))
        work.note(f"The net is fully reversible: its stages have {widths} channels, four times as many each, and of "
                  f"--filters only the number counts, one more than the {form.stages} stages.")  # fmt: skip


def _net(job: Any, units: int, channels: int, classes: int) -> RevNet:
    stages = len(job.filters) - 1
    filters = None if job.fully_reversible else job.filters
    return RevNet((units,) * max(stages, 1), filters, in_channels=channels, classes=classes, every=job.keep_every,
                  fully_reversible=job.fully_reversible, generator=torch.Generator().manual_seed(job.seed))  # fmt: skip


def _tell_choice(job: Any, work: Work, data: Pictures, net: RevNet, units: int, batch: int) -> None:
    """Before anything is trained: how large the net is, how many steps there are, and if it takes long, how long."""
    steps = max(1, len(data.x) // batch) * job.epochs
    work.note(f"The net has {counted(units, 'unit')} a stage and {parameters(net):,} parameters; {job.epochs} × "
              f"{len(data.x)} pictures in batches of {batch} are {counted(steps, 'step')}.")  # fmt: skip
    if units == 1 and not job.fully_reversible:
        work.note("With one unit a stage no block is reversible: the first of a stage changes the shape.")
    if steps < FEW and batch > 16:
        work.note("So few steps teach little: a smaller --batch, or more --epochs, makes more of them.")
    minutes = steps * seconds_of(net, tuple(data.x.shape[1:]), batch, work.device) / 60
    if minutes > LONG and (job.minutes is None or minutes > job.minutes):
        work.note(f"Training would take about {_time(minutes)}, {_time(minutes / steps)} a step: fewer --units, "
                  "a smaller net (--filters) or --minutes make it shorter.")  # fmt: skip


def _time(minutes: float) -> str:
    return f"{minutes / 60:.1f} hours" if minutes >= 100 else f"{minutes:.0f} min" if minutes >= 2 else \
        f"{60 * minutes:.2g} s"  # fmt: skip


def _list(items: Iterable[Any]) -> str:
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def _choose(job: Any, work: Work, data: Pictures, limit: int | None) -> tuple[int, int]:
    """Units a stage and pictures a batch: as asked for, or the most that the limit allows; kept for a resumed run."""
    path, shape = work.folder / CHECKPOINT / "choice.json", tuple(data.x.shape[1:])
    if work.resume and path.exists():
        units, batch = json.loads(path.read_text())
        return units, batch
    units, batch = job.units or 3, job.batch or min(64, len(data.x))
    need = lambda units: measure(_net(job, units, shape[0], len(data.classes)), shape, work.device)
    if batch > len(data.x):
        raise InputError(f"--batch {batch}: there are {len(data.x)} pictures to train on, with --val {job.val:g}")
    unit = " bytes" if str(job.memory).strip()[-1].isdigit() else ""
    little = f"--memory {job.memory}{unit} is too little"
    if limit is not None and job.batch is None:
        batch = min(MOST, len(data.x), need(units).batch(limit))
        if batch < 2:
            raise InputError(f"{little}: with {counted(units, 'unit')} a stage two pictures, the least that batch "
                             f"norm can do with, need {show_bytes(need(units).total(2))}")  # fmt: skip
    elif limit is not None and job.units is None:
        units = deepest({n: need(n) for n in (1, 2, 4)}, batch, limit)
        while units and need(units).total(batch) > limit:
            units -= 1
        if not units:
            raise InputError(f"{little}: one unit a stage at {batch} pictures a batch needs "
                             f"{show_bytes(need(1).total(batch))}; a smaller --batch needs less")  # fmt: skip
    elif limit is not None and need(units).total(batch) > limit:
        raise InputError(f"{little}: {counted(units, 'unit')} a stage at {batch} pictures a batch need "
                         f"{show_bytes(need(units).total(batch))}; leave --batch or --units out")  # fmt: skip
    write_json(path, [units, batch])
    return units, batch


@torch.no_grad()
def _drift(net: RevNet, x: Tensor) -> list[Tensor]:
    """Relative error of each rebuilt block input, a row a stage of reversible blocks, as in training."""
    net.train()
    given = x.float() / 255
    if net.fully_reversible:
        first, second = torch.nn.functional.pixel_unshuffle(net.stem(given), 2).chunk(2, 1)
        found = [reconstruction_error(net.body, first, second)]
    else:
        before = [net.stem(given).chunk(2, 1), *net.stages(given)[:-1]]
        pairs = zip(net.starts, net.runs, before)
        found = [reconstruction_error(run, *start(*h)) for start, run, h in pairs if len(run.blocks)]  # type: ignore[arg-type]
    net.eval()
    return found


def _write(job: Any, work: Work, net: RevNet, units: int, data: Pictures, logits: Tensor) -> None:
    shape, said = tuple(data.x.shape[1:]), logits.argmax(1)
    stages = max(len(job.filters) - 1, 1)
    config = {"units": [units] * stages, "classes": len(data.classes), "in_channels": shape[0], "every": job.keep_every,
              "fully_reversible": job.fully_reversible}  # fmt: skip
    save_model(work.folder, net, config | ({} if job.fully_reversible else {"filters": list(job.filters)}))
    write_json(work.folder / "labels.json", {"classes": list(data.classes), "size": shape[1], "channels": shape[0],
                                             "background": job.background})  # fmt: skip
    truth = [data.classes[i] for i in data.val_y.tolist()]
    write_predictions(work.folder / "predictions.csv", [Predicted("validation", data.val_names, truth, logits)],
                      data.classes)  # fmt: skip
    order = spread(said, data.val_y)[:24]
    pairs = [(data.classes[int(said[i])], data.classes[int(data.val_y[i])]) for i in order]
    words = [a if a == b else f"{a}, not {b}" for a, b in pairs]
    with writing(work.folder / "answers.png") as beside:
        shown = [data.val_x[i].numpy() for i in order]
        title = "Held-out pictures: what it says.  Errors first, of each class in turn"
        beside.write_bytes(contact_sheet(shown, words, title=title, size=96))
    if job.fully_reversible:
        x = data.val_x[spread(data.val_y, data.val_y)[:6]].to(work.device).float() / 255
        with torch.no_grad():
            again = net.picture(*net.streams(x)).clamp(0, 1)
        both = [p.cpu().numpy() for pair in zip(x, again) for p in pair]
        with writing(work.folder / "rebuilt.png") as beside:
            beside.write_bytes(strip(both, ["picture", "rebuilt"] * len(x), size=96))


def spread(said: Tensor, truth: Tensor) -> list[int]:
    """Indices with errors first, and errors as well as right answers taken from each true class in turn."""
    right = said == truth
    taken: dict[tuple[bool, int], int] = {}
    keys = []
    for i, key in enumerate(zip(right.tolist(), truth.tolist())):
        taken[key] = taken.get(key, -1) + 1
        keys.append((key[0], taken[key], key[1], i))
    return [key[-1] for key in sorted(keys)]


def _tell(
    work: Work, found: Accuracy, need: Need, batch: int, units: int, limit: int | None,
    lines: dict[str, dict[int, Need]], form: Form,
) -> None:  # fmt: skip
    low, high = found.interval
    work.note(f"{100 * found.value:.1f} % of the held-out pictures are classified rightly (95 %: {100 * low:.1f} to "
              f"{100 * high:.1f} %).")  # fmt: skip
    tell_guessing(work.note, found)
    within = "" if limit is None else f", within the {show_bytes(limit)} that were given"
    work.note(f"A training step at {batch} pictures and {counted(units, 'unit')} a stage takes "
              f"{show_bytes(need.total(batch))}: {show_bytes(need.kept(batch))} kept for the backward pass, the "
              "rest built again a block at a time, "
              f"weights, gradients and momentum{within}.")  # fmt: skip
    most = max(lines["resnet"])
    plain, mine = lines["resnet"][most].kept(batch), lines["revnet"][most].kept(batch)
    work.note(f"At {most} units a stage a residual net of about as many parameters would keep {show_bytes(plain)}, "
              f"a {form.name('revnet')} of these channels {show_bytes(mine)}.")  # fmt: skip
    _tell_form(work, form)
