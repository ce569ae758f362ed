"""Claims that read one set of trainings: both forms of the loss, cross-entropy, four views, and permuted labels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder, Tuning
from precis.lab.hypotheses import AtLeast, Differs, Greater
from precis.papers.contrastive_sets import TUNING_SEEDS, Pool, load_pool, pool_of

from .gradients import GradientNoise, effective_positives
from .training import Plan, judge, linear_steps, make_model, permuted, train

# As specified; on a processor that takes hours, so that `profiles` has less of it there.
CIFAR = Plan(
    "cifar10", 32, train=10_000, test=10_000, encoder="conv:32x4", batch=512, steps=380, lr=1e-3, views="supcon",
    corruptions=("noise", "blur", "pixelate"), minibatches=64,
)  # fmt: skip
CIFAR_GPU = replace(CIFAR, train=50_000, encoder="resnet18:stem=small", steps=9700, precision="bf16")
LEARNED = "the net has learned nothing: guessing gives 2.8 % (CIFAR-10: 10 %)"


class _Trainings(Claim):
    """Encoder, batches and views of a seed are the same for all arms; the rate of each is chosen from {1, 3, 10}·10⁻³
    on one seed, by the accuracy on a held-out fifth of the training pictures."""

    runs = "trainings"
    tuning = Tuning({"lr": (1e-3, 3e-3, 1e-2)}, "validation")
    takes = ("images",)
    profiles = {
        "smoke": Profile(Plan(train=72, test=36, encoder="conv:8x2", batch=32, steps=2, minibatches=2,
                                 noise_batch=32), seeds=2, scale="72 characters"),
        "quick": Profile(Plan(), seeds=3,
                         scale="36 characters of 16×16, 20 each, other typefaces, 16–64 channels, 100 × 2×128"),
        "full": Profile(
            replace(CIFAR, train=5000, test=2000, encoder="conv:16x4", batch=256, steps=120, minibatches=32), seeds=3,
            scale="CIFAR-10, 5,000 pictures, 16–128 channels, 120 steps of 2×256 (GPU: all, ResNet-18, 100 epochs of "
                  "2×512)", cuda=CIFAR_GPU,
        ),
    }  # fmt: skip

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        pool = pool_of(data, seed, record.device)
        model = make_model(arm, settings, pool, record).to(record.device)
        labels = permuted(pool.labels, record.streams["eval"]) if arm == "shuffled" else pool.labels
        noise = GradientNoise(settings, pool, model, labels, record.streams["eval"])
        options: dict[str, Any] = {"extra": linear_steps(settings, pool)} if arm == "ce" else {}
        if arm == "four":
            options["views"] = 4
        if arm == "out" and seed < TUNING_SEEDS:
            options["watch"] = noise
        train(settings, pool, model, labels, record, **options)
        found = judge(settings, pool, model)
        if seed >= TUNING_SEEDS:
            return {"validation": found["accuracy"]}
        if arm in ("out", "in"):
            found["positives"] = effective_positives(settings, pool, model, labels, arm, record.streams["eval"])
        if arm == "out":
            found["noise_ratio"] = noise.ratio()
            found |= {f"noise_{form}_{at}": value for form, values in noise.found.items()
                      for at, value in zip(("start", "middle", "end"), values)}  # fmt: skip
        return found


class OutVsIn(_Trainings):
    """Accuracy, in points, of the linear stage on test pictures (of typefaces that training did not see).  No margin.

    An anchor has some 6 positives (at full 50, on a GPU 100), among which L_in chooses and L_out does not; how many
    share the pull, 1/ΣX², in batches of 256, is shown and does not count.  Batches of 512 would hold four
    times as many, but in the time of a quick check they leave so few steps that cross-entropy, which has the same
    batches, learns next to nothing.  In the broken arm the labels of the first stage are dealt to other pictures.
    """

    name = "out_vs_in"
    statement = "The loss with the mean over positives outside the logarithm beats the one with the mean inside."
    arms = ("out", "in")
    sabotaged = {"shuffled": "out"}
    hypotheses = (Greater("accuracy", "out", "in"), Greater("positives", "out", "in", counts=False))
    preconditions = (Precondition("accuracy", "out", at_least=20, why=LEARNED),)
    untried = "ImageNet and ResNet-50, where the paper finds eleven points, hundreds of epochs and larger batches."


class BeatsCE(_Trainings):
    """Accuracy as in `out_vs_in`, of cross-entropy that of its own classifier.  No margin.

    Cross-entropy has the same encoder, pictures and views (two of each, in one pass), and as many presentations more as
    the linear stage has: each picture once.  A linear stage on its encoder is shown beside it and does not count.
    Labels are permuted in the broken arm as in `out_vs_in`.
    """

    name = "beats_ce"
    statement = "Supervised contrastive learning classifies better than cross-entropy."
    arms = ("out", "ce")
    sabotaged = {"shuffled": "out"}
    hypotheses = (Greater("accuracy", "out", "ce"), Greater("probe", "out", "ce", counts=False))
    preconditions = (
        Precondition("accuracy", "out", at_least=20, why=LEARNED),
        Precondition("accuracy", "ce", at_least=20, why=LEARNED),
    )
    untried = "ImageNet, 1,000 epochs, AutoAugment, and cross-entropy with label smoothing or mixup were not tried."


class Corruption(_Trainings):
    """Accuracy, in points, on corrupted test pictures: the mean over kinds, three strengths each.  No margin.

    What the training's own augmentation contains does not count: noise on characters, contrast on CIFAR-10.  Each kind
    is shown, and the share of the clean accuracy that is left.  The broken arm is that of `out_vs_in`.
    """

    name = "corruption"
    statement = "Supervised contrastive learning is more robust to corrupted pictures than cross-entropy."
    arms = ("out", "ce")
    sabotaged = {"shuffled": "out"}
    hypotheses = (
        Greater("corrupted", "out", "ce"),
        Greater("kept", "out", "ce", counts=False),
        *(Greater(kind, "out", "ce", counts=False) for kind in ("noise", "blur", "contrast", "pixelate")),
    )
    preconditions = (
        Precondition("accuracy", "out", at_least=20, why=LEARNED),
        Precondition("accuracy", "ce", at_least=20, why=LEARNED),
    )
    untried = "ImageNet-C with its fifteen corruptions at five strengths was not tried."


class Views(_Trainings):
    """Accuracy as in `out_vs_in`: four views of half as many pictures, or two; the same number of passes a step.

    A question without an expected direction; a difference of less than two points, about what three seeds and 720 test
    pictures can tell apart, is none.  The other arm is the method with two views, so there is no broken one beside it.
    """

    name = "views"
    statement = "Four views of each picture make a difference, at equal cost of a step."
    arms = ("four", "out")
    hypotheses = (Differs("accuracy", "four", "out", margin=2.0),)
    preconditions = (Precondition("accuracy", "out", at_least=20, why=LEARNED),)
    untried = "More than four views, and equal numbers of pictures instead of equal cost, were not tried."


class Stability(_Trainings):
    """noise_ratio: ln of tr Cov(g)/‖ḡ‖² of L_in's gradients over that of L_out's, on the same minibatches of 256
    pictures, at the weights of the start, middle and end of the `out` run; the mean of the three.  No margin.

    Each form's noise is relative to its own mean gradient, or it would measure its scale.  L_in is L_out without what
    the claim names, the mean outside the logarithm, so there is no broken arm beside it.
    """

    name = "stability"
    statement = "The gradients of the loss with the mean outside the logarithm are less noisy."
    arms = ("out",)
    hypotheses = (AtLeast("noise_ratio", "out", 0.0),)
    preconditions = (Precondition("accuracy", "out", at_least=20, why=LEARNED),)
    untried = "Noise along the run of the other form, and at the paper's scale, was not measured."
