"""Operators between a restored picture and what was measured of it: the Lanczos downsampler, the crop of a padded net.

    (A x)[j] = Σ_i k(i) x[f j + i],    k(i) = sinc(u) sinc(u/a) / Σ,   u = (i − centre)/f,  |u| < a

along rows, then along columns, borders replicated.  With phase ½ the centre of k is that of the f × f block that
becomes one pixel; for an even factor that is the kernel of Deep Image Prior's code (4f taps for a = 2).
Ulyanov, Vedaldi, Lempitsky, CVPR 2018, §3.2 (arXiv 1711.10925).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Number = float | int
SUPPORT = {"lanczos2": 2, "lanczos3": 3}


def lanczos_kernel(factor: int, support: int = 2, phase: Number = 0.5) -> tuple[Float[Tensor, "taps"], int]:
    """The taps of k in float64 (their sum is 1), and the offset of the first one from the first pixel of a block."""
    centre = phase * (factor - 1)  # phase 0: the block's first pixel; ½: its middle
    first = math.floor(centre - support * factor) + 1
    last = math.ceil(centre + support * factor) - 1
    u = (torch.arange(first, last + 1, dtype=torch.float64) - centre) / factor
    taps = torch.sinc(u) * torch.sinc(u / support)
    return taps / taps.sum(), first


class Downsampler(nn.Module):
    """x [B,C,H,W] to [B,C,H/f,W/f], linear.  It has no parameters; the taps are kept in float64, and x keeps its type.

    kernel: "lanczos2" (the paper's) or "lanczos3".  phase: ½, the middle of each block, or 0, its first pixel.
    Raises ValueError if a side is no multiple of the factor.
    """

    def __init__(
        self, factor: int, kernel: Literal["lanczos2", "lanczos3"] = "lanczos2", phase: Number = 0.5
    ) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"the factor must be at least 1, got {factor}")
        if kernel not in SUPPORT:
            raise ValueError(f"kernel must be one of {', '.join(SUPPORT)}, got {kernel!r}")
        if phase not in (0, 0.5):
            raise ValueError(f"phase must be 0 or 0.5, got {phase}")
        self.factor = factor
        taps, self.first = lanczos_kernel(factor, SUPPORT[kernel], phase)
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        f, (b, c, h, w) = self.factor, x.shape
        if h % f or w % f:
            raise ValueError(f"the sides {h}×{w} must be multiples of the factor {f}")
        taps: Tensor = self.get_buffer("taps").to(x)
        before, after = -self.first, len(taps) + self.first - f
        x = F.pad(x.reshape(b * c, 1, h, w), (before, after, before, after), mode="replicate")
        x = F.conv2d(x, taps.view(1, 1, 1, -1), stride=(1, f))
        return F.conv2d(x, taps.view(1, 1, -1, 1), stride=(f, 1)).view(b, c, h // f, w // f)


def centre_crop(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c {size[0]} {size[1]}"]:
    """The middle of a picture; an odd margin is one larger below and to the right."""
    (h, w), (height, width) = x.shape[-2:], size
    if height > h or width > w:
        raise ValueError(f"cannot crop {height}×{width} out of {h}×{w}")
    top, left = (h - height) // 2, (w - width) // 2
    return x[..., top : top + height, left : left + width]


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The next sizes that are multiples of `multiple`: what a net of that many strides needs."""
    height, width = (-(-n // multiple) * multiple for n in size)
    return height, width


def centre_pad(x: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c {size[0]} {size[1]}"]:
    """The inverse of `centre_crop`: x with its borders mirrored (replicated where it is too small to mirror)."""
    (h, w), (height, width) = x.shape[-2:], size
    top, left = (height - h) // 2, (width - w) // 2
    pad = (left, width - w - left, top, height - h - top)
    mirrored = max(pad[:2]) < w and max(pad[2:]) < h
    return F.pad(x, pad, mode="reflect" if mirrored else "replicate")


def estimate_noise(x: Float[Tensor, "b c h w"]) -> float:
    """The deviation of white Gaussian noise in a picture, from the median of |N ∗ x| over all channels.

        N = [1 −2 1; −2 4 −2; 1 −2 1],    σ = median |N ∗ x| / (6 · 0.6745)

    N is a difference of two Laplacians and takes out all that is bilinear; ‖N‖ = 6.  After Immerkær, CVIU 1996, with
    the median in place of the mean, so that edges count less.  Too high on fine texture.  ValueError below 3 × 3.
    """
    if min(x.shape[-2:]) < 3:
        raise ValueError(f"noise is estimated from 3 × 3 pixels at least, got {x.shape[-2]}×{x.shape[-1]}")
    line = torch.tensor([1.0, -2.0, 1.0], dtype=x.dtype, device=x.device)
    filtered = F.conv2d(x.flatten(0, 1)[:, None], torch.outer(line, line)[None, None])
    return float(filtered.abs().median()) / (6 * 0.6745)
