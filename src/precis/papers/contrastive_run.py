"""Training and embedding for the contrastive papers' jobs: what they do alike, whatever the loss."""

import copy
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from precis.contrastive.ntxent import ProjectionHead, alignment
from precis.data.images import SUFFIXES
from precis.errors import InputError
from precis.nn.backbones import backbone
from precis.nn.cost import count
from precis.papers.contrastive_outputs import Embedded, write_outputs
from precis.papers.contrastive_pictures import Pictures, read_pictures, read_query, write_skipped
from precis.papers.contrastive_training import head_on, make_views, optimise
from precis.papers.job import Work
from precis.train.augment import preset
from precis.train.checkpoint import load_model, save_model
from precis.train.feed import index_batches
from precis.train.loop import Budget, Curve, Run
from precis.train.probe import embed

TRAINING = ".training"
MACS = 6e12  # multiply-adds of some ten minutes on two cores
PASSES = 6  # forward and backward of two views
STEMS = {"resnet18", "resnet34", "resnet50"}
COMPONENT = "precis.nn.backbones:backbone"


class Recipe(NamedTuple):
    """What a paper brings: `model(x) -> (h, z)` with `encoder` and `head` inside, and the loss of so many views.

    loss(views, chosen): a loss, or a dict with a "loss", of as many batches of views as `views` says; `chosen` are
    places among the pictures that are trained on (`pictures.trained`).  batches(generator): what `chosen` goes through;
    None: plain batches in random order.  passes: of a picture through the net a step, from which the default length
    follows; forward and backward of both views are six.  settled: steps until the loss is what it is called, as when a
    queue holds random keys at first: its curve begins there.
    """

    model: nn.Module
    loss: Callable[[tuple[Tensor, ...], Tensor], Any]
    views: int = 2
    batches: Callable[[torch.Generator], Iterable[Tensor]] | None = None
    passes: int = PASSES
    settled: int = 0


Make = Callable[[Any, Pictures, nn.Module, ProjectionHead, int, torch.Generator], Recipe]
Read = Callable[[Any, Work, int | None, int | None], Pictures]


def run_contrastive(job: Any, work: Work, make: Make, *, read: Read = read_pictures) -> dict[str, float | None]:
    """Train (or load) an encoder, embed every picture, write what there is to see, and return the metrics.

    make(job, pictures, encoder, head, batch, generator): the paper's `Recipe`.  read(job, work, channels, size): its
    pictures, where INPUT is no plain set of them; `channels` and `size`, if given, are what a finished encoder wants.
    """
    if job.task == "embed":
        return _embed(job, work, read)
    pictures = read(job, work, None, None)
    encoder, config = _encoder(job, pictures, work)
    batch = _batch(job, len(pictures.trained))
    generator = torch.Generator().manual_seed(job.seed + 1)
    head = head_on(encoder, generator)
    queries = _queries(job, config["in_shape"])
    recipe = make(job, pictures, encoder, head, batch, generator)
    write_skipped(pictures, work)
    run = train_recipe(job, work, pictures, recipe, encoder, batch)
    save_model(work.folder, encoder, config, component=COMPONENT)
    save_model(work.folder, head, {"dim_in": int(encoder.out_dim)}, name="head")  # type: ignore[arg-type]
    loss = _from(run.curves["loss"], recipe, work)
    metrics = write_outputs(job, work, _embedded(job, pictures, encoder, head, queries), loss)
    for name, curve in run.curves.items():
        work.curve(name, curve.steps, curve.values)
    return metrics | {"loss": run.curves["loss"].values[-1], "steps": float(run.steps), "batch": float(batch)}


def _from(loss: Curve, recipe: Recipe, work: Work) -> Curve:
    """The curve from `settled` on, where two points of it at least are left."""
    first = sum(step <= recipe.settled for step in loss.steps)
    if not first:
        return loss
    if len(loss.steps) - first < 2:
        work.note(f"the queue of {recipe.settled} steps' keys was random at first and hardly filled: read nothing from "
                  "the first steps of loss.png")  # fmt: skip
        return loss
    work.note(f"loss.png begins after step {recipe.settled}: until then a part of the queue's keys is random, and the "
              "loss is another")  # fmt: skip
    return Curve(loss.steps[first:], loss.values[first:])


def _embed(job: Any, work: Work, read: Read) -> dict[str, float | None]:
    folder = Path(job.model)
    if not folder.is_dir():
        raise InputError("--task embed: --model must be the folder of a run", file=folder)
    channels, size = shape_of(folder)
    encoder, head = load_model(folder, device=work.device), None
    if (folder / "head.json").exists():
        head = load_model(folder, name="head", device=work.device)
    pictures = read(job, work, channels, size)
    queries = _queries(job, [channels, size, size])
    write_skipped(pictures, work)
    return write_outputs(job, work, _embedded(job, pictures, encoder, head, queries), None)


