"""How much memory a training step takes, by depth and batch, and what fits into a limit."""

import re
import time
from collections.abc import Sequence
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
DEEPEST = 200  # units a stage, likewise
DEPTHS = (1, 2, 4, 8, 16)


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
        """Of a whole step: the peak's line, and never less than weights, momentum and what is kept.

        The line is measured at few pictures, where the weights' gradients can be most of the peak.
        """
        line = self.fixed + self.peak_once + batch * self.peak_each
        return round(max(line, 2 / 3 * self.fixed + self.kept_once + batch * self.kept_each))

    def batch(self, limit: int) -> int:
        """The most pictures within `limit` bytes in all; 0 if there is no room for one."""
        line = (limit - self.fixed - self.peak_once) // self.peak_each
        return max(0, int(min(line, (limit - 2 / 3 * self.fixed - self.kept_once) // self.kept_each)))


class Form(NamedTuple):
    """What the nets of a run have in common: `filters` of the stem and of each stage (of a fully reversible net only
    their number counts), channels of the pictures, classes, and what else a `RevNet` is asked for.
    """

    filters: tuple[int, ...]
    channels: int
    classes: int
    fully_reversible: bool = False
    every: int = 0

    @property
    def stages(self) -> int:
        return max(1, len(self.filters) - 1)

    def name(self, kind: str) -> str:
        return "fully reversible RevNet" if kind == "revnet" and self.fully_reversible else KINDS[kind]


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


def show_bytes(n: int | float) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if n >= UNITS[unit.upper()]:
            return f"{n / UNITS[unit.upper()]:.3g} {unit}"
    return f"{n:.0f} bytes"


def measure(net: nn.Module, shape: Sequence[int], device: str, peak: bool = True) -> Need:
    """From a step with four pictures and one with eight: both figures are straight lines in the batch.

    The allocator's peak is that of forward and backward pass, in which the parameters' gradients lie as well; without
    `peak`, which takes a while, it is left at 0.
    """
    net = net.to(device).train()
    weights = 4 * parameters(net)
    kept, peaks = [], []
    for n in (4, 8):
        x = torch.rand(n, *shape, device=device)
        kept.append(saved_bytes(net, x))
        most = allocated_bytes(step, net, x, device=device).peak - weights if peak else -4 * x.numel()
        peaks.append(most + 4 * x.numel())
        net.zero_grad(set_to_none=True)
    kept_each, peak_each = (kept[1] - kept[0]) / 4, (peaks[1] - peaks[0]) / 4
    return Need(3 * weights, kept_each, kept[0] - 4 * kept_each, peak_each, max(0.0, peaks[0] - 4 * peak_each))


def seconds_of(net: nn.Module, shape: Sequence[int], batch: int, device: str) -> float:
    """About how long a step with `batch` pictures takes: one with up to eight, timed once, in proportion."""
    net, few = net.to(device).train(), min(batch, 8)
    x = torch.rand(few, *shape, device=device)
    began = time.perf_counter()
    step(net, x)
    if x.is_cuda:
        torch.cuda.synchronize()
    net.zero_grad(set_to_none=True)
    return (time.perf_counter() - began) * batch / few


def step(net: nn.Module, x: torch.Tensor) -> None:
    F.cross_entropy(net(x), torch.zeros(len(x), dtype=torch.long, device=x.device)).backward()


def build(kind: str, units: int, form: Form) -> nn.Module:
    """An untrained net of one kind.  The residual ones have two blocks for each unit, about as many parameters and
    multiplications, and as large maps: half the width of the RevNet, and so the same convolutions; beside a fully
    reversible net, whose functions are narrow inside, the widths at which two blocks have as many weights as a unit.
    """
    stages, draw = (units,) * form.stages, torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"in_channels": form.channels, "classes": form.classes, "generator": draw}
    if kind == "revnet":
        filters = None if form.fully_reversible else form.filters
        return RevNet(stages, filters, every=form.every, fully_reversible=form.fully_reversible, **options)
    if form.fully_reversible:
        # A unit of c channels has 2·(c/2·c/4·2 + 9·(c/4)²) weights, two blocks of w have 36·w².
        widths = [max(1, round(form.channels * 4 ** (i + 1) * (13 / 8 / 36) ** 0.5)) for i in range(form.stages)]
        stem, options["strides"] = widths[0], (2,) * form.stages
    else:
        stem, *widths = [max(1, c // 2) for c in form.filters]
    plain = twin([2 * n for n in stages], widths, stem_width=stem, **options)
    return plain if kind == "resnet" else Checkpointed(plain)


def deepest(needs: dict[int, Need], batch: int, limit: int) -> int:
    """The most units a stage within the limit, from what 1, 2 and 4 need; from two on the need is a straight line."""
    if needs[2].total(batch) > limit:
        return int(needs[1].total(batch) <= limit)
    each = (needs[4].total(batch) - needs[2].total(batch)) / 2
    return min(DEEPEST, 2 + int((limit - needs[2].total(batch)) // max(each, 1.0)))


def by_depth(form: Form, size: tuple[int, int], device: str, peak: bool) -> dict[str, dict[int, Need]]:
    """What each kind of net needs by units a stage: measured at 1, 2 and, for the peak, 4, beyond along the line; a
    RevNet that keeps the streams every few blocks, which is no line but a staircase, at every depth.

    The peak is a straight line from 2 units on: with one, a RevNet has no reversible block.
    """
    found: dict[str, dict[int, Need]] = {}
    for kind in KINDS:
        staircase = kind == "revnet" and form.every
        known = {n: measure(build(kind, n, form), (form.channels, *size), device, peak)
                 for n in (DEPTHS if staircase else (1, 2, 4) if peak else (1, 2))}  # fmt: skip
        (low, a), (high, b) = list(known.items())[-2:]
        beyond = lambda n, low=low, high=high, a=a, b=b: Need(
            *(y + (n - high) * (y - x) / (high - low) for x, y in zip(a, b))
        )
        found[kind] = {n: known[n] if n in known else beyond(n) for n in DEPTHS}
    return found
