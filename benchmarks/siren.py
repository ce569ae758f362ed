"""SIREN: our recipes against the plain code that one would write from the paper, on the same weights and batches.

Plain: `nn.Linear`, `torch.sin(omega * …)`, `torch.autograd.grad(create_graph=True)` for each derivative,
`torch.optim.Adam`; several seeds one after the other.  Compiled (`rows(compiled=True)`): the same through
`torch.compile`, without the time it takes to compile.  Both sides take turns in short blocks; `ratio` is plain over
ours, with its 95 % interval.  `apart` is the relative difference of the two losses after the first block.  Memory is
the growth of a fresh process's peak over two steps (Linux; 0 elsewhere).

    python -m benchmarks siren
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from precis.fields.siren import Siren, StackedSiren
from precis.fields.siren_fit import fit_poisson, fit_values
from precis.lab.timing import interleaved
from precis.nn.coordinates import coordinate_grid

from ._measured import columns, peak_mb


@dataclass(frozen=True)
class Case:
    name: str
    kind: str  # what is fitted: value, gradient or laplacian
    side: int
    width: int
    copies: int
    steps: int  # in a block


CASES = (
    Case("value, 2,304 x 64", "value", 48, 64, 1, 40),
    Case("value, 2,304 x 64, 5 seeds", "value", 48, 64, 5, 10),
    Case("value, 16,384 x 256", "value", 128, 256, 1, 3),
    Case("gradient, 2,304 x 64", "gradient", 48, 64, 1, 15),
    Case("Laplacian, 2,304 x 64", "laplacian", 48, 64, 1, 8),
    Case("Laplacian, 2,304 x 64, 5 seeds", "laplacian", 48, 64, 5, 2),
    Case("Laplacian, 4,096 x 256", "laplacian", 64, 256, 1, 2),
)
RATE = 1e-4


class PlainSiren(nn.Module):
    """The net as one would write it, with the weights of ours."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.linears = nn.ModuleList(copy.deepcopy(layer) for layer in plain_layers(net))

    def forward(self, x: Tensor) -> Tensor:
        for linear in self.linears[:-1]:
            x = torch.sin(30 * linear(x))
        return self.linears[-1](x)


def plain_layers(net: Any) -> list[nn.Linear]:
    layers = []
    for layer in net.layers:
        linear = nn.Linear(layer.in_features, layer.out_features)
        linear.load_state_dict(layer.state_dict())
        layers.append(linear)
    return layers


def target(case: Case) -> tuple[Tensor, Tensor]:
    """Coordinates, and a smooth picture or its derivatives."""
    x = coordinate_grid((case.side, case.side))
    phase = x @ torch.tensor([[7.0, 3.0], [-2.0, 9.0]])
    if case.kind == "value":
        return x, phase.sin().mean(1, keepdim=True)
    if case.kind == "gradient":
        return x, phase.cos().mean(1)[:, None, None].expand(-1, 1, 2).contiguous()
    return x, -phase.sin().sum(1, keepdim=True) * 30


class Plain:
    """Every copy by itself."""

    def __init__(self, case: Case, nets: list[Any], compiled: bool = False) -> None:
        self.case, (self.x, self.y) = case, target(case)
        plain = [PlainSiren(net) for net in nets]
        self.optimizers = [torch.optim.Adam(net.parameters(), lr=RATE) for net in plain]
        self.losses = [torch.compile(self.loss_of(net)) if compiled else self.loss_of(net) for net in plain]
        self.scale = self.y.square().sum(-1).mean() if case.kind != "value" else torch.tensor(1.0)

    def loss_of(self, net: nn.Module) -> Callable[[], Tensor]:
        kind = self.case.kind

        def loss() -> Tensor:
            if kind == "value":
                return (net(self.x) - self.y).square().mean()
            x = self.x.clone().requires_grad_()
            grad = torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
            if kind == "gradient":
                return (grad - self.y[:, 0]).square().sum(-1).mean() / self.scale
            lap = sum(torch.autograd.grad(grad[:, a].sum(), x, create_graph=True)[0][:, a] for a in range(2))
            return (lap - self.y[:, 0]).square().mean() / self.scale

        return loss

    def run(self, steps: int) -> float:
        for optimizer, loss in zip(self.optimizers, self.losses):
            for _ in range(steps):
                optimizer.zero_grad()
                value = loss()
                value.backward()
                optimizer.step()
                number = value.item()
        return number


