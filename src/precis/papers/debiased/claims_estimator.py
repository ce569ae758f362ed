"""The claim about the estimate of the mean over true negatives; nothing is trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from precis.contrastive.debiased import debiased_negative
from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import AtMost, Between, Equivalent


@dataclass(frozen=True)
class Draws:
    """`pictures` unit vectors of `dim` numbers in `classes` classes, each about its own direction; `draws` samples of
    every size for each of `anchors`."""

    sizes: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    draws: int = 200
    anchors: int = 20
    pictures: int = 10_000
    classes: int = 10
    dim: int = 16
    spread: float = 0.25
    temperature: float = 0.5


class Known(NamedTuple):
    """Similarities [anchors, pictures], which pictures are of the anchor's class, and the true means over those that
    are and are not, [anchors]."""

    similarity: Tensor
    same: Tensor
    within: Tensor
    across: Tensor


class Estimator(Claim):
    """For fixed features, the estimate g of the mean of e^s over true negatives, from N random samples and N positives:
    its mean absolute error in shares of the true mean, over 20 anchors and 200 draws.

    With τ⁺ = 0 the same samples estimate the mean over all pictures, off by τ⁺ (E⁺ − E⁻) whatever N is; `bias` is in
    units of that, so 1 is what theory says of the uncorrected estimate and 0 of the corrected one, at the largest N.
    The margin of a fifth is there for what 200 draws leave open.  `slope`: of log error on log N, −1/2 by the theory,
    between −0.65 and −0.35.  `flattest`: the largest of the slopes between neighbouring sizes, at most −0.25, half of
    what is expected: the error goes on falling.  In the broken arm the positives are random pictures.
    """

    name = "estimator"
    statement = "The corrected estimate's error falls as N to the power −1/2; the uncorrected one keeps its bias."
    arms = ("corrected", "uncorrected")
    sabotaged = {"random_positives": "corrected"}
    profiles = {
        "smoke": Profile(Draws((16, 64), draws=10, anchors=3, pictures=500), seeds=2, scale="500 vectors"),
        "quick": Profile(Draws(), scale="10,000 vectors in 10 classes, N from 16 to 4,096, 200 draws"),
        "full": Profile(Draws(anchors=100, pictures=50_000, draws=500),
                        scale="50,000 vectors in 10 classes, N from 16 to 4,096, 500 draws"),
    }  # fmt: skip
    hypotheses = (
        Between("slope", "corrected", -0.65, -0.35),
        AtMost("flattest", "corrected", -0.25),
        Equivalent("bias", "corrected", target=0.0, within=0.2),
        Equivalent("bias", "uncorrected", target=1.0, within=0.2),
    )
    untried = "Features of a trained net, and fewer positives than samples (in training there is one), were not tried."

    def load(self, settings: Any, source: Path | None) -> None:
        return None

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        known = features(settings, record.streams["data"])
        errors, biases = [], []
        for n in settings.sizes:
            g = estimates(arm, n, settings, known, record.streams["noise"]).double().exp()
            errors.append(float(((g - known.across[:, None]).abs() / known.across[:, None]).mean()))
            gap = (known.within - known.across) / settings.classes
            biases.append(float((g.mean(1) - known.across).sum() / gap.sum()))
        record.curve("error", settings.sizes, errors)
        record.curve("bias", settings.sizes, biases)
        x, y = np.log(settings.sizes), np.log(errors)
        local = np.diff(y) / np.diff(x)
        return {
            "slope": float(np.polyfit(x, y, 1)[0]), "flattest": float(local.max()), "bias": biases[-1],
            "error_smallest_n": errors[0], "error_largest_n": errors[-1],
        }  # fmt: skip


def features(s: Draws, generator: torch.Generator) -> Known:
    """Classes of equal size; the anchors are the first of the pictures."""
    centre = F.normalize(torch.randn(s.classes, s.dim, generator=generator), dim=1)
    label = torch.arange(s.pictures) % s.classes
    z = F.normalize(centre[label] + s.spread * torch.randn(s.pictures, s.dim, generator=generator), dim=1)
    similarity = z[: s.anchors] @ z.T
    same = label[: s.anchors, None] == label
    e = (similarity.double() / s.temperature).exp()
    mean = lambda where: (e * where).sum(1) / where.sum(1)
    return Known(similarity, same, mean(same), mean(~same))


def estimates(arm: str, n: int, s: Draws, known: Known, generator: torch.Generator) -> Tensor:
    """log g [anchors, draws]; random samples come from all pictures, so that τ⁺ = 1/classes exactly."""
    anchors, pictures = known.similarity.shape
    negative = _drawn(known.similarity, torch.randint(pictures, (anchors, s.draws * n), generator=generator), s.draws)
    if arm == "uncorrected":
        return debiased_negative(negative, negative[..., :1], s.temperature, 0.0)
    size = pictures // s.classes
    within = torch.randint(size, (anchors, s.draws * n), generator=generator)
    if arm == "random_positives":
        chosen = torch.randint(pictures, (anchors, s.draws * n), generator=generator)
    else:
        places = known.same.nonzero()[:, 1].view(anchors, size)
        chosen = places.gather(1, within)
    return debiased_negative(negative, _drawn(known.similarity, chosen, s.draws), s.temperature, 1 / s.classes)


def _drawn(similarity: Tensor, index: Tensor, draws: int) -> Tensor:
    return similarity.gather(1, index).view(len(index), draws, -1)
