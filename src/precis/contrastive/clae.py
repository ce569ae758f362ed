"""CLAE: contrastive learning on pairs that are made harder by one step of an attack, for better clean features.

    δ = ε sign ∇ₓ L_con(z(x), z(x_i)),    L = L_con(x_i, x_j) + α L_con(x_i, x + δ)

The attacked picture x is the anchor's own view x_i (as in the released code: the pair then coincides, so that the
positive has no gradient and the direction comes from the negatives alone), or the other view x_j.  L_con is a
cross-entropy whose classes are the pictures of the batch, so that the step makes positives and negatives harder.
Attacked pictures have batch statistics of their own; after training only the clean ones are used.  Ho and Vasconcelos,
NeurIPS 2020, §3 (arXiv 2010.12050).  Its aim is not robustness.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from precis.contrastive.clae_loss import plain_info_nce, uel_loss
from precis.contrastive.ntxent_loss import nt_xent
from precis.nn.attacks import fgsm

__all__ = [
    "CLAE", "DualBatchNorm2d", "Parts", "adversarial_bn", "clae_adversary", "plain_info_nce", "to_dual_bn",
    "to_single_bn", "uel_loss", "with_dual_bn",
]  # fmt: skip

Number = int | float
Loss = Callable[[Tensor, Tensor, Number], Tensor]
LOSSES: dict[str, Loss] = {"nt_xent": nt_xent, "plain": plain_info_nce, "uel": uel_loss}


class DualBatchNorm2d(nn.Module):
    """Two batch norms for [B,C,H,W], `clean` and `adversarial`, of which the flag `branch` says the one in use.

    The second follows its batches more slowly (momentum 0.01 against 0.1).  `adversarial_bn` sets the flag.
    """

    def __init__(
        self, channels: int, momentum_adv: Number = 0.01, *, eps: Number = 1e-5, momentum: Number = 0.1
    ) -> None:
        super().__init__()
        self.clean = nn.BatchNorm2d(channels, float(eps), float(momentum))
        self.adversarial = nn.BatchNorm2d(channels, float(eps), float(momentum_adv))
        self.branch = "clean"

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        found: Tensor = self.adversarial(x) if self.branch == "adversarial" else self.clean(x)
        return found


@contextmanager
def adversarial_bn(model: nn.Module) -> Iterator[None]:
    """Inside, every `DualBatchNorm2d` of the model is on its adversarial branch; as before afterwards."""
    was = {part: part.branch for part in model.modules() if isinstance(part, DualBatchNorm2d)}
    try:
        for part in was:
            part.branch = "adversarial"
        yield
    finally:
        for part, branch in was.items():
            part.branch = branch


def to_dual_bn(encoder: nn.Module, momentum_adv: Number = 0.01) -> nn.Module:
    """The encoder with each `BatchNorm2d` doubled, in place.

    The clean branch is the norm that was there, the adversarial one begins with its weights and statistics.
    """
    for name, norm in _norms(encoder, nn.BatchNorm2d):
        assert isinstance(norm, nn.BatchNorm2d)
        dual = DualBatchNorm2d(norm.num_features, momentum_adv, eps=norm.eps)
        dual.adversarial.load_state_dict(norm.state_dict())
        dual.to(norm.weight.device, norm.weight.dtype).train(norm.training)
        dual.clean = norm
        encoder.set_submodule(name, dual)
    return encoder


def with_dual_bn(encoder: nn.Module, momentum_adv: Number = 0.01) -> nn.Module:
    """`to_dual_bn` beside the encoder, which shares every layer with it and stays as it is.

    So what is trained through the one lies in the other, and nothing has to be taken out.
    """
    layers = {id(part): part for part in encoder.modules() if not list(part.children())}
    return to_dual_bn(copy.deepcopy(encoder, dict(layers)), momentum_adv)


def to_single_bn(encoder: nn.Module) -> nn.Module:
    """The encoder with the adversarial branches taken out, in place: what one keeps after training."""
    for name, dual in _norms(encoder, DualBatchNorm2d):
        assert isinstance(dual, DualBatchNorm2d)
        encoder.set_submodule(name, dual.clean)
    return encoder


def clae_adversary(
    embed: Callable[[Tensor], Tensor], x_i: Float[Tensor, "b c h w"], x_j: Float[Tensor, "b c h w"] | None = None, *,
    eps: Number, temperature: Number = 0.5, source: Literal["same", "other"] = "same",
    bounds: tuple[Number, Number] | None = (0, 1), loss: Loss = nt_xent,
) -> Float[Tensor, "b c h w"]:  # fmt: skip
    """One fast-gradient step of size eps: from x_i itself ("same"), or from x_j ("other"), against z(x_i), constant.

    No weight gets a gradient.  In training mode batch statistics are used, and move, as `embed` does it.
    """
    if source == "other":
        if x_j is None:
            raise ValueError('source="other" attacks the second view: x_j is wanted')
        with torch.no_grad():
            anchor = embed(x_i)
        return fgsm(lambda x: loss(anchor, embed(x), temperature), x_j, eps=eps, bounds=bounds)

    def against_itself(x: Tensor) -> Tensor:
        z = embed(x)
        return loss(z.detach(), z, temperature)  # one pass: x is the anchor

    return fgsm(against_itself, x_i, eps=eps, bounds=bounds)


class Parts(NamedTuple):
    """`clean`: the loss of the two views.  `adversarial`: of the first and the attacked one (0 without a weight)."""

    clean: Float[Tensor, ""]
    adversarial: Float[Tensor, ""]


class CLAE(nn.Module):
    """An encoder [B,C,H,W] → h with doubled batch norms (`to_dual_bn`), a head h → z, and the sum of both losses.

    eps: of the step, in values of 0 … 1.  weight: α; 0 is the base method to the bit.  base: "nt_xent" (SimCLR),
    "plain" or "uel".  source: as in `clae_adversary`.  An encoder without doubled norms shares them among clean and
    attacked pictures.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, eps: Number = 4 / 255, weight: Number = 1.0,
        temperature: Number = 0.5, base: str = "nt_xent", *, source: Literal["same", "other"] = "same",
    ) -> None:  # fmt: skip
        super().__init__()
        if base not in LOSSES:
            raise ValueError(f"base is one of {', '.join(LOSSES)}, got {base!r}")
        self.encoder, self.head, self.base = encoder, head, base
        self.eps, self.weight, self.temperature, self.source = eps, weight, temperature, source

    def forward(self, x: Shaped[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b width"], Float[Tensor, "b dim"]]:
        """(h, z): the representation and what the loss sees of it."""
        h = self.encoder(x)
        return h, self.head(h)

    def adversary(self, v1: Float[Tensor, "b c h w"], v2: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The attacked picture, made on the adversarial branch; running statistics are as before afterwards."""
        with adversarial_bn(self), _kept_buffers(self):
            return clae_adversary(
                lambda x: self(x)[1], v1, v2, eps=self.eps, temperature=self.temperature, source=self.source,  # type: ignore[arg-type]
                loss=LOSSES[self.base],
            )  # fmt: skip

    def loss(
        self, v1: Float[Tensor, "b c h w"], v2: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, ""], Parts]:
        """(L, its parts), in nats.  The anchor's clean embedding is used twice; both clean views go in one pass."""
        loss = LOSSES[self.base]
        moved = self.adversary(v1, v2) if self.weight else None
        z = self(torch.cat([v1, v2]))[1]
        clean = loss(z[: len(v1)], z[len(v1) :], self.temperature)
        if moved is None:
            return clean, Parts(clean, torch.zeros_like(clean))
        with adversarial_bn(self):
            adversarial = loss(z[: len(v1)], self(moved)[1], self.temperature)
        return clean + self.weight * adversarial, Parts(clean, adversarial)


@contextmanager
def _kept_buffers(model: nn.Module) -> Iterator[None]:
    before = [(b, b.clone()) for b in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _norms(model: nn.Module, kind: type[nn.Module]) -> list[tuple[str, nn.Module]]:
    """Modules of a kind by name, but for those inside a `DualBatchNorm2d`."""
    inside = {id(part) for dual in model.modules() if isinstance(dual, DualBatchNorm2d) for part in dual.children()}
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, kind) and id(part) not in inside]
    if any(not name for name, _ in found):
        raise ValueError("a single norm has no place to be exchanged in: give the module that holds it")
    return found
