"""NeRF: our recipes against the plain code that one would write from the paper, in one run on the same work.

rays        one training step of the tiny network and of the paper's, the same rays, samples and weights; plain: every
            tensor dense, directions encoded for each sample, sines one band at a time, `cumprod`, `searchsorted`
to PSNR     seconds of training on the built-in bust until a test view reaches a PSNR: the fast model against the plain
            code with the tiny network
lookup      16,384 bilinear reads of 32 features and their gradient: ours against `grid_sample`

`ratio` is plain over ours, with its 95 % interval where both take turns.

    python -m benchmarks.nerf [--rounds N]
"""

import argparse
import copy
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.data.scenes3d import capture
from precis.fields.nerf import NerfMLP, tiny_nerf
from precis.fields.nerf_cameras import Cameras, Rays
from precis.fields.nerf_fast import fast_model, fast_renderer, fit_fast
from precis.fields.nerf_fit import photographs, render_view
from precis.fields.nerf_lookup import corners, lookup, ticks
from precis.fields.nerf_render import render_rays
from precis.lab.timing import interleaved

NEAR, FAR = 2.0, 6.0


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


def scene() -> tuple[Any, Any, Cameras, Cameras]:
    train, test = capture("static", 48, 64)
    make = lambda c: Cameras(torch.from_numpy(c.c2w), torch.from_numpy(c.K), c.size)
    return train, test, make(train), make(test)


def rays_row(name: str, net: NerfMLP, rays: int, n: tuple[int, int], rounds: int) -> dict[str, Any]:
    """One step forward, backward and Adam."""
    train, _, cameras, _ = scene()
    photos = photographs(cameras, torch.from_numpy(train.images))
    rows, lines = photos.draw(rays, torch.Generator().manual_seed(0))
    truth = photos.colours(rows, 1.0)
    plain = PlainNerf(net)
    both = {"plain": (plain, torch.optim.Adam(plain.parameters(), 5e-4)), "ours": (net, torch.optim.Adam(
        net.parameters(), 5e-4))}  # fmt: skip

    def step(which: str) -> float:
        module, optimizer = both[which]
        g = torch.Generator().manual_seed(1)
        optimizer.zero_grad()
        if which == "plain":
            loss = plain_step(module, lines.o, lines.d, truth, n, g)
        else:
            coarse, fine = render_rays(module, Rays(lines.o, lines.d), NEAR, FAR, *n, background=1.0, generator=g)
            loss = (coarse.rgb - truth).square().mean() + (fine.rgb - truth).square().mean()
        loss.backward()
        optimizer.step()
        return float(loss)

    apart = abs(step("plain") / step("ours") - 1)
    timing = interleaved({name: (lambda w=name: step(w)) for name in ("plain", "ours")}, rounds, 1)
    return row(f"rays: {name}", timing) | {"ours rays/s": rays / timing.medians["ours"], "apart": apart}


def lookup_row(rounds: int) -> dict[str, Any]:
    """128×128×32 numbers, read at 16,384 places, with gradient."""
    x = torch.rand(16_384, 2, generator=torch.Generator().manual_seed(0))
    table = torch.randn(128 * 128, 32, requires_grad=True)
    image = table.detach().T.reshape(1, 32, 128, 128).contiguous().requires_grad_()

    def ours() -> None:
        table.grad = None
        lookup(table, *corners(*ticks(x, (128, 128)), (0, 1), (128, 128))).square().sum().backward()

    def plain() -> None:
        image.grad = None
        F.grid_sample(image, (2 * x - 1).flip(-1)[None, None], align_corners=True).square().sum().backward()

    return row("lookup: 16,384 × 32 of 128²", interleaved({"plain": plain, "ours": ours}, rounds, 1))


def race_row(goal: float, most: float) -> dict[str, Any]:
    """Seconds of training until the test views reach `goal` dB; a side that does not within `most` seconds says so.

    Both are looked at after every so many seconds of training of their own, at the same views of the same size, by the
    samples that they were trained with; looking takes no part in the time.
    """
    raced = {side: reach(SIDES[side], goal, most) for side in ("plain", "ours")}
    made: dict[str, Any] = {"what": f"to {goal:g} dB on the bust"}
    for side, (seconds, best, there) in raced.items():
        made |= {f"{side} ms": 1e3 * seconds, f"{side} dB": best, f"{side} MB": peak_mb(SIDES[side], BUST, SMALL)}
        made |= {} if there else {f"{side} reached": "never"}
    (plain, _, plain_there), (ours, _, ours_there) = raced["plain"], raced["ours"]
    if ours_there:
        made["ratio"] = f"{'' if plain_there else 'more than '}{plain / ours:.1f}"
    else:
        made["ratio"] = f"none: ours did not reach {goal:g} dB"
    return made


