"""A picture as the rounded weights of a Deep Decoder: `encode` fits and packs, `decode` rebuilds from the bytes alone.

Layout of a `.pdd` code, little-endian:

    magic "\\x89PDD", version, bits, order, channels (1 byte each), height, width of the picture (4 bytes each),
    width of the decoder (2), layers (1), seed of B_1 (8), weights as in `quantised`, CRC-32 of all before it (4)

B_1 comes from a counter-based generator, and the decoder is evaluated in float64, so that the decoded picture, rounded
to 8 bits, is the same everywhere.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from precis.fields.deep_decoder import DeepDecoder, layers_for, width_for_ratio
from precis.fields.quantised import pack_tensors, packed_size, unpack_tensors
from precis.fields.restoration import centre_crop, fit_untrained

MAGIC, VERSION = b"\x89PDD", 1
_HEADER = struct.Struct("<4s4B2I H B Q")
_ORDERS = ("code", "paper", "upsample_last")
BITS = (8, 12, 16)
MOST_PIXELS, MOST_WIDTH, MOST_LAYERS = 1 << 26, 4096, 16
Number = float | int


class Code(NamedTuple):
    """`data`: the bytes of the file; `decoder`: the net as it was fitted; `curve`: "loss" and what was measured."""

    data: bytes
    decoder: DeepDecoder
    curve: dict[str, Any]


class Header(NamedTuple):
    bits: int
    order: str
    channels: int
    size: tuple[int, int]
    width: int
    layers: int
    seed: int


def encode(
    image: Float[Tensor, "c h w"], *, ratio: Number | None = None, width: int | None = None, bits: int = 8,
    seed: int = 0, steps: int | None = 20_000, lr: Number = 0.005, input_noise: Number = 0.005,
    generator: torch.Generator | None = None, **options: Any,
) -> Code:  # fmt: skip
    """The code of a picture in [0, 1], from a decoder of `width` channels or with `ratio` weights a value.

    Fitted with Adam at `lr`; the input noise, for which a generator is wanted, falls as `noise_schedule` says, and the
    weights with the least loss are kept.  options: others of `fit_untrained` (callback, log, folder, resume, …).
    """
    if (ratio is None) == (width is None):
        raise ValueError("give either a ratio or a width")
    if bits not in BITS:
        raise ValueError(f"bits must be one of {BITS}, got {bits}")
    size = (int(image.shape[1]), int(image.shape[2]))
    layers = layers_for(size)
    if ratio is not None:
        width = width_for_ratio(ratio, size, layers, len(image))
    assert width is not None
    net = DeepDecoder(width, layers, len(image), generator=generator).to(image)
    fit = fit_untrained(
        net, net.input_for(size, seed), image[None], steps=steps, lr=lr, crop=size, stop="loss",
        input_noise=0.0 if generator is None else noise_schedule(input_noise, steps or 20_000), generator=generator,
        **options,
    )  # fmt: skip
    return Code(pack(net, size, seed, bits), net, fit.curve)


def noise_schedule(start: Number, steps: int) -> Callable[[int], float]:
    """σ of the input noise at a step: 0.7 of `start`, and 0.7 times less at every fortieth of the steps.

    With the paper's 20,000 steps, every 500.
    """
    return lambda step: start * 0.7 ** (40 * step // steps + 1)


def decode(data: bytes) -> Float[Tensor, "c h w"]:
    """The picture of a code, float64 in (0, 1).  Raises ValueError as `unpack` does."""
    net, header = unpack(data)
    with torch.no_grad():
        return centre_crop(net(net.input_for(header.size, header.seed)), header.size)[0]


def pack(net: DeepDecoder, size: tuple[int, int], seed: int, bits: int = 8) -> bytes:
    """The code of a bilinear decoder that was fitted to a picture of `size` = (H, W) with `input_for(size, seed)`."""
    if net.upsample != "bilinear" or not net.sigmoid:
        raise ValueError("only bilinear decoders with a sigmoid have a code")
    header = _HEADER.pack(
        MAGIC, VERSION, bits, _ORDERS.index(net.order), net.out_ch, *size, net.width, net.layers, seed
    )
    body = header + pack_tensors(list(net.parameters()), bits)
    return body + struct.pack("<I", zlib.crc32(body))


def code_size(width: int, layers: int, out_ch: int, bits: int) -> int:
    """The most bytes of a code."""
    counts = [width**2] * layers + [width * out_ch] + [width] * (2 * layers)
    return _HEADER.size + packed_size(counts, bits) + 4


def width_for_bytes(most: int, size: tuple[int, int], layers: int, out_ch: int, bits: int) -> int:
    """The largest width whose code is not longer than `most` bytes; ValueError naming the least number of bytes."""
    least = code_size(4, layers, out_ch, bits)
    if most < least:
        h, w = size
        raise ValueError(f"{most} bytes are too few for {w}×{h} pixels at {bits} bits: {least} is the least")
    width = 4
    while width < MOST_WIDTH and code_size(width + 1, layers, out_ch, bits) <= most:
        width += 1
    return width


def read_header(data: bytes) -> Header:
    """What a code says of itself.  Raises ValueError if it is no code, damaged, cut short or of another version."""
    if data[:4] != MAGIC:
        raise ValueError("it is no .pdd code: it does not begin with one's magic number")
    if len(data) < _HEADER.size + 4:
        raise ValueError(f"it is cut short: {len(data)} bytes do not hold a header")
    _, version, bits, order, channels, height, width, k, layers, seed = _HEADER.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"it is a .pdd code of version {version}; this reads version {VERSION}")
    if struct.unpack("<I", data[-4:])[0] != zlib.crc32(data[:-4]):
        raise ValueError("its checksum is wrong: the file is damaged or cut short")
    good = bits in BITS and order < len(_ORDERS) and 0 < k <= MOST_WIDTH and 0 < layers <= MOST_LAYERS
    if not (good and channels and 0 < height * width <= MOST_PIXELS):
        raise ValueError(f"its header makes no sense ({channels}×{height}×{width} pixels, {layers} layers of {k})")
    return Header(bits, _ORDERS[order], channels, (height, width), k, layers, seed)


def unpack(data: bytes) -> tuple[DeepDecoder, Header]:
    """The decoder of a code, float64, and its header.  Raises ValueError as `read_header` does."""
    header = read_header(data)
    with torch.device("meta"):
        net = DeepDecoder(header.width, header.layers, header.channels, order=header.order)  # type: ignore[arg-type]
    shapes = [tuple(p.shape) for p in net.parameters()]
    values = unpack_tensors(data[_HEADER.size : -4], shapes, header.bits)
    net.load_state_dict(dict(zip((name for name, _ in net.named_parameters()), values, strict=True)), assign=True)
    return net.requires_grad_(False), header
