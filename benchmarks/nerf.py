"""NeRF: our recipes against the plain code that one would write from the paper, in one run on the same work.

rays        one training step of the tiny network and of the paper's, the same rays, samples and weights; plain: every
            tensor dense, directions encoded for each sample, sines one band at a time, `cumprod`, `searchsorted`
to PSNR     seconds of training on the built-in bust until two test views reach a PSNR: the fast model against the plain
            code with the tiny network; both are looked at after as many seconds of their own training, and scored alike
lookup      16,384 bilinear reads of 32 features and their gradient: ours against `grid_sample`

`ratio` is plain over ours, with its 95 % interval where both take turns; where one never arrives, that is said.  MB:
the growth of a fresh process's peak over two steps (Linux; 0 elsewhere).

    python -m benchmarks.nerf [--rounds N] [--goal DB] [--seconds S]

--seconds bounds the race of each side, which --goal is the end of.
"""

import argparse
import copy
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.data.scenes3d import capture
from precis.fields.nerf import NerfMLP, tiny_nerf
from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerf_fast import fast_model, fast_renderer, fit_fast
from precis.fields.nerf_fit import Renderer, dense_renderer, photographs, render_view
from precis.fields.nerf_lookup import corners, lookup, ticks
from precis.fields.nerf_render import render_rays
from precis.lab.timing import interleaved

from ._measured import peak_mb

NEAR, FAR = 2.0, 6.0
BUST, SMALL = (48, 64), (8, 16)  # photographs, pixels a side
STEPS, EVERY = 400, 0.5  # of the fast model, whose rates fall towards its last; seconds of training between two looks
TINY, PAPER = ("tiny", 256, (24, 24)), ("paper", 16, (64, 128))  # network, rays, samples


def bands(x: Tensor, n: int) -> Tensor:
    parts = [x]
    for k in range(n):
        parts += [torch.sin(2.0**k * x), torch.cos(2.0**k * x)]
    return torch.cat(parts, -1)


class PlainNerf(nn.Module):
    """The network as one would write it, with the weights of ours."""

    def __init__(self, net: NerfMLP) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for layer in net.trunk)
        self.sigma, self.bottleneck, self.colour, self.rgb = (
            copy.deepcopy(layer) for layer in (net.sigma, net.bottleneck, net.colour, net.rgb)
        )
        self.skip, self.x_bands = net.skip, net.position.bands
        self.d_bands, self.act = net.direction.bands, net._activate

    def forward(self, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        encoded = bands(x, self.x_bands)
        h = encoded
        for i, layer in enumerate(self.layers):
            h = F.relu(layer(h))
            if i == self.skip:
                h = torch.cat([encoded, h], -1)
        c = F.relu(self.colour(torch.cat([self.bottleneck(h), bands(d, self.d_bands)], -1)))
        return self.act(self.sigma(h)[..., 0]), torch.sigmoid(self.rgb(c))


def plain_render(net: nn.Module, o: Tensor, d: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    x = o[:, None] + t[..., None] * d[:, None]
    length = d.norm(dim=-1, keepdim=True)
    ways = (d / length)[:, None].expand_as(x)
    sigma, rgb = net(x.reshape(-1, 3), ways.reshape(-1, 3))
    sigma, rgb = sigma.view(t.shape), rgb.view(*t.shape, 3)
    delta = torch.cat([t[:, 1:] - t[:, :-1], torch.full_like(t[:, :1], 1e10)], 1) * length
    alpha = 1 - torch.exp(-sigma * delta)
    trans = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], 1), 1)[:, :-1]
    w = alpha * trans
    return (w[..., None] * rgb).sum(1) + 1 - w.sum(1, keepdim=True), w


def plain_step(net: nn.Module, o: Tensor, d: Tensor, truth: Tensor, n: tuple[int, int], g: torch.Generator) -> Tensor:
    edges = torch.linspace(NEAR, FAR, n[0] + 1)
    t = edges[:-1] + (edges[1:] - edges[:-1]) * torch.rand(len(o), n[0], generator=g)
    coarse, w = plain_render(net, o, d, t)
    middle = (t[:, 1:] + t[:, :-1]) / 2
    pdf = w[:, 1:-1].detach() + 1e-5
    cdf = torch.cumsum(pdf / pdf.sum(1, keepdim=True), 1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], 1)
    u = torch.rand(len(o), n[1], generator=g)
    above = torch.searchsorted(cdf, u, right=True).clamp(1, cdf.shape[1] - 1)
    low, high = cdf.gather(1, above - 1), cdf.gather(1, above)
    share = (u - low) / (high - low).clamp(min=1e-5)
    more = middle.gather(1, above - 1) * (1 - share) + middle.gather(1, above) * share
    fine, _ = plain_render(net, o, d, torch.sort(torch.cat([t, more], 1), 1).values)
    return ((coarse - truth) ** 2).mean() + ((fine - truth) ** 2).mean()


