"""Claims about which weights go: how many, against the original algorithm, and on labels without a meaning."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder
from precis.lab.hypotheses import AtLeast, AtMost, Greater, NotWorse
from precis.papers.pools import Pool
from precis.sparsity.variational_dropout import variational_layers
from precis.train.many import Many

from .digits import Setting, load_pool
from .measures import accuracy, density, log_compression, log_removable, rows, share_at_clip
from .training import ARMS, train

QUICK, FULL = ("smoke", "quick"), ("full",)
SMOKE = Setting(train=100, test=50, steps=4, batch=50, net="mlp:16")
MNIST = Setting(
    "mnist", 28, net="lenet300", second_net="lenet5", steps=60_000, lr=1e-3, second_hold=0.0, ramp=(0.05, 0.2),
    first="paper",
)  # fmt: skip


class _Trained(Claim):
    """Nets of all seeds of an arm in one pass; what is read of each is `measure`'s.

    Digits: 1,437 pictures of 8×8 for training and 360 for the test, drawn by the seed; a perceptron 64-300-100-10 with
    He normal weights, Adam at 10⁻², constant and from the middle on linearly to 0, 600 steps of 100.  The KL term's
    weight is 0 up to 5 % of the steps and 1 from 35 % on.  All arms of a seed have the same pictures, order and first
    weights.  log σ² begins at −10 throughout, as the plan of these claims has it for a net that was not trained before.

    A first recorded run departed from that: log σ² began at −10 or at log θ² − 3, whichever is less, which the plan
    keeps for nets that come trained.  There `sparsity` was supported (compression 19, 1.1 points below the dense net),
    `vs_original` supported, `random_labels` inconclusive (4.6 % of the weights left, 17 % of the labels learned) and
    `additive_noise` contradicted (by its bound).  It was replaced for the departure; with the plan's start they are
    inconclusive (42, 2.5 points), supported, inconclusive (1.5 %, 13 %) and inconclusive.

    At full, MNIST: on a processor 10,000 pictures, 3,000 steps at 3·10⁻³, else as above; on a GPU all pictures, the
    paper's first weights, Adam at 10⁻³, and for LeNet-5 a rate that falls from the start, as in the paper.
    """

    takes = ("images",)
    by_arm = True
    permuted = False

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        for arm in arms:
            name, second = arm.removesuffix("_lenet5"), arm.endswith("_lenet5")
            many, split = train(
                ARMS[name], settings, data, seeds, records[arm, seeds[0]], permuted=self.permuted,
                spec=settings.second_net if second else None,
            )  # fmt: skip
            for i, seed in enumerate(seeds):
                _curve(records[arm, seed], many, i)
                net: Any = many.module(i)
                if variational_layers(net):
                    records[arm, seed].table("layers", rows(net))
                yield arm, seed, self.measure(name, net, *(t[i] for t in split))

    def measure(self, arm: str, net: Any, x: Any, y: Any, test_x: Any, test_y: Any) -> Metrics:
        raise NotImplementedError


class _Digits(_Trained):
    runs = "digits"

    def measure(self, arm: str, net: Any, x: Any, y: Any, test_x: Any, test_y: Any) -> Metrics:
        found: Metrics = {
            "accuracy": accuracy(net, test_x, test_y), "log_removable": log_removable(net, test_x, test_y),
        }  # fmt: skip
        if variational_layers(net):
            found |= {"log_compression": log_compression(net), "compression": 1 / max(density(net), 1e-9)}
        if arm == "original":
            found["share_at_clip"] = share_at_clip(net)
        return found


class Sparsity(_Digits):
    """Compression, weights over surviving weights at log α < 3, and test accuracy against the same net trained plainly.

    The dense net has the same steps, rate and order, no noise and no KL term.  Bounds: a compression of 10 (log 10 =
    2.3026) and three points of accuracy, about three standard errors of 360 digits; at full 40 for LeNet-300-100, 150
    for LeNet-5 and half a point, where the paper has 68 and 280.  The dense arm is the method without its mechanism, so
    there is no broken one; `vs_original` breaks it.
    """

    name = "sparsity"
    statement = (
        "Most weights end with so much noise that they can be removed, at little loss of accuracy against a dense "
        "network."
    )
    arms = ("sparse", "dense", "sparse_lenet5", "dense_lenet5")
    profiles = {
        "smoke": Profile(SMOKE, seeds=3, scale="100 digits, 4 steps, 64-16-10"),
        "quick": Profile(Setting(), seeds=3, scale="1,437 digits of 8×8, 600 steps, 64-300-100-10"),
        "full": Profile(
            Setting("mnist", 28, train=10_000, test=10_000, net="lenet300", second_net="lenet5", steps=3000, lr=3e-3),
            seeds=3, cuda=MNIST, scale="MNIST, 10,000 pictures, 30 epochs, LeNet-300-100 and LeNet-5 (GPU: all, 100)",
        ),
    }
    hypotheses = (
        AtLeast("log_compression", "sparse", 2.3026, profiles=QUICK),
        NotWorse("accuracy", "sparse", "dense", 3.0, profiles=QUICK),
        AtLeast("log_compression", "sparse", 3.6889, profiles=FULL),
        NotWorse("accuracy", "sparse", "dense", 0.5, profiles=FULL),
        AtLeast("log_compression", "sparse_lenet5", 5.0106, profiles=FULL),
        NotWorse("accuracy", "sparse_lenet5", "dense_lenet5", 0.5, profiles=FULL),
    )
    preconditions = (Precondition("accuracy", "dense", at_least=90, why="the dense network was not fitted"),)
    untried = "The VGG-like net of the paper, CIFAR and pretrained nets were not tried."


class VsOriginal(_Digits):
    """log of the largest compression within one point of accuracy of the arm's own net, as that is evaluated.

    Weights go in order of falling α, of equal α the smaller |θ| first; in the dense net in order of rising |θ|.  The
    original algorithm learns α itself (multiplicative noise) from log α = −3 with its own polynomial for the KL term,
    and puts log α back to 0 after every step, as that term is not valid above.  By a factor of 3: less would be within
    what one point of 360 digits can move.  In the broken arm the KL term has weight 0, everything else being the
    method's.
    """

    name = "vs_original"
    statement = (
        "The original variational dropout, whose noise variances have to be clipped, leaves far fewer weights that can "
        "be removed."
    )
    arms = ("sparse", "original", "dense")
    sabotaged = {"sparse_without_kl": "sparse"}
    profiles = Sparsity.profiles | {
        "full": Profile(
            Sparsity.profiles["full"].settings, seeds=3, cuda=MNIST,
            scale="MNIST, 10,000 pictures, 30 epochs, LeNet-300-100 (GPU: all, 100)",
        ),
    }  # fmt: skip
    hypotheses = (
        Greater("log_removable", "sparse", "original", by=1.0986),
        Greater("log_removable", "sparse", "dense", counts=False),
        AtLeast("share_at_clip", "original", 0.5, counts=False),
    )
    preconditions = (Precondition("accuracy", "original", at_least=80, why="the original algorithm learned nothing"),)
    untried = "The original algorithm with one α a layer or a neuron, as its paper also has it, was not tried."


class RandomLabels(_Trained):
    """The labels of the training digits are permuted: no weight can lower the error on anything but themselves.

    Bounds: 5 % of the weights and 15 % of the training labels (10 % are chance) for the method; more than 90 % for the
    dense net with the same steps: twice those of `sparsity`, since a trial run on another seed had learned only 78 % of
    the labels by 600.  Beside them, not counting, binary dropout of one half in both hidden layers, as in the paper,
    with a rate and a number of steps of its own, since what is asked is whether dropout *can* memorise: 0.3 times the
    rate and four times the steps of the others.  No broken arm: the dense net is the method without its mechanism.

    Before, the dropout arm had the rate and steps of the others and learned 14 % of the labels.  On a seed that no
    verdict reads it is the rate first: after 1,200 steps 11 % at 10⁻², where the loss stays that of guessing from the
    start, 54 % at 3·10⁻³ and 35 % at 10⁻³; and then the steps: after 4,800, 98 % at 3·10⁻³ and 88 % at 10⁻³.  The
    former of these was taken; no other arm was looked at.
    """

    name = "random_labels"
    statement = (
        "On permuted labels nearly every weight is removed and a constant predicted, where a dense network memorises "
        "them."
    )
    arms = ("sparse", "dense", "dropout")
    permuted = True
    dropout_steps, dropout_rate = 4, 0.3  # times those of the other arms
    profiles = {
        "smoke": Profile(SMOKE, seeds=3, scale="100 digits, 4 steps, 64-16-10"),
        "quick": Profile(
            Setting(steps=1200), seeds=3,
            scale="1,437 digits with permuted labels, 1,200 steps (dropout 4,800), 64-300-100-10",
        ),
        "full": Profile(
            Setting("mnist", 28, train=3000, test=10_000, net="lenet300", steps=3000, lr=3e-3), seeds=3, cuda=MNIST,
            scale="MNIST, 3,000 pictures with permuted labels, 100 epochs, LeNet-300-100 (GPU: all 60,000)",
        ),
    }
    hypotheses = (
        AtMost("density", "sparse", 0.05),
        AtMost("train_accuracy", "sparse", 15),
        AtLeast("train_accuracy", "dense", 90),
        AtLeast("train_accuracy", "dropout", 90, counts=False),
    )
    untried = "Labels that are permuted only in part, and the other arms at dropout's rate and steps, were not tried."

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        from dataclasses import replace  # here, since at the top it would be code of the module's other claims too

        slower = replace(settings, steps=self.dropout_steps * settings.steps, lr=self.dropout_rate * settings.lr)
        for arm in arms:
            yield from super().batch((arm,), seeds, slower if arm == "dropout" else settings, data, records)

    def measure(self, arm: str, net: Any, x: Any, y: Any, test_x: Any, test_y: Any) -> Metrics:
        found: Metrics = {"train_accuracy": accuracy(net, x, y)}
        return found | {"density": density(net)} if variational_layers(net) else found


def _curve(record: Recorder, many: Many, copy: int) -> None:
    for name in ("nll", "kl") if "kl" in many.curves else ("loss",):
        parts = many.curves[name][copy].tensor_split(min(100, many.curves[name].shape[1]))
        record.curve(name, torch.linspace(0, many.curves[name].shape[1], len(parts)), [float(p.mean()) for p in parts])
