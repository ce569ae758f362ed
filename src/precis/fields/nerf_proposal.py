"""Scenes without a border by a proposal network: a small field of density says where on a ray the large one looks.

    64 intervals, even in s   →  density of the proposal  →  weights ŵ
    48 samples of ŵ           →  density and colour of the field  →  weights w, the pixel

    loss = Huber of the pixels + interlevel(w, ŵ) + 0.002 · distortion(w) + the planes' variation

s is the spacing of `nerf_open`, in whose contracted space both fields lie.  The proposal is a hash grid of 5 levels up
to 128 with an MLP of 16 units; the interlevel loss (`nerf_proposal_losses`) is all that it learns from.
Barron et al., Mip-NeRF 360, CVPR 2022, §3 (arXiv 2111.12077); Tancik et al., Nerfstudio, SIGGRAPH 2023 (arXiv
2302.04264), for the small grid.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from precis.fields.nerf_cameras import Rays
from precis.fields.nerf_fast import CPU_SAMPLES, GPU_SAMPLES, Grown, fast_schedule, render_packed
from precis.fields.nerf_fit import Measure, Photographs, Renderer, Watch, joined
from precis.fields.nerf_grid import Packed
from precis.fields.nerf_hash import HashGrid, clamped_exp
from precis.fields.nerf_open import OPEN_BOX, OpenField, contract, spaced
from precis.fields.nerf_proposal_losses import distortion_loss, interlevel_loss
from precis.fields.nerf_render import Rendered, interval_weights, sample_pdf, uniform
from precis.train.loop import Budget, Run, fit

Number = float | int
COARSE, FINE = 64, 48  # intervals a ray of the proposal, and of the field
PADDING = 0.01  # shared out evenly among the proposal's intervals, so that nothing is never looked at
DISTORTION = 0.002


class ProposalField(nn.Module):
    """Density alone, anywhere in space: `levels` of a hash grid on contracted space, an MLP of `width`, exp(u − 1)."""

    def __init__(
        self, *, levels: int = 5, finest: int = 128, log2_size: int = 17, width: int = 16,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.arguments = {"levels": levels, "finest": finest, "log2_size": log2_size, "width": width}
        self.encoding = HashGrid(levels, 2, log2_size, min(16, finest), finest, generator=generator)
        self.mlp = nn.ModuleList(nn.utils.skip_init(nn.Linear, a, b) for a, b in
                                 ((self.encoding.out_dim, width), (width, 1)))  # fmt: skip
        for layer in self.mlp:
            nn.init.xavier_uniform_(layer.weight, generator=generator)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def config(self) -> dict[str, Any]:
        """The arguments that build it again."""
        return dict(self.arguments)

    def density(self, x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Density (1/length) at x."""
        low, high = (torch.tensor(corner, dtype=x.dtype, device=x.device) for corner in OPEN_BOX)
        u = (contract(x.reshape(-1, 3)) - low) / (high - low)
        raw = self.mlp[1](F.relu(self.mlp[0](self.encoding(u))))[:, 0]
        return clamped_exp(raw - 1).reshape(x.shape[:-1])


class ProposalModel(NamedTuple):
    """The field that is rendered, on the box ±2 of contracted space; the proposal; intervals a ray of either."""

    field: Any
    proposal: ProposalField
    samples: tuple[int, int] = (COARSE, FINE)


class Looked(NamedTuple):
    """Rays rendered, and histograms of the field and the proposal: edges s [R,n+1] in [0, 1], weights [R,n]."""

    made: Rendered
    s: Tensor
    w: Tensor
    s_hat: Tensor
    w_hat: Tensor


