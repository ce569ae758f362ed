"""Nerfies: the elastic term and a training step, against the plain code that one would write from the paper.

Plain: the deformation field with its encoding band by band, the code copied to every sample and 4×4 matrices; its
Jacobian by three `torch.func.jvp` at *all* samples of all rays, singular values by `svdvals`, weighted by the render
weights.  Ours: value and three tangents as one matrix product a layer, at one sample a ray, drawn from those weights.
Both on the same weights, rays and samples, with the backward pass.

Jacobian        the same Jacobians at the same points, by either way (`apart`: their largest difference)
elastic         the whole term with its gradient
step            a training step: rendering, loss, elastic term, gradients, Adam
step, no J      the plain step without an elastic term, over ours with one: what the term costs us

`ratio` is plain over ours, with its 95 % interval; both sides take turns.

    python -m benchmarks.nerfies [--threads 1,2] [--rounds N]
"""

import argparse
import copy
from typing import Any

import torch
from torch import Tensor, nn

from precis.fields.nerf import tiny_nerf
from precis.fields.nerf_render import render_dense
from precis.fields.nerfies import DeformableNerf, SE3Field
from precis.fields.nerfies_losses import draw_sample, elastic_loss, general_robust
from precis.fields.nerfies_se3 import hat
from precis.lab.timing import Timing, interleaved

RAYS, SAMPLES, FRAMES, ALPHA = 96, 24, 24, 3.2


class PlainField(nn.Module):
    """The SE(3) field as one would write it, with the weights of ours."""

    def __init__(self, field: SE3Field) -> None:
        super().__init__()
        self.layers, self.head = copy.deepcopy(field.layers), copy.deepcopy(field.head)
        self.codes = copy.deepcopy(field.codes)
        self.bands, self.skip = field.bands, field.skip

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        parts = [x]
        for j in range(self.bands):
            weight = (1 - torch.cos(torch.pi * torch.tensor(ALPHA - j).clamp(0, 1))) / 2
            parts += [weight * torch.sin(2.0**j * x), weight * torch.cos(2.0**j * x)]
        inputs = torch.cat([*parts, code], -1)
        h = inputs
        for i, layer in enumerate(self.layers):
            h = torch.relu(layer(torch.cat([h, inputs], -1) if i == self.skip else h))
        w, v = self.head(h).split(3, -1)
        theta = w.norm(dim=-1, keepdim=True).clamp(min=1e-6).unsqueeze(-1)
        k = hat(w) / theta
        eye = torch.eye(3, dtype=x.dtype)
        turn = eye + theta.sin() * k + (1 - theta.cos()) * (k @ k)
        shift = (theta * eye + (1 - theta.cos()) * k + (theta - theta.sin()) * (k @ k)) @ (v.unsqueeze(-1) / theta)
        return (turn @ x.unsqueeze(-1) + shift).squeeze(-1)

    def jacobian(self, x: Tensor, code: Tensor) -> Tensor:
        columns = []
        for e in torch.eye(3, dtype=x.dtype):
            columns.append(torch.func.jvp(lambda z: self(z, code), (x,), (e.expand_as(x),))[1])
        return torch.stack(columns, -1)


