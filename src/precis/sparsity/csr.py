"""Linear layers that compute with the living weights alone: compressed sparse rows (CSR).

    y = W x + b with W as (row pointers, column indices, values)

An entry costs more than in a dense product, and a call has its own overhead, so that few weights must be left before it
pays.  Where that is depends on the machine, the size and the batch: measure it (`benchmarks/rewinding.py`, the jobs).
"""

import copy
import warnings
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class CsrLinear(nn.Module):
    """An `nn.Linear` for inference with its zeros left out."""

    rows: Tensor
    columns: Tensor
    values: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            sparse = layer.weight.detach().to_sparse_csr()
        self.register_buffer("rows", sparse.crow_indices())
        self.register_buffer("columns", sparse.col_indices())
        self.register_buffer("values", sparse.values())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.shape = (layer.out_features, layer.in_features)

    def forward(self, x: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch o"]:
        weight = torch.sparse_csr_tensor(self.rows, self.columns, self.values, self.shape, check_invariants=False)
        y = torch.sparse.mm(weight, x.reshape(-1, x.shape[-1]).T).T.reshape(*x.shape[:-1], self.shape[0])
        return y if self.bias is None else y + self.bias


def to_csr(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy for inference on the CPU whose masked linear layers are `CsrLinear`; attention's own layers stay."""
    sparse = copy.deepcopy(model).cpu().eval()
    inside = {f"{path}." for path, m in sparse.named_modules() if isinstance(m, nn.MultiheadAttention)}
    for name in masks:
        path = name.rpartition(".")[0]
        layer = sparse.get_submodule(path)
        if isinstance(layer, nn.Linear) and not any(path.startswith(prefix) for prefix in inside):
            parent, _, leaf = path.rpartition(".")
            setattr(sparse.get_submodule(parent), leaf, CsrLinear(layer))
    return sparse