def reach(make: Callable[[Any], Any], goal: float, most: float) -> tuple[float, float, bool]:
    """(seconds of training until the first look that found `goal`, the best PSNR, whether it was found)."""
    seconds, best, next_look, racer = 0.0, 0.0, LOOKS, make(BUST)
    while seconds < most:
        began = time.perf_counter()
        racer.run(1)
        seconds += time.perf_counter() - began
        if seconds >= next_look:
            next_look = (seconds // LOOKS + 1) * LOOKS
            best = max(best, score(racer.render()))
            if best >= goal:
                return seconds, best, True
    return seconds, best, False


def score(render: Renderer) -> float:
    """Mean PSNR of two test views."""
    _, test, _, places = scene()
    truth = torch.from_numpy(test.rgb())
    errors = [(render_view(render, places, v).rgb - truth[v]).square().mean() for v in (0, 4)]
    return float(-10 * torch.stack(errors).log10().mean())


class Plain:
    """The plain code with the tiny network, a step at a time."""

    def __init__(self, case: tuple[int, int]) -> None:
        views, size = case
        train, _, cameras, _ = scene(views, size)
        self.photos = photographs(cameras, torch.from_numpy(train.images))
        self.net = PlainNerf(tiny_nerf(generator=torch.Generator().manual_seed(0)))
        self.draw, self.optimizer = torch.Generator().manual_seed(1), torch.optim.Adam(self.net.parameters(), 2e-3)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            rows, lines = self.photos.draw(256, self.draw)
            self.optimizer.zero_grad()
            truth = self.photos.colours(rows, 1.0)
            plain_step(self.net, lines.o, lines.d, truth, (24, 24), self.draw).backward()
            self.optimizer.step()

    def render(self) -> Renderer:
        """By both passes, as it was trained, with nothing random."""
        field = self.net

        def at(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
            ways = d.expand_as(x)
            sigma, rgb = field(x.reshape(-1, 3), ways.reshape(-1, 3))
            return sigma.view(x.shape[:-1]), rgb.view(x.shape)

        return dense_renderer(at, NEAR, FAR, 24, 24)


class Ours:
    """The fast model, a step at a time: `fit_fast` in a thread that waits to be let on."""

    def __init__(self, case: tuple[int, int]) -> None:
        views, size = case
        train, _, cameras, _ = scene(views, size)
        photos = photographs(cameras, torch.from_numpy(train.images))
        self.model = fast_model(cameras, torch.from_numpy(train.aabb), torch.from_numpy(train.images[..., 3] > 0),
                                generator=torch.Generator().manual_seed(0))  # fmt: skip
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._fit, args=(photos,), daemon=True)
        self.thread.start()
        self.done.acquire()

    def _fit(self, photos: Any) -> None:
        def measure(step: int) -> dict[str, float]:
            self.done.release()
            self.go.acquire()
            return {}

        measure(0)
        fit_fast(self.model, photos, near=NEAR, far=FAR, steps=STEPS, measure=measure, every=1,
                 generator=torch.Generator().manual_seed(1))  # fmt: skip
        self.done.release()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.go.release()
            self.done.acquire()

    def render(self) -> Renderer:
        return fast_renderer(self.model, near=NEAR, far=FAR)


def row(what: str, timing: Any) -> dict[str, Any]:
    return {
        "what": what, "plain ms": 1e3 * timing.medians["plain"], "ours ms": 1e3 * timing.medians["ours"],
        "ratio": timing.ratio, "interval": f"{timing.interval[0]:.2f}-{timing.interval[1]:.2f}",
    }  # fmt: skip


def rows(rounds: int = 5, most: float = 90.0) -> list[dict[str, Any]]:
    """One row a comparison, on one thread."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    return [
        rays_row("tiny, 256 × (24 + 48)", tiny_nerf(generator=draw), 256, (24, 24), rounds),
        rays_row("paper's network, 16 × (64 + 192)", NerfMLP(generator=draw), 16, (64, 128), rounds),
        lookup_row(rounds), race_row(22.0, most),
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    for found in rows(parser.parse_args().rounds):
        print("  ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in found.items()), flush=True)
