"""What the claims have in common: training with one of the adversaries, and how hard an attacked pair is."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from precis.contrastive.clae import CLAE, clae_adversary, to_dual_bn
from precis.contrastive.ntxent import nt_xent
from precis.lab.claim import Metrics, Recorder
from precis.nn.attacks import evaluating
from precis.papers.contrastive_sets import Pool, Setting
from precis.papers.contrastive_training import fit_arm, head_on, make_encoder, make_views, views_of
from precis.train.classify import to_input

HELD = 8  # batches of test pictures on which hardness is measured, at most
PASSES = 11 / 6  # of a step of CLAE over one of SimCLR: one more view (3), and forth and back for an attack (2)


@dataclass(frozen=True)
class Plan(Setting):
    """A `Setting`, the smaller encoder beside it, and the size ε of the adversary's step."""

    small: str = "conv:12x3"
    eps: float = 0.05


class _Noise(CLAE):
    """A random sign of size ε in the adversary's place."""

    generator: torch.Generator

    def adversary(self, v1: Tensor, v2: Tensor) -> Tensor:
        return noisy(v1, self.eps, self.generator)


def noisy(x: Tensor, eps: float | int, generator: torch.Generator) -> Tensor:
    """Every value moved by eps, up or down at random, within 0 … 1."""
    up = torch.rand(x.shape, generator=generator, device=generator.device).to(x.device) < 0.5
    return (x + eps * (2 * up.to(x.dtype) - 1)).clamp(0, 1)


def make_model(arm: str, s: Plan, pool: Pool, streams: Mapping[str, torch.Generator]) -> CLAE:
    """CLAE, with one set of batch norms ("shared"), with noise, or SimCLR, which has no adversary ("simclr", "longer"):
    equal at their start."""
    encoder = make_encoder(s, pool.images, streams["init"])
    head = head_on(encoder, streams["init"])
    if arm in ("clae", "noise"):
        to_dual_bn(encoder)
    kind = _Noise if arm == "noise" else CLAE
    model = kind(encoder, head, s.eps, 0.0 if arm in ("simclr", "longer") else 1.0, s.temperature)
    if isinstance(model, _Noise):
        model.generator = streams["eval"]
    return model


def train(s: Plan, pool: Pool, model: CLAE, streams: Mapping[str, torch.Generator], record: Recorder) -> None:
    """`data` orders the batches, `noise` makes the views."""
    views = views_of(s.views, s.size)

    def loss(chosen: Tensor) -> dict[str, Tensor]:
        total, parts = model.loss(*make_views(pool.images[chosen], views, streams["noise"]))
        return {"loss": total, "clean": parts.clean, "adversarial": parts.adversarial}

    fit_arm(s, model, loss, len(pool.images), record, order=streams["data"], suffix=f", {s.encoder}")


def hardness(s: Plan, pool: Pool, model: CLAE, generator: torch.Generator) -> Metrics:
    """On views of test pictures, in evaluation mode with clean statistics: by how much NT-Xent (nats) of (x_i, x) rises
    above that of (x_i, x_i) if x is the adversary's, or has noise of that size; and by how much the cosine of the
    hardest negative does."""
    views, rows = views_of(s.views, s.size), []
    embed = lambda x: model(x)[1]
    with evaluating(model):
        for some in pool.test_images.split(s.batch)[:HELD]:
            if len(some) < 2:
                continue
            x = to_input(views(some, generator))
            moved = clae_adversary(embed, x, eps=s.eps, temperature=s.temperature)
            with torch.no_grad():
                z, attacked, noise = (embed(v) for v in (x, moved, noisy(x, s.eps, generator)))
                losses = torch.stack([nt_xent(z, other, s.temperature) for other in (z, attacked, noise)])
                rows.append(torch.cat([losses, torch.stack([_hardest(z, z), _hardest(z, attacked)])]))
    same, attack, noise, before, after = torch.stack(rows).mean(0).tolist()
    rises = {"rise": attack - same, "rise_noise": noise - same, "excess": attack - noise}
    return {**rises, "hardest_change": after - before}


def _hardest(a: Tensor, b: Tensor) -> Tensor:
    """The mean over a's rows of the largest cosine with another row of b."""
    s = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    return s.masked_fill(torch.eye(len(s), dtype=torch.bool, device=s.device), -torch.inf).amax(1).mean()

