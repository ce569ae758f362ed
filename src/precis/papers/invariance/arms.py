"""What the claims have in common: rendered pictures and clips, the training of an arm, the scores of an encoder."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from precis.contrastive.invariance import FrameTemporalMoCo, crop_boxes, invariance_score
from precis.contrastive.tracks import Track, region_pairs
from precis.data.toy_clips import CHANGES, Clips, changes, clips, draw, render
from precis.data.toy_shapes import SHAPES
from precis.lab.claim import Metrics, Recorder
from precis.papers.contrastive_sets import SET_SEED, Pool
from precis.papers.contrastive_training import fit_arm, head_on, make_encoder, make_views, views_of
from precis.train.classify import to_input
from precis.train.loop import Run
from precis.train.probe import LinearProbe, embed, first_of_each

VIEWS = "supcon"  # MoCo v2's without blur, which of 24 pixels would leave little
RIDGE = 1e-3
FEW = 5


@dataclass(frozen=True)
class Setting:
    """Pictures of `size` pixels: `pictures` of one object and `test` more; clips × frames; scenes of `objects` objects,
    rendered with `scene_size` pixels; bases × transforms of each of eight shapes for each change; the net; how long."""

    size: int = 24
    pictures: int = 2000
    test: int = 600
    clips: int = 100
    frames: int = 20
    gap: int = 8
    deform: float = 0.5
    moving: bool = True
    scenes: int = 1000
    objects: int = 3
    scene_size: int = 48
    bases: int = 24
    transforms: int = 8
    encoder: str = "conv:24x4"
    batch: int = 128
    steps: int = 60
    lr: float = 3e-3
    temperature: float = 0.2
    queue: int = 1024
    k: int = 10
    k_more: int = 25
    precision: Literal["fp32", "bf16"] = "fp32"


class Scenes(NamedTuple):
    """Scenes uint8 [N,3,L,L] and their objects' boxes [N,m,4]; crops of objects of other scenes with their shapes, to
    judge by; and whole scenes for the same with the shapes that are in them [N,8]."""

    images: Tensor
    boxes: Tensor
    crops: Tensor
    labels: Tensor
    test_crops: Tensor
    test_labels: Tensor
    wholes: Tensor
    present: Tensor


@lru_cache(maxsize=8)
def change_set(s: Setting, factor: str) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures of one change, their shapes and their base pictures."""
    made = changes(factor, s.bases, s.transforms, 1000 + CHANGES.index(factor), size=s.size)
    return torch.from_numpy(made.images), torch.from_numpy(made.targets), torch.from_numpy(made.bases)


def singles(s: Setting) -> Pool:
    """One object a picture, in the middle; labels are shapes."""
    made = render(draw(s.pictures + s.test, 1, SET_SEED), s.size)
    images, labels = torch.from_numpy(made.images), torch.from_numpy(made.factors["shape"][:, 0])
    return Pool(images[: s.pictures], labels[: s.pictures], images[s.pictures :], labels[s.pictures :])


def made_clips(s: Setting, scene: int = 1) -> Clips:
    """Clips of one object, or of several at the scenes' size."""
    size = s.size if scene == 1 else s.scene_size
    return clips(s.clips, s.frames, SET_SEED + 2, scene=scene, size=size, deform=s.deform, moving=s.moving)


def made_scenes(s: Setting) -> Scenes:
    """Scenes of several objects, to train on and to judge by."""
    train, judge = (render(draw(n, s.objects, seed), s.scene_size) for n, seed in
                    ((s.scenes, SET_SEED + 3), (s.test, SET_SEED + 4)))  # fmt: skip
    images, boxes = torch.from_numpy(judge.images), torch.from_numpy(judge.boxes)
    shapes = torch.from_numpy(judge.factors["shape"])
    row, place = torch.nonzero(_clear(boxes)).T
    squares = square_boxes(boxes[row, place])
    crops, labels = crop_boxes(images, row, squares, s.size), shapes[row, place]
    early = row < s.test // 2
    wholes = F.interpolate(images.float(), (s.size, s.size), mode="area").round().to(torch.uint8)
    present = F.one_hot(shapes, len(SHAPES)).amax(1)
    return Scenes(torch.from_numpy(train.images), torch.from_numpy(train.boxes), crops[early], labels[early],
                  crops[~early], labels[~early], wholes, present)  # fmt: skip


