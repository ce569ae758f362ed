"""Recipes that train neural processes: on random curves, on a user's functions of any length, on pictures.

Every step draws a few functions, shows N of their points (N uniform, one count a batch, as in the paper's code) and
scores all of them, so that the targets hold the context.  A recipe trains the net that it is given, in place, with
Adam, and returns the `Run` of `precis.train.loop`.  Garnelo et al., ICML 2018, §2.2 (arXiv 1807.01613).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from precis.fields.neural_process import CNP
from precis.fields.neural_process_context import Order, sample_context, take
from precis.fields.neural_process_variants import LatentCNP
from precis.fields.siren_fit import train
from precis.train.loop import Run

ORDERS: tuple[Order, ...] = ("random", "ordered", "half")


@torch.no_grad()
def glorot_(net: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all weights anew as the paper's notebook does: U(±√(6/(in+out))) for each layer, zero biases.

    Torch's own U(±1/√in) shrinks what passes by √6 a layer of ReLUs, and the code r of a deep encoder nearly vanishes.
    The parts of a decoder's split first layer count as one layer of x and r together.
    """
    for name, p in net.named_parameters():
        if p.ndim < 2:
            p.zero_()
            continue
        field = math.prod(p.shape[2:])
        fan_in, fan_out = p.shape[1] * field, p.shape[0] * field
        if isinstance(net, CNP) and name.startswith("from_"):
            fan_in = net.from_x.in_features + net.from_r.in_features
        bound = math.sqrt(6 / (fan_in + fan_out))
        p.uniform_(-bound, bound, generator=generator)


def masked_loss(
    net: CNP, ctx_x: Float[Tensor, "b n dx"], ctx_y: Float[Tensor, "b n dy"], ctx_mask: Bool[Tensor, "b n"],
    tgt_x: Float[Tensor, "b m dx"], tgt_y: Float[Tensor, "b m dy"], tgt_mask: Bool[Tensor, "b m"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """−log Q per target that is there, in nats; a latent model's evidence bound."""
    y = tgt_y.masked_fill(~tgt_mask[..., None], 0.0)
    count = tgt_mask.sum().clamp(min=1)
    if not isinstance(net, LatentCNP):
        logs = net(ctx_x, ctx_y, tgt_x, ctx_mask).log_prob(y).sum(-1)
        return -(logs * tgt_mask).sum() / count
    q, prior = net.posterior(tgt_x, tgt_y, tgt_mask), net.posterior(ctx_x, ctx_y, ctx_mask)
    noise = torch.randn(q.mean.shape, generator=generator).to(q.mean)
    logs = net(ctx_x, ctx_y, tgt_x, ctx_mask, z=q.mean + q.stddev * noise).log_prob(y).sum(-1)
    divergence = torch.distributions.kl_divergence(q, prior).sum()
    return (divergence - (logs * tgt_mask).sum()) / count


def fit_functions(
    net: CNP, x: Float[Tensor, "f p dx"], y: Float[Tensor, "f p dy"], mask: Bool[Tensor, "f p"], *,
    generator: torch.Generator, batch: int = 32, context: int = 10, points: int = 64, **options: Any,
) -> Run:  # fmt: skip
    """Train on functions of any length, padded to P points (`mask` true where there is one).

    A step takes `batch` functions and, of each, a random subset of at most `points` as targets, the first N of which
    are the context, N uniform in 0 … `context`.  options: those of `siren_fit.train` (steps, lr, log, folder, …).
    """
    shown = min(points, x.shape[1])

    def step(_: Any) -> dict[str, Tensor]:
        rows = torch.randint(len(x), (batch,), generator=generator).to(x.device)
        key = torch.rand(batch, x.shape[1], generator=generator).to(x.device) + 2 * ~mask[rows]
        where = key.argsort(-1)[:, :shown]
        bx, by, there = take(x[rows], where), take(y[rows], where), torch.gather(mask[rows], 1, where)
        n = int(torch.randint(0, min(context, shown) + 1, (), generator=generator))
        return {"loss": masked_loss(net, bx[:, :n], by[:, :n], there[:, :n], bx, by, there, generator)}

    return train(net, step, [0], keep={"generator": generator}, **options)


def fit_pixels(
    net: CNP, pictures: Float[Tensor, "f p c"], grid: Float[Tensor, "p 2"], shape: Sequence[int], *,
    generator: torch.Generator, batch: int = 32, context: int = 200, targets: int = 256,
    orders: Sequence[Order] = ORDERS, **options: Any,
) -> Run:  # fmt: skip
    """Train on pictures as functions of the place: rows of pixels in row-major order.

    A step shows N pixels, N uniform in 0 … `context` (at most half of the picture for halves), in one of `orders`, and
    scores at most `targets` random pixels.
    """
    n_pixels = len(grid)

    def step(_: Any) -> dict[str, Tensor]:
        y = pictures[torch.randint(len(pictures), (batch,), generator=generator).to(pictures.device)]
        order = orders[int(torch.randint(len(orders), (), generator=generator))]
        most = min(context, n_pixels // 2 if order == "half" else n_pixels)
        rows, mask = (t.to(y.device) for t in sample_context(batch, shape, 0, most, order, generator))
        n = int(mask[0].sum())
        where = torch.rand(batch, n_pixels, generator=generator).argsort(-1)[:, :targets].to(y.device)
        there = torch.ones_like(where, dtype=torch.bool)
        shown = rows[:, :n]
        loss = masked_loss(
            net, grid[shown], take(y, shown), mask[:, :n], grid[where], take(y, where), there, generator
        )
        return {"loss": loss}

    return train(net, step, [0], keep={"generator": generator}, **options)
