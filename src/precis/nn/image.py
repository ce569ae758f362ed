"""How alike two pictures are: peak signal-to-noise ratio and structural similarity.

    PSNR = −10 log₁₀ mean (x − y)²   (dB, peak 1)

    SSIM = mean over windows of  (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)),
           C₁ = (0.01 L)², C₂ = (0.03 L)²,  moments under a Gaussian window.

Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, §III-B.  Pictures are float in [0, 1], or uint8, which is divided
by 255.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor


def psnr(x: Shaped[Tensor, "b *rest"], y: Shaped[Tensor, "b *rest"]) -> Float[Tensor, "b"]:
    """PSNR (dB) of each item, over all its values; +inf where the two are equal."""
    error = (_unit(x) - _unit(y)).flatten(1)
    return -10 * error.square().mean(1).log10()


def ssim(
    x: Shaped[Tensor, "b c h w"],
    y: Shaped[Tensor, "b c h w"],
    *,
    data_range: float | int = 1.0,
    sigma: float | int = 1.5,
) -> Float[Tensor, "b"]:
    """SSIM of each picture, the mean over channels and over all windows that lie wholly inside.

    The window is a Gaussian of `sigma` pixels cut at 3.5 sigma (11 × 11 at 1.5), with the biased variance, as in the
    paper.  `data_range` (L) is the span of the values, 1 for pictures in [0, 1].

    Raises ValueError if a side is shorter than the window.
    """
    radius = int(3.5 * sigma + 0.5)
    window = 2 * radius + 1
    if min(x.shape[-2:]) < window:
        raise ValueError(f"SSIM needs sides of at least {window} pixels (sigma {sigma:g}), got {tuple(x.shape[-2:])}")
    x, y = _unit(x), _unit(y)
    b, c = x.shape[:2]
    # Variances are differences of near-equal numbers: about each channel's mean they keep their digits in float32.
    shift_x, shift_y = (z.mean((-2, -1), keepdim=True) for z in (x, y))
    x, y = x - shift_x, y - shift_y
    moments = _blur(torch.stack([x, y, x * x, y * y, x * y]).flatten(0, 2)[:, None], radius, sigma)
    mx, my, xx, yy, xy = moments.squeeze(1).unflatten(0, (5, b, c))
    var_x, var_y, cov = xx - mx * mx, yy - my * my, xy - mx * my
    mx, my = mx + shift_x, my + shift_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (var_x + var_y + c2))
    return index.flatten(1).mean(1)


def _blur(x: Tensor, radius: int, sigma: float) -> Tensor:
    """Separable Gaussian, valid part only; x [n,1,h,w]."""
    offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = kernel / kernel.sum()
    return F.conv2d(F.conv2d(x, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def _unit(x: Tensor) -> Tensor:
    if x.dtype == torch.uint8:
        return x.float() / 255
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
