"""What the claims have in common: pictures with few and with many classes, and one training with one of the losses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.contrastive.debiased import Debiased, debiased_negative, debiased_parts, oracle_nt_xent
from precis.contrastive.ntxent import SimCLR
from precis.data.standard import load
from precis.lab.claim import Metrics, Recorder
from precis.papers.contrastive_judging import judge_encoder
from precis.papers.contrastive_sets import SET_SEED, Pool, Setting, characters, load_pool, mixed
from precis.papers.contrastive_training import fit_arm, head_on, make_encoder, make_views, views_of
from precis.train.loop import Run

ALPHABET = "latin+digits+greek"
LAST = 10  # steps that the share at the floor is averaged over

Loss = Callable[[Tensor, Tensor], Debiased]


@dataclass(frozen=True)
class Plan(Setting):
    """A `Setting` with the chance τ⁺ that the correction assumes, the number M of positives of the arms with more, and
    the share of the steps over which the rate rises."""

    tau_plus: float = 0.1
    positives: int = 4
    rise: float = 0.05


def load_plan(s: Plan, source: Path | None) -> Pool:
    """`load_pool`, and STL-10: the 5,000 labelled and 100,000 unlabelled pictures (label −1) at the plan's size."""
    if source is not None or s.data != "stl10":
        return load_pool(s, source)
    parts = {name: load("stl10", name, download=False) for name in ("train", "unlabelled", "test")}
    x, y = (np.concatenate([getattr(parts[name], field) for name in ("train", "unlabelled")])[: s.train]
            for field in ("images", "labels"))  # fmt: skip
    test = parts["test"]
    return Pool(
        _smaller(x, s.size), torch.from_numpy(y), _smaller(test.images[: s.test], s.size),
        torch.from_numpy(test.labels[: s.test]),
    )  # fmt: skip


def _smaller(images: np.ndarray, size: int) -> Tensor:
    shrink = lambda x: F.interpolate(x.float(), (size, size), mode="area").round().to(torch.uint8)
    return torch.cat([shrink(part) for part in torch.from_numpy(images).split(1024)])


def of_classes(s: Plan, classes: int) -> Pool:
    """`s.train` and `s.test` pictures of the first so many classes, as many of each: characters in typefaces (others
    for the test), or a set of `precis.data.standard`."""
    if s.data == "glyphs":
        return characters(ALPHABET, classes, s)
    made: list[Tensor] = []
    for part, n, seed in (("train", s.train, SET_SEED), ("test", s.test, SET_SEED + 1)):
        found = load(s.data, part, download=False)
        made += mixed(*_few(found.images, found.labels, classes, n), seed)
    return Pool(*made)


def _few(images: np.ndarray, labels: np.ndarray, classes: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.concatenate([np.flatnonzero(labels == c)[: n // classes] for c in range(classes)])
    return images[chosen], labels[chosen]


def make_model(s: Plan, pool: Pool, streams: Mapping[str, torch.Generator]) -> SimCLR:
    """Encoder and head drawn by `init`, the same for every arm of a seed."""
    encoder = make_encoder(s, pool.images, streams["init"])
    return SimCLR(encoder, head_on(encoder, streams["init"]), s.temperature)


def loss_of(kind: str, s: Plan, pool: Pool, tau_plus: float, shuffle: torch.Generator) -> Loss:
    """The loss of embeddings [V,B,D] of the chosen pictures.

    biased: τ⁺ = 0.  debiased: all other views in the correction.  one: only the partner, whatever V is.  oracle: true
    negatives only.  permuted: the oracle with labels dealt out anew, once.  shuffled: the correction takes away the
    similarity to another picture's view.
    """
    t = s.temperature
    if kind in ("oracle", "permuted"):
        labels = pool.labels
        if kind == "permuted":
            labels = labels[torch.randperm(len(labels), generator=shuffle).to(labels.device)]
        return lambda z, chosen: Debiased(oracle_nt_xent(z, labels[chosen], t), z.new_zeros(()))
    if kind == "shuffled":
        return lambda z, chosen: misattributed(z, t, tau_plus)
    tau = 0.0 if kind == "biased" else tau_plus
    m = 1 if kind == "one" else None
    return lambda z, chosen: debiased_parts(z, t, tau, positives=m, match_n=True)


def misattributed(z: Tensor, temperature: float, tau_plus: float) -> Debiased:
    """The debiased loss of two views whose correction is broken: in place of its positive it takes away the similarity
    to the partner view of the next picture."""
    z = F.normalize(z, dim=2)
    _, b, _ = z.shape
    rows, partner = z.flatten(0, 1), z.flip(0)
    own = torch.eye(b, dtype=torch.bool, device=z.device).repeat(2, 2)
    negative = (rows @ rows.T)[~own].view(2 * b, 2 * b - 2)
    wrong = (z * partner.roll(1, 1)).sum(2).view(2 * b, 1)
    log_g = debiased_negative(negative, wrong, temperature, tau_plus)
    s = (z * partner).sum(2).flatten() / temperature
    low = (log_g <= -1 / temperature).float().mean()
    return Debiased(F.softplus(np.log(2 * b - 2) + log_g - s).mean(), low)


def train(s: Plan, pool: Pool, model: nn.Module, loss: Loss, record: Recorder, views: int = 2) -> Run:
    """`data` orders the batches, `noise` makes the first two views and `eval` further ones, so that arms share the
    first two."""
    augment = views_of(s.views, s.size)

    def of_chosen(chosen: Tensor) -> dict[str, Tensor]:
        x = pool.images[chosen]
        made = make_views(x, augment, record.streams["noise"])
        if views > 2:
            made += make_views(x, augment, record.streams["eval"], views - 2)
        z = model(torch.cat(made))[1]
        return loss(z.view(views, len(x), -1), chosen)._asdict()

    return fit_arm(s, model, of_chosen, len(pool.images), record, rise=s.rise)


def trained_and_judged(s: Plan, pool: Pool, model: nn.Module, loss: Loss, record: Recorder, views: int = 2) -> Metrics:
    """`judge_encoder` after `train`; the share of anchors at the floor in the last steps, and pictures encoded."""
    run = train(s, pool, model, loss, record, views)
    last = run.curves["at_floor"].values[-LAST:]
    found = judge_encoder(s, pool, model)
    return found | {"at_floor": sum(last) / len(last), "encoded": views * s.batch * run.steps}
