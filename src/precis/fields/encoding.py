"""Features of coordinates and directions, put before a network.

    γ(x) = (x, sin 2⁰sx, cos 2⁰sx, …, sin 2^{L−1}sx, cos 2^{L−1}sx)      frequencies; s = 1 in NeRF's code, π in texts
    φ_c(x) = exp(−(σ ‖x − c‖²)²)                                       radial basis
    Y_l^m(d), l < degree                                               real spherical harmonics

Mildenhall et al., ECCV 2020, §5.1 (arXiv 2003.08934); the window of Park et al., ICCV 2021, §3.5 (arXiv 2011.12948);
the radial basis layer of Sitzmann et al., NeurIPS 2020 (arXiv 2006.09661).

Encodings that stand before a CoordinateMLP bring `streams`, their derivatives for its `jet`.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from precis.nn.derivatives import Streams

Number = float | int
Second = Literal["none", "laplacian", "hessian"]


class FrequencyEncoding(nn.Module):
    """x [..., dim] to [..., out_dim]: x (if `include_input`), then of each band k all sines, all cosines of 2ᵏ s x."""

    def __init__(self, dim: int, bands: int, *, include_input: bool = True, scale: Number = 1.0) -> None:
        super().__init__()
        if dim < 1 or bands < 0 or (bands == 0 and not include_input):
            raise ValueError(f"an encoding needs a dimension and at least one feature, got dim={dim}, bands={bands}")
        self.dim, self.bands, self.include_input, self.scale = dim, bands, include_input, scale
        self.out_dim = dim * (2 * bands + include_input)

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n features"]:
        phase = x.unsqueeze(-2) * self._frequencies(x)
        features = torch.stack([phase.sin(), phase.cos()], -2).flatten(-3)
        return torch.cat([x, features], -1) if self.include_input else features

    def streams(
        self, x: Float[Tensor, "*n d"], order: int, laplacian_only: bool = False, weights: Tensor | None = None
    ) -> Streams:
        """The features and their derivatives (see `precis.nn.derivatives.Streams`); each depends on one axis only."""
        d, f = self.dim, self._frequencies(x)
        phase = x.unsqueeze(-2) * f
        sine, cosine = phase.sin(), phase.cos()
        axes = torch.eye(d, dtype=x.dtype, device=x.device)

        def one(identity: Tensor, s: Tensor, c: Tensor) -> Tensor:
            features = torch.stack([s, c], -2).flatten(-3)
            return torch.cat([identity, features], -1) if self.include_input else features

        def bend(mask: Tensor) -> Tensor:
            return one(torch.zeros_like(x), -f * f * sine * mask, -f * f * cosine * mask)

        rows = [one(x, sine, cosine)]
        rows += [one(e.expand_as(x), f * cosine * e, -f * sine * e) for e in axes] if order else []
        second: Second = "none" if order < 2 else "laplacian" if laplacian_only else "hessian"
        if second == "laplacian":
            rows.append(bend(torch.ones_like(phase) if weights is None else weights.unsqueeze(-2).expand_as(phase)))
        elif second == "hessian":
            pairs = [(i, j) for i in range(d) for j in range(i, d)]
            rows += [bend(axes[i]) if i == j else torch.zeros_like(rows[0]) for i, j in pairs]
        return Streams(torch.stack(rows, -3), d if order else 0, second)

    def _frequencies(self, x: Tensor) -> Tensor:
        return self.scale * 2.0 ** torch.arange(self.bands, dtype=x.dtype, device=x.device).unsqueeze(-1)

    def extra_repr(self) -> str:
        return f"{self.dim}, bands={self.bands}, include_input={self.include_input}, scale={self.scale:g}"


class AnnealedFrequencyEncoding(FrequencyEncoding):
    """A frequency encoding whose bands open one after the other: band k times (1 − cos π clip(α − k, 0, 1))/2.

    α = 0 shuts all bands, α = bands opens all; the identity part is never damped.
    """

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "*n d"], alpha: float | Float[Tensor, ""]
    ) -> Float[Tensor, "*n features"]:
        features = super().forward(x)
        window = self.window(torch.as_tensor(alpha, dtype=x.dtype, device=x.device)).repeat_interleave(2 * self.dim)
        if self.include_input:
            window = torch.cat([window.new_ones(self.dim), window])
        return features * window

    def window(self, alpha: Float[Tensor, ""]) -> Float[Tensor, " bands"]:
        """The factor of each band."""
        k = torch.arange(self.bands, dtype=alpha.dtype, device=alpha.device)
        return (1 - torch.cos(math.pi * (alpha - k).clamp(0, 1))) / 2


def nyquist_bands(samples: int) -> int:
    """Bands of the SIREN paper's positional encoding for so many samples a side: ⌊log₂(N/4)⌋, at least 1."""
    return max(1, math.floor(math.log2(samples / 4)))


