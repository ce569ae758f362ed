"""Derivatives of pictures in units of coordinates, and the picture that fits given derivatives best.

An array of N_a samples along axis a covers [−1, 1], so that a step is 2/N_a and

    g_a = (N_a/2) D_a I,      l = Σ_a (N_a/2)² (I_{+1} − 2I + I_{−1}),

with the borders mirrored (d c b a | a b c d, a Neumann boundary).  D: "central" differences, or "sobel", which also
smooths across, or "forward" ones, which sit between pixels.  All are diagonal under the cosine transform, which solves

    min_I Σ_a ‖(N_a/2) D_a I − g_a‖²    and    L I = l

exactly, up to the mean.  Pérez, Gangnet, Blake, SIGGRAPH 2003; Sitzmann et al., NeurIPS 2020, §4.1.  (The paper's code
takes the derivatives in other units, so that its reconstructions have an arbitrary scale.)
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from scipy.fft import dctn, idctn
from torch import Tensor

Number = float | int
Scheme = Literal["central", "sobel", "forward"]


def image_gradient(image: Float[Tensor, "c h w"], scheme: Scheme = "central") -> Float[Tensor, "c 2 h w"]:
    """∂/∂row and ∂/∂column of each channel, in units of coordinates on [−1, 1]."""
    parts = []
    for axis in (-2, -1):
        part = _difference(image, axis, scheme)
        if scheme == "sobel":
            part = _smooth(part, -3 - axis)
        parts.append(part * (image.shape[axis] / 2))
    return torch.stack(parts, 1)


def image_laplacian(image: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """The five-point Laplacian of each channel, in units of coordinates on [−1, 1]."""
    return -sum(
        (image.shape[axis] / 2) ** 2 * _adjoint(_difference(image, axis, "forward"), axis, "forward")
        for axis in (-2, -1)
    )  # type: ignore[return-value]


def gradient_rows(gradient: Float[Tensor, "c 2 h w"]) -> Float[Tensor, "n c 2"]:
    """[C,2,H,W] as the targets [N,C,2] of `fit_poisson`."""
    return gradient.flatten(2).permute(2, 0, 1).contiguous()


def solve_gradient(gradient: Float[Tensor, "c 2 h w"], scheme: Scheme = "central") -> Float[Tensor, "c h w"]:
    """The picture of mean 0 whose `image_gradient` is closest to `gradient` in the least-squares sense."""
    h, w = gradient.shape[-2:]
    right = torch.zeros_like(gradient[:, 0])
    for i, axis in enumerate((-2, -1)):
        part = gradient[:, i] if scheme != "sobel" else _smooth(gradient[:, i], -3 - axis)
        right += gradient.shape[axis] / 2 * _adjoint(part, axis, scheme)
    smooth = [_smooth_symbol(n) if scheme == "sobel" else torch.ones(n, dtype=torch.float64) for n in (h, w)]
    rows = (h / 2) ** 2 * _symbol(h, scheme)[:, None] * smooth[1].square()
    columns = (w / 2) ** 2 * _symbol(w, scheme) * smooth[0].square()[:, None]
    return _divide(right, rows + columns)


def solve_laplacian(laplacian: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """The picture of mean 0 whose `image_laplacian` is `laplacian` (less its mean, which no picture can have)."""
    h, w = laplacian.shape[-2:]
    return _divide(
        -laplacian, (h / 2) ** 2 * _symbol(h, "forward")[:, None] + (w / 2) ** 2 * _symbol(w, "forward")
    )


def blend_gradients(
    first: Float[Tensor, "c 2 h w"], second: Float[Tensor, "c2 2 h2 w2"], alpha: Number = 0.5,
    rule: Literal["mean", "max"] = "mean", mask: Float[Tensor, "h w"] | None = None,
) -> Float[Tensor, "c 2 h w"]:  # fmt: skip
    """α g_1 + (1 − α) g_2 ("mean", the paper's), or at each pixel the longer of α g_1 and (1 − α) g_2, times 2 ("max").

    With α = ½ "max" is the mixed gradient of Poisson editing.  Each channel by itself, all with equal weight.
    mask: where the blend applies (1) and where the first picture's gradient stays (0).
    """
    if first.shape != second.shape:
        raise ValueError(f"gradients to blend must have one shape, got {tuple(first.shape)} and {tuple(second.shape)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    if rule == "mean":
        blend = alpha * first + (1 - alpha) * second
    elif rule == "max":
        a, b = 2 * alpha * first, 2 * (1 - alpha) * second
        blend = torch.where(a.norm(dim=1, keepdim=True) >= b.norm(dim=1, keepdim=True), a, b)
    else:
        raise ValueError(f'rule must be "mean" or "max", got {rule!r}')
    return blend if mask is None else mask * blend + (1 - mask) * first


def align_mean(image: Float[Tensor, "*c h w"], reference: Float[Tensor, "*c h w"]) -> Float[Tensor, "*c h w"]:
    """`image` moved to the mean of `reference`, each channel: gradients say nothing of it."""
    return image + (reference - image).mean((-2, -1), keepdim=True)


def align_gain_offset(image: Float[Tensor, "*c h w"], reference: Float[Tensor, "*c h w"]) -> Float[Tensor, "*c h w"]:
    """a · image + b closest to `reference`, each channel: for reconstructions from the Laplacian."""
    x, y = (z - z.mean((-2, -1), keepdim=True) for z in (image, reference))
    power = x.square().sum((-2, -1), keepdim=True)
    gain = torch.where(power > 0, (x * y).sum((-2, -1), keepdim=True) / power, 0.0)
    return gain * x + reference.mean((-2, -1), keepdim=True)


def _difference(x: Tensor, axis: int, scheme: Scheme) -> Tensor:
    """D along an axis, borders mirrored."""
    n = x.shape[axis]
    after = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)
    if scheme == "forward":
        return after - x
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], axis)
    return (after - before) / 2


def _adjoint(g: Tensor, axis: int, scheme: Scheme) -> Tensor:
    """Dᵀ along an axis: differences of g with the borders mirrored and their sign turned (forward: 0 outside)."""
    n = g.shape[axis]
    if scheme == "forward":
        inner = g.narrow(axis, 0, n - 1)
        zero = torch.zeros_like(g.narrow(axis, 0, 1))
        return torch.cat([zero, inner], axis) - torch.cat([inner, zero], axis)
    after = torch.cat([g.narrow(axis, 1, n - 1), -g.narrow(axis, n - 1, 1)], axis)
    before = torch.cat([-g.narrow(axis, 0, 1), g.narrow(axis, 0, n - 1)], axis)
    return (before - after) / 2


def _smooth(x: Tensor, axis: int) -> Tensor:
    """(1, 2, 1)/4 along an axis, borders mirrored."""
    n = x.shape[axis]
    after = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], axis)
    return (before + 2 * x + after) / 4


def _angles(n: int) -> Tensor:
    return math.pi * torch.arange(n, dtype=torch.float64) / n


def _symbol(n: int, scheme: Scheme) -> Tensor:
    """Eigenvalues of DᵀD on cos(πk(i + ½)/n)."""
    angle = _angles(n)
    return 2 - 2 * angle.cos() if scheme == "forward" else angle.sin().square()


def _smooth_symbol(n: int) -> Tensor:
    return (1 + _angles(n).cos()) / 2


def _divide(right: Tensor, symbol: Tensor) -> Tensor:
    """The solution whose cosine transform is that of `right` over `symbol`; the mean is 0."""
    spectrum = torch.from_numpy(dctn(right.detach().cpu().double().numpy(), axes=(-2, -1), norm="ortho"))
    symbol[0, 0] = 1.0
    spectrum = spectrum / symbol
    spectrum[..., 0, 0] = 0
    return torch.from_numpy(idctn(spectrum.numpy(), axes=(-2, -1), norm="ortho")).to(right)
