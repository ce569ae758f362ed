"""Deformable radiance fields: every photograph's points are carried into one canonical scene.

    G(x, d, ψ_i, ω_i) = F(T(x, ω_i), d, ψ_i),      T : observation → canonical,      the direction d is not turned

T is a deformation field (`nerfies_warp`), F a radiance field, the template; ω_i and ψ_i are a deformation and an
appearance code of photograph i, learned with the weights.  The released code feeds ψ to nothing unless a flag is set;
here it goes to the colour branch, as the text says.  What keeps T well behaved is in `nerfies_losses`, the recipe in
`nerfies_fit`.
Park, Sinha, Barron, Bouaziz, Goldman, Seitz, Martin-Brualla, ICCV 2021, §3 (arXiv 2011.12948).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from precis.fields.nerf_cameras import Rays
from precis.fields.nerf_render import LAST, Rendered, interval_weights, render_dense, sample_pdf, stratified
from precis.fields.nerfies_losses import background_loss, elastic_loss, general_robust
from precis.fields.nerfies_se3 import se3_apply, se3_exp, so3_exp, so3_log
from precis.fields.nerfies_warp import SE3Field, TranslationField, cosine_window, make_codes

__all__ = [
    "Codes", "DeformableNerf", "SE3Field", "TranslationField", "background_loss", "cosine_window", "elastic_loss",
    "general_robust", "render_views", "se3_apply", "se3_exp", "so3_exp", "so3_log",
]  # fmt: skip

Number = float | int


class Codes(NamedTuple):
    """A deformation code ω [..., c] and an appearance code ψ [..., a]; None where the model has none."""

    deformation: Tensor | None
    appearance: Tensor | None

    def per_ray(self) -> "Codes":
        """Codes of rays [B,c], to be used for their samples [B,1,c]."""
        return Codes(*(None if c is None else c.unsqueeze(-2) for c in self))

    def mixed(self, other: "Codes", share: Number) -> "Codes":
        """(1 − share) of these and share of the others."""
        return Codes(*(None if a is None or b is None else torch.lerp(a, b, share) for a, b in zip(self, other)))


class DeformableNerf(nn.Module):
    """A template and a deformation field, with codes for `num_codes` photographs.

    template(x, d, ψ) -> density [...], colour [..., 3], and `template.density(x)`; its colour branch takes codes of
    length `appearance_dim` (0: ψ is left out).  `fine`: a second template for the second pass.
    warp=None: a static field; with appearance codes, what the paper calls NeRF + latent.
    """

    def __init__(
        self, template: nn.Module, warp: SE3Field | TranslationField | None, appearance_dim: int = 8, *,
        fine: nn.Module | None = None, num_codes: int | None = None, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        n = num_codes if warp is None else len(warp.codes)
        if n is None or (num_codes or n) != n:
            raise ValueError(f"num_codes must be given without a warp, and be the warp's with one; got {num_codes}")
        self.template, self.warp, self.fine, self.num_codes = template, warp, fine, n
        self.appearance = make_codes(n, appearance_dim, generator) if appearance_dim else None

    def codes(self, frame: Int64[Tensor, "*k"]) -> Codes:
        """The codes of photographs."""
        return Codes(
            None if self.warp is None else self.warp.codes[frame],
            None if self.appearance is None else self.appearance[frame],
        )

    def canonical(
        self, x: Float[Tensor, "*n 3"], codes: Codes, alpha: Number | Float[Tensor, ""], jacobian: bool = False
    ) -> tuple[Float[Tensor, "*n 3"], Float[Tensor, "*n 3 3"] | None]:
        """T(x, ω), and its Jacobian if asked for."""
        if self.warp is None or codes.deformation is None:
            eye = torch.eye(3, dtype=x.dtype, device=x.device)
            return x, eye.expand(*x.shape, 3) if jacobian else None
        moved: tuple[Tensor, Tensor | None] = self.warp(x, codes.deformation, alpha, jacobian)
        return moved

    def forward(
        self, x: Float[Tensor, "*n 3"], d: Float[Tensor, "*m 3"], codes: Codes, alpha: Number | Float[Tensor, ""], *,
        fine: bool = False,
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:  # fmt: skip
        """Density and colour at x of an observation, seen along unit d; d and codes have alike the axes of x, or 1s."""
        template = self.fine if fine and self.fine is not None else self.template
        place = self.canonical(x, codes, alpha)[0]
        found: tuple[Tensor, Tensor] = template(place, d, *([] if codes.appearance is None else [codes.appearance]))
        return found

    def density(
        self, x: Float[Tensor, "*n 3"], codes: Codes, alpha: Number | Float[Tensor, ""]
    ) -> Float[Tensor, "*n"]:
        """Density at x of an observation, of the network that pictures are made with."""
        template: Any = self.template if self.fine is None else self.fine
        sigma: Tensor = template.density(self.canonical(x, codes, alpha)[0])
        return sigma


class Passes(NamedTuple):
    """The coarse pass, its distances t [B,n], and the fine one (None: there is none)."""

    coarse: Rendered
    t: Tensor
    fine: Rendered | None

    @property
    def best(self) -> Rendered:
        """What is shown."""
        return self.coarse if self.fine is None else self.fine


def render_views(
    model: DeformableNerf, rays: Rays, codes: Codes, alpha: Number | Float[Tensor, ""], near: Number, far: Number,
    samples: int = 128, fine_samples: int = 128, *, background: Number | Float[Tensor, "3"] | None = None,
    generator: torch.Generator | None = None,
) -> Passes:  # fmt: skip
    """Rays [B,3] of observations with codes [B,c], along unit directions between near and far.

    background: a grey or colour that shows through where the scene is clear, its last sample as long as the others;
    None: there is always something, and the last sample reaches to infinity.  Without a generator nothing is random.
    """
    per_ray, ways = codes.per_ray(), rays.d.unsqueeze(-2)
    t = stratified(near, far, samples, tuple(rays.o.shape[:-1]), generator=generator, like=rays.o)
    last = LAST if background is None else (far - near) / samples

    def look(t: Tensor, fine: bool) -> Rendered:
        x = rays.o.unsqueeze(-2) + t.unsqueeze(-1) * rays.d.unsqueeze(-2)
        sigma, rgb = model(x, ways, per_ray, alpha, fine=fine)
        return render_dense(sigma, rgb, t, background=background, last=last)

    coarse = look(t, False)
    if not fine_samples:
        return Passes(coarse, t, None)
    middle, weights = (t[..., 1:] + t[..., :-1]) / 2, coarse.weights[..., 1:-1].detach()
    more = sample_pdf(middle, weights, fine_samples, deterministic=generator is None, generator=generator)
    return Passes(coarse, t, look(torch.cat([t, more], -1).sort(-1).values, True))


def render_resampled(
    model: DeformableNerf, rays: Rays, codes: Codes, alpha: Number | Float[Tensor, ""], near: Number, far: Number,
    samples: int = 40, fine_samples: int = 20, *, background: Number | Float[Tensor, "3"] | None = None,
    generator: torch.Generator | None = None,
) -> Passes:  # fmt: skip
    """One pass with gradients, at `fine_samples` distances that a first one without, of densities alone, has chosen.

    A tenth of them is drawn evenly between near and far, so that nothing is overlooked for good.
    """
    per_ray = codes.per_ray()
    shape = tuple(rays.o.shape[:-1])
    with torch.no_grad():
        t = stratified(near, far, samples, shape, generator=generator, like=rays.o)
        x = rays.o.unsqueeze(-2) + t.unsqueeze(-1) * rays.d.unsqueeze(-2)
        step = (far - near) / samples
        weights = interval_weights(model.density(x, per_ray, alpha), step)
        weights = weights + 0.1 * weights.sum(-1, keepdim=True) / samples + 1e-4
        edges = torch.linspace(near, far, samples + 1, dtype=t.dtype, device=t.device).expand(*shape, -1)
        t = sample_pdf(edges, weights, fine_samples, deterministic=generator is None, generator=generator)
        t = t.sort(-1).values
    x = rays.o.unsqueeze(-2) + t.unsqueeze(-1) * rays.d.unsqueeze(-2)
    last = LAST if background is None else step
    sigma, rgb = model(x, rays.d.unsqueeze(-2), per_ray, alpha)
    return Passes(render_dense(sigma, rgb, t, background=background, last=last), t, None)


@torch.no_grad()
def render_many(
    draw: Callable[[Rays, Codes], Rendered], rays: Rays, codes: Codes, chunk: int = 4096
) -> tuple[Float[Tensor, "*b 3"], Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Colour, opacity and depth of any number of rays, `chunk` at a time, all under one code or each under its own."""
    shape = rays.o.shape[:-1]
    o, d = rays.o.reshape(-1, 3), rays.d.reshape(-1, 3)
    each = Codes(*(None if c is None else c.expand(*shape, -1).reshape(len(o), -1) for c in codes))
    parts = []
    for i in range(0, len(o), chunk):
        rows = slice(i, i + chunk)
        parts.append(draw(Rays(o[rows], d[rows]), Codes(*(None if c is None else c[rows] for c in each)))[:3])
    rgb, opacity, depth = (torch.cat(part) for part in zip(*parts, strict=True))
    return rgb.view(*shape, 3), opacity.view(shape), depth.view(shape)