@cache
def scene(views: int = 48, size: int = 64) -> tuple[Any, Any, Cameras, Cameras]:
    train, test = capture("static", views, size)
    make = lambda c: Cameras(torch.from_numpy(c.c2w), torch.from_numpy(c.K), c.size)
    return train, test, make(train), make(test)


class Step:
    """Forward, backward and Adam on the same rays, samples and weights, of a side."""

    def __init__(self, case: tuple[str, int, tuple[int, int]], side: str) -> None:
        kind, rays, self.samples = case
        self.side, draw = side, torch.Generator().manual_seed(0)
        net = tiny_nerf(generator=draw) if kind == "tiny" else NerfMLP(generator=draw)
        self.net: nn.Module = PlainNerf(net) if side == "plain" else net
        self.optimizer = torch.optim.Adam(self.net.parameters(), 5e-4)
        train, _, cameras, _ = scene()
        photos = photographs(cameras, torch.from_numpy(train.images))
        rows, self.lines = photos.draw(rays, torch.Generator().manual_seed(0))
        self.truth = photos.colours(rows, 1.0)

    def run(self, steps: int) -> float:
        last = 0.0
        for _ in range(steps):
            g = torch.Generator().manual_seed(1)
            self.optimizer.zero_grad()
            loss = self.loss(g)
            loss.backward()
            self.optimizer.step()
            last = float(loss.detach())
        return last

    def loss(self, g: torch.Generator) -> Tensor:
        if self.side == "plain":
            return plain_step(self.net, self.lines.o, self.lines.d, self.truth, self.samples, g)
        rays = Rays(self.lines.o, self.lines.d)
        coarse, fine = render_rays(self.net, rays, NEAR, FAR, *self.samples, background=1.0, generator=g)
        assert fine is not None
        return (coarse.rgb - self.truth).square().mean() + (fine.rgb - self.truth).square().mean()


def rays_row(name: str, case: tuple[str, int, tuple[int, int]], rounds: int) -> dict[str, Any]:
    """One step of both sides."""
    both = {side: Step(case, side) for side in ("plain", "ours")}
    apart = abs(both["plain"].run(1) / both["ours"].run(1) - 1)
    timing = interleaved({side: (lambda s=side: both[s].run(1)) for side in both}, rounds, 1)
    less = (case[0], 2, (4, 4))
    sizes = {f"{side} MB": peak_mb(Step, case, less, side) for side in both}
    paces = {f"{side} rays/s": case[1] / timing.medians[side] for side in both}
    return row(f"rays: {name}", timing) | sizes | paces | {"apart": apart}


class Read:
    """Reads of a table of n×n×32 numbers at 16,384 places, with gradient, of a side."""

    def __init__(self, n: int, side: str) -> None:
        self.n, self.side = n, side
        self.x = torch.rand(16_384, 2, generator=torch.Generator().manual_seed(0))
        self.table = torch.randn(n * n, 32, requires_grad=True)
        self.image = self.table.detach().T.reshape(1, 32, n, n).contiguous().requires_grad_()

    def run(self, steps: int) -> float:
        for _ in range(steps):
            self.table.grad = self.image.grad = None
            if self.side == "ours":
                size = (self.n, self.n)
                found = lookup(self.table, *corners(*ticks(self.x, size), (0, 1), size))
            else:
                found = F.grid_sample(self.image, (2 * self.x - 1).flip(-1)[None, None], align_corners=True)
            found.square().sum().backward()
        return 0.0


def lookup_row(rounds: int) -> dict[str, Any]:
    """Both sides' reads."""
    both = {side: Read(128, side) for side in ("plain", "ours")}
    timing = interleaved({side: (lambda s=side: both[s].run(1)) for side in both}, rounds, 1)
    return row("lookup: 16,384 × 32 of 128²", timing) | {f"{s} MB": peak_mb(Read, 128, 8, s) for s in both}


class Over(Exception):
    """The race of a side has ended."""


