"""What a contrastive job leaves to look at: neighbours, a gallery, maps, and figures that judge the embedding."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from precis.contrastive.ntxent_loss import uniformity
from precis.lab.figures import contact_sheet, curves, heat_map
from precis.nn.representation import effective_rank
from precis.papers.contrastive_maps import ACROSS, PLAIN, dots, framed, gallery, mosaic, places, shortened
from precis.papers.contrastive_pictures import Pictures
from precis.papers.job import Work
from precis.papers.work import save, save_table, writing
from precis.train.classify import score
from precis.train.loop import Curve
from precis.train.probe import LinearProbe, knn_predict, nearest

QUERIES = 24  # that pictures are made of
CHUNK = 32_768  # rows compared at once, against 1,024 queries: 134 MB


class Embedded(NamedTuple):
    """Representations h [N,D], z [N,·] (None without a head) of the pictures, h of the user's own queries, and the mean
    squared distance of two views' z."""

    pictures: Pictures
    h: Tensor
    z: Tensor | None
    queries: dict[str, tuple[Tensor, Tensor]]
    alignment: float


def write_outputs(job: Any, work: Work, e: Embedded, loss: Curve | None) -> dict[str, float | None]:
    """Every file but the weights; returns the metrics, with those that labels give first."""
    _arrays(work.folder, e)
    k, apart = min(job.k, len(e.h) - 1), e.pictures.apart
    found = neighbours(e.h, k) if apart is None else _neighbours_apart(e.h, k, apart)
    cosine, index = (x.cpu().numpy() for x in found)
    _neighbours_table(work.folder, e.pictures.names, cosine, index)
    rng = np.random.default_rng(job.seed)
    save(work.folder / "gallery.png", gallery(e.pictures, index, rng))
    place, how = places(e.h, job.seed)
    save(work.folder / "map_pictures.png", mosaic(e.pictures.images, place))
    save(work.folder / "map.png", dots(e.pictures, place, how))
    work.show("map.png")
    work.show("map_pictures.png")
    work.show("gallery.png")
    _queries(work, e, k)
    if loss is not None:
        save(work.folder / "loss.png", curves({"loss": (loss.steps, loss.values)}, y_label="loss (nats)").png())
    metrics = _judge(job, work, e) if e.pictures.labelled else {}
    return metrics | _describe(work, e)


def _arrays(folder: Path, e: Embedded) -> None:
    split = np.where(e.pictures.held, "val", np.where(e.pictures.repeated, "duplicate", "train"))
    arrays = {"names": np.array(e.pictures.names), "h": e.h.cpu().numpy(), "split": split}
    if e.z is not None:
        arrays["z"] = F.normalize(e.z, dim=1).cpu().numpy()
    with writing(folder / "embeddings.npz") as beside:
        np.savez_compressed(beside, **arrays)  # type: ignore[arg-type]


