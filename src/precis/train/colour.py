"""Colour operations on batches of pictures [B,C,H,W] in [0,1], each with a strength a sample: for `train.augment`.

Brightness, contrast, saturation and hue are affine maps of the colour (of contrast given the mean of the picture), so a
chain of them is one 3×4 matrix a sample; the other operations are those of Pillow that RandAugment draws from.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
# Rows: luma, and two axes of colour (NTSC's I and Q); hue turns the latter.
_YIQ = torch.tensor([[*LUMA], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], dtype=torch.float64)


def luma(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """0.299 R + 0.587 G + 0.114 B; of other than three channels their mean."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * torch.tensor(LUMA, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


class ColourMatrix:
    """A chain of colour operations on a batch, kept as colour ↦ A·colour + t, A [B,C,C], t [B,C]; `apply` does it."""

    def __init__(self, x: Float[Tensor, "b c h w"]) -> None:
        b, c = x.shape[:2]
        self.mean = x.mean((2, 3))
        self.matrix = torch.eye(c, dtype=x.dtype, device=x.device).repeat(b, 1, 1)
        self.offset = torch.zeros(b, c, dtype=x.dtype, device=x.device)
        self.grey = torch.full((c,), 1 / c, dtype=x.dtype, device=x.device)
        if c == 3:
            self.grey = torch.tensor(LUMA, dtype=x.dtype, device=x.device)

    def _then(self, matrix: Tensor, offset: Tensor | None = None) -> "ColourMatrix":
        self.matrix, self.offset = matrix @ self.matrix, torch.einsum("bij,bj->bi", matrix, self.offset)
        if offset is not None:
            self.offset = self.offset + offset
        return self

    def _eye(self) -> Tensor:
        return torch.eye(len(self.grey), dtype=self.grey.dtype, device=self.grey.device)

    def brightness(self, factor: Float[Tensor, "b"]) -> "ColourMatrix":
        """x · f."""
        return self._then(factor[:, None, None] * self._eye())

    def contrast(self, factor: Float[Tensor, "b"]) -> "ColourMatrix":
        """f · x + (1 − f) · mean luma of the picture as it is by now."""
        now = torch.einsum("bij,bj->bi", self.matrix, self.mean) + self.offset
        middle = (now @ self.grey)[:, None].expand_as(now)
        return self._then(factor[:, None, None] * self._eye(), (1 - factor)[:, None] * middle)

    def saturation(self, factor: Float[Tensor, "b"]) -> "ColourMatrix":
        """f · x + (1 − f) · luma; factor 0 is grey."""
        f = factor[:, None, None]
        return self._then(f * self._eye() + (1 - f) * self.grey.expand(len(self.grey), -1))

    def hue(self, turn: Float[Tensor, "b"]) -> "ColourMatrix":
        """Rotation of the plane of colour by `turn` of a full circle; luma stays.  Three channels only."""
        yiq = _YIQ.to(self.grey)
        angle = 2 * math.pi * turn
        spin = torch.zeros(len(turn), 3, 3, dtype=self.grey.dtype, device=self.grey.device)
        spin[:, 0, 0] = 1
        spin[:, 1, 1] = spin[:, 2, 2] = angle.cos()
        spin[:, 1, 2], spin[:, 2, 1] = -angle.sin(), angle.sin()
        return self._then(torch.linalg.inv(yiq) @ spin @ yiq)

    def apply(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The chain on every pixel, clamped to [0,1] at the end."""
        out = torch.baddbmm(self.offset[:, :, None], self.matrix, x.flatten(2))
        return out.clamp_(0, 1).view(x.shape)


def hue_hsv(x: Float[Tensor, "b 3 h w"], turn: Float[Tensor, "b"]) -> Float[Tensor, "b 3 h w"]:
    """The exact turn of hue in the HSV hexagon; saturation and value stay."""
    value, low = x.amax(1), x.amin(1)
    spread = value - low
    r, g, b = x.unbind(1)
    safe = torch.where(spread > 0, spread, torch.ones_like(spread))
    sector = torch.where(value == r, (g - b) / safe, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    sector = (sector + 6 * turn[:, None, None]) % 6
    # each channel as a function of hue: k = (n + h) mod 6, value − spread · clamp(min(k, 4 − k), 0, 1)
    n = torch.tensor([5.0, 3.0, 1.0], dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
    k = (n + sector[:, None]) % 6
    return value[:, None] - spread[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def autocontrast(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Each channel stretched to 0 … 1; a constant one stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (x - low) / torch.where(spread > 0, spread, torch.ones_like(spread)), x)


def equalize(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Histogram equalisation of each channel at 256 levels, as Pillow's."""
    b, c, h, w = x.shape
    level = (x * 255).long().clamp_(0, 255).view(b * c, h * w)
    histogram = torch.zeros(b * c, 256, dtype=torch.long, device=x.device)
    histogram.scatter_add_(1, level, torch.ones_like(level))
    last = 255 - (histogram.flip(1) > 0).long().argmax(1)
    step = (h * w - histogram.gather(1, last[:, None])) // 255
    table = (histogram.cumsum(1) - histogram + step // 2) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp_(0, 255), torch.arange(256, device=x.device))
    return (table.gather(1, level).to(x.dtype) / 255).view(x.shape)


def posterize(x: Float[Tensor, "b c h w"], bits: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
    """The upper `bits` (0 … 8) of a byte; with 8 nothing changes."""
    step = (2 ** (8 - bits)).view(-1, 1, 1, 1)
    level = (x * 255).long().clamp_(0, 255)
    return torch.where(step == 1, x, (level // step * step).to(x.dtype) / 255)


def solarize(x: Float[Tensor, "b c h w"], threshold: Float[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
    """Values from the threshold on are inverted."""
    return torch.where(x < threshold.view(-1, 1, 1, 1), x, 1 - x)


def sharpness(x: Float[Tensor, "b c h w"], factor: Float[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
    """f · x + (1 − f) · smoothed, with Pillow's kernel (1 1 1; 1 5 1; 1 1 1)/13; the outermost pixels stay."""
    c = x.shape[1]
    kernel = torch.ones(3, 3, dtype=x.dtype, device=x.device)
    kernel[1, 1] = 5
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(x, (kernel / 13).expand(c, 1, 3, 3), groups=c)
    return torch.lerp(smooth, x, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def blur(x: Float[Tensor, "b c h w"], sigma: Float[Tensor, "b"], size: int) -> Float[Tensor, "b c h w"]:
    """Gaussian blur with its own σ (pixels) a sample, `size` (odd) taps, reflected at the borders."""
    b, c, h, w = x.shape
    at = torch.arange(size, dtype=x.dtype, device=x.device) - size // 2
    taps = torch.exp(-at.square() / (2 * sigma[:, None].square().clamp(min=1e-12)))
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(c, 0)
    reach = size // 2
    wide = F.pad(x, (reach, reach, reach, reach), mode="reflect").view(1, b * c, h + 2 * reach, w + 2 * reach)
    rows = F.conv2d(wide, taps.view(b * c, 1, size, 1), groups=b * c)
    return F.conv2d(rows, taps.view(b * c, 1, 1, size), groups=b * c).view(x.shape)
