"""Deep Image Prior: `fit_untrained` on `SkipNet` against the loop that one would port from the released notebook.

Plain: the same layers and weights in the usual order of memory, `torch.optim.Adam`, the average of outputs by a
formula, and three PSNRs in NumPy at every step.  Both sides denoise the same picture, with the same noise on z, and
take turns in short blocks; `ratio` is plain over ours, with its 95 % interval; `apart` the relative difference of the
last losses of the first block.  Memory is the growth of a fresh process's peak over two steps (Linux; 0 elsewhere).

    python -m benchmarks deep_image_prior
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from precis.fields.deep_image_prior import SkipNet, dip_input
from precis.fields.restoration import fit_untrained
from precis.lab.timing import interleaved

from ._measured import columns, peak_mb

SIGMA, NOISE = 25 / 255, 1 / 30


@dataclass(frozen=True)
class Case:
    name: str
    side: int
    width: int
    scales: int
    steps: int  # in a block


CASES = (Case("64 x 64, 4 x 32", 64, 32, 4, 10), Case("128 x 128, 4 x 32", 128, 32, 4, 4),
         Case("128 x 128, 5 x 64", 128, 64, 5, 2))  # fmt: skip


class Problem:
    """A smooth picture with noise, z, and the network."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)
        y, x = torch.meshgrid(*[torch.linspace(0, 6, case.side)] * 2, indexing="ij")
        self.clean = torch.stack([0.5 + 0.3 * torch.sin(x + c * y) for c in range(3)])[None]
        self.noisy = self.clean + SIGMA * torch.randn(self.clean.shape, generator=generator)
        sizes = (case.width,) * case.scales
        self.net = SkipNet(32, 3, down=sizes, up=sizes, skip=(4,) * case.scales, generator=generator)
        self.z = dip_input("noise", 32, (case.side, case.side), generator=generator)


class Ours:
    def __init__(self, problem: Problem) -> None:
        self.problem, self.net = problem, copy.deepcopy(problem.net)
        self.generator = torch.Generator().manual_seed(1)

    def run(self, steps: int) -> float:
        fit = fit_untrained(
            self.net, self.problem.z, self.problem.noisy, steps=steps, input_noise=NOISE, generator=self.generator
        )
        return fit.curve["loss"].values[-1]


class Plain:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.net = copy.deepcopy(problem.net).to(memory_format=torch.contiguous_format)
        self.generator = torch.Generator().manual_seed(1)

    def run(self, steps: int) -> float:
        problem, average, last = self.problem, None, 0.0
        optimizer = torch.optim.Adam(self.net.parameters(), lr=0.01)
        noisy, clean = (x[0].numpy() for x in (problem.noisy, problem.clean))
        psnr = lambda a, b: 10 * np.log10(1 / np.mean((a - b) ** 2))
        for _ in range(steps):
            optimizer.zero_grad()
            z = problem.z + NOISE * torch.randn(problem.z.shape, generator=self.generator)
            out = torch.sigmoid(self.net.last(self.net._from(0, z)))
            average = out.detach() if average is None else average * 0.99 + out.detach() * 0.01
            loss = torch.nn.functional.mse_loss(out, problem.noisy)
            loss.backward()
            made, smooth = out.detach().numpy()[0], average.numpy()[0]
            for pair in ((noisy, made), (clean, made), (clean, smooth)):
                psnr(*pair)
            optimizer.step()
            last = loss.item()
        return last


SIDES: dict[str, Any] = {"plain": Plain, "ours": Ours}


def measure(case: Case, threads: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    sides = {name: side(Problem(case)) for name, side in SIDES.items()}
    first = {name: side.run(case.steps) for name, side in sides.items()}
    timing = interleaved({name: (lambda s=side: s.run(case.steps)) for name, side in sides.items()}, rounds, 1)
    return columns(case.name, threads, timing, case.steps) | {"apart": abs(first["plain"] / first["ours"] - 1)}


def side_of(case: Case, side: str) -> Any:
    return SIDES[side](Problem(case))


def rows(threads: tuple[int, ...] = (1, 2), rounds: int = 5) -> list[dict[str, Any]]:
    """One row a case and number of threads."""
    found = []
    for case in CASES:
        sizes = {f"{side} MB": peak_mb(side_of, case, Case("", 32, 8, 3, 1), side) for side in SIDES}
        found += [measure(case, count, rounds) | sizes for count in threads]
    return found