@torch.no_grad()
def _embedded(
    job: Any, pictures: Pictures, encoder: nn.Module, head: nn.Module | None, queries: dict[str, Tensor]
) -> Embedded:
    """Representations of all pictures and queries; how far apart two views of a picture are, of up to 1,000."""
    h = embed(encoder, pictures.images)
    project = (lambda x: x) if head is None else head.eval()
    some = pictures.images[:: max(1, len(h) // 1000)]
    views, noise = preset(views_name(job, pictures), int(some.shape[-1])), torch.Generator().manual_seed(job.seed)
    apart = alignment(*(project(embed(encoder, views(some, noise))) for _ in range(2)))
    asked = {}
    if queries:
        x = torch.cat(list(queries.values()))
        asked = dict(zip(queries, zip(x, embed(encoder, x))))
    return Embedded(pictures, h, None if head is None else project(h), asked, float(apart))


def _queries(job: Any, shape: list[int]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    paths = [] if job.query is None else [job.query]
    if job.query is not None and job.query.is_dir():
        paths = sorted(p for p in job.query.iterdir() if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise InputError(f"--query: there is no picture ({', '.join(sorted(SUFFIXES))})", file=job.query)
    for path in paths:
        name = path.stem if path.stem not in found else f"{path.stem}_{len(found)}"
        found[name] = read_query(path, shape[1], shape[0], job.background)
    return found


def _encoder(job: Any, pictures: Pictures, work: Work) -> tuple[nn.Module, dict[str, Any]]:
    """The encoder on the device, and the arguments that build it again."""
    shape = list(pictures.images.shape[1:])
    spec = job.model
    if spec == "auto":
        spec = "conv" if shape[1] <= 32 and work.device == "cpu" else "resnet18"
    if spec == "conv":
        spec = "conv:24x3" if shape[1] <= 16 else "conv:32x4"
    if spec in STEMS and shape[1] <= 64:
        spec = f"{spec}:stem=small"
    if job.model == "auto":
        work.note(f"the encoder is {spec}; --model names another")
    config = {"spec": spec, "in_shape": shape}
    if job.init is not None:
        channels, size = shape_of(job.init)
        encoder = load_model(job.init, device=work.device)
        if [channels, size] != shape[:2] or not hasattr(encoder, "out_dim"):
            raise InputError(f"its encoder is for {channels} × {size} × {size} pictures, these are "
                             f"{' × '.join(map(str, shape))}: give --size {size}", file=job.init)  # fmt: skip
        return encoder, _config(job.init)
    encoder = backbone(spec, shape, generator=torch.Generator().manual_seed(job.seed))
    layer: Any = encoder.input
    layer.fit(pictures.images[pictures.trained])
    return encoder.to(work.device), config


def _config(folder: Path) -> dict[str, Any]:
    import json

    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if found.get("component") != COMPONENT:
        raise InputError("is no encoder of a contrastive run", file=folder / "config.json")
    arguments: dict[str, Any] = found["arguments"]
    return arguments


def shape_of(folder: Path) -> tuple[int, int]:
    """Channels and side of the pictures that the encoder in a folder wants."""
    if not (folder / "config.json").is_file():
        raise InputError("there is no config.json in it: the folder of a run that trained is wanted", file=folder)
    channels, size, _ = _config(folder)["in_shape"]
    return int(channels), int(size)


def _batch(job: Any, n: int) -> int:
    if job.batch is not None:
        if job.batch > n:
            raise InputError(f"--batch {job.batch} is more than the {n} pictures that are trained on")
        return int(job.batch)
    return max(2, min(256, 2 ** int(math.log2(max(n / 2, 2)))))


def queue_size(pictures: int, batch: int, asked: int | None = None) -> int:
    """Keys of a queue: as asked, else whole steps of two batches, at most 4096 and half of the pictures, so that a step
    does not find its own pictures' old keys among the negatives."""
    half = max(1, pictures // 2)
    if asked is not None:
        if asked > half:
            raise InputError(f"--queue {asked} is more than half of the {pictures} pictures that are trained on: it "
                             "would hold their own keys as negatives")  # fmt: skip
        return asked
    step, most = 2 * batch, min(4096, half)
    return most // step * step or most


def views_name(job: Any, pictures: Pictures) -> str:
    channels, size = pictures.images.shape[1:3]
    return str(job.augment) if job.augment != "auto" else "glyph" if channels == 1 and size <= 32 else "simclr"


def budget_of(job: Any, pictures: Pictures, encoder: nn.Module, passes: int = PASSES) -> Budget:
    if job.minutes is not None:
        return Budget(minutes=job.minutes)
    if job.epochs is not None:
        return Budget(epochs=job.epochs)
    one = torch.zeros(1, *pictures.images.shape[1:])
    macs = count(copy.deepcopy(encoder).eval(), one).macs
    return Budget(epochs=float(min(100, max(2, MACS // (passes * macs * len(pictures.trained))))))


def train_recipe(
    job: Any, work: Work, pictures: Pictures, recipe: Recipe, encoder: nn.Module, batch: int, *,
    budget: Budget | None = None, arm: str = "",
) -> Run:  # fmt: skip
    """`optimise` on pictures that are augmented on the device; a run that was stopped goes on.

    budget: None: the job's.  arm: of a second training beside the job's own, which stands before what it logs.
    """
    name, budget = views_name(job, pictures), budget or budget_of(job, pictures, encoder, recipe.passes)
    views = preset(name, int(pictures.images.shape[-1]))
    if job.augment == "auto" and not arm:
        work.note(f"the views are made by the preset {name}" + (" (no flips)" if name == "glyph" else ""))
    images = pictures.images[torch.from_numpy(pictures.trained)].to(work.device)
    order, noise = (torch.Generator().manual_seed(1000 * job.seed + i) for i in (2, 3))

    def loss(chosen: Tensor) -> Any:
        return recipe.loss(make_views(images[chosen], views, noise, recipe.views), chosen)

    batches: Iterable[Tensor] = index_batches(len(images), min(batch, len(images)), order, drop_last=True)
    if recipe.batches is not None:
        batches = recipe.batches(order)

    def log(step: int, total: int, **scalars: float) -> None:
        work.log(step, total, **{f"{arm}_{key}": value for key, value in scalars.items()} if arm else scalars)

    return optimise(
        recipe.model, loss, batches, work.device, lr=job.lr, budget=budget, log=log,
        precision="bf16" if work.device == "cuda" else "fp32", folder=work.folder / (TRAINING + arm),
        resume=work.resume, keep={"model": recipe.model, "noise": noise}, checkpoint_seconds=job.save_every,
    )  # fmt: skip