def neighbours(h: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of every row other than itself: (cosine, index), [N,k] each."""
    cosine, index = nearest(h, h, k + 1, chunk=CHUNK)
    itself = index == torch.arange(len(h), device=h.device)[:, None]
    itself[~itself.any(1), -1] = True  # crowded out by exact copies: the last goes
    keep = (~itself).nonzero()[:, 1].view(len(h), k)
    return cosine.gather(1, keep), index.gather(1, keep)


def _neighbours_apart(h: Tensor, k: int, apart: np.ndarray) -> tuple[Tensor, Tensor]:
    """As `neighbours`, of rows of another group (there are two at least); fewer where the largest leaves no k."""
    _, group, counts = torch.from_numpy(apart).to(h.device).unique(return_inverse=True, return_counts=True)
    largest = int(counts.max())
    k = min(k, len(h) - largest)
    cosine, index = nearest(h, h, min(len(h), k + largest), chunk=CHUNK)
    same = group[index] == group[:, None]
    keep = same.int().argsort(dim=1, stable=True)[:, :k]  # the nearest of another group first
    return cosine.gather(1, keep), index.gather(1, keep)


def _neighbours_table(folder: Path, names: tuple[str, ...], cosine: np.ndarray, index: np.ndarray) -> None:
    rows = ([name, r + 1, names[j], f"{c:.4f}"] for i, name in enumerate(names)
            for r, (j, c) in enumerate(zip(index[i], cosine[i])))  # fmt: skip
    save_table(folder / "neighbours.csv", ("name", "rank", "neighbour", "cosine"), rows)


def _queries(work: Work, e: Embedded, k: int) -> None:
    """`queries.csv`, the neighbours of every query; of the first 24, `query_<name>.png` and the neighbours in words."""
    if not e.queries:
        return
    found = nearest(e.h, torch.stack([h for _, h in e.queries.values()]), k, chunk=CHUNK)
    neighbours = [list(zip(at, c)) for c, at in zip(*(part.tolist() for part in found))]
    rows = ([name, r + 1, e.pictures.names[j], f"{c:.4f}"] for name, near in zip(e.queries, neighbours)
            for r, (j, c) in enumerate(near))  # fmt: skip
    save_table(work.folder / "queries.csv", ("query", "rank", "neighbour", "cosine"), rows)
    if len(e.queries) > QUERIES:
        work.note(f"--query: {len(e.queries)} pictures, all in queries.csv; pictures are made of the first {QUERIES}")
    for (name, (picture, _)), near in list(zip(e.queries.items(), neighbours))[:QUERIES]:
        _query(work, e, name, picture, near)


def _query(work: Work, e: Embedded, name: str, picture: Tensor, near: list[tuple[int, float]]) -> None:
    shown = near[:ACROSS]
    tiles = [framed(picture, PLAIN), *[framed(e.pictures.images[j], PLAIN) for j, _ in shown]]
    words = ["query", *[f"{c:.2f}" for _, c in shown]]
    save(work.folder / f"query_{name}.png", contact_sheet(tiles, words, columns=len(shown) + 1, size=72))
    work.note(f"nearest to {name}: {', '.join(f'{e.pictures.names[j]} ({c:.2f})' for j, c in near[:5])}")
    work.show(f"query_{name}.png")


def _judge(job: Any, work: Work, e: Embedded) -> dict[str, float | None]:
    """k-NN and linear accuracy on held-out pictures; `predictions.csv` for those without a label."""
    p = e.pictures
    train, val = (torch.from_numpy(np.flatnonzero((p.labels.numpy() >= 0) & part)) for part in (~p.held, p.held))
    k, n = min(job.k, len(train)), len(p.classes)
    labels = p.labels.to(e.h.device)
    metrics: dict[str, float | None] = {}
    if len(val):
        votes = knn_predict(e.h[train], labels[train], e.h[val], k, classes=n, chunk=CHUNK)
        found = score(votes.argmax(1), labels[val], n)
        metrics |= {"knn_accuracy": found.value, "knn_low": found.interval[0], "knn_high": found.interval[1]}
        result = LinearProbe(classes=n).fit(e.h[train], labels[train]).accuracy(e.h[val], labels[val])
        metrics |= {"linear_accuracy": result.accuracy, "linear_low": result.interval[0],
                    "linear_high": result.interval[1]}  # fmt: skip
        counts = torch.bincount(labels[val], minlength=n)
        metrics["most_frequent"] = float(counts.max() / counts.sum())
        _confusion(work.folder, p.classes, result.confusion)
    unknown = torch.from_numpy(np.flatnonzero(p.labels.numpy() < 0))
    if len(unknown):
        known = torch.from_numpy(np.flatnonzero(p.labels.numpy() >= 0))
        shares = knn_predict(e.h[known], labels[known], e.h[unknown], min(job.k, len(known)), classes=n, chunk=CHUNK)
        share, best = shares.max(1)
        rows = ([p.names[i], p.classes[b], f"{s:.3f}"]
                for i, b, s in zip(unknown.tolist(), best.tolist(), share.tolist()))  # fmt: skip
        save_table(work.folder / "predictions.csv", ("name", "label", "share"), rows)
        metrics["predicted"] = float(len(unknown))
    return metrics


def _confusion(folder: Path, classes: tuple[str, ...], counts: Tensor) -> None:
    save_table(folder / "confusion.csv", ("true", *classes), ([c, *row] for c, row in zip(classes, counts.tolist())))
    if len(classes) <= 40:
        names = [shortened(name, 14) for name in classes]
        chart = heat_map(counts.numpy(), rows=names, columns=names, x_label="linear probe says", y_label="true")
        save(folder / "confusion.png", chart.png())


def _describe(work: Work, e: Embedded) -> dict[str, float | None]:
    """Figures that need no label: of the whole set (a sample of 5,000 for those of pairs)."""
    some = e.h[:: max(1, len(e.h) // 5000)]
    found: dict[str, float | None] = {"alignment": e.alignment, "uniformity": float(uniformity(some))}
    found["effective_rank"] = float(effective_rank(e.h))
    if e.z is not None:
        unit = F.normalize(e.z, dim=1)
        spread = float(unit.std(0).mean() * math.sqrt(unit.shape[1]))
        found |= {"uniformity_z": float(uniformity(unit[:: max(1, len(unit) // 5000)])), "spread_z": spread}
        if spread < 0.05:
            work.note("the embeddings have collapsed: all pictures lie at nearly one point (spread_z below 0.05 of an "
                      "even spread); try a higher temperature, a smaller rate, or weaker views")  # fmt: skip
    return found | {"pictures": float(len(e.h))}
