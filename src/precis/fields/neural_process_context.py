"""What a neural process is shown: contexts in several orders, the nearest observations, and the next one to ask for.

A context of a picture is a set of its pixels; `sample_context` gives row numbers into its row-major list of pixels.
Garnelo et al., ICML 2018, §4.2 (arXiv 1807.01613).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Normal

Order = Literal["random", "ordered", "half"]
# (context rows [B,k]) -> the predictive of all pixels [B,n,c]
Predict = Callable[[Tensor], Normal]


def sample_context(
    batch: int, shape: Sequence[int], low: int, high: int, order: Order = "random",
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "b k"], Bool[Tensor, "b k"]]:
    """Row numbers [B,high] of context pixels of a picture [H,W], no row twice, and a mask of low … high of them.

    random: any pixels; ordered: from the top down, row by row; half: the pixels of the top, bottom, left or right half,
    one of them at random for each picture, those at the border first (at most H·W/2).  One count a batch, as in the
    paper's code.  Raises ValueError for counts that do not fit the picture or the half.
    """
    h, w = shape
    most = (h * w) // 2 if order == "half" else h * w
    if not 0 <= low <= high <= most:
        raise ValueError(f"a context of {order} pixels needs 0 <= low <= high <= {most}, got {low} and {high}")
    count = int(torch.randint(low, high + 1, (), generator=generator))
    if order == "random":
        rows = torch.rand(batch, h * w, generator=generator).argsort(-1)
    elif order == "ordered":
        rows = torch.arange(h * w).expand(batch, -1)
    elif order == "half":
        grid = torch.arange(h * w).view(h, w)
        sides = torch.stack([grid.flatten(), grid.flip(0).flatten(), grid.T.flatten(), grid.T.flip(0).flatten()])
        rows = sides[torch.randint(4, (batch,), generator=generator)]
    else:
        raise ValueError(f'order must be "random", "ordered" or "half", got {order!r}')
    return rows[:, :high], (torch.arange(high) < count).expand(batch, -1)


def take(values: Float[Tensor, "*b n c"], rows: Int[Tensor, "*b k"]) -> Float[Tensor, "*b k c"]:
    """The rows of each set."""
    return torch.gather(values, -2, rows[..., None].expand(*rows.shape, values.shape[-1]))


def knn_predict(
    ctx_x: Float[Tensor, "*b n d"], ctx_y: Float[Tensor, "*b n c"], tgt_x: Float[Tensor, "*b m d"], k: int = 3,
    mask: Bool[Tensor, "*b n"] | None = None,
) -> Float[Tensor, "*b m c"]:
    """Each target as the mean of the k nearest observations (of all, where there are fewer).

    Raises ValueError if a context is empty, or k is below 1.
    """
    n = ctx_x.shape[-2]
    if k < 1 or n == 0 or (mask is not None and not bool(mask.any(-1).all())):
        raise ValueError("nearest neighbours need at least one observation in each context, and k of at least 1")
    apart = torch.cdist(tgt_x, ctx_x)
    if mask is not None:
        apart = apart.masked_fill(~mask[..., None, :], float("inf"))
    near = apart.topk(min(k, n), largest=False)
    weight = near.values.isfinite().to(ctx_y)
    c = ctx_y.shape[-1]
    spread = ctx_y.masked_fill(~mask[..., None], 0.0) if mask is not None else ctx_y
    found = torch.gather(
        spread[..., None, :, :].expand(*apart.shape, c), -2, near.indices[..., None].expand(*near.indices.shape, c)
    )  # fmt: skip
    return (found * weight[..., None]).sum(-2) / weight.sum(-1, keepdim=True)


@torch.no_grad()
def acquire(
    predict: Predict, batch: int, pixels: int, budget: int, rule: Literal["variance", "random"] = "variance",
    generator: torch.Generator | None = None, *, start: Int[Tensor, "b k"] | None = None,
    permute: bool = False,
) -> Int[Tensor, "b budget"]:
    """Choose `budget` pixels of each of B pictures, one after the other; the rows in the order in which they are asked.

    predict(rows [B,k]) -> the predictive of all pixels given those at `rows`, which only then are looked up.
    variance: the pixel not yet seen whose predictive variance (summed over channels) is largest; random: any of them.
    start: pixels that are there to begin with; they come first and count.  permute: the variances are permuted among
    the pixels before the choice (a control, in which they say nothing of places).
    """
    first = torch.empty(batch, 0, dtype=torch.long) if start is None else start
    if not first.shape[1] <= budget <= pixels:
        raise ValueError(f"the budget must lie between the {first.shape[1]} pixels given and all {pixels}")
    rows = first
    while rows.shape[1] < budget:
        if rule == "random":
            score = torch.rand(batch, pixels, generator=generator).to(rows.device)
        else:
            score = predict(rows).variance.sum(-1)
            if permute:
                order = torch.rand(batch, pixels, generator=generator).argsort(-1).to(score.device)
                score = torch.gather(score, 1, order)
        score = score.scatter(1, rows.to(score.device), -torch.inf)
        rows = torch.cat([rows.to(score.device), score.argmax(1, keepdim=True)], 1)
    return rows
