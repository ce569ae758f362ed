"""The claim about a net that is reversible as a whole."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import Equivalent, Exact
from precis.nn.cost import count, match_width, saved_bytes
from precis.papers.pools import Pool
from precis.papers.small_nets import load_pool
from precis.vision.revnet import RevNet

from .claims_training import CIFAR, Training, train
from .nets import Forgetful, break_blocks


@dataclass(frozen=True)
class Whole:
    """units: blocks a stage that are tried, with one to `stages` stages; blocks: of the net whose input is recovered,
    over all stages; training: of the nets compared in accuracy, None: they are not.
    """

    units: tuple[int, ...] = (1, 2, 4)
    stages: int = 4
    blocks: int = 16
    side: int = 32
    batch: int = 16
    training: Training | None = None


class FullyReversible(Claim):
    """Exact.  i-RevNet's way (Jacobsen, Smeulders, Oyallon, 2018): where a RevNet changes the shape, 2×2 pixels are
    moved into four channels, which loses nothing.  `spread`: the largest difference of kept bytes among nets of one to
    four stages and one to four units a stage, which all keep as many numbers as the picture has.  `recovery`: relative
    error of the picture rebuilt from the features of a net with 16 blocks in four stages, in training mode, untrained
    and with weights as they are drawn, in float32 below 1e-3 and in float64 below 1e-9.

    Broken arm: the inverse of one block of sixteen leaves F out.  The bytes have an arm of their own, since a broken
    inverse keeps as many.  Accuracy is context, and compared at full alone: a fully reversible net against a RevNet of
    as many multiplications, within 10 %.  (On digits of one channel the former is so small that no RevNet is like it.)
    """

    name = "fully_reversible"
    statement = "With reversible transitions only the last output is kept, and the picture can be rebuilt from it."
    arms = ("bytes", "rebuilt", "forgetful", "trained", "trained_revnet")
    sabotaged = {"forgetful": "rebuilt"}
    profiles = {
        "smoke": Profile(Whole((1, 2), 2, 4, 16, 4), seeds=1, scale="4 blocks in 2 stages"),
        "quick": Profile(Whole(), seeds=1, scale="16 blocks in 4 stages, 16 pictures of 32×32"),
        "full": Profile(
            Whole(batch=100, training=replace(CIFAR, pictures=replace(CIFAR.pictures, train=5000, epochs=4))), seeds=3,
            cuda=Whole(batch=100, training=CIFAR), scale="16 blocks in 4 stages, 100 pictures of 32×32; CIFAR-10, "
            "5,000 pictures, 4 epochs (GPU: 10,000, 8)",
        ),
    }  # fmt: skip
    hypotheses = (
        Exact("spread", "bytes", 0),
        Exact("recovery_float32", "rebuilt", 1e-3, relation="<"),
        Exact("recovery_float64", "rebuilt", 1e-9, relation="<"),
        Equivalent("error", "trained", "trained_revnet", within=2.0, counts=False, profiles=("full",)),
    )
    untried = "i-RevNet's own sizes and ImageNet were not tried, nor whether rebuilding stays exact in long trainings."

    def load(self, settings: Any, source: Path | None) -> Pool | None:
        return None if settings.training is None else load_pool(settings.training.pictures, source)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        if arm.startswith("trained"):
            compared = settings.training is not None
            return self.accuracy(arm, seed, settings.training, data, record) if compared else {"compared": 0.0}
        x = torch.rand(settings.batch, 3, settings.side, settings.side, generator=record.streams["data"])
        x, draw = x.to(record.device), record.streams["init"]
        if arm == "bytes":
            rows = [{"stages": s, "units": n, "saved": saved_bytes(_whole((n,) * s, draw).to(x.device), x)}
                    for s in range(1, settings.stages + 1) for n in settings.units]  # fmt: skip
            record.table("bytes", rows)
            saved = [row["saved"] for row in rows]
            return {"spread": float(max(saved) - min(saved)), "saved": float(max(saved)), "picture": 4.0 * x.numel()}
        net = _whole((settings.blocks // settings.stages,) * settings.stages, draw).to(x.device)
        if arm == "forgetful":
            break_blocks(net, Forgetful, only_first=True)
        record.image("rebuilt", torch.cat((x[0], _rebuilt(net, x)[0].clamp(0, 1)), 2))
        return {"recovery_float32": _apart(_rebuilt(net, x), x),
                "recovery_float64": _apart(_rebuilt(net.double(), x.double()), x.double())}  # fmt: skip

    def accuracy(self, arm: str, seed: int, settings: Training, data: Pool, record: Recorder) -> Metrics:
        example, draw = data.images[:2], record.streams["init"]
        options = {"in_channels": data.images.shape[1], "classes": data.classes}
        if arm == "trained":
            net = RevNet(settings.units, fully_reversible=True, generator=draw, **options)  # type: ignore[arg-type]
        else:
            net = _as_costly(settings.units, example, draw, options)
        _, found = train(net, settings, data, seed, settings.lr, record)
        cost = count(net, example)
        return found | {"macs": cost.macs / len(example), "parameters": cost.params}


def _as_costly(
    units: tuple[int, ...], example: Tensor, generator: torch.Generator, options: dict[str, Any]
) -> RevNet:  # fmt: skip
    """A RevNet of as many multiplications as the fully reversible net: all stages as wide as fits, then the last."""
    probe = torch.Generator()
    build = lambda *widths, draw=probe: RevNet(units, widths, generator=draw, **options)
    target = count(RevNet(units, fully_reversible=True, generator=probe, **options), example).macs
    half = 1
    while count(build(*(2 * (half + 1) * k for k in (1, 1, 2, 4))), example).macs <= target:
        half += 1
    widths = [2 * half * k for k in (1, 1, 2, 4)]
    wider = lambda more, draw=probe: build(*widths[:3], widths[3] + 2 * more, draw=draw)
    return wider(match_width(wider, target, by="macs", within=0.1, inputs=(example,)), generator)  # type: ignore[no-any-return]


def _whole(units: tuple[int, ...], generator: torch.Generator) -> RevNet:
    return RevNet(units, fully_reversible=True, generator=generator)


@torch.no_grad()
def _rebuilt(net: RevNet, x: Tensor) -> Tensor:
    return net.picture(*net.streams(x))


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
