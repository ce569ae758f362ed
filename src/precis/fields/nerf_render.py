"""Volume rendering along rays: samples, weights, colours.

    C = Σ_i w_i c_i + T_n background,   w_i = T_i (1 − e^{−σ_i δ_i}),   T_i = Π_{j<i} e^{−σ_j δ_j}
    depth = Σ w_i t_i,  opacity = Σ w_i

Dense: every ray has n samples.  Packed: the samples of all rays lie in one list, `ptr` says where each ray's begin.
Mildenhall et al., ECCV 2020, §4 and §5.2 (arXiv 2003.08934).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from precis.fields.nerf_cameras import Rays
from precis.nn.segment import segment_cumsum, segment_index, segment_sum

Number = float | int
# (x [B,n,3], d [B,1,3] unit) -> density [B,n] (1/length), colour [B,n,3]
Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
LAST = 1e10  # the last sample's length: it reaches to infinity
FLOOR = 1e-10  # the released code adds it to each factor of T
EVEN = 1e-5  # added to the weights before they are sampled from


class Rendered(NamedTuple):
    """Colour [B,3], opacity and depth Σ w t [B], weights [B,n] (packed: [E])."""

    rgb: Float[Tensor, "*b 3"]
    opacity: Float[Tensor, "*b"]
    depth: Float[Tensor, "*b"]
    weights: Float[Tensor, "*w"]


def stratified(
    near: Number | Float[Tensor, "*b"], far: Number | Float[Tensor, "*b"], n: int, shape: tuple[int, ...] = (), *,
    generator: torch.Generator | None = None, like: Tensor | None = None,
) -> Float[Tensor, "*s n"]:  # fmt: skip
    """n distances, one in each of n equal bins between near and far: uniform in its bin, or without a generator in its
    middle.  `shape` is that of the rays where near and far are numbers; `like` gives device and kind.
    """
    like = near if isinstance(near, Tensor) else far if isinstance(far, Tensor) else like
    low, high = (torch.as_tensor(x, dtype=None if like is None else like.dtype,
                                 device=None if like is None else like.device) for x in (near, far))  # fmt: skip
    low, high = torch.broadcast_tensors(low.float() if not low.is_floating_point() else low, high)
    low, high = low.expand(shape or low.shape), high.expand(shape or high.shape)
    bins = torch.arange(n, dtype=low.dtype, device=low.device)
    inside = 0.5 if generator is None else uniform((*low.shape, n), low, generator)
    return low.unsqueeze(-1) + (high - low).unsqueeze(-1) * ((bins + inside) / n)


def sample_pdf(
    bins: Float[Tensor, "*b m1"], weights: Float[Tensor, "*b m"], n: int, *, deterministic: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*b n"]:  # fmt: skip
    """n samples of the piecewise constant density ∝ `weights` + 10⁻⁵ between the edges `bins`, by its inverse CDF.

    deterministic: at n equal steps of the CDF from 0 to 1.  Sorted then, else not.
    """
    pdf = weights + EVEN
    cdf = torch.cumsum(pdf / pdf.sum(-1, keepdim=True), -1)
    cdf = torch.cat([torch.zeros_like(cdf[..., :1]), cdf], -1)
    if deterministic:
        u = torch.linspace(0, 1, n, dtype=cdf.dtype, device=cdf.device).expand(*cdf.shape[:-1], n).contiguous()
    else:
        u = uniform((*cdf.shape[:-1], n), cdf, generator)
    above = torch.searchsorted(cdf, u, right=True).clamp(1, cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, above - 1), cdf.gather(-1, above)
    a, b = bins.gather(-1, above - 1), bins.gather(-1, above)
    width = high - low
    share = (u - low) / torch.where(width < EVEN, 1.0, width)
    return a + share.clamp(0, 1) * (b - a)


def render_dense(
    sigma: Float[Tensor, "*b n"], rgb: Float[Tensor, "*b n 3"], t: Float[Tensor, "*b n"],
    length: Float[Tensor, "*b"] | None = None, background: Number | Float[Tensor, "*c"] | None = None, *,
    last: Number | Float[Tensor, "*b"] = LAST,
) -> Rendered:  # fmt: skip
    """The quadrature of the released code from densities and colours at distances t.

    `length`: ‖d‖, by which distances are multiplied; `last`: length of the last sample's interval.
    """
    end = torch.as_tensor(last, dtype=t.dtype, device=t.device).expand(t.shape[:-1]).unsqueeze(-1)
    delta = torch.cat([t[..., 1:] - t[..., :-1], end], -1)
    if length is not None:
        delta = delta * length.unsqueeze(-1)
    pass_through = torch.exp(-sigma * delta)
    before = torch.cumprod(pass_through[..., :-1] + FLOOR, -1)
    before = torch.cat([torch.ones_like(sigma[..., :1]), before], -1)
    weights = before * (1 - pass_through)
    opacity = weights.sum(-1)
    colour = (weights.unsqueeze(-2) @ rgb).squeeze(-2)
    return Rendered(over(colour, opacity, background), opacity, (weights * t).sum(-1), weights)


def interval_weights(
    sigma: Float[Tensor, "*b n"], length: Number | Float[Tensor, "*b n"]
) -> Float[Tensor, "*b n"]:
    """w = T (1 − e^{−σδ}) of n intervals a ray of constant density, front to back."""
    optical = sigma * length
    return torch.exp(optical - optical.cumsum(-1)) * -torch.expm1(-optical)


def composite(
    sigma: Float[Tensor, "e"], rgb: Float[Tensor, "e 3"], t0: Float[Tensor, "e"], t1: Float[Tensor, "e"],
    ptr: Int[Tensor, "r1"], background: Number | Float[Tensor, "*c"] | None = None,
) -> Rendered:  # fmt: skip
    """Packed samples of constant density on [t0, t1] along unit rays; a ray without samples is background, exactly."""
    weights = composite_weights(sigma, t0, t1, ptr)
    n = len(ptr) - 1
    values = torch.cat([rgb, torch.ones_like(t0)[:, None], ((t0 + t1) / 2)[:, None]], -1)
    sums = segment_sum(weights[:, None] * values, segment_index(ptr), n)
    return Rendered(over(sums[:, :3], sums[:, 3], background), sums[:, 3], sums[:, 4], weights)


def composite_weights(
    sigma: Float[Tensor, "e"], t0: Float[Tensor, "e"], t1: Float[Tensor, "e"], ptr: Int[Tensor, "r1"]
) -> Float[Tensor, "e"]:
    """w = T (1 − e^{−σ(t1 − t0)}) of packed samples."""
    optical = sigma * (t1 - t0)
    return torch.exp(-segment_cumsum(optical, ptr, exclusive=True)) * -torch.expm1(-optical)


def render_rays(
    field: Field, rays: Rays, near: Number | Float[Tensor, "b"], far: Number | Float[Tensor, "b"], samples: int = 64,
    fine_samples: int = 128, *, fine: Field | None = None, background: Number | Float[Tensor, "*c"] | None = None,
    generator: torch.Generator | None = None, shuffle: bool = False,
) -> tuple[Rendered, Rendered | None]:  # fmt: skip
    """The coarse pass, and the fine one at the coarse samples and `fine_samples` more, drawn where the coarse found
    weight (`fine`: the second network; default the same).  Without a generator nothing is random.

    shuffle: draws from the weights of another ray, which breaks the scheme on purpose.
    """
    length = rays.d.norm(dim=-1)
    ways = (rays.d / length.unsqueeze(-1)).unsqueeze(-2)
    t = stratified(near, far, samples, tuple(rays.o.shape[:-1]), generator=generator, like=rays.o)

    def at(net: Field, t: Tensor) -> Rendered:
        x = rays.o.unsqueeze(-2) + t.unsqueeze(-1) * rays.d.unsqueeze(-2)
        return render_dense(*net(x, ways), t, length, background)

    coarse = at(field, t)
    if not fine_samples:
        return coarse, None
    middle = (t[..., 1:] + t[..., :-1]) / 2
    weights = coarse.weights[..., 1:-1].detach()
    weights = weights.roll(1, 0) if shuffle else weights
    more = sample_pdf(middle, weights, fine_samples, deterministic=generator is None, generator=generator)
    return coarse, at(fine or field, torch.cat([t, more], -1).sort(-1).values)


def over(
    colour: Float[Tensor, "*b 3"], opacity: Float[Tensor, "*b"], background: Number | Tensor | None
) -> Float[Tensor, "*b 3"]:
    """Premultiplied colour before a background (None: black)."""
    return colour if background is None else colour + (1 - opacity).unsqueeze(-1) * background


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """U[0, 1) of `like`'s kind and device, drawn on the generator's."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)