class Race:
    """Told after every step; looks after every so many seconds of training, without counting the look."""

    def __init__(self, goal: float, most: float, every: float = EVERY) -> None:
        self.goal, self.most, self.every = goal, most, every
        self.seconds = self.best = 0.0
        self.looks, self.since = 0, time.perf_counter()

    @property
    def arrived(self) -> bool:
        return self.best >= self.goal

    def __call__(self, render: Renderer) -> None:
        self.seconds += time.perf_counter() - self.since
        if self.seconds >= (self.looks + 1) * self.every:
            self.looks = int(self.seconds // self.every)
            self.best = max(self.best, score(render))
        if self.arrived or self.seconds >= self.most:
            raise Over
        self.since = time.perf_counter()


def score(render: Renderer) -> float:
    """Mean PSNR of two test views."""
    _, test, _, places = scene()
    truth = torch.from_numpy(test.rgb())
    errors = [(render_view(render, places, v).rgb - truth[v]).square().mean() for v in (0, 4)]
    return float(-10 * torch.stack(errors).log10().mean())


class Plain:
    """The plain code with the tiny network."""

    def __init__(self, case: tuple[int, int]) -> None:
        train, _, cameras, _ = scene(*case)
        self.photos = photographs(cameras, torch.from_numpy(train.images))
        self.net, self.draw = PlainNerf(tiny_nerf(generator=torch.Generator().manual_seed(0))), torch.Generator()
        self.draw.manual_seed(1)
        self.optimizer = torch.optim.Adam(self.net.parameters(), 2e-3)

    def run(self, steps: int, race: Race | None = None) -> float:
        """So many steps, or until the race is over."""
        for _ in range(steps):
            rows, lines = self.photos.draw(256, self.draw)
            self.optimizer.zero_grad()
            truth = self.photos.colours(rows, 1.0)
            plain_step(self.net, lines.o, lines.d, truth, (24, 24), self.draw).backward()
            self.optimizer.step()
            if race is not None:
                race(self.renderer())
        return 0.0

    def renderer(self) -> Renderer:
        """By both passes, as it was trained, with nothing random."""

        def at(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
            sigma, rgb = self.net(x.reshape(-1, 3), d.expand_as(x).reshape(-1, 3))
            return sigma.view(x.shape[:-1]), rgb.view(x.shape)

        return dense_renderer(at, NEAR, FAR, 24, 24)


class Ours:
    """The fast model."""

    def __init__(self, case: tuple[int, int]) -> None:
        train, _, cameras, _ = scene(*case)
        self.photos = photographs(cameras, torch.from_numpy(train.images))
        self.model = fast_model(cameras, torch.from_numpy(train.aabb), torch.from_numpy(train.images[..., 3] > 0),
                                generator=torch.Generator().manual_seed(0))  # fmt: skip

    def run(self, steps: int, race: Race | None = None) -> float:
        """A training of so many steps, or until the race is over."""

        def measure(step: int) -> dict[str, float]:
            if race is not None:
                race(fast_renderer(self.model, near=NEAR, far=FAR))
            return {}

        fit_fast(self.model, self.photos, near=NEAR, far=FAR, steps=steps, measure=measure, every=1,
                 generator=torch.Generator().manual_seed(1))  # fmt: skip
        return 0.0


def race_row(goal: float, most: float) -> dict[str, Any]:
    """Seconds of training until the test views reach `goal` dB; a side that does not in time says so."""
    raced: dict[str, Race] = {}
    for side, make, steps in (("plain", Plain, 1 << 30), ("ours", Ours, STEPS)):
        racer = make(BUST)
        raced[side] = Race(goal, most)
        with suppress(Over):
            racer.run(steps, raced[side])
    sizes = {"plain MB": peak_mb(Plain, BUST, SMALL), "ours MB": peak_mb(Ours, BUST, SMALL)}
    return raced_row(goal, raced["plain"], raced["ours"]) | sizes


def raced_row(goal: float, plain: Race, ours: Race) -> dict[str, Any]:
    """The row of two races: no ratio where ours never arrived, a bound where plain did not."""
    if ours.arrived:
        ratio = f"{'' if plain.arrived else 'more than '}{plain.seconds / ours.seconds:.1f}"
    else:
        ratio = f"none: ours did not reach {goal:g} dB"
    return {
        "what": f"to {goal:g} dB on the bust", "plain ms": 1e3 * plain.seconds, "ours ms": 1e3 * ours.seconds,
        "ratio": ratio, "plain dB": plain.best, "ours dB": ours.best,
    }  # fmt: skip


def row(what: str, timing: Any) -> dict[str, Any]:
    return {
        "what": what, "plain ms": 1e3 * timing.medians["plain"], "ours ms": 1e3 * timing.medians["ours"],
        "ratio": timing.ratio, "interval": f"{timing.interval[0]:.2f}-{timing.interval[1]:.2f}",
    }  # fmt: skip


def each(rounds: int, most: float, goal: float) -> Iterator[dict[str, Any]]:
    """One row a comparison, on one thread, as they are found."""
    torch.set_num_threads(1)
    yield rays_row("tiny, 256 × (24 + 48)", TINY, rounds)
    yield race_row(goal, most)
    yield lookup_row(rounds)
    yield rays_row("paper's network, 16 × (64 + 192)", PAPER, rounds)


def rows(rounds: int = 5, most: float = 90.0, goal: float = 22.0) -> list[dict[str, Any]]:
    """All rows."""
    return list(each(rounds, most, goal))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--goal", type=float, default=22.0)
    parser.add_argument("--seconds", type=float, default=90.0)
    given = parser.parse_args()
    for found in each(given.rounds, given.seconds, given.goal):
        print("  ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in found.items()), flush=True)
