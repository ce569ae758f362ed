"""A fitted network as bytes, 8 bits a weight, and the size of JPEG and PNG files that look as good.

    q = round((w − w_min)/(w_max − w_min) · 255)          each weight tensor on its own scale

A container is a header (magic, method, the two float32 of each tensor) and all q, deflated or by LZMA, whichever is
shorter.  The shapes are the architecture's and are not counted.  Nothing here trains.
"""

import io
import lzma
import struct
import zlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import nn

MAGIC = b"pnw1"
_METHODS = {
    0: (lambda raw: raw, lambda packed: packed),
    1: (lambda raw: zlib.compress(raw, 9), zlib.decompress),
    2: (lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE), lzma.decompress),
}  # fmt: skip


def pack(net: nn.Module) -> bytes:
    """The container of a network's parameters."""
    scales, codes = [], []
    for p in net.parameters():
        w = p.detach().cpu().double().numpy().ravel()
        low, high = (float(np.float32(x)) for x in (w.min(), w.max()))
        step = (high - low) / 255 or 1.0
        scales.append(struct.pack("<ff", low, high))
        codes.append(np.rint((w - low) / step).clip(0, 255).astype(np.uint8).tobytes())
    raw = b"".join(codes)
    method, body = min(((k, squeeze(raw)) for k, (squeeze, _) in _METHODS.items()), key=lambda found: len(found[1]))
    return MAGIC + bytes([method]) + b"".join(scales) + body


@torch.no_grad()
def unpack(data: bytes, net: nn.Module) -> None:
    """Put the weights of a container into a network of the same architecture.  ValueError if it is not that."""
    parameters = list(net.parameters())
    at = len(MAGIC) + 1 + 8 * len(parameters)
    if data[: len(MAGIC)] != MAGIC or len(data) < at or data[len(MAGIC)] not in _METHODS:
        raise ValueError("this is no container of weights")
    codes = np.frombuffer(_METHODS[data[len(MAGIC)]][1](data[at:]), np.uint8)
    if len(codes) != sum(p.numel() for p in parameters):
        raise ValueError(f"the container has {len(codes)} weights, the network {sum(p.numel() for p in parameters)}")
    used = 0
    for k, p in enumerate(parameters):
        low, high = struct.unpack_from("<ff", data, len(MAGIC) + 1 + 8 * k)
        part = codes[used : used + p.numel()].astype(np.float64) * ((high - low) / 255) + low
        p.copy_(torch.from_numpy(part.reshape(p.shape)))
        used += p.numel()


def jpeg_of(image: UInt8[np.ndarray, "h w"], truth: Float[np.ndarray, "h w"], psnr: float) -> tuple[int, float]:
    """Bytes and PSNR of the shortest JPEG at most 0.5 dB below this PSNR; of the best one if there is none."""
    return _shortest((_encode(image, "JPEG", quality=q, optimize=True) for q in range(1, 101)), truth, psnr)


def png_of(image: UInt8[np.ndarray, "h w"], truth: Float[np.ndarray, "h w"], psnr: float) -> tuple[int, float]:
    """The same for PNG, which is lossless: before it, the picture is rounded to fewer grey levels."""

    def files() -> Any:
        for levels in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256):
            rounded = np.rint(np.rint(image / 255 * (levels - 1)) / (levels - 1) * 255).astype(np.uint8)
            yield _encode(rounded, "PNG", optimize=True)

    return _shortest(files(), truth, psnr)


def _shortest(files: Any, truth: np.ndarray, psnr: float) -> tuple[int, float]:
    found = [(len(file), _psnr(file, truth)) for file in files]
    good = [one for one in found if one[1] >= psnr - 0.5]
    return min(good) if good else max(found, key=lambda one: one[1])


def _encode(image: np.ndarray, form: str, **options: Any) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, form, **options)
    return out.getvalue()


def _psnr(file: bytes, truth: np.ndarray) -> float:
    from PIL import Image

    decoded = np.asarray(Image.open(io.BytesIO(file)), np.float64) / 255
    return float(-10 * np.log10(max(((decoded - truth) ** 2).mean(), 1e-12)))
