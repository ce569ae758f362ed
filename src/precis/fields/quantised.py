"""Tensors as bytes: each rounded to 2ᵇ levels between its least and greatest value, and the integers packed.

    q = round((w − w_min)/(w_max − w_min) · (2ᵇ − 1))

Layout: one byte that says how the integers are packed (0: as they are, 1: deflated, whichever is shorter), w_min and
w_max of each tensor as float32, the integers, b bits each, highest bit first.  Little-endian.  The shapes are not kept.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

_STORED, _DEFLATED = 0, 1


def pack_tensors(tensors: Sequence[Tensor], bits: int = 8) -> bytes:
    """The bytes of tensors whose values are finite."""
    scales, codes = [], []
    for tensor in tensors:
        w = tensor.detach().cpu().double().numpy().ravel()
        if not np.isfinite(w).all():
            raise ValueError("a weight is not finite")
        low, high = (float(np.float32(x)) for x in (w.min(), w.max()))
        scales.append(struct.pack("<ff", low, high))
        step = (high - low) / (2**bits - 1) or 1.0
        codes.append(np.rint((w - low) / step).clip(0, 2**bits - 1).astype(np.int64))
    stored = _to_bits(np.concatenate(codes), bits)
    deflated = zlib.compress(stored, 9)
    method, body = (_DEFLATED, deflated) if len(deflated) < len(stored) else (_STORED, stored)
    return bytes([method]) + b"".join(scales) + body


def packed_size(counts: Sequence[int], bits: int) -> int:
    """The most bytes that `pack_tensors` makes of tensors with so many values."""
    return 1 + 8 * len(counts) + -(-sum(counts) * bits // 8)


def unpack_tensors(data: bytes, shapes: Sequence[tuple[int, ...]], bits: int = 8) -> list[Tensor]:
    """The tensors, float64.  Raises ValueError if `data` is not the bytes of tensors of these shapes."""
    counts = [int(np.prod(shape)) for shape in shapes]
    start, total = 1 + 8 * len(shapes), sum(counts)
    expected = -(-total * bits // 8)
    if len(data) < start or data[0] not in (_STORED, _DEFLATED):
        raise ValueError("it is cut short or packed in an unknown way")
    body = data[start:]
    if data[0] == _DEFLATED:
        try:
            unpacker = zlib.decompressobj()
            body = unpacker.decompress(body, expected + 1)  # bytes from elsewhere may unpack to anything
        except zlib.error as error:
            raise ValueError(f"its weights do not unpack ({error})") from error
    if len(body) != expected:
        raise ValueError(f"it holds {len(body)} bytes of weights where {expected} are wanted")
    codes, out, used = _from_bits(body, total, bits), [], 0
    for k, (shape, count) in enumerate(zip(shapes, counts, strict=True)):
        low, high = struct.unpack_from("<ff", data, 1 + 8 * k)
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise ValueError("the range of a weight is no range")
        values = codes[used : used + count] * ((high - low) / (2**bits - 1)) + low
        out.append(torch.from_numpy(values.reshape(shape)))
        used += count
    return out


def _to_bits(codes: Int64[np.ndarray, "n"], bits: int) -> bytes:
    places = np.arange(bits - 1, -1, -1)
    return np.packbits(((codes[:, None] >> places) & 1).astype(np.uint8)).tobytes()


def _from_bits(data: bytes, n: int, bits: int) -> Int64[np.ndarray, "{n}"]:
    found = np.unpackbits(np.frombuffer(data, np.uint8), count=n * bits).reshape(n, bits).astype(np.int64)
    return found @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int64))
