"""Claims about what is learned: that it beats an untrained net, and in which layer it lies."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder
from precis.lab.hypotheses import Greater
from precis.papers.contrastive_judging import judge, judge_encoder
from precis.papers.contrastive_sets import Pool, Setting, load_pool, pool_of
from precis.papers.contrastive_training import views_of

from .arms import make_model, train

# As specified; on a processor that takes hours, so that `profiles` has less of it there.
CIFAR = Setting(
    "cifar10", 32, train=10_000, test=10_000, encoder="conv:48x4", steps=1560, lr=1e-3, views="simclr",
)  # fmt: skip
CIFAR_GPU = Setting(
    "cifar10", 32, train=50_000, test=10_000, encoder="resnet18:stem=small", batch=512, steps=9700, lr=1e-3,
    views="simclr", precision="bf16",
)  # fmt: skip
CIFAR_SCALE = "CIFAR-10, 10,000 pictures, convolutions 48 to 384, 40 epochs of 256 (GPU: all, ResNet-18, 100 of 512)"


class BeatsRandom(Claim):
    """Accuracy, in points, of a linear probe on five labels of each class, on test pictures.

    SimCLR against the same net as it was drawn: same weights at the start, and the probe is all that is trained.  No
    margin.  Pixels as they are (standardised, like every representation) are shown beside it and do not count: on 8×8
    digits they are strong.  The broken arm trains in the same way on wrong pairs, each picture's view with a view of
    another: what it gains over the untrained net is not learned from pairs.
    """

    name = "beats_random"
    statement = "Contrastive features hold more than those of the same network untrained."
    arms = ("simclr", "random", "pixels")
    sabotaged = {"shuffled": "simclr"}
    takes = ("images",)
    profiles = {
        "smoke": Profile(Setting(train=160, test=60, batch=64, steps=3, encoder="conv:8x2"), seeds=2,
                         scale="160 digits"),
        "quick": Profile(Setting(steps=80), seeds=3, scale="8×8 digits, convolutions 24, 48, 96, 80 steps of 2×256"),
        "full": Profile(
            Setting(CIFAR.data, CIFAR.size, train=5000, test=2000, encoder="conv:16x4", batch=128, steps=300,
                    lr=CIFAR.lr, views=CIFAR.views),
            seeds=3, cuda=CIFAR_GPU,
            scale=CIFAR_SCALE.replace("10,000 pictures, convolutions 48 to 384, 40 epochs of 256",
                                      "5,000 pictures, convolutions 16 to 128, 300 steps of 128"),
        ),
    }  # fmt: skip
    hypotheses = (
        Greater("accuracy", "simclr", "random"),
        Greater("accuracy", "simclr", "pixels", counts=False),
        Greater("knn", "simclr", "random", counts=False),
    )
    untried = "ImageNet and ResNet-50, where the paper works, and other probes than linear ones and neighbours."

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        pool = pool_of(data, seed, record.device)
        if arm == "pixels":
            return judge(settings, pool, pool.images.flatten(1).float(), pool.test_images.flatten(1).float())
        model = make_model(settings, pool, record.streams).to(record.device)
        if arm != "random":
            train(settings, pool, model, views_of(settings.views, settings.size), record, shuffled=arm == "shuffled")
        return judge_encoder(settings, pool, model)


GLYPHS = Setting("glyphs", 16, train=2160, test=720, batch=128, steps=150)


class Head(Claim):
    """One run, two layers: h, the encoder's output, and z, which the head makes of it and the loss sees (128 numbers,
    two layers with the encoder's width between, as in the paper).  Accuracy as in `beats_random`, on characters in
    typefaces that training did not see.  No margin.

    The broken arm trains the same encoder without a head, so that the loss sees h itself: if it too beats z, then it is
    not the distance from the loss that makes h better.  Whether the head also makes a better h is shown beside it.

    `learned`: the accuracy of h less that of the same net before its first step; two points or more, or nothing can be
    compared.  (At first 6 % were asked for; untrained weights have 10.)
    """

    name = "head"
    statement = "The representation before the projection head is better than what the head makes of it."
    arms = ("h", "z")
    sabotaged = {"no_head": "h"}
    profiles = {
        "smoke": Profile(Setting("glyphs", 16, train=72, test=36, batch=32, steps=2, encoder="conv:8x2"), seeds=2,
                         scale="72 characters"),
        "quick": Profile(GLYPHS, seeds=3, scale="16×16, 36 characters, other typefaces, 24–96 channels, 150 × 2×128"),
        "full": BeatsRandom.profiles["full"],
    }  # fmt: skip
    hypotheses = (
        Greater("accuracy", "h", "z"),
        Greater("accuracy", "h", "no_head", counts=False),
        Greater("accuracy_all", "h", "z", counts=False),
    )
    preconditions = (
        Precondition("learned", "h", at_least=2, why="the net has learned little: its first weights tell as much"),
    )
    takes = ("images",)
    untried = "Wider and deeper heads, and ImageNet, where the paper finds more than ten points, were not tried."

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        for seed in seeds:
            pool = pool_of(data, seed, records[arms[0], seed].device)
            if read := [arm for arm in arms if arm != "no_head"]:
                record = records[read[0], seed]
                model = make_model(settings, pool, record.streams).to(record.device)
                before = judge_encoder(settings, pool, model)["accuracy"]
                train(settings, pool, model, views_of(settings.views, settings.size), record)
                for arm in read:
                    found = judge_encoder(settings, pool, model, layer=arm)  # type: ignore[arg-type]
                    yield arm, seed, found | ({"learned": found["accuracy"] - before} if arm == "h" else {})  # type: ignore[operator]
            if "no_head" in arms:
                record = records["no_head", seed]
                bare = make_model(settings, pool, record.streams, head=False)
                train(settings, pool, bare, views_of(settings.views, settings.size), record)
                yield "no_head", seed, judge_encoder(settings, pool, bare)
