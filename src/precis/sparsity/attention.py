"""Attention with its three projections apart, so that a graph shows which weights belong to which head.

    softmax(q kᵀ/√d) v W_o,   q, k, v = x W_q, x W_k, x W_v, cut into heads of width d
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OpenAttention(nn.Module):
    """What an `nn.MultiheadAttention` computes at inference, without its packed projection and without its weights."""

    in_proj_bias = None  # `nn.TransformerEncoderLayer` asks, and then takes its plain path
    batch_first = False

    def __init__(self, packed: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.width = packed.num_heads, packed.head_dim
        self.first = packed.batch_first
        weights = packed.in_proj_weight.chunk(3)
        biases = packed.in_proj_bias.chunk(3) if packed.in_proj_bias is not None else (None, None, None)
        self.query, self.key, self.value = (_linear(w, b) for w, b in zip(weights, biases))
        self.out = _linear(packed.out_proj.weight, packed.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = False, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """The output and None; ValueError for weights or masks, which are not served."""
        if key_padding_mask is not None or attn_mask is not None or need_weights:
            raise ValueError("only attention without masks, whose weights are not asked for, can be opened")
        parts = [layer(x if self.first else x.transpose(0, 1)).unflatten(-1, (self.heads, self.width)).transpose(1, 2)
                 for layer, x in ((self.query, query), (self.key, key), (self.value, value))]  # fmt: skip
        y = F.scaled_dot_product_attention(*parts).transpose(1, 2)
        y = self.out(y.reshape(*y.shape[:2], -1))
        return (y if self.first else y.transpose(0, 1)), None


def open_attention(model: nn.Module) -> nn.Module:
    """Replace, in place, every self-attention whose projections are packed."""
    for path, module in list(model.named_modules()):
        plain = isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None
        if plain and module.bias_k is None and not module.add_zero_attn and path:
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, OpenAttention(module))
    return model


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made: Any = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight), bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made  # type: ignore[no-any-return]
