"""RevNet: time and memory of a training step, against the same net with all activations stored and what one would
otherwise use to save memory, `torch.utils.checkpoint` round every block of a residual net.

Steps are forward and backward in channels-last order, no optimiser.  `ratio` is theirs over ours, with its 95 %
interval; `MiB` are the bytes that autograd keeps, `peak` those that the allocator saw above the weights in the step.
For each unit, which has two functions on half the channels, the residual nets have two blocks of half the width: the
same convolutions, about as many parameters.  `against plain`: the time that saving memory adds.  The last rows: kept
bytes by depth.

    python -m benchmarks.revnet [--threads N] [--repeats N]
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks._measured import between
from precis.lab.timing import interleaved
from precis.nn.cost import saved_bytes
from precis.nn.memory import allocated_bytes
from precis.nn.resnet import ResNet
from precis.nn.reversible import AdditiveCoupling
from precis.vision.revnet import RevNet

FILTERS, UNITS, SIDE, BATCH = (32, 32, 64, 112), 6, 32, 16


class Checkpointed(nn.Module):
    """The same net with torch's checkpointing round each part, as one writes it."""

    def __init__(self, net: ResNet | RevNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        if isinstance(net, ResNet):
            x = checkpoint(lambda x: net.stem(net.input(x)), x, use_reentrant=False)
            for stage in net.blocks:
                for block in stage:  # type: ignore[attr-defined]
                    x = checkpoint(block, x, use_reentrant=False)
            return net.head(net.last(x).mean((2, 3)))
        h = checkpoint(net.stem, x, use_reentrant=False).chunk(2, 1)
        for start, run in zip(net.starts, net.runs):
            for block in (start, *run.blocks):  # type: ignore[misc]
                h = checkpoint(block, *h, use_reentrant=False)
        return net.last(*h, True)


class Twice(AdditiveCoupling):
    """The backward pass as one first writes it: invert, then evaluate forward once more."""

    def inverse(self, y1: Tensor, y2: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return super().inverse(y1, y2, **kwargs)


def revnet(units: int, save: str, coupling: type[AdditiveCoupling] | None = None) -> RevNet:
    net = RevNet((units,) * 3, FILTERS, save=save, generator=torch.Generator().manual_seed(0))
    for run in net.runs if coupling is not None else ():
        for i, block in enumerate(run.blocks):  # type: ignore[arg-type]
            run.blocks[i] = coupling(block.f, block.g)  # type: ignore[index,operator]
    return net


def resnet(units: int) -> ResNet:
    stem, *widths = [c // 2 for c in FILTERS]
    return ResNet((2 * units,) * 3, widths, stem_width=stem, preact=True, shortcut="pad", classes=10,
                  generator=torch.Generator().manual_seed(0))  # fmt: skip


def step(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    def run() -> None:
        net.zero_grad()
        F.cross_entropy(net(x), y).backward()

    return run


def rows(repeats: int = 7) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    x = torch.rand(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (BATCH,))
    nets = {
        "RevNet": revnet(UNITS, "output"), "RevNet, stored": revnet(UNITS, "all"),
        "RevNet, inverted and run again": revnet(UNITS, "output", Twice),
        "RevNet, checkpointed": Checkpointed(revnet(UNITS, "all")),
        "ResNet": resnet(UNITS), "ResNet, checkpointed": Checkpointed(resnet(UNITS)),
    }  # fmt: skip
    for net in nets.values():
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    timing = interleaved({name: step(net, x, y) for name, net in nets.items()}, repeats, warmup=1)
    table = []
    for name, net in nets.items():
        ratio, interval = timing.against(name, "RevNet")
        plain = timing.against(name, "ResNet" if name.startswith("ResNet") else "RevNet, stored")[0]
        weights = 4 * sum(p.numel() for p in net.parameters())
        net.zero_grad(set_to_none=True)  # gradients from before would be released in what is recorded
        table.append({
            "what": f"{name}, {UNITS} units a stage, {BATCH} pictures", "ms": 1e3 * timing.medians[name],
            "ratio": ratio, "95 %": between(interval), "against plain": plain,
            "MiB": saved_bytes(net, x) / 2**20,
            "peak": (allocated_bytes(step(net, x, y)).peak - weights) / 2**20, "threads": torch.get_num_threads(),
        })  # fmt: skip
    for units in (2, 4, 8, 16):
        plain = resnet(units)
        depth = {"RevNet": revnet(units, "output"), "ResNet": plain, "checkpointed": Checkpointed(plain)}
        kept = {f"{name} MiB": saved_bytes(net, x) / 2**20 for name, net in depth.items()}
        table.append({"what": f"kept at {units} units a stage", **kept})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for row in rows(options.repeats):
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
