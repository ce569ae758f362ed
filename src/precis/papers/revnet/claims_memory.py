"""Claims about what is kept for the backward pass.  They are counts: no arm is drawn by chance, and none is broken."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import Exact
from precis.nn.cost import saved_bytes
from precis.nn.memory import allocated_bytes
from precis.vision.revnet import RevNet

from .nets import Checkpointed, parameters, twin


@dataclass(frozen=True)
class Depths:
    """units: blocks a stage that are tried; filters: of the stem and of each stage."""

    units: tuple[int, ...] = (1, 2, 4, 8, 16)
    filters: tuple[int, ...] = (16, 16, 32, 64)
    side: int = 32
    batch: int = 16


class Memory(Claim):
    """Exact.  Three nets of equal widths at rising depth: a RevNet, a residual net, and the same residual net with
    `torch.utils.checkpoint` round each block.  A training forward pass in float32; parameters are left out.

    `kept_per_block`: the least-squares slope of the kept bytes over units a stage, divided by the bytes of one output
    of each stage, so that it reads as activations a block.  Kept bytes are counted by saved-tensor hooks (`saved`) and
    checked by the allocator's own record: what is still allocated when the forward pass is over (`allocated`), and the
    peak of a whole step less the parameters' gradients (`peak`; without the least depth, where no block is reversible).
    """

    name = "memory"
    statement = "The memory for activations does not grow with depth, where a residual network's grows linearly."
    arms = ("revnet", "checkpoint", "resnet")
    profiles = {
        "smoke": Profile(Depths((1, 2, 4), side=16, batch=4), seeds=1, scale="3 depths, 4 pictures of 16×16"),
        "quick": Profile(Depths(), seeds=1, scale="1 to 16 units a stage, 16 pictures of 32×32"),
        "full": Profile(Depths(filters=(32, 32, 64, 112), batch=100), seeds=1, threads=2,
                        scale="1 to 16 units a stage, RevNet-38's widths, 100 pictures of 32×32"),
    }  # fmt: skip
    hypotheses = (
        Exact("kept_per_block", "revnet", 0.01, relation="<="),
        Exact("allocated_per_block", "revnet", 0.01, relation="<="),
        Exact("r_squared", "resnet", 0.99, relation=">="),
        Exact("kept_per_block", ("revnet", "checkpoint", "resnet"), relation=lambda a, b, c: a < b < c,
              text="activations kept a block: RevNet below checkpointing, checkpointing below the residual net"),
        Exact("peak_per_block", "revnet", 0.01, relation="<=", counts=False),
    )  # fmt: skip
    untried = "A GPU, where the peak would be read from its allocator, was not tried; nor were nets of ImageNet's size."

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        x = torch.rand(settings.batch, 3, settings.side, settings.side, generator=record.streams["data"])
        x = x.to(record.device)
        rows = []
        for n in settings.units:
            net = _net(arm, n, settings.filters, record.streams["init"]).to(record.device)
            kept, left = saved_bytes(net, x), allocated_bytes(net, x, device=record.device).left
            peak = allocated_bytes(_step, net, x, device=record.device).peak - 4 * parameters(net)
            rows.append({"units": n, "saved": kept, "allocated": left, "peak": peak})
        record.table("bytes", rows)
        for name in ("saved", "allocated", "peak"):
            record.curve(f"{name} MiB", [r["units"] for r in rows], [r[name] / 2**20 for r in rows])
        sides = [settings.side // 2**i for i in range(len(settings.filters) - 1)]
        one = sum(4 * settings.batch * c * s * s for c, s in zip(settings.filters[1:], sides))
        of = lambda name, rows: np.polyfit([r["units"] for r in rows], [r[name] for r in rows], 1)[0] / one
        saved = np.array([r["saved"] for r in rows], dtype=float)
        return {
            "kept_per_block": of("saved", rows), "allocated_per_block": of("allocated", rows),
            "peak_per_block": of("peak", rows[1:]), "r_squared": _straight(np.array(settings.units), saved),
            "saved_at_most_mib": float(saved.max() / 2**20), "peak_at_most_mib": rows[-1]["peak"] / 2**20,
        }  # fmt: skip


class Stages(Claim):
    """Exact.  RevNets of one to four stages: the bytes kept are those of the picture, the stem's output and one output
    a stage, to the byte (`unexplained`: the largest difference over all nets), more units a stage add none
    (`added_by_units`), and every further stage adds what its output needs (`least_growth`, bytes).

    The paper says of its nets that layers which change the shape are not reversible; how much that is, is a count.
    """

    name = "stages"
    statement = "The network is not reversible as a whole: it keeps one activation a stage."
    arms = ("revnet",)
    profiles = {
        "smoke": Profile(Depths((1, 2), (16, 16, 32), 16, 4), seeds=1, scale="1 and 2 stages"),
        "quick": Profile(Depths((1, 2, 4), (16, 16, 32, 64, 128)), seeds=1,
                         scale="1 to 4 stages, 16 pictures of 32×32"),
        "full": Profile(Depths((1, 2, 4, 8), (32, 32, 64, 112, 224), batch=100), seeds=1,
                        scale="1 to 4 stages, 100 pictures of 32×32", threads=2),
    }  # fmt: skip
    hypotheses = (
        Exact("unexplained", "revnet", 0),
        Exact("added_by_units", "revnet", 0),
        Exact("least_growth", "revnet", 0, relation=">"),
    )
    untried = "Nets whose transitions are reversible too are the claim fully_reversible."

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        side, batch, filters = settings.side, settings.batch, settings.filters
        x = torch.rand(batch, 3, side, side, generator=record.streams["data"]).to(record.device)
        rows: list[dict[str, Any]] = []
        for stages in range(1, len(filters)):
            outputs = sum(c * (side >> i) ** 2 for i, c in enumerate(filters[1 : stages + 1]))
            wanted = 4 * batch * (3 * side**2 + filters[0] * side**2 + outputs)
            for n in settings.units:
                net = RevNet((n,) * stages, filters[: stages + 1], generator=record.streams["init"]).to(record.device)
                rows.append({"stages": stages, "units": n, "saved": saved_bytes(net, x), "sum": wanted})
        record.table("bytes", rows)
        by_stage = [[r["saved"] for r in rows if r["stages"] == s] for s in range(1, len(filters))]
        return {
            "unexplained": float(max(abs(r["saved"] - r["sum"]) for r in rows)),
            "added_by_units": float(max(max(s) - min(s) for s in by_stage)),
            "least_growth": float(min(b[0] - a[0] for a, b in zip(by_stage, by_stage[1:]))),
        }  # fmt: skip


def _net(arm: str, n: int, filters: tuple[int, ...], generator: torch.Generator) -> nn.Module:
    units = (n,) * (len(filters) - 1)
    if arm == "revnet":
        return RevNet(units, filters, generator=generator)
    plain = twin(units, filters[1:], stem_width=filters[0], classes=10, generator=generator)
    return plain if arm == "resnet" else Checkpointed(plain)


def _step(net: nn.Module, x: Tensor) -> None:
    F.cross_entropy(net(x), torch.zeros(len(x), dtype=torch.long, device=x.device)).backward()


def _straight(x: np.ndarray, y: np.ndarray) -> float:
    """R² of the least-squares line; 1 of what does not change at all."""
    off = y - np.polyval(np.polyfit(x, y, 1), x)
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - float((off**2).sum()) / spread if spread else 1.0
