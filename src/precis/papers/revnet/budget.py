"""How much memory a training step takes, by depth and batch, and what fits into a limit."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from precis.errors import InputError
from precis.nn.cost import saved_bytes
from precis.nn.memory import allocated_bytes
from precis.vision.revnet import RevNet

from .nets import Checkpointed, parameters, twin

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
KINDS = {"resnet": "ResNet", "checkpoint": "checkpointed ResNet", "revnet": "RevNet"}
MOST = 256  # pictures a batch that are taken without being asked for


class Need(NamedTuple):
    """Bytes of a training step: `fixed` for weights, gradients and momentum; of activations for each picture and once,
    kept until the backward pass and at the peak.
    """

    fixed: int
    kept_each: float
    kept_once: float
    peak_each: float
    peak_once: float

    def kept(self, batch: int) -> int:
        return round(self.kept_once + batch * self.kept_each)

    def total(self, batch: int) -> int:
        return round(self.fixed + self.peak_once + batch * self.peak_each)

    def batch(self, limit: int) -> int:
        """The most pictures within `limit` bytes in all; 0 if there is no room for one."""
        return max(0, int((limit - self.fixed - self.peak_once) // self.peak_each))


def parse_bytes(text: str) -> int:
    """500MiB, 2GiB, 1.5 GB, or a number of bytes."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", text)
    try:
        number = float(found[1]) * UNITS[found[2].upper()] if found else 0.0
    except (ValueError, KeyError):
        number = 0.0
    if number < 1:
        raise InputError(f"--memory {text}: a number with KiB, MiB, GiB (or KB, MB, GB), such as 500MiB, is wanted")
    return int(number)


def show_bytes(n: float) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if n >= UNITS[unit.upper()]:
            return f"{n / UNITS[unit.upper()]:.3g} {unit}"
    return f"{n:.0f} bytes"


def measure(net: nn.Module, shape: Sequence[int], device: str) -> Need:
    """From a step with four pictures and one with eight: both figures are straight lines in the batch.

    The allocator's peak is that of forward and backward pass, in which the parameters' gradients lie as well.
    """
    net = net.to(device).train()
    weights = 4 * parameters(net)
    kept, peak = [], []
    for n in (4, 8):
        x = torch.rand(n, *shape, device=device)
        kept.append(saved_bytes(net, x))
        peak.append(allocated_bytes(step, net, x, device=device).peak - weights + 4 * x.numel())
        net.zero_grad(set_to_none=True)
    kept_each, peak_each = (kept[1] - kept[0]) / 4, (peak[1] - peak[0]) / 4
    return Need(3 * weights, kept_each, kept[0] - 4 * kept_each, peak_each, max(0.0, peak[0] - 4 * peak_each))


def step(net: nn.Module, x: torch.Tensor) -> None:
    F.cross_entropy(net(x), torch.zeros(len(x), dtype=torch.long, device=x.device)).backward()


def build(kind: str, units: int, filters: Sequence[int], channels: int, classes: int) -> nn.Module:
    """An untrained net of one kind; the residual ones have the RevNet's widths and two blocks for each of its units."""
    stages = (units,) * (len(filters) - 1)
    draw = torch.Generator().manual_seed(0)
    if kind == "revnet":
        return RevNet(stages, filters, in_channels=channels, classes=classes, generator=draw)
    plain = twin([2 * n for n in stages], filters[1:], stem_width=filters[0], in_channels=channels, classes=classes,
                 generator=draw)  # fmt: skip
    return plain if kind == "resnet" else Checkpointed(plain)


def deepest(make: Callable[[int], Any], fits: Callable[[Any], bool], most: int = 200) -> int:
    """The greatest depth up to `most` at which `fits(make(depth))`, which must not come back once it is lost; 0: none."""
    if not fits(make(1)):
        return 0
    low, high = 1, 2
    while high <= most and fits(make(high)):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(make(middle)) else (low, middle)
    return low
