"""The claim about other classes than those that were learned."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder, Tuning
from precis.lab.hypotheses import Greater, NotWorse
from precis.papers.contrastive_judging import judge
from precis.papers.contrastive_sets import TUNING_SEEDS, Pool, characters, load_pool
from precis.train.probe import embed, first_of_each

from .training import Plan, classifier, make_model, permuted, train

LETTERS = Plan("letters", train=728, test=600)
# As specified; on a processor that takes hours, so that `profiles` has less of it there.
CIFAR = Plan(
    "cifar100", 32, train=10_000, test=10_000, encoder="conv:32x4", batch=512, steps=380, lr=1e-3, views="supcon",
)  # fmt: skip
CIFAR_GPU = Plan(
    "cifar100", 32, train=50_000, test=10_000, encoder="resnet18:stem=small", batch=512, steps=9700, lr=1e-3,
    views="supcon", precision="bf16",
)  # fmt: skip


class Sets(NamedTuple):
    """`first` is trained on; of `other`, which has other classes, a few training pictures are labelled."""

    first: Pool
    other: Pool


class Transfer(Claim):
    """Accuracy, in points, of a linear probe on five labels of each *other* class: of digits for nets that learned from
    letters, on test pictures of other typefaces.  Not worse by two points, which fewer labels would drown in noise.

    Both arms have the same encoder, batches and views.  Each one's temperature is chosen from {0.1, 0.5} on one seed,
    by the digits of training typefaces that the probe does not get; no letter is labelled for SimCLR, whose positives
    are the other views.  In the broken arm letters are dealt to other pictures: what it loses, labels had brought.
    """

    name = "transfer"
    statement = "Its features transfer to other classes as well as those of self-supervised contrastive learning."
    arms = ("supcon", "simclr")
    sabotaged = {"shuffled": "supcon"}
    tuning = Tuning({"temperature": (0.1, 0.5)}, "validation")
    profiles = {
        "smoke": Profile(Plan("letters", train=104, test=40, encoder="conv:8x2", batch=32, steps=2), seeds=2,
                         scale="104 letters"),
        "quick": Profile(LETTERS, seeds=3,
                         scale="26 letters of 16×16, 28 each, then digits; 16–64 channels, 100 × 2×128"),
        "full": Profile(
            replace(CIFAR, train=5000, test=2000, encoder="conv:16x4", batch=256, steps=120), seeds=3, cuda=CIFAR_GPU,
            scale="CIFAR-100, 5,000 pictures, then CIFAR-10; 16–128 channels, 120 steps of 2×256 (GPU: all, ResNet-18, "
                  "100 epochs of 2×512)",
        ),
    }  # fmt: skip
    hypotheses = (
        NotWorse("accuracy", "supcon", "simclr", margin=2.0),
        Greater("accuracy", "supcon", "simclr", counts=False),
        Greater("accuracy_all", "supcon", "simclr", counts=False),
        Greater("first", "supcon", "simclr", counts=False),
    )
    preconditions = (
        Precondition("accuracy", "simclr", at_least=15, why="the net has learned nothing: guessing gives 10 %"),
    )
    untried = "ImageNet and the twelve sets of the paper's table, fine-tuning, and long training were not tried."

    def load(self, settings: Any, source: Path | None) -> Sets:
        if settings.data != "letters":
            return Sets(*(load_pool(replace(settings, data=name), None) for name in (settings.data, "cifar10")))
        return Sets(characters("upper", 26, settings), characters("digits", 10, settings))

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        first, other = (pool.to(record.device) for pool in data)
        labels = {"supcon": first.labels, "simclr": None,
                  "shuffled": permuted(first.labels, record.streams["eval"])}[arm]  # fmt: skip
        model = make_model(arm, settings, first, record).to(record.device)
        train(settings, first, model, labels, record)
        encoder: Any = model.encoder
        h = embed(encoder, other.images)
        if seed >= TUNING_SEEDS:
            few = first_of_each(other.labels, settings.labels)
            rest = torch.ones(len(h), dtype=torch.bool, device=h.device).index_fill(0, few, False)
            held = Pool(other.images[few], other.labels[few], other.images[rest], other.labels[rest])
            return {"validation": judge(settings, held, h[few], h[rest])["accuracy"]}
        found = judge(settings, other, h, embed(encoder, other.test_images))
        right = classifier(model, first)(first.test_images).argmax(1) == first.test_labels
        return found | {"first": 100 * float(right.float().mean())}
