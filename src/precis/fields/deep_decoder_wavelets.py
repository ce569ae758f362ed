"""What a picture's largest transform coefficients keep: orthonormal wavelets, CDF 9/7 and cosines.

Daubechies wavelets (haar: one vanishing moment; db4: four) by periodic convolution, CDF 9/7 by lifting with symmetric
extension (as JPEG 2000, scaled so that it is nearly orthonormal: gains √2 at the lowest and highest frequency), the
cosine transform in blocks (8: as JPEG) or of the whole picture.  Of each picture [c,h,w] the `keep` largest
coefficients stay, the others are set to zero, and the transform is inverted.

I. Daubechies, Ten Lectures on Wavelets, 1992, §6.4; A. Cohen, I. Daubechies, J.-C. Feauveau, CPAM 1992; lifting:
I. Daubechies, W. Sweldens, JFAA 1998, §7.7.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Family = Literal["haar", "db4", "cdf97"]
_LOW = {
    "haar": (0.5**0.5, 0.5**0.5),
    "db4": (
        0.23037781330885523, 0.7148465705525415, 0.6308807679295904, -0.02798376941698385, -0.18703481171888114,
        0.030841381835986965, 0.032883011666982945, -0.010597401784997278,
    ),
}  # fmt: skip
_LIFT = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
_SCALE = 1.149604398860241
# Orthonormal: luma, then two differences of colours.
_OPPONENT = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
_OPPONENT /= _OPPONENT.norm(dim=1, keepdim=True)


def orthonormal_wavelet(
    image: Float[Tensor, "c h w"], family: Family = "haar", keep: int | None = None, *, levels: int | None = None,
    joint: bool = False,
) -> Float[Tensor, "c h w"]:  # fmt: skip
    """The picture from its `keep` largest wavelet coefficients (None: from all).

    The first coefficient of each channel is kept beside them and not counted (with `haar` at its default, the mean).
    levels: as many as the sides can be halved, by default.
    Not joint, as in the paper: each channel has keep/c coefficients.  joint: of three channels, luma and differences of
    colours share them, the largest first.  Sides that 2^levels does not divide are extended by repeating the edge.
    """
    levels = most_levels(image.shape[-2:], family) if levels is None else levels
    x, cut = _padded(image.double(), 2**levels)
    x = to_opponent(x) if joint else x
    c = wavelet(x, family, levels)
    if keep is not None:
        c = keep_largest(c, keep, joint=joint)
    x = inverse_wavelet(c, family, levels)
    x = from_opponent(x) if joint else x
    return x[..., : cut[0], : cut[1]].to(image.dtype)


def cosine_transform(
    image: Float[Tensor, "c h w"], keep: int | None = None, *, block: int | None = 8, joint: bool = False
) -> Float[Tensor, "c h w"]:
    """The picture from its `keep` largest cosine coefficients, in blocks or of the whole (block=None).

    As with wavelets, the first coefficient of each channel is kept besides.
    """
    side = block or 1
    x, cut = _padded(image.double(), side)
    x = to_opponent(x) if joint else x
    h, w = x.shape[-2:]
    rows, columns = (_cosines(block or n) for n in (h, w))
    tiles = x.unflatten(-1, (-1, len(columns))).unflatten(-3, (-1, len(rows))).transpose(-3, -2)
    c = rows @ tiles @ columns.T  # [c, blocks, blocks, block, block]
    if keep is not None:
        flat = c.transpose(-3, -2).reshape(x.shape)
        flat = keep_largest(flat, keep, joint=joint)
        c = flat.unflatten(-1, (-1, len(columns))).unflatten(-3, (-1, len(rows))).transpose(-3, -2)
    x = (rows.T @ c @ columns).transpose(-3, -2).reshape(x.shape)
    x = from_opponent(x) if joint else x
    return x[..., : cut[0], : cut[1]].to(image.dtype)


def wavelet(x: Float[Tensor, "*c h w"], family: Family, levels: int) -> Float[Tensor, "*c h w"]:
    """Coefficients in the usual order, the coarsest at the upper left; sides must be divisible by 2^levels."""
    x = x.clone()
    h, w = x.shape[-2:]
    if h % 2**levels or w % 2**levels:
        raise ValueError(f"sides {h} and {w} are not divisible by 2^{levels}")
    for level in range(levels):
        part = x[..., : h >> level, : w >> level]
        for dim in (-1, -2):
            part.copy_(torch.cat(_split(part.movedim(dim, -1), family), -1).movedim(-1, dim))
    return x


def inverse_wavelet(c: Float[Tensor, "*c h w"], family: Family, levels: int) -> Float[Tensor, "*c h w"]:
    """The picture of its coefficients."""
    c = c.clone()
    h, w = c.shape[-2:]
    for level in reversed(range(levels)):
        part = c[..., : h >> level, : w >> level]
        for dim in (-2, -1):
            low, high = part.movedim(dim, -1).chunk(2, -1)
            part.copy_(_join(low, high, family).movedim(-1, dim))
    return c


def keep_largest(
    c: Float[Tensor, "c h w"], keep: int, *, joint: bool = False
) -> Float[Tensor, "c h w"]:
    """Zero all but the `keep` largest in absolute value; the upper left one of each channel stays besides.

    Not joint: the same number in each channel, the first channels taking what the division leaves.
    """
    first = c[:, 0, 0].clone()
    c = c.clone()
    c[:, 0, 0] = 0
    parts = [c.flatten()] if joint else list(c.flatten(1))
    kept = []
    for i, part in enumerate(parts):
        number = min(keep // len(parts) + (i < keep % len(parts)), len(part))
        out = torch.zeros_like(part)
        largest = part.abs().topk(number).indices
        out[largest] = part[largest]
        kept.append(out)
    c = torch.stack(kept).reshape(c.shape)
    c[:, 0, 0] = first
    return c


def most_levels(size: tuple[int, int] | torch.Size, family: Family = "haar") -> int:
    """How often the shorter side can be halved, down to 1 pixel (haar), or to no less than 4 (the longer filters)."""
    least = 1 if family == "haar" else 4
    levels = 0
    while min(size) >> (levels + 1) >= least:
        levels += 1
    return levels


def to_opponent(x: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """Luma and two differences of colours, orthonormal; other than three channels pass."""
    return torch.tensordot(_OPPONENT.to(x), x, 1) if len(x) == 3 else x


def from_opponent(x: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    return torch.tensordot(_OPPONENT.T.to(x), x, 1) if len(x) == 3 else x


def _split(x: Tensor, family: Family) -> tuple[Tensor, Tensor]:
    """Low and high half along the last axis."""
    if family == "cdf97":
        return _lift(x)
    low = high = torch.zeros_like(x[..., ::2])
    taps = _LOW[family]
    for i, tap in enumerate(taps):
        shifted = x.roll(-i, -1)[..., ::2]
        low = low + tap * shifted
        high = high + (-1) ** i * taps[len(taps) - 1 - i] * shifted
    return low, high


def _join(low: Tensor, high: Tensor, family: Family) -> Tensor:
    if family == "cdf97":
        return _unlift(low, high)
    taps = _LOW[family]
    up = [torch.stack([half, torch.zeros_like(half)], -1).flatten(-2) for half in (low, high)]
    out = torch.zeros_like(up[0])
    for i, tap in enumerate(taps):
        out = out + tap * up[0].roll(i, -1) + (-1) ** i * taps[len(taps) - 1 - i] * up[1].roll(i, -1)
    return out


def _lift(x: Tensor) -> tuple[Tensor, Tensor]:
    even, odd = x[..., ::2].clone(), x[..., 1::2].clone()
    for step, weight in enumerate(_LIFT):
        if step % 2 == 0:
            odd += weight * (even + _after(even))
        else:
            even += weight * (odd + _before(odd))
    return even * _SCALE, odd / _SCALE


def _unlift(low: Tensor, high: Tensor) -> Tensor:
    even, odd = low / _SCALE, high * _SCALE
    for step, weight in reversed(list(enumerate(_LIFT))):
        if step % 2 == 0:
            odd = odd - weight * (even + _after(even))
        else:
            even = even - weight * (odd + _before(odd))
    return torch.stack([even, odd], -1).flatten(-2)


def _after(even: Tensor) -> Tensor:
    """The even sample to the right of each odd one; symmetric at the end."""
    return torch.cat([even[..., 1:], even[..., -1:]], -1)


def _before(odd: Tensor) -> Tensor:
    return torch.cat([odd[..., :1], odd[..., :-1]], -1)


def _cosines(n: int) -> Float[Tensor, "{n} {n}"]:
    """The orthonormal DCT-II as a matrix."""
    k = torch.arange(n, dtype=torch.float64)
    basis = (2 / n) ** 0.5 * torch.cos(torch.pi * k[:, None] * (2 * k + 1) / (2 * n))
    basis[0] /= 2**0.5
    return basis


def _padded(x: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    h, w = int(x.shape[-2]), int(x.shape[-1])
    down, right = (-n % multiple for n in (h, w))
    return torch.nn.functional.pad(x, (0, right, 0, down), mode="replicate"), (h, w)
