"""A sparse state dict in fewer bytes, and how few it takes.

A masked tensor `w` becomes `w.bits`, its mask with eight entries a byte, `w.values`, the living entries in order, and
`w.shape`; all others stay as they are.  `decompress` gives the same bits back.

    entropy bound = Σ (n H₂(p)/8 + 4 nnz) bytes,   H₂(p) = −p log₂ p − (1−p) log₂ (1−p)

It counts a living entry as four bytes; deflate can come below it where their bits are not all random.  The compression
that papers quote is n/nnz: it leaves out where the living entries are.
"""

import math
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PARTS = (".bits", ".values", ".shape")


class Sizes(NamedTuple):
    """Bytes of a state dict: dense, with packed masks, these deflated, and the bound; `ratio` = n/nnz of the masked."""

    dense: int
    compressed: int
    deflated: int
    entropy_bound: int
    ratio: float


def compress(state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that hold `state` without the zeros of `masks`.

    A tensor that shares another's memory is kept as its own copy only if it is not masked; a masked one is written once
    and its other names become `name.tied`.  Raises ValueError where an entry is not 0 though its mask says so.
    """
    packed: dict[str, Tensor] = {}
    first: dict[int, str] = {state[name].data_ptr(): name for name in masks if state[name].numel()}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        owner = first.get(state[name].data_ptr(), name) if tensor.numel() else name
        if owner != name and state[owner].shape == tensor.shape:
            packed[f"{name}.tied"] = torch.frombuffer(bytearray(owner.encode()), dtype=torch.uint8)
        elif name in masks:
            mask = masks[name].cpu()
            rest = tensor[~mask]
            if bool((rest != 0).any()) or bool(torch.signbit(rest).any()):
                raise ValueError(f"{name} is not 0 everywhere where its mask is: apply_masks_ first")
            packed[f"{name}.bits"] = torch.from_numpy(np.packbits(mask.numpy().reshape(-1)))
            packed[f"{name}.values"] = tensor[mask].clone()
            packed[f"{name}.shape"] = torch.tensor(tensor.shape, dtype=torch.int64)
        else:
            packed[name] = tensor.contiguous().clone()
    return packed


def decompress(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The dense state dict of what `compress` made, bit for bit.  ValueError for parts that do not fit together."""
    masked = [name.removesuffix(".bits") for name in packed if name.endswith(".bits")]
    masked = [name for name in masked if all(f"{name}{part}" in packed for part in PARTS)]
    inner = {f"{name}{part}" for name in masked for part in PARTS}
    state: dict[str, Tensor] = {}
    for name in masked:
        bits, values, shape = (packed[f"{name}{part}"].cpu() for part in PARTS)
        total = math.prod(shape.tolist())
        if bits.numel() != -(-total // 8):
            raise ValueError(f"{name}.bits holds {bits.numel()} bytes for {total} entries")
        mask = torch.from_numpy(np.unpackbits(bits.numpy(), count=total).astype(bool))
        if int(mask.sum()) != values.numel():
            raise ValueError(f"{name}: {values.numel()} values for {int(mask.sum())} living entries")
        dense = torch.zeros(total, dtype=values.dtype)
        dense[mask] = values
        state[name] = dense.view(shape.tolist())
    for name, tensor in packed.items():
        if name.endswith(".tied"):
            state[name.removesuffix(".tied")] = state[bytes(tensor.tolist()).decode()]
        elif name not in inner:
            state[name] = tensor
    return state


def sizes(state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Sizes:
    """What `state` takes dense (fp32 as it stands) and with the zeros of `masks` left out; a shared tensor once."""
    owned: dict[str, Tensor] = {}
    seen: set[int | str] = set()
    for name in [*masks, *state]:
        place = state[name].data_ptr() if state[name].numel() else name
        if place not in seen:
            seen.add(place)
            owned[name] = state[name]
    packed = compress(owned, masks)
    rest = sum(_bytes(t) for name, t in owned.items() if name not in masks)
    bound, total, alive = 0.0, 0, 0
    for mask in masks.values():
        n, nnz = mask.numel(), int(mask.sum())
        total, alive = total + n, alive + nnz
        p = nnz / n if n else 0.0
        entropy = -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
        bound += n * entropy / 8 + 4 * nnz
    dense = sum(_bytes(t) for t in owned.values())
    return Sizes(dense, sum(_bytes(t) for t in packed.values()), deflated(packed), math.ceil(bound) + rest,
                 total / alive if alive else math.inf)  # fmt: skip


def deflated(state: Mapping[str, Tensor]) -> int:
    """Bytes of a state dict's tensors one after another, deflated; a shared tensor once."""
    first = {t.data_ptr() if t.numel() else name: t for name, t in state.items()}
    raw = b"".join(t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                   for t in first.values() if t.numel())  # fmt: skip
    return len(zlib.compress(raw, 9))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
