"""Classes told apart from a few examples of each, after learning from others: `few_shot`."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.data.images import as_float
from precis.data.imageset import ImageSet
from precis.errors import InputError
from precis.fields.neural_process_few_shot import FewShotCNP, nearest_class_mean, sample_episodes
from precis.fields.siren_fit import train
from precis.lab.figures import bars, contact_sheet
from precis.lab.words import counted
from precis.papers.job import Work
from precis.papers.work import save
from precis.train.checkpoint import save_model

from .classes import class_labels, make_few_shot, quarter_turns
from .common import Metrics, batch_of, draw, size_of, training, width_of, write_curve
from .pictures import numpy

TRAINED, TESTED, QUERIES = 0.7, 400, 3
FEW = 20  # test classes, below which the interval over episodes says little of other classes


def build(channels: int, size: int, ways: int, width: int = 16, seed: int = 0) -> FewShotCNP:
    """The network of the job."""
    return make_few_shot(channels, size, ways, width, torch.Generator().manual_seed(seed))


def run_few_shot(job: Any, work: Work) -> Metrics:
    """Episodes of seven tenths of the classes to train on, of the others to be tested on."""
    size, ways, shots = job.size or 28, job.ways or 5, job.shots or 1
    images, labels, classes = load_classes(job, work, size)
    train_rows, test_rows, queries = split(labels, classes, ways, shots, draw(job, "split"), job.input)
    images = images.to(work.device)
    config = {"channels": images.shape[1], "size": size, "ways": ways, "width": width_of(job), "seed": job.seed}
    net = build(**config).to(work.device)
    x, y = quarter_turns(images[train_rows], labels[train_rows])
    g = draw(job, "batches")

    def step(_: Any) -> dict[str, Tensor]:
        e = sample_episodes(y, batch_of(job), ways, shots, queries, g)
        return {"loss": net.loss(x[e.support], x[e.query], e.labels.to(work.device))}

    run = train(net, step, [0], keep={"generator": g}, **training(job, work))
    net.eval()
    save_model(work.folder, net, config, component=f"{__name__}:build")
    metrics = test(work, net, images[test_rows], labels[test_rows], ways, shots, queries, draw(job, "eval"))
    write_curve(work, run, "cross-entropy (nats)")
    tested = len(labels[test_rows].unique())
    if tested < FEW:
        work.note(
            f"all test episodes draw on the same {tested} held-out classes: the interval of the accuracy is over "
            "episodes, and says nothing of how much it varies from class to class"
        )
    return metrics | {
        "chance": 1 / ways, "train_classes": len(labels[train_rows].unique()),
        "test_classes": tested,
    } | size_of(net)  # fmt: skip


def load_classes(job: Any, work: Work, size: int) -> tuple[Tensor, Tensor, int]:
    """Pictures [N,C,S,S] in [0, 1], their classes, and how many; of nested folders the innermost is the class."""
    found = ImageSet.open(job.input, size, background=job.background or "white", keep_going=job.keep_going)
    labels = class_labels(found)
    if labels is None:
        raise InputError("no classes: few_shot wants a folder for each class (class/… or alphabet/character/…)",
                         file=job.input)  # fmt: skip
    labelled = labels >= 0
    if found.write_skipped(work.folder):
        work.note(f"{counted(len(found.skipped), 'picture')} could not be read: skipped.csv")
    if not labelled.all():
        n = int((~labelled).sum())
        work.note(f"{counted(n, 'picture')} without a class {'was' if n == 1 else 'were'} left out")
    images = torch.from_numpy(as_float(np.asarray(found.images)))[labelled]
    return images, torch.from_numpy(labels[labelled].astype(np.int64)), int(labels.max()) + 1


def split(
    labels: Tensor, classes: int, ways: int, shots: int, generator: torch.Generator, file: Any
) -> tuple[Tensor, Tensor, int]:
    """Rows to train on and to test on, and queries a class: three, or as many as the smallest usable class allows."""
    counts = torch.bincount(labels, minlength=classes)
    usable = torch.nonzero(counts >= shots + 1)[:, 0]
    usable = usable[torch.randperm(len(usable), generator=generator)]
    first = round(TRAINED * len(usable))
    if min(first, len(usable) - first) < ways:
        needed = math.ceil(ways / (1 - TRAINED))
        raise InputError(
            f"{len(usable)} classes hold {shots + 1} pictures or more; {ways} ways need about {needed}, since seven "
            "tenths are for training and the others for the test; take fewer --ways", file=file,
        )  # fmt: skip
    queries = min(QUERIES, int(counts[usable].min()) - shots)
    mine = torch.isin(labels, usable[:first])
    return torch.nonzero(mine)[:, 0], torch.nonzero(torch.isin(labels, usable[first:]))[:, 0], queries


@torch.no_grad()
def test(
    work: Work, net: FewShotCNP, images: Tensor, labels: Tensor, ways: int, shots: int, queries: int,
    generator: torch.Generator,
) -> Metrics:  # fmt: skip
    """Accuracy over episodes with its 95 % interval, beside nearest class means in pixels and in the net's codes."""
    e = sample_episodes(labels, TESTED, ways, shots, queries, generator)
    right: dict[str, list[Tensor]] = {"neural process": [], "class means, its codes": [], "class means, pixels": []}
    for s, q, y in zip(e.support.split(50), e.query.split(50), e.labels.split(50)):
        support, query = images[s], images[q]
        guesses = (
            net(support, query).logits.argmax(-1), nearest_class_mean(net.embed_all(support), net.embed_all(query)),
            nearest_class_mean(support.flatten(3), query.flatten(2)),
        )  # fmt: skip
        for found, guess in zip(right.values(), guesses):
            found.append((guess.cpu() == y).float().mean(1))
    shares = {name: torch.cat(found) for name, found in right.items()}
    values = {name: float(v.mean()) for name, v in shares.items()}
    half = {name: 1.96 * float(v.std()) / math.sqrt(len(v)) for name, v in shares.items()}
    ends = {name: (values[name] - half[name], values[name] + half[name]) for name in values}
    chart = bars(values, intervals=ends, label=f"accuracy, {ways} ways, {shots} shots")
    save(work.folder / "accuracy.png", chart.png())
    _episode(work, net, images, e)
    ours, codes, pixels = values.values()
    return {"accuracy": ours, "accuracy_low": ends["neural process"][0], "accuracy_high": ends["neural process"][1],
            "accuracy_embedding": codes, "accuracy_pixels": pixels}  # fmt: skip


def _episode(work: Work, net: FewShotCNP, images: Tensor, e: Any) -> None:
    """The first episode, a row a class: its first example, then its queries with what the network took them for."""
    support, query = images[e.support[:1]], images[e.query[:1]]
    guess, ways = net(support, query).logits.argmax(-1)[0].tolist(), min(e.support.shape[1], 10)
    tiles, captions = [], []
    for k in range(ways):
        tiles.append(numpy(support[0, k, 0]))
        captions.append(f"example of {k + 1}")
        for j in torch.nonzero(e.labels[0] == k)[:, 0].tolist():
            tiles.append(numpy(query[0, j]))
            captions.append("right" if guess[j] == k else f"taken for {guess[j] + 1}")
    save(work.folder / "episode.png", contact_sheet(tiles, captions, columns=len(tiles) // ways, size=96))
    work.show("episode.png")