class RadialBasis(nn.Module):
    """x [..., dim] to [..., centres]: exp(−(σ ‖x − c‖²)²), centres U(−1, 1) and σ both trained.

    With `generators`, one copy each: x [N,dim] or [M,N,dim] to [M,N,centres].
    """

    def __init__(
        self, dim: int, centres: int = 1024, sigma: Number = 10.0, *, generator: torch.Generator | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dim, self.out_dim = dim, centres
        each = [generator] if generators is None else generators
        draws = [torch.empty(centres, dim).uniform_(-1, 1, generator=g) for g in each]
        c = torch.stack(draws) if generators is not None else draws[0]
        self.centres = nn.Parameter(c)
        self.sigma = nn.Parameter(torch.full(c.shape[:-1], float(sigma)))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*out c"]:
        return torch.exp(-(self._offset(x).square().sum(-2) * self.sigma.unsqueeze(-2)).square())

    def streams(
        self, x: Float[Tensor, "*n d"], order: int, laplacian_only: bool = False, weights: Tensor | None = None
    ) -> Streams:
        """The features and their derivatives, through r = ‖x − c‖²: φ' = −2σ²rφ, φ'' = (4σ⁴r² − 2σ²)φ."""
        offset, s2 = self._offset(x), self.sigma.square().unsqueeze(-2)
        d = self.dim
        r = offset.square().sum(-2)
        phi = torch.exp(-s2 * r * r)
        slope, bend = -2 * s2 * r * phi, (4 * s2 * s2 * r * r - 2 * s2) * phi
        first = [2 * offset[..., a, :] for a in range(d)]
        rows = [phi] + ([slope * first[a] for a in range(d)] if order else [])
        second: Second = "none" if order < 2 else "laplacian" if laplacian_only else "hessian"
        if second == "laplacian":
            w = [1.0] * d if weights is None else [weights[..., a, None] for a in range(d)]
            rows.append(bend * sum(w[a] * first[a].square() for a in range(d)) + slope * (2 * sum(w)))
        elif second == "hessian":
            for i in range(d):
                rows += [bend * first[i] * first[j] + (2 * slope if i == j else 0) for j in range(i, d)]
        return Streams(torch.stack(rows, -3), d if order else 0, second)

    def copy(self, m: int) -> "RadialBasis":
        """Copy m alone."""
        single = RadialBasis(self.dim, self.out_dim, generator=torch.Generator()).to(self.centres)
        with torch.no_grad():
            single.centres.copy_(self.centres[m])
            single.sigma.copy_(self.sigma[m])
        return single

    def _offset(self, x: Tensor) -> Tensor:
        """x − c as [*,N,d,centres]."""
        return x.unsqueeze(-1) - self.centres.mT.unsqueeze(-3)


class SphericalHarmonics(nn.Module):
    """Unit vectors [...,3] to Y_l^m, l = 0 … degree−1, m = −l … l: [..., degree²].

    Real, orthonormal on the sphere, with the Condon–Shortley phase (Y_1 = 0.489·(−y, z, −x)):
    Y_l^m = √2 Re Y_l^m for m > 0 and √2 Im Y_l^|m| for m < 0 of the complex ones.
    """

    def __init__(self, degree: int = 4) -> None:
        super().__init__()
        if degree < 1:
            raise ValueError(f"degree must be at least 1, got {degree}")
        self.degree, self.out_dim = degree, degree * degree

    def forward(self, d: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n features"]:
        x, y, z = d.unbind(-1)
        out: list[Tensor] = [z] * self.out_dim
        real, imaginary = torch.ones_like(z), torch.zeros_like(z)  # (x + iy)^m = sin^m θ e^{imφ}
        diagonal = 1.0  # P_m^m / sin^m θ = (−1)^m (2m − 1)!!
        for m in range(self.degree):
            before, p = torch.zeros_like(z), torch.full_like(z, diagonal)
            for l in range(m, self.degree):
                norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - m) / math.factorial(l + m))
                norm *= math.sqrt(2) if m else 1.0
                out[l * l + l + m] = norm * p * real
                if m:
                    out[l * l + l - m] = norm * p * imaginary
                before, p = p, ((2 * l + 1) * z * p - (l + m) * before) / (l - m + 1)
            real, imaginary = x * real - y * imaginary, x * imaginary + y * real
            diagonal *= -(2 * m + 1)
        return torch.stack(out, -1)
