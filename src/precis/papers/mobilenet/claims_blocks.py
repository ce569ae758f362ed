"""Claims about the block, all read from one set of runs: the linear end, the shortcut, and what the tensors hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder
from precis.lab.hypotheses import AtMost, Less, NotWorse
from precis.lab.trial import streams
from precis.nn.norm import recalibrate
from precis.papers.pools import Pool
from precis.papers.small_nets import Task, errors, load_pool, train
from precis.vision.mobilenet import STAGES, MobileNetV2
from precis.vision.mobilenet_theory import components_needed

ARMS: dict[str, dict[str, Any]] = {
    "linear": {}, "relu6": {"linear": False}, "none": {"shortcut": "none"}, "expansion": {"shortcut": "expansion"},
}  # fmt: skip


@dataclass(frozen=True)
class Body:
    """Pictures and how long, and the MobileNetV2.

    lr: of the claims about blocks; the one against V1 tunes it.
    """

    task: Task
    batch: int = 32
    lr: float = 0.2
    width: float = 1.0
    stages: tuple[tuple[int, ...], ...] = ((6, 4, 1, 2), (6, 4, 5, 2))
    stem: int = 8
    last: int = 64
    round_to: int = 4


DIGITS = Body(Task(train=1200, test=597, epochs=6))
CIFAR = Body(
    Task("cifar10", 32, train=10_000, test=10_000, epochs=8), lr=0.02, width=0.35, stages=STAGES, stem=32, last=1280,
    round_to=8,
)  # fmt: skip
# The small net leaves out the first halving: here that of the first stage, so that the second works at 16×16.
CIFAR_CPU = replace(CIFAR, stages=((1, 16, 1, 2), *STAGES[1:]), task=replace(CIFAR.task, epochs=5))
SMALL = {
    "smoke": Profile(Body(Task(train=64, test=64, epochs=1)), seeds=2, scale="digits, 64 pictures, 1 epoch"),
    "quick": Profile(DIGITS, scale="8×8 digits, 1,200 pictures, 6 epochs, six blocks of 4 channels"),
    "full": Profile(CIFAR_CPU, seeds=3, cuda=CIFAR,
                    scale="CIFAR-10, 10,000 pictures, 5 epochs (GPU: 8), width 0.35, stem and first stage at full "
                    "resolution (GPU: the second too)"),
}  # fmt: skip


class _Blocks(Claim):
    """The same net with one flag of its blocks changed.

    Digits: a 3×3 stem of 8 channels at 8×8, then six blocks whose thin ends have 4 channels and whose middles have 24
    (t = 6), the second of them with stride 2, then 1×1 to 64 and the mean: thin ends are where a ReLU can do harm.
    Arms: `linear`, the paper's; `relu6`, with ReLU6 after the projection; `none`, without shortcuts; `expansion`, with
    shortcuts between the wide tensors of neighbouring blocks of equal shape instead.  All arms of a seed have the same
    pictures, initial weights, order and rate, so that one flag is all that differs: SGD with momentum 0.9, a cosine
    from 0.2, batches of 32, as the plan of this claim had it before anything was run.  On CIFAR-10 it is from 0.02, the
    best of 0.01 to 0.1 for `linear` and `relu6` on a pilot seed; from 0.2 `linear` learned nothing there.

    A first recorded run departed from that plan: it tuned the rate of every arm on one pilot seed, which gave linear
    ends 0.05 and ends with ReLU6 0.45, a difference that is the pilot's noise (it ranks rates by 240 pictures).  There
    linear ends had 9.5 % error, ReLU6 6.4, no shortcuts 7.3 and wide shortcuts 4.5: `linear_bottleneck` and
    `bottleneck_shortcut` were contradicted.  It was replaced for the departure; what counts is what came out then.
    """

    runs = "blocks"
    takes = ("images",)
    by_arm = True
    profiles = SMALL

    def load(self, settings: Any, source: Path | None) -> Pool:
        return load_pool(settings.task, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Any,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        for arm in arms:
            first = records[arm, seeds[0]]
            many, parts = train(
                partial(make_net, arm, settings, data), settings.batch, settings.task, data, seeds, settings.lr, first
            )  # fmt: skip
            for m, (seed, error) in enumerate(zip(seeds, errors(many, parts))):
                loss = many.curves["loss"][m]
                records[arm, seed].curve("training loss", torch.arange(len(loss)), loss)
                metrics: Metrics = {"error": float(error)}
                if arm == "linear":
                    fresh = make_net(arm, settings, data, streams(seed)["init"]).to(first.device)
                    metrics |= dimensions(many.module(m), fresh, parts.test_x[m][:600], streams(seed)["eval"])
                yield arm, seed, metrics


class LinearBottleneck(_Blocks):
    """Error in points; no margin.  The baseline is the method with its mechanism taken away, so no broken arm stands
    beside it.  With bottlenecks of 16 channels and more, or with easy pictures, the difference goes to nothing.
    """

    name = "linear_bottleneck"
    statement = "Blocks whose thin ends are linear reach a lower error than blocks with ReLU6 there."
    arms = ("linear", "relu6")
    hypotheses = (Less("error", "linear", "relu6"),)
    preconditions = (
        Precondition("error", "linear", at_most=50, why="the net did not learn", profiles=("smoke", "quick")),
        Precondition("error", "linear", at_most=70, why="the net did not learn", profiles=("full",)),
    )
    untried = "ImageNet, where the paper finds about one point (a figure that was not re-read), and wider bottlenecks."


class BottleneckShortcut(_Blocks):
    """Not worse than shortcuts between expansions by one point, which is about what the paper's figure shows between
    the two (a figure that was not re-read).  A shortcut between expansions needs neighbours of equal shape, so the net
    has fewer of them (three against four).  `none` is the method without its mechanism: no broken arm.
    """

    name = "bottleneck_shortcut"
    statement = (
        "Shortcuts between the thin ends give a lower error than no shortcuts, and are no worse than shortcuts between "
        "the wide tensors."
    )
    arms = ("linear", "none", "expansion")
    hypotheses = (
        Less("error", "linear", "none"),
        NotWorse("error", "linear", "expansion", margin=1.0, maximise=False),
    )
    preconditions = LinearBottleneck.preconditions
    untried = "ImageNet, and deeper nets, where shortcuts matter more, were not tried."


class Manifold(_Blocks):
    """Principal components that hold 95 % of the variance of a pixel's channel vector, over the width, on test
    pictures, averaged over blocks: of wide tensors (after ReLU6) and of the thin ones that blocks pass on.

    Bound: half the width of a wide tensor.  Linear dimension is an upper bound of the manifold's.  A wide tensor is
    computed from a thin one of a sixth of its channels, so before its ReLU6 it *cannot* have more than a sixth of its
    width in directions: what is found of it says more about the architecture than about pictures.  The same share of
    the net before training and of wide tensors whose channels were shuffled over pixels, each by itself (which keeps
    every channel's values and breaks what ties them), stand beside it.  Nothing is trained for this.
    """

    name = "manifold"
    statement = (
        "A pixel's wide activations lie in few directions: at most half their width, and a smaller share of it than in "
        "the thin tensors."
    )
    arms = ("linear",)
    hypotheses = (
        AtMost("expanded_minus_bottleneck", "linear", 0),
        AtMost("expanded_share", "linear", 0.5),
        AtMost("untrained_expanded_share", "linear", 0.5, counts=False),
        AtMost("shuffled_expanded_share", "linear", 0.5, counts=False),
    )
    preconditions = LinearBottleneck.preconditions
    untried = "Curved manifolds have fewer dimensions than principal components count; none were measured."


def make_net(arm: str, settings: Body, pool: Pool, generator: torch.Generator) -> MobileNetV2:
    """The net of one arm, its weights drawn by `generator`: the same for every arm."""
    return MobileNetV2(
        pool.classes, settings.width, dropout=0, round_to=settings.round_to, small=True, stages=settings.stages,
        stem=settings.stem, last=settings.last, in_channels=pool.images.shape[1], generator=generator, **ARMS[arm],
    )  # fmt: skip


@torch.no_grad()
def dimensions(net: nn.Module, fresh: nn.Module, x: Tensor, generator: torch.Generator) -> Metrics:
    """Shares of the width that 95 % of the variance needs: trained, untrained, and with channels shuffled."""
    wide, thin = tensors_of(net, x)
    untrained, _ = tensors_of(recalibrate(fresh, [x]), x)
    shuffled = [torch.stack([c[torch.randperm(len(c), generator=generator).to(c.device)] for c in t.T], 1)
                for t in wide]  # fmt: skip
    expanded, bottleneck = mean_share(wide), mean_share(thin)
    return {
        "expanded_share": expanded, "bottleneck_share": bottleneck, "expanded_minus_bottleneck": expanded - bottleneck,
        "untrained_expanded_share": mean_share(untrained), "shuffled_expanded_share": mean_share(shuffled),
    }  # fmt: skip


def tensors_of(net: Any, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Channel vectors [pixels,C] of every block's wide tensor and of its output."""
    wide: list[Tensor] = []
    thin: list[Tensor] = []
    rows = lambda t: t.movedim(1, -1).flatten(0, 2)
    hooks = [b.expand.register_forward_hook(lambda _, __, out: wide.append(rows(out))) for b in net.blocks
             if not isinstance(b.expand, nn.Identity)]  # fmt: skip
    hooks += [b.register_forward_hook(lambda _, __, out: thin.append(rows(out))) for b in net.blocks]
    try:
        net.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
    return wide, thin


def mean_share(tensors: Sequence[Tensor]) -> float:
    return sum(components_needed(t) / t.shape[1] for t in tensors) / len(tensors)
