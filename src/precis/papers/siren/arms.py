"""The networks that SIREN's claims compare, all with as many parameters as the sine network (within 2 %).

siren       sine, ω = 30 in every layer
relu, tanh  the same layers
relu_pe     ReLU after x, sin 2ᵏπx, cos 2ᵏπx, k < ⌊log₂(N/4)⌋ for N samples a side (the paper's Nyquist rule)
rbf         ReLU after 1024 Gaussians whose centres and width are trained
omega_one   sine with ω = 1 in every layer and the initialisation to match: broken, it has no high frequencies to begin

Sitzmann et al., NeurIPS 2020, §4 and supplement (arXiv 2006.09661).
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from precis.fields.encoding import FrequencyEncoding, RadialBasis, nyquist_bands
from precis.fields.siren import CoordinateMLP, Siren
from precis.nn.cost import match_width

RATES = (2e-4, 5e-4, 1e-3, 2e-3)  # the grid from which every arm's rate is tuned
CAP = 60.0  # dB; rounding to 8 bits is 59, and above it seeds differ by noise
ALIKE = ("siren", "omega_one", "relu", "tanh")  # layers of the same shape


def make_net(
    arm: str, samples: int, width: int, generator: torch.Generator, *, dim: int = 2, device: str = "cpu"
) -> CoordinateMLP:  # fmt: skip
    """The arm's network for N samples a side, with as many parameters as a sine network of this width."""
    fitting = width if arm in ALIKE else matched_width(arm, samples, width, dim)
    return _build(arm, samples, fitting, generator, dim).to(device)


@cache
def matched_width(arm: str, samples: int, width: int, dim: int = 2) -> int:
    """The width at which an arm has the parameters of a sine network of `width`."""
    target = sum(p.numel() for p in Siren(dim, 1, width, generator=torch.Generator()).parameters())
    return match_width(lambda w: _build(arm, samples, w, torch.Generator(), dim), target)


def _build(arm: str, samples: int, width: int, generator: torch.Generator, dim: int) -> CoordinateMLP:
    if arm == "siren":
        return Siren(dim, 1, width, generator=generator)
    if arm == "omega_one":
        return Siren(dim, 1, width, omega=1.0, first_omega=1.0, generator=generator)
    if arm == "relu_pe":
        encoding = FrequencyEncoding(dim, nyquist_bands(samples), scale=math.pi)
        return CoordinateMLP(dim, 1, width, activation="relu", encoding=encoding, generator=generator)
    if arm == "rbf":
        centres = RadialBasis(dim, 1024, generator=generator)
        return CoordinateMLP(dim, 1, width, activation="relu", encoding=centres, generator=generator)
    return CoordinateMLP(dim, 1, width, activation=arm, generator=generator)


def capped_psnr(x: Float[Tensor, "*shape"], y: Float[Tensor, "*shape"], peak: float | Tensor = 1.0) -> float:
    """min(10 log₁₀ peak²/MSE, 60) in dB."""
    error = (x.double() - y.double()).square().mean()
    return min(float(10 * (peak**2 / error).log10()), CAP) if error > 0 else CAP


def derivative_psnr(x: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> float:
    """The same, with the range of the target for a peak; x and target in units of coordinates.  A flat target has none:
    then 60 if x is flat too, else 0."""
    peak = float(target.max() - target.min())
    if peak > 0:
        return capped_psnr(x, target, peak)
    return CAP if torch.equal(x, target) else 0.0
