"""Claims about one set of runs: what false negatives cost, and what the correction and more positives give back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder
from precis.lab.hypotheses import Greater
from precis.papers.contrastive_sets import Pool, pool_of

from .arms import Plan, load_plan, loss_of, make_model, trained_and_judged

# CIFAR is as specified; on a processor that takes hours, so that `profiles` has less of it there.
SMOKE = Plan(train=160, test=60, batch=64, steps=3, encoder="conv:8x2")
CIFAR = Plan("cifar10", 32, train=10_000, test=10_000, encoder="conv:48x4", steps=1560, lr=1e-3, views="simclr")
CIFAR_GPU = Plan(
    "cifar10", 32, train=50_000, test=10_000, encoder="resnet18:stem=small", steps=19_500, lr=1e-3, views="simclr",
    precision="bf16",
)  # fmt: skip
STL_GPU = Plan(
    "stl10", 64, train=105_000, test=8_000, encoder="resnet18:stem=small", steps=24_600, lr=1e-3, views="simclr",
    precision="bf16",
)  # fmt: skip
LEARNED = Precondition("accuracy", "biased", at_least=30, why="the net has learned little: guessing gives 10 %")
SCALE = "CIFAR-10, 10,000 pictures, convolutions 48 to 384, 40 epochs of 256 (GPU: {})"


class _Digits(Claim):
    """Ten classes, as many pictures of each: τ⁺ = 0.1, batches of 256, t = 0.5, AdamW 3e-3 in one cycle (the rate rises
    for 30 % of the steps); at full 1e-3, on a processor batches of 128.  The first recorded runs rose for 5 % only,
    against the specification; they left all three claims open: oracle above biased by 1.1 ± 1.3 points, debiased by
    −0.2 ± 1.1, four positives above one by 1.5 ± 3.5.

    `accuracy` is, in points, that of a linear probe on five labels of each class, on test pictures; with all labels the
    digits are nearly saturated.  Arms of a seed share weights, order and views, and differ in the loss alone.

    `learned`: that accuracy less the one of the same net before its first step, judged in the same way; two points or
    more, or there was nothing to compare.  (At first 30 % were asked for; untrained weights have 76.)
    """

    runs = "digits"
    takes = ("images",)
    preconditions = (
        replace(LEARNED, metric="learned", at_least=2,
                why="the net has learned little: its first weights tell as much"),
    )
    profiles = {
        "smoke": Profile(SMOKE, seeds=2, scale="160 digits"),
        "quick": Profile(Plan(rise=0.3), seeds=3, scale="8×8 digits, convolutions 24, 48, 96, 100 steps of 2×256"),
        "full": Profile(
            replace(CIFAR, train=5000, test=2000, encoder="conv:16x4", batch=128, steps=250, rise=0.3),
            seeds=3, cuda=replace(CIFAR_GPU, rise=0.3),
            scale=SCALE.format("all, ResNet-18, 100 epochs").replace(
                "10,000 pictures, convolutions 48 to 384, 40 epochs of 256",
                "5,000 pictures, convolutions 16 to 128, 250 steps of 128"),
        ),
    }

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_plan(settings, source)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        pool = pool_of(data, seed, record.device)
        # Imported here: imports of a module are part of the key of all its paper's claims, also of `estimator`'s.
        from precis.papers.contrastive_judging import judge_encoder

        model = make_model(settings, pool, record.streams).to(record.device)
        before = judge_encoder(settings, pool, model)["accuracy"]
        kind, _, more = arm.partition("_")
        views = 1 + settings.positives if more else 2
        loss = loss_of(kind, settings, pool, settings.tau_plus, record.streams["eval"])
        found = trained_and_judged(settings, pool, model, loss, record, views)
        return found | {"learned": found["accuracy"] - before}  # type: ignore[operator]


class FalseNegatives(_Digits):
    """The oracle has as negatives the batch's pictures of other classes only, whose mean stands for that of all; it is
    given the labels, which no method has.  No margin.  The broken oracle is told labels that were dealt out anew, so
    that it leaves out as many negatives, of any class.
    """

    name = "false_negatives"
    statement = "Negatives of the anchor's own class cost accuracy."
    arms = ("oracle", "biased")
    sabotaged = {"permuted": "oracle"}
    hypotheses = (
        Greater("accuracy", "oracle", "biased"),
        Greater("accuracy_all", "oracle", "biased", counts=False),
        Greater("knn", "oracle", "biased", counts=False),
    )
    untried = "Other numbers of classes, and ResNet-50 for 500 epochs as in the paper, were not tried."


class BeatsBiased(_Digits):
    """τ⁺ = 0.1 against τ⁺ = 0, which is NT-Xent; no margin.  Where most anchors are at the floor there is no correction
    to judge.  In the broken arm it takes away the similarity to another picture in place of the positive's.
    """

    name = "beats_biased"
    statement = "With few classes, the debiased loss gives better features than the usual one."
    arms = ("debiased", "biased")
    sabotaged = {"shuffled": "debiased"}
    profiles = _Digits.profiles | {
        "full": replace(
            _Digits.profiles["full"], cuda=replace(STL_GPU, rise=0.3), scale=_Digits.profiles["full"].scale.replace(
                "all, ResNet-18, 100 epochs", "STL-10 at 64 pixels, ResNet-18, 60 epochs"),
        ),
    }  # fmt: skip
    hypotheses = (
        Greater("accuracy", "debiased", "biased"),
        Greater("accuracy_all", "debiased", "biased", counts=False),
        Greater("knn", "debiased", "biased", counts=False),
    )
    preconditions = (  # type: ignore[assignment]
        *_Digits.preconditions,
        Precondition("at_floor", "debiased", at_most=0.5, why="most anchors are at the floor: τ⁺ is too large here"),
    )
    untried = "τ⁺ = 0.05, ResNet-50 and 500 epochs, and sentences and control from pixels, were not tried."


class MultiPositive(_Digits):
    """M = 4 further views of each picture in the correction against one, with as many negatives (2·255) and as many
    pictures a step.  Five views in place of two are also two and a half times the work of the encoder and as many more
    anchors: `encoded` counts the pictures that went through.  So the arm that breaks M = 4 has the five views and takes
    one positive into its correction: if it beats two views as well, that is not owed to the better estimate.
    No margin.
    """

    name = "multi_positive"
    statement = "Four positives in the correction are better than one."
    arms = ("debiased_more", "debiased")
    sabotaged = {"one_more": "debiased_more"}
    hypotheses = (
        Greater("accuracy", "debiased_more", "debiased"),
        Greater("accuracy", "debiased_more", "one_more", counts=False),
    )
    preconditions = (replace(_Digits.preconditions[0], arm="debiased"),)
    untried = "Other numbers of positives were not tried."