def _clear(boxes: Tensor) -> Tensor:
    """Which objects are seen, in a box of 4 pixels or more each way."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides >= 4).all(-1)  # NaN: not seen


def square_boxes(boxes: Tensor) -> Tensor:
    """The squares that `region_pairs` would crop, [P,4]."""
    tracks = [Track(torch.tensor([0]), box[None]) for box in boxes]
    return region_pairs(tracks, 0).boxes[:, 0]


def object_crops(s: Setting, scenes: Scenes, where: str) -> Tensor:
    """One crop of every scene: around one of its objects, or, with where="elsewhere", as large at a place by chance."""
    rng = np.random.default_rng(SET_SEED + 5)
    clear = _clear(scenes.boxes).numpy()
    rows = np.flatnonzero(clear.any(1))
    chosen = np.array([rng.choice(np.flatnonzero(clear[i])) for i in rows])
    squares = square_boxes(scenes.boxes[rows, chosen])
    if where == "elsewhere":
        side = squares[:, 2:] - squares[:, :2]
        corner = torch.from_numpy(rng.random((len(rows), 2))).float() * (s.scene_size - side).clamp(min=0)
        squares = torch.cat([corner, corner + side], 1)
    return crop_boxes(scenes.images, torch.from_numpy(rows), squares, s.size)


def train_moco(
    s: Setting, first: Tensor, second: Tensor, record: Recorder, *, views: str = "both", fitted: Tensor | None = None
) -> tuple[nn.Module, float]:  # fmt: skip
    """An encoder trained by MoCo, and its loss at the end; pairs of pictures uint8 [P,3,·,·]: first[i] and second[i].

    Weights, order and views are drawn alike in every arm of a seed.  `views`: "both" crops and colours, or one of them.
    `fitted`: pictures that the first layer is fitted to (default: first).
    """
    first, second = first.to(record.device), second.to(record.device)
    encoder = make_encoder(s, first if fitted is None else fitted, record.streams["init"])
    made = views_of(VIEWS, s.size, views)
    model = FrameTemporalMoCo(
        encoder, head_on(encoder, record.streams["init"]), lambda x, g: to_input(made(x, g)),
        min(s.queue, max(s.batch, len(first) // 2)), 0.99, s.temperature, symmetric=False,
        generator=record.streams["noise"],
    )  # fmt: skip
    return encoder, _end(fit_arm(s, model, lambda i: model.loss(first[i], second[i]), len(first), record))


def train_supervised(s: Setting, images: Tensor, labels: Tensor, record: Recorder) -> tuple[nn.Module, float]:
    """An encoder trained by cross-entropy on one view of each picture (crops, flips), and its loss at the end."""
    images, labels = images.to(record.device), labels.to(record.device)
    encoder = make_encoder(s, images, record.streams["init"])
    head = head_on(encoder, record.streams["init"], dim_out=int(labels.max()) + 1, layers=1)
    made, model = views_of(VIEWS, s.size, "crop"), nn.Sequential(encoder, head)
    loss = lambda i: F.cross_entropy(model(*make_views(images[i], made, record.streams["noise"], 1)), labels[i])
    return encoder, _end(fit_arm(s, model, loss, len(images), record))


def _end(run: Run) -> float:
    """The mean loss of the last tenth of the steps."""
    values = run.curves["loss"].values
    return float(np.mean(values[-max(1, len(values) // 10) :]))


def scores(s: Setting, encoder: nn.Module, factors: tuple[str, ...], record: Recorder) -> Metrics:
    """The firing score, in percent, of the best `k` units for each change (and of `k_more`: "…_more"), units ranked on
    half of the base pictures and scored on the others; "shuffled": the first change with the bases' shapes permuted."""
    found: Metrics = {}
    for factor in factors:
        images, target, base = change_set(s, factor)
        f = embed(encoder, images).cpu()
        score = invariance_score(f, target, base, k=(s.k, s.k_more), generator=record.streams["eval"])
        found |= {factor: float(score.mean[0]), f"{factor}_more": float(score.mean[1])}
        if factor == factors[0]:
            shapes = target.view(-1, s.transforms)[:, 0]
            order = torch.randperm(len(shapes), generator=record.streams["eval"])
            mixed = shapes[order].repeat_interleave(s.transforms)
            again = invariance_score(f, mixed, base, k=(s.k,), generator=record.streams["eval"])
            found |= {"shuffled": float(again.mean[0]), "short": 100 * score.short}
    return found


def probe(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], encoder: nn.Module, *, few: bool = False
) -> Metrics:  # fmt: skip
    """Percentages of test pictures whose shape a linear probe on all labels (`few`: and on five a shape) tells."""
    (x, y), (test_x, test_y) = train, test
    h, test_h = embed(encoder, x).cpu(), embed(encoder, test_x).cpu()
    probes = {"accuracy": LinearProbe(RIDGE, classes=len(SHAPES)).fit(h, y)}
    if few:
        some = first_of_each(y, FEW)
        probes["accuracy_few"] = LinearProbe("inner", classes=len(SHAPES)).fit(h[some], y[some])
    return {name: 100 * p.accuracy(test_h, test_y).accuracy for name, p in probes.items()}


def tell_scenes(scenes: Scenes, encoder: nn.Module) -> float:
    """Mean average precision, in percent, of linear probes that say which shapes are in a whole scene."""
    h, half = embed(encoder, scenes.wholes).cpu(), len(scenes.wholes) // 2
    found = []
    for y in scenes.present.T:
        if 0 < int(y[:half].sum()) < half and 0 < int(y[half:].sum()) < len(y) - half:
            logits = LinearProbe(RIDGE, classes=2).fit(h[:half], y[:half]).logits(h[half:])
            found.append(average_precision_score(y[half:].numpy(), (logits[:, 1] - logits[:, 0]).numpy()))
    return 100 * float(np.mean(found)) if found else float("nan")