class Ours:
    """The recipes, all copies at once."""

    def __init__(self, case: Case, net: Any) -> None:
        self.case, self.net, (self.x, self.y) = case, net, target(case)

    def run(self, steps: int) -> float:
        options: dict[str, Any] = dict(steps=steps, lr=RATE)
        if self.case.kind == "value":
            run = fit_values(self.net, self.x, self.y, **options)
        else:
            run = fit_poisson(self.net, self.x, self.y, self.case.kind, **options)
        last = f"/{self.case.copies - 1}" if self.case.copies > 1 else ""
        return run.curves[f"loss{last}"].values[-1]


def build(case: Case) -> tuple[list[Any], Any]:
    """Single nets, and ours with the same weights."""
    generator = lambda m: torch.Generator().manual_seed(m)
    singles = [Siren(2, 1, case.width, generator=generator(m)) for m in range(case.copies)]
    if case.copies == 1:
        return singles, copy.deepcopy(singles[0])
    return singles, StackedSiren(case.copies, 2, 1, case.width, generators=[generator(m) for m in range(case.copies)])


def measure(case: Case, threads: int, rounds: int, compiled: bool) -> dict[str, Any]:
    torch.set_num_threads(threads)
    singles, net = build(case)
    sides: dict[str, Any] = {"plain": Plain(case, singles), "ours": Ours(case, net)}
    apart = {name: side.run(case.steps) for name, side in sides.items()}
    if compiled:
        sides["compiled"] = Plain(case, singles, compiled=True)
        try:
            sides["compiled"].run(2)
        except Exception as error:  # a second derivative does not compile
            print(f"{case.name}: torch.compile: {type(error).__name__}: {str(error).splitlines()[0][:90]}")
            del sides["compiled"]
    timing = interleaved({name: (lambda s=side: s.run(case.steps)) for name, side in sides.items()}, rounds, 1)
    row = columns(case.name, threads, timing, case.steps) | {"apart": abs(apart["plain"] / apart["ours"] - 1)}
    if compiled:
        row["plain/compiled"] = timing.against("plain", "compiled")[0] if "compiled" in sides else "-"
    return row


def side_of(case: Case, side: str) -> Any:
    singles, net = build(case)
    return Plain(case, singles) if side == "plain" else Ours(case, net)


def time_to_quality(threads: int, rounds: int, decibel: float = 40.0) -> dict[str, Any]:
    """Seconds until the fit of 2,304 samples reaches a PSNR: both sides take the steps that the plain one needs."""
    torch.set_num_threads(threads)
    case = CASES[0]
    singles, net = build(case)
    goal = 4 * 10 ** (-decibel / 10)  # values span [-1, 1]
    plain, steps = Plain(case, singles), 25
    while plain.run(25) > goal:
        steps += 25
    fits = {
        "plain": lambda: Plain(case, singles).run(steps), "ours": lambda: Ours(case, copy.deepcopy(net)).run(steps),
    }  # fmt: skip
    reached = {name: fit() for name, fit in fits.items()}
    timing = interleaved(fits, rounds, 1)
    row = columns(f"{decibel:g} dB, 2,304 x 64 ({steps} steps)", threads, timing, steps)
    return row | {
        "apart": abs(reached["plain"] / reached["ours"] - 1), "plain s": timing.medians["plain"],
        "ours s": timing.medians["ours"],
    }  # fmt: skip


def rows(threads: tuple[int, ...] = (1, 2), rounds: int = 7, compiled: bool = False) -> list[dict[str, Any]]:
    """One row a case and number of threads."""
    found = []
    for case in CASES:
        tiny = replace(case, side=8)
        sizes = {f"{side} MB": peak_mb(side_of, case, tiny, side) for side in ("plain", "ours")}
        found += [measure(case, count, rounds, compiled) | sizes for count in threads]
    return found + [time_to_quality(count, min(rounds, 3)) for count in threads]