class Sides:
    """Both codes on one set of rays."""

    def __init__(self, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        field = SE3Field(FRAMES, 8, 4, 4, 64, generator=g)
        with torch.no_grad():
            field.head.weight.normal_(0, 0.02, generator=g)
        self.model = DeformableNerf(tiny_nerf(generator=g), field, 0)
        self.field, self.plain, self.template = field, PlainField(field), copy.deepcopy(self.model.template)
        self.frame = torch.randint(FRAMES, (RAYS,), generator=g)
        self.d = torch.nn.functional.normalize(torch.randn(RAYS, 1, 3, generator=g), dim=-1)
        t = torch.linspace(0.3, 1.1, SAMPLES).expand(RAYS, -1) + 0.02 * torch.rand(RAYS, SAMPLES, generator=g)
        self.t, self.truth, self.draw = t, torch.rand(RAYS, 3, generator=g), torch.Generator().manual_seed(seed)
        self.x = t[..., None] * self.d
        self.weights = torch.rand(RAYS, SAMPLES, generator=g).softmax(-1)
        mine, theirs = list(self.model.parameters()), [*self.plain.parameters(), *self.template.parameters()]
        self.adams = {"ours": torch.optim.Adam(mine, 1e-4), "plain": torch.optim.Adam(theirs, 1e-4)}

    def plain_code(self) -> Tensor:
        return self.plain.codes[self.frame].repeat_interleave(SAMPLES, 0)

    def jacobians(self) -> tuple[Any, Any]:
        flat, code = self.x.reshape(-1, 3), self.field.codes[self.frame].repeat_interleave(SAMPLES, 0)
        return (lambda: self.plain.jacobian(flat, code.detach())), (lambda: self.field(flat, code, ALPHA, True)[1])

    def plain_elastic(self, weights: Tensor) -> Tensor:
        j = self.plain.jacobian(self.x.reshape(-1, 3), self.plain_code())
        r2 = torch.linalg.svdvals(j).clamp(min=1e-6).log().square().sum(-1)
        penalty = 0.03 * general_robust(r2, -2, 0.03).view(RAYS, SAMPLES)
        return (weights.detach() * penalty).sum(-1).mean()

    def our_elastic(self, weights: Tensor) -> Tensor:
        index, mass = draw_sample(weights, self.draw)
        x = self.x[torch.arange(RAYS), index]
        _, j = self.field(x, self.field.codes[self.frame], ALPHA, True)
        return elastic_loss(j[:, None], mass[:, None])

    def plain_step(self, elastic: bool = True) -> float:
        self.adams["plain"].zero_grad()
        moved = self.plain(self.x.reshape(-1, 3), self.plain_code()).view(self.x.shape)
        made = render_dense(*self.template(moved, self.d), self.t)
        loss = (made.rgb - self.truth).square().mean()
        loss = loss + 0.01 * self.plain_elastic(made.weights) if elastic else loss
        loss.backward()
        self.adams["plain"].step()
        return float(loss.detach())

    def our_step(self) -> float:
        self.adams["ours"].zero_grad()
        codes = self.model.codes(self.frame).per_ray()
        made = render_dense(*self.model(self.x, self.d, codes, ALPHA), self.t)
        loss = (made.rgb - self.truth).square().mean() + 0.01 * self.our_elastic(made.weights)
        loss.backward()
        self.adams["ours"].step()
        return float(loss.detach())


def row(what: str, threads: int, timing: Timing, apart: float | str = "") -> dict[str, Any]:
    return {
        "what": what, "threads": threads, "plain ms": 1e3 * timing.medians["plain"],
        "ours ms": 1e3 * timing.medians["ours"], "ratio": timing.ratio,
        "interval": f"{timing.interval[0]:.2f}-{timing.interval[1]:.2f}", "apart": apart,
    }  # fmt: skip


def measure(threads: int, rounds: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    sides = Sides()
    plain, ours = sides.jacobians()
    apart = float((plain() - ours()).abs().max().detach())
    of_all = f"{RAYS} x {SAMPLES}"
    found = [row(f"Jacobian, {of_all}", threads, interleaved({"plain": plain, "ours": ours}, rounds, 2), apart)]
    terms = {
        "plain": lambda: sides.plain_elastic(sides.weights).backward(),
        "ours": lambda: sides.our_elastic(sides.weights).backward(),
    }  # fmt: skip
    found.append(row(f"elastic, {of_all}", threads, interleaved(terms, rounds, 2)))
    steps = {"plain": sides.plain_step, "ours": sides.our_step}
    found.append(row(f"step, {of_all}", threads, interleaved(steps, rounds, 2)))
    without = {"plain": lambda: sides.plain_step(False), "ours": sides.our_step}
    found.append(row("step, no J", threads, interleaved(without, rounds, 2)))
    return found


def rows(threads: tuple[int, ...] = (1, 2), rounds: int = 15) -> list[dict[str, Any]]:
    """Rows for each number of threads."""
    return [one for count in threads for one in measure(count, rounds)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    for line in rows(tuple(int(n) for n in given.threads.split(",")), given.rounds):
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()))
