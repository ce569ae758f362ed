"""Five seeds of a small perceptron trained at once, against one of them, and against all five one after another.

A step is forward, backward and Adam on a regression batch.  `to one` is what five cost in units of one (5: no gain),
`gain` is five separate trainings over the stacked one.  Last row: the size from which stacking gains less than a tenth.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from precis.lab.timing import interleaved
from precis.nn.stacked import StackedMLP
from precis.train.loop import Budget
from precis.train.many import fit_many

COPIES = 5
SIZES = [(32, 128), (64, 128), (64, 512), (64, 2304), (128, 512), (128, 2304), (256, 512), (256, 2304)]  # width, rows


def rows(repeats: int = 15) -> list[dict[str, Any]]:
    """One row a size; then the vmap of any module at the middle size; then where it stops to pay."""
    found = [_stacked(width, n, repeats) for width, n in SIZES]
    late = next((i for i in range(len(found)) if all(row["gain"] < 1.1 for row in found[i:])), None)
    end = {} if late is None else {key: found[late][key] for key in ("width", "rows")}
    return [*found, _general(repeats), {"what": "no longer pays from", **end}]


def _stacked(width: int, n: int, repeats: int) -> dict[str, Any]:
    x, y = torch.randn(n, 2), torch.randn(n, 1)
    stack = StackedMLP(COPIES, [2, width, width, width, 1])
    singles = [_trainer(net, lambda net: (net(x) - y).square().mean()) for net in stack.to_modules()]
    together = _trainer(stack, lambda net: (net(x) - y).square().mean((1, 2)).sum())
    timing = interleaved({"stacked": together, "one": singles[0], "five": lambda: [run() for run in singles]}, repeats)
    gain, interval = timing.against("five", "stacked")
    return {
        "what": "nn.stacked", "width": width, "rows": n, "stacked ms": 1e3 * timing.medians["stacked"],
        "one ms": 1e3 * timing.medians["one"], "to one": timing.ratio, "to one 95 %": _interval(timing.interval),
        "gain": gain, "gain 95 %": _interval(interval), "threads": torch.get_num_threads(),
    }  # fmt: skip


def _general(repeats: int) -> dict[str, Any]:
    """`fit_many` with a perceptron of torch's, ten steps a call, against the same of one seed."""
    width, n, steps = 64, 512, 10
    x, y = torch.randn(n, 2), torch.randn(n, 1)

    def build(seed: int) -> nn.Module:
        return StackedMLP(1, [2, width, width, width, 1]).to_modules()[0]

    def train(copies: int) -> Callable[[], object]:
        step = lambda net, batch: (net(batch[0]) - batch[1]).square().mean()
        return lambda: fit_many(build, range(copies), (x, y), step, budget=Budget(steps=steps), lr=1e-3)

    one = _trainer(build(0), lambda net: (net(x) - y).square().mean())
    timing = interleaved({"many": train(COPIES), "one": lambda: [one() for _ in range(steps)]}, repeats)
    return {
        "what": "train.many", "width": width, "rows": n, "stacked ms": 1e3 * timing.medians["many"] / steps,
        "one ms": 1e3 * timing.medians["one"] / steps, "to one": timing.ratio,
        "to one 95 %": _interval(timing.interval), "threads": torch.get_num_threads(),
    }  # fmt: skip


def _trainer(net: nn.Module, loss: Callable[[nn.Module], torch.Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss(net).backward()
        optimizer.step()

    return step


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.2f}…{bounds[1]:.2f}"
