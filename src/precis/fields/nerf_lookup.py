"""Weighted sums of table rows: the one operation behind planes, lines, dense grids and hash grids.

    out_n = Σ_k w_nk table[i_nk]

Forward by `embedding_bag`.  The gradient of the table is a sparse product: on a CPU by SciPy, in compressed columns,
several times faster than `index_add_` or the gradient of `grid_sample`, and by `index_add_` elsewhere.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx


def lookup(
    table: Float[Tensor, "rows c"], index: Int[Tensor, "n k"], weight: Float[Tensor, "n k"]
) -> Float[Tensor, "n c"]:
    """The sums; gradients for `table`, and for `weight` where it wants one."""
    out: Tensor = _Lookup.apply(table, index, weight)  # type: ignore[no-untyped-call]
    return out


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(table, index, weight)
        return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:  # type: ignore[override]
        table, index, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        want_table, _, want_weight = ctx.needs_input_grad  # type: ignore[attr-defined]
        d_table = scatter(grad, index, weight, len(table)) if want_table else None
        d_weight = (table[index] * grad.unsqueeze(1)).sum(-1) if want_weight else None
        return d_table, None, d_weight


def scatter(
    grad: Float[Tensor, "n c"], index: Int[Tensor, "n k"], weight: Float[Tensor, "n k"], rows: int
) -> Float[Tensor, "{rows} c"]:
    """The transpose of `lookup`: row i collects w_nk grad_n of all i_nk = i."""
    n, k = index.shape
    if grad.device.type != "cpu":
        spread = (grad.unsqueeze(1) * weight.unsqueeze(2)).reshape(n * k, -1)
        return grad.new_zeros(rows, grad.shape[1]).index_add_(0, index.reshape(-1), spread)
    import scipy.sparse as sparse

    starts = np.arange(0, n * k + 1, k, dtype=np.int32)
    cells = index.detach().reshape(-1).to(torch.int32).numpy()
    columns = sparse.csc_matrix((weight.detach().reshape(-1).numpy(), cells, starts), shape=(rows, n), copy=False)
    return torch.from_numpy(columns @ grad.detach().contiguous().numpy())


def ticks(
    x: Float[Tensor, "n d"], size: tuple[int, ...]
) -> tuple[Int[Tensor, "n d"], Float[Tensor, "n d"]]:
    """For x in [0, 1]^d the grid points below, and how far beyond them x lies; grid points lie on the borders."""
    top = torch.tensor([n - 1 for n in size], dtype=x.dtype, device=x.device)
    at = x * top
    low = torch.minimum(at.detach(), (top - 1).clamp(min=0)).clamp_(min=0).floor_()
    return low.to(torch.int32), at - low


def corners(
    low: Int[Tensor, "n d"], share: Float[Tensor, "n d"], axes: tuple[int, ...], size: tuple[int, ...]
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Row-major numbers and weights of the grid points around, in the grid that `axes` span; see `ticks`."""
    index, weight = low[:, axes[0]], None
    offsets = torch.zeros(1, dtype=torch.int32, device=low.device)
    for i, a in enumerate(axes):
        index = low[:, a] if i == 0 else torch.add(low[:, a], index, alpha=size[a])
        last = int(size[a] > 1)  # an axis of one point has no second
        offsets = (offsets[:, None] * size[a] + torch.tensor([0, last], dtype=torch.int32, device=low.device)).flatten()
        pair = torch.stack([1 - share[:, a], share[:, a]], 1)
        weight = pair if weight is None else (weight.unsqueeze(2) * pair.unsqueeze(1)).flatten(1)
    assert weight is not None
    return index[:, None] + offsets, weight
