"""Neural processes against what one would otherwise write or use, on the same weights, data and machine.

    step       a training step on 32 curves of 20 points, 3 to 10 of them shown: against the batch as one would write
               it, contexts filled up to 10, r tiled beside every target, torch's Adam as it comes
    5 seeds    five networks of width 64 as one stack, against five networks one after the other
    decoder    1,024 targets of 32 pictures: the first layer split, against r tiled beside every target
    GP batch   500 curves of 10 points: one batched factorisation, against scikit-learn's GP for each (fixed kernel)
    n = …      one prediction for 64 targets from n observations: a CNP, against an exact GP (which is also exact)

`ratio` is the other's time over ours with its 95 % interval; `apart` the largest difference of the two results.  MB is
the growth of a fresh process's peak memory by two calls (Linux; 0 elsewhere).

    python -m benchmarks.neural_process [--threads 1,2] [--rounds N] [--only ROW]
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

from ._measured import between, peak_mb

Case = tuple[Callable[[], Any], Callable[[], Any], Callable[[], float]]  # ours, the other, apart


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(width: int = 128, seed: int = 0, dx: int = 1) -> CNP:
    return CNP(dx, 1, width, (width,) * 3, (width,) * 2, generator=seeded(seed))


def curves(n: int = 32, points: int = 20) -> tuple[Tensor, Tensor]:
    x = 4 * torch.rand(n, points, 1, generator=seeded(1)) - 2
    return x, sample_gp(RBF(0.4), x, 0.02, seeded(2))


class Plain(nn.Module):
    """The network as one would write it, with the weights of ours."""

    def __init__(self, net: CNP) -> None:
        super().__init__()
        first = nn.Linear(net.from_x.in_features + net.from_r.in_features, net.from_x.out_features)
        with torch.no_grad():
            first.weight.copy_(torch.cat([net.from_x.weight, net.from_r.weight], 1))
            first.bias.copy_(net.from_x.bias)
        parts = (list(net.encode.linears), [first, *net.linears])
        self.encoder, self.decoder = (
            nn.Sequential(*[part for layer in layers for part in (copy.deepcopy(layer), nn.ReLU())][:-1])
            for layers in parts
        )  # fmt: skip

    def loss(self, x: Tensor, y: Tensor, at: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        shown = mask[..., None].float()
        r = (self.encoder(torch.cat([x, y], -1)) * shown).sum(1) / shown.sum(1)
        mean, s = self.decoder(torch.cat([at, r[:, None].expand(-1, at.shape[1], -1)], -1)).chunk(2, -1)
        return -Normal(mean, 0.1 + 0.9 * nn.functional.softplus(s)).log_prob(values).mean()


def descend(net: nn.Module, loss: Callable[[], Tensor], **options: Any) -> Callable[[], float]:
    adam = torch.optim.Adam(net.parameters(), 1e-4, **options)

    def step() -> float:
        adam.zero_grad()
        value = loss()
        value.backward()
        adam.step()
        return value.item()

    return step


def training_step(n: int) -> Case:
    (x, y), net = curves(n), build()
    mask = torch.arange(10) < torch.randint(3, 11, (n, 1), generator=seeded(5))
    shown = (x[:, :10], y[:, :10], x, y, mask)
    plain = Plain(net)
    ours, other = descend(net, lambda: net.loss(*shown), fused=True), descend(plain, lambda: plain.loss(*shown))
    return ours, other, lambda: abs(ours() - other())


def five_seeds(n: int) -> Case:
    (x, y), singles = curves(n), [build(64, seed) for seed in range(5)]
    stack = StackedCNP(singles)
    five = [t.expand(5, *t.shape) for t in (x[:, :10], y[:, :10], x, y)]
    steps = [descend(one, lambda one=one: one.loss(x[:, :10], y[:, :10], x, y), fused=True) for one in singles]
    ours = descend(stack, lambda: stack.losses(*five).sum(), fused=True)
    other = lambda: sum(step() for step in steps)
    return ours, other, lambda: abs(ours() - other())


def decoder(n: int) -> Case:
    net, g = build(dx=2), seeded(3)
    x, y, at = (torch.rand(n, *shape, generator=g) for shape in ((100, 2), (100, 1), (1024, 2)))
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
    return ours, tiled, lambda: float((ours().mean - tiled().mean).abs().max())


def gp_batch(n: int) -> Case:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF as Quadratic

    x, y = (t.double() for t in curves(n, 60))
    ours = lambda: gp_marginals(RBF(0.4), x[:, :10], y[:, :10], x[:, 10:], 0.02)

    def other() -> list[Any]:
        found = []
        for i in range(len(x)):
            gp = GaussianProcessRegressor(Quadratic(0.4), alpha=4e-4, optimizer=None)
            gp.fit(x[i, :10].numpy(), y[i, :10, 0].numpy())
            found.append(gp.predict(x[i, 10:].numpy(), return_std=True))
        return found

    def apart() -> float:
        mean = ours().mean[..., 0]
        return max(float((row - torch.from_numpy(m)).abs().max()) for row, (m, _) in zip(mean, other()))

    return ours, other, apart


def prediction(n: int) -> Case:
    net, g = build(), seeded(4)
    x, y, at = torch.rand(1, n, 1, generator=g), torch.rand(1, n, 1, generator=g), torch.rand(1, 64, 1, generator=g)
    return torch.no_grad()(lambda: net(x, y, at)), lambda: gp_predict(RBF(0.1), x, y, at, 0.1), lambda: float("nan")


CASES: dict[str, tuple[Callable[[int], Case], int]] = {
    "step": (training_step, 32), "5 seeds": (five_seeds, 32), "decoder": (decoder, 32), "GP batch": (gp_batch, 500),
    "n = 100": (prediction, 100), "n = 1,000": (prediction, 1000), "n = 3,000": (prediction, 3000),
}  # fmt: skip
TINY = 2  # functions, or observations, for the memory that the libraries take
SIDES = ("other", "ours")


class Repeated:
    """One side, for the measurement of its memory."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call

    def run(self, steps: int) -> float:
        for _ in range(steps):
            self.call()
        return 0.0


def side_of(case: tuple[str, int], side: str) -> Repeated:
    name, n = case
    ours, other, _ = CASES[name][0](n)
    return Repeated(ours if side == "ours" else other)


def rows(
    threads: tuple[int, ...] = (1, 2), rounds: int = 7, names: tuple[str, ...] = tuple(CASES)
) -> list[dict[str, Any]]:  # fmt: skip
    """One row a case and number of threads."""
    found = []
    for name in names:
        make, n = CASES[name]
        sizes = {f"{side} MB": peak_mb(side_of, (name, n), (name, TINY), side) for side in SIDES}
        for count in threads:
            torch.set_num_threads(count)
            ours, other, apart = make(n)
            difference = apart()
            timing = interleaved({"other": other, "ours": ours}, rounds, 1)
            found.append({
                "what": name, "threads": count, "other ms": 1e3 * timing.medians["other"],
                "ours ms": 1e3 * timing.medians["ours"], "ratio": timing.ratio, "interval": between(timing.interval),
                "apart": difference, **sizes,
            })  # fmt: skip
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=CASES, help="this row alone")
    given = parser.parse_args()
    chosen = (given.only,) if given.only else tuple(CASES)
    for row in rows(tuple(int(t) for t in given.threads.split(",")), given.rounds, chosen):
        print("  ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)
