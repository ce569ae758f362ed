"""Neural processes against what one would otherwise write or use, on the same weights, data and machine.

    step       a training step on 32 curves, 10 of 20 points shown: one pass, against a Python loop over the functions
    5 seeds    five networks of width 64 as one stack, against five networks one after the other
    decoder    1,024 targets of 32 pictures: the first layer split, against r tiled beside every target
    GP batch   500 curves of 10 points: one batched factorisation, against scikit-learn's GP for each (fixed kernel)
    n = …      one prediction for 64 targets from n observations: a CNP, against an exact GP (which is also exact)

`ratio` is the other's time over ours with its 95 % interval; `apart` the largest difference of the two results.

    python -m benchmarks.neural_process [--threads 1,2] [--rounds N]
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from precis.fields.neural_process import CNP
from precis.fields.neural_process_gp import RBF, gp_marginals, gp_predict, sample_gp
from precis.fields.neural_process_stacked import StackedCNP
from precis.lab.timing import interleaved

Case = tuple[Callable[[], Any], Callable[[], Any], float]  # ours, the other, apart


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(width: int = 128, seed: int = 0, dx: int = 1) -> CNP:
    return CNP(dx, 1, width, (width,) * 3, (width,) * 2, generator=seeded(seed))


def curves(n: int = 32, points: int = 20) -> tuple[Tensor, Tensor]:
    x = 4 * torch.rand(n, points, 1, generator=seeded(1)) - 2
    return x, sample_gp(RBF(0.4), x, 0.02, seeded(2))


def descend(net: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], float]:
    adam = torch.optim.Adam(net.parameters(), 1e-4, fused=True)

    def step() -> float:
        adam.zero_grad()
        value = loss()
        value.backward()
        adam.step()
        return value.item()

    return step


def training_step() -> Case:
    (x, y), net = curves(), build()
    plain = copy.deepcopy(net)

    def looped() -> Tensor:
        each = [plain.loss(x[i : i + 1, :10], y[i : i + 1, :10], x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
        return torch.stack(each).mean()

    ours, other = descend(net, lambda: net.loss(x[:, :10], y[:, :10], x, y)), descend(plain, looped)
    return ours, other, abs(ours() - other())


def five_seeds() -> Case:
    (x, y), singles = curves(), [build(64, seed) for seed in range(5)]
    stack = StackedCNP(singles)
    five = [t.expand(5, *t.shape) for t in (x[:, :10], y[:, :10], x, y)]
    steps = [descend(one, lambda one=one: one.loss(x[:, :10], y[:, :10], x, y)) for one in singles]
    ours = descend(stack, lambda: stack.losses(*five).sum())
    other = lambda: sum(step() for step in steps)
    return ours, other, abs(ours() - other())


def decoder() -> Case:
    net, g = build(dx=2), seeded(3)
    x, y, at = torch.rand(32, 100, 2, generator=g), torch.rand(32, 100, 1, generator=g), torch.rand(32, 1024, 2)
    first = torch.cat([net.from_x.weight, net.from_r.weight], 1).detach()

    @torch.no_grad()
    def tiled() -> Normal:
        r = net.encode(x, y)
        h = nn.functional.linear(torch.cat([at, r[:, None].expand(-1, 1024, -1)], -1), first, net.from_x.bias)
        for linear in net.linears:
            h = linear(h.relu())
        mean, s = h.chunk(2, -1)
        return Normal(mean, 0.1 + 0.9 * nn.functional.softplus(s))

    ours = torch.no_grad()(lambda: net(x, y, at))
    return ours, tiled, float((ours().mean - tiled().mean).abs().max())


def gp_batch() -> Case:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF as Quadratic

    x, y = (t.double() for t in curves(500, 60))
    ours = lambda: gp_marginals(RBF(0.4), x[:, :10], y[:, :10], x[:, 10:], 0.02)

    def other() -> list[Any]:
        found = []
        for i in range(len(x)):
            gp = GaussianProcessRegressor(Quadratic(0.4), alpha=4e-4, optimizer=None)
            gp.fit(x[i, :10].numpy(), y[i, :10, 0].numpy())
            found.append(gp.predict(x[i, 10:].numpy(), return_std=True))
        return found

    apart = max(float((ours().mean[i, :, 0] - torch.from_numpy(m)).abs().max()) for i, (m, _) in enumerate(other()))
    return ours, other, apart


def prediction(n: int) -> Case:
    net, g = build(), seeded(4)
    x, y, at = torch.rand(1, n, 1, generator=g), torch.rand(1, n, 1, generator=g), torch.rand(1, 64, 1, generator=g)
    return torch.no_grad()(lambda: net(x, y, at)), lambda: gp_predict(RBF(0.1), x, y, at, 0.1), float("nan")


CASES: dict[str, Callable[[], Case]] = {
    "step": training_step, "5 seeds": five_seeds, "decoder": decoder, "GP batch": gp_batch,
    "n = 100": lambda: prediction(100), "n = 1,000": lambda: prediction(1000), "n = 3,000": lambda: prediction(3000),
}  # fmt: skip


def rows(threads: tuple[int, ...] = (1, 2), rounds: int = 7) -> list[dict[str, Any]]:
    """One row a case and number of threads."""
    found = []
    for count in threads:
        torch.set_num_threads(count)
        for name, make in CASES.items():
            ours, other, apart = make()
            timing = interleaved({"other": other, "ours": ours}, rounds, 1)
            found.append({
                "what": name, "threads": count, "other ms": 1e3 * timing.medians["other"],
                "ours ms": 1e3 * timing.medians["ours"], "ratio": timing.ratio,
                "interval": f"{timing.interval[0]:.2f}-{timing.interval[1]:.2f}", "apart": apart,
            })  # fmt: skip
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    for row in rows(tuple(int(t) for t in given.threads.split(",")), given.rounds):
        print("  ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