def edges_about(s: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n1"]:
    """Edges of intervals around sorted samples: half-way between neighbours, as far beyond the first and the last."""
    half = (s[..., 1:] + s[..., :-1]) / 2
    first, last = 2 * s[..., :1] - half[..., :1], 2 * s[..., -1:] - half[..., -1:]
    return torch.cat([first, half, last], -1).clamp(0, 1)


def look(
    model: ProposalModel, rays: Rays, near: Number, far: Number, background: Number | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Looked:  # fmt: skip
    """Render unit rays [R,3]; without a generator nothing is random."""
    coarse, fine = model.samples
    r = len(rays.o)
    edge = torch.arange(coarse + 1, dtype=rays.o.dtype, device=rays.o.device).repeat(r, 1)
    if generator is not None:
        edge = edge + uniform((r, 1), rays.o, generator) - 0.5
    s_hat = (edge / coarse).clamp(0, 1)
    s_hat[..., 0], s_hat[..., -1] = 0.0, 1.0  # all of the ray, however the edges between are shifted
    t = spaced(near, far, s_hat)
    x = rays.o[:, None] + ((t[:, 1:] + t[:, :-1]) / 2)[..., None] * rays.d[:, None]
    w_hat = interval_weights(model.proposal.density(x), t.diff(dim=-1))
    with torch.no_grad():
        drawn = sample_pdf(s_hat, w_hat + PADDING / coarse, fine, deterministic=generator is None, generator=generator)
        s = edges_about(drawn.sort(-1).values)
        t = spaced(near, far, s)
        ray = torch.arange(r, device=t.device).repeat_interleave(fine)
        packed = Packed(ray, t[:, :-1].reshape(-1), t[:, 1:].reshape(-1),
                        torch.arange(r + 1, device=t.device) * fine)  # fmt: skip
    made = render_packed(OpenField(model.field), rays, packed, background)
    return Looked(made, s, made.weights.view(r, fine), s_hat, w_hat)


def fit_proposals(
    model: ProposalModel, photos: Photographs, *, generator: torch.Generator, near: Number, far: Number,
    samples: int | None = None, lr: Number = 2e-2, net_lr: Number = 1e-3, proposal_lr: Number = 1e-2,
    background: Number | Float[Tensor, "3"] = 1.0, smooth: Number = 1e-3, steps: int | None = None,
    minutes: Number | None = None, measure: Measure | None = None, every: int = 100,
    log: Callable[..., None] | None = None, folder: Path | None = None, resume: bool = False,
) -> Run:  # fmt: skip
    """Train field and proposal on opaque photographs, `samples` of the field a step; rates and their falling as in
    `nerf_fast.fit_fast`.  Logged: loss, mse, interlevel, distortion."""
    field, device = model.field, photos.rgb.device
    budget = Budget(steps=steps, minutes=minutes)
    rays = max((samples or (CPU_SAMPLES if device.type == "cpu" else GPU_SAMPLES)) // model.samples[1], 16)
    factors = field.factors()
    rest = [p for p in field.parameters() if all(p is not f for f in factors)]
    groups = [
        {"params": factors, "lr": float(lr)}, {"params": rest, "lr": float(net_lr)},
        {"params": list(model.proposal.parameters()), "lr": float(proposal_lr)},
    ]  # fmt: skip
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15, fused=device.type in ("cpu", "cuda"))
    state, watch = Grown(field), Watch(measure, every, log)

    def advance(_: object) -> dict[str, Any]:
        watch.before(state.steps)
        state.grow(field, optimizer, budget.progress)
        rows, lines = photos.draw(rays, generator)
        found = look(model, lines.unit(), near, far, background, generator)
        truth = photos.colours(rows, background)
        between = interlevel_loss(found.s, found.w, found.s_hat, found.w_hat)
        spread = distortion_loss(found.s, found.w)
        loss = F.huber_loss(found.made.rgb, truth, delta=0.1) + between + DISTORTION * spread
        if smooth and hasattr(field, "variation") and state.steps % 4 == 0:
            loss = loss + 4 * smooth * (1 - budget.progress) * field.variation()
        state.steps += 1
        return {
            "loss": loss, "mse": (found.made.rgb - truth).detach().square().mean(), "interlevel": between.detach(),
            "distortion": spread.detach(),
        }  # fmt: skip

    keep = {"net": nn.ModuleList([field, model.proposal]), "generator": generator, "pace": state}
    return fit(
        advance, [0], budget=budget, optimizer=optimizer, schedule=fast_schedule(),
        log=watch, folder=folder, resume=resume, keep=keep,
    )  # fmt: skip


def proposal_renderer(
    model: ProposalModel, *, near: Number, far: Number, background: Number | Tensor | None = 1.0, chunk: int = 1 << 12
) -> Renderer:
    """Rays [R] to pixels with nothing random."""

    @torch.no_grad()
    def render(rays: Rays) -> Rendered:
        parts = []
        for o, d in zip(*(x.split(chunk) for x in rays.unit())):
            made = look(model, Rays(o, d), near, far, background).made
            parts.append(made._replace(weights=o[:, :0]))
        return joined(parts)

    return render
