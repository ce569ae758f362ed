"""RoCL: robust features without labels, by an attack on which picture is which.

    ã = argmax_{‖ã − a‖∞ ≤ ε} NT-Xent(ã, b),    L = NT-Xent₃(a, b, ã) + λ NT-Xent(ã, b)

a and b are two views of each picture; the instance attack moves a so that the net takes it for another picture, and
training keeps a, b and ã together.  NT-Xent₃ takes all three pairs of views for positives.  No label is used before a
linear layer is fitted on the frozen encoder: on pictures as they are (LE) or on attacked ones (r-LE).  Kim, Tack,
Hwang, NeurIPS 2020, §3 (arXiv 2006.07589).  Radii are in values of 0 … 1: a net standardises its pictures itself.  How
a classifier's robustness is measured, and its supervised counterpart: `precis.contrastive.robustness`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from precis.contrastive.ntxent_loss import log_sum_others, nt_xent
from precis.contrastive.robustness import (
    AttackSpec,
    Smoothed,
    SupervisedAT,
    robust_accuracy,
    robust_correct,
    robust_linear,
)  # fmt: skip
from precis.contrastive.sphere import Number, check_temperature, full_precision, unit, wide
from precis.nn.attacks import evaluating, pgd

__all__ = [
    "AttackSpec", "Parts", "RoCL", "Smoothed", "SupervisedAT", "instance_attack", "multi_view_nt_xent",
    "robust_accuracy", "robust_correct", "robust_linear",
]  # fmt: skip


def multi_view_nt_xent(
    views: Float[Tensor, "v b d"], temperature: Number = 0.5, detach_keys: bool = False, *, normalize: bool = True
) -> Float[Tensor, ""]:
    """NT-Xent of V views of B pictures, in nats: every ordered pair of views of a picture is a positive.

        1/(VB) Σ_i Σ_{p ≠ i of i's picture} ( −s_ip + log Σ_{k ≠ i} exp s_ik ),    s = ZZᵀ/τ

    Two views: NT-Xent.  Three: the six terms a picture over 3B, twice the supervised loss with pictures for labels.
    detach_keys: the second factor of the similarities carries no gradient, as in the paper's code.
    ValueError for less than two views or pictures, and for τ ≤ 0.
    """
    v, b, _ = views.shape
    if v < 2 or b < 2:
        raise ValueError(f"at least two views of two pictures are wanted, got {v} of {b}")
    check_temperature(temperature)
    with full_precision(views):
        rows = unit(wide(views).flatten(0, 1), normalize)
        keys = rows.detach() if detach_keys else rows
        own = torch.arange(v * b, device=rows.device)
        others = log_sum_others(rows, keys, own, temperature)
        mates = keys.view(v, b, -1).sum(0).repeat(v, 1) - keys
        loss = (v - 1) * others.mean() - (rows * mates).sum(1).mean() / temperature
    return loss.to(views.dtype)


def instance_attack(
    embed: Callable[[Tensor], Tensor], x: Float[Tensor, "b *shape"], target_z: Float[Tensor, "b d"], *,
    temperature: Number = 0.5, detach_keys: bool = False, **attack: Any,
) -> Float[Tensor, "b *shape"]:  # fmt: skip
    """x attacked so that it is told worse from other pictures: `pgd` on NT-Xent(embed(x), target_z).

    target_z: embeddings of another view of the same pictures, constant here, so that they are made once.  `attack`:
    eps, alpha, steps, norm, random_start, bounds, generator of `pgd`.  Put `embed`'s module in evaluation mode around
    it (`precis.nn.attacks.evaluating`).
    """
    target = target_z.detach()

    def loss(moved: Tensor) -> Tensor:
        return multi_view_nt_xent(torch.stack([embed(moved), target]), temperature, detach_keys)

    return pgd(loss, x, **attack)


class Parts(NamedTuple):
    """`contrast`: the loss of the three views.  `regulariser`: NT-Xent of the attacked view and the second.  `clean`:
    NT-Xent of the two views that were given, for comparison; nothing flows back from it."""

    contrast: Float[Tensor, ""]
    regulariser: Float[Tensor, ""]
    clean: Float[Tensor, ""]


class RoCL(nn.Module):
    """An encoder [B,C,H,W] → h, a head h → z, the instance attack, and the loss of a, b and the attacked a.

    eps, alpha, steps: of the attack (ℓ∞, random start; alpha=None: 2.5 eps/steps); the defaults are the paper's.
    reg_weight: λ.  attack="noise" puts a random sign in each step's place: what is left without the adversary.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, eps: Number = 8 / 255, alpha: Number | None = 0.007, steps: int = 7,
        temperature: Number = 0.5, reg_weight: Number = 1 / 256, *, detach_keys: bool = False, attack: str = "instance",
    ) -> None:  # fmt: skip
        super().__init__()
        if attack not in ("instance", "noise"):
            raise ValueError(f"attack is instance or noise, got {attack!r}")
        self.encoder, self.head = encoder, head
        self.eps, self.alpha, self.steps, self.attack = eps, alpha, steps, attack
        self.temperature, self.reg_weight, self.detach_keys = temperature, reg_weight, detach_keys

    def forward(self, x: Shaped[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b width"], Float[Tensor, "b dim"]]:
        """(h, z): the representation and what the loss sees of it."""
        h = self.encoder(x)
        return h, self.head(h)

    def attacked(
        self, v1: Float[Tensor, "b c h w"], v2: Float[Tensor, "b c h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b c h w"]:
        """v1 moved so that it is told worse from other pictures than by v2; the net's state is as before."""
        if self.attack == "noise":
            source = v1.device if generator is None else generator.device
            sign = torch.rand(v1.shape, generator=generator, device=source).to(v1.device) < 0.5
            return (v1 + self.eps * (1 - 2 * sign.to(v1.dtype))).clamp(0, 1)
        embed = lambda x: self(x)[1]
        with evaluating(self):
            with torch.no_grad():
                target = embed(v2)
            return instance_attack(
                embed, v1, target, temperature=self.temperature, detach_keys=self.detach_keys, eps=self.eps,
                alpha=self.alpha, steps=self.steps, generator=generator,
            )  # fmt: skip

    def loss(
        self, v1: Float[Tensor, "b c h w"], v2: Float[Tensor, "b c h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, ""], Parts]:
        """(L, its parts), in nats; all three views go through in one pass, and share batch statistics."""
        moved = self.attacked(v1, v2, generator)
        z = self(torch.cat([v1, v2, moved]))[1].unflatten(0, (3, len(v1)))
        contrast = multi_view_nt_xent(z, self.temperature, self.detach_keys)
        regulariser = multi_view_nt_xent(z[[2, 1]], self.temperature, self.detach_keys)
        with torch.no_grad():
            clean = nt_xent(z[0], z[1], self.temperature)
        return contrast + self.reg_weight * regulariser, Parts(contrast, regulariser, clean)
