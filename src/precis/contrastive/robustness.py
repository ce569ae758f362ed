"""How robust a classifier is, linear layers on a frozen encoder, and supervised adversarial training to compare with.

    robust accuracy = share of x with  argmax f(x′) = y  for every x′ tried in the ball around x

x itself is one of those tried, so that a picture that is told wrong without an attack is not robust, and radius 0 is
the plain accuracy.  Supervised training: min E max_{‖δ‖ ≤ ε} cross-entropy(f(x + δ), y); Madry et al., ICLR 2018 (arXiv
1706.06083).  Pictures are uint8, or float in 0 … 1; radii are in values of 0 … 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from precis.nn.attacks import Norm, evaluating, pgd
from precis.nn.layers import drawn_from, initialise
from precis.train.classify import to_input
from precis.train.feed import index_batches
from precis.train.loop import Budget, fit
from precis.train.probe import LinearProbe, embed
from precis.train.schedule import cosine

Number = int | float


@dataclass(frozen=True)
class AttackSpec:
    """One attack on a classifier: `pgd` on its cross-entropy.  alpha: length of a step, None: 2.5 eps/steps."""

    name: str
    eps: Number
    norm: Norm = "linf"
    steps: int = 20
    alpha: Number | None = None
    restarts: int = 1


def robust_accuracy(
    model: nn.Module, x: Shaped[Tensor, "n *shape"], y: Int[Tensor, "n"], *, attacks: Sequence[AttackSpec],
    worst_case: bool = True, batch: int = 256, generator: torch.Generator | None = None,
) -> dict[str, float]:  # fmt: skip
    """Shares of right answers: `clean`, under each attack by its name, and under all of them together (`worst`)."""
    if not len(x):
        raise ValueError("there is no picture to attack")
    clean = robust_correct(model, x, y, None, batch=batch)
    found, worst = {"clean": _share(clean)}, clean
    for attack in attacks:
        right = robust_correct(model, x, y, attack, batch=batch, generator=generator)
        found[attack.name], worst = _share(right), worst & right
    return found | ({"worst": _share(worst)} if worst_case else {})


def robust_correct(
    model: nn.Module, x: Shaped[Tensor, "n *shape"], y: Int[Tensor, "n"], attack: AttackSpec | None = None, *,
    batch: int = 256, generator: torch.Generator | None = None,
) -> Bool[Tensor, "n"]:  # fmt: skip
    """Which pictures are told right, as they are and after each restart of the attack (None: as they are).

    A restart attacks only what is right until then.  The net is in evaluation mode meanwhile.
    """
    with evaluating(model):
        parts = zip(x.split(batch), y.long().split(batch))
        kept = [_correct(model, to_input(some), own, attack, generator) for some, own in parts]
    return torch.cat(kept)


def _correct(
    model: nn.Module, x: Tensor, y: Tensor, attack: AttackSpec | None, generator: torch.Generator | None
) -> Tensor:
    with torch.no_grad():
        right = model(x).argmax(1) == y
    if attack is None or attack.eps == 0:
        return right
    for _ in range(attack.restarts):
        left = right.nonzero()[:, 0]
        if not len(left):
            break
        moved = attacked(model, x[left], y[left], attack, generator)
        with torch.no_grad():
            right[left] = model(moved).argmax(1) == y[left]
    return right


def attacked(
    model: nn.Module, x: Float[Tensor, "b *shape"], y: Int[Tensor, "b"], attack: AttackSpec,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b *shape"]:  # fmt: skip
    """One run of an attack on the cross-entropy of `model`, whose mode is the caller's affair."""
    loss = lambda moved: F.cross_entropy(model(moved).float(), y, reduction="none")
    return pgd(loss, x, eps=attack.eps, alpha=attack.alpha, steps=attack.steps, norm=attack.norm, generator=generator)


def robust_linear(
    encoder: nn.Module, data: tuple[Tensor, Tensor], *, adversarial: bool = False, eps: Number = 8 / 255,
    alpha: Number | None = 0.007, steps: int = 10, epochs: Number = 10, batch: int = 128, lr: Number = 0.1,
    classes: int | None = None, ridge: Number = 1e-3, generator: torch.Generator | None = None,
) -> nn.Linear:  # fmt: skip
    """A linear layer on the features of a frozen encoder in evaluation mode, from (images, labels).

    On pictures as they are the exact minimum, a `LinearProbe` with that `ridge` (LE).  adversarial: from there on so
    many `epochs` of SGD on pictures attacked through encoder and layer (r-LE), on standardised features.
    """
    images, labels = data[0], data[1].long()
    device = next((p.device for p in encoder.parameters()), images.device)
    probe = LinearProbe(ridge, classes=classes).fit(embed(encoder, images), labels)
    layer = _layer(*probe.folded()).to(device)
    if not adversarial:
        return layer
    scale, mean = probe.scale.float(), probe.mean.float()
    inner = _layer(probe.weight, probe.bias).to(device)
    spec = AttackSpec("r-LE", eps, steps=steps, alpha=alpha)
    standardised = lambda x: (encoder(x).float() - mean) / scale
    whole = _Through(standardised, inner)

    def step(chosen: Tensor) -> Tensor:
        x, y = to_input(images[chosen.to(images.device)].to(device)), labels[chosen.to(labels.device)].to(device)
        moved = attacked(whole, x, y, spec, generator)
        with torch.no_grad():
            h = standardised(moved)
        return F.cross_entropy(inner(h), y)

    solver = torch.optim.SGD(inner.parameters(), lr=float(lr), momentum=0.9, weight_decay=5e-4)
    with evaluating(encoder):
        order = torch.Generator().manual_seed(0) if generator is None else generator
        batches = index_batches(len(images), min(batch, len(images)), order, drop_last=True)
        fit(step, batches, budget=Budget(epochs=float(epochs)), optimizer=solver, schedule=cosine())
    probe.weight, probe.bias = inner.weight.detach().double(), inner.bias.detach().double()
    return _layer(*probe.folded()).to(device)


class _Through(nn.Module):
    def __init__(self, first: Callable[[Tensor], Tensor], second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(self.first(x))
        return found


def _layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


class SupervisedAT(nn.Module):
    """An encoder [B,C,H,W] → h and a linear layer, trained on pictures attacked through both, with their labels.

    eps, alpha, steps: as in `RoCL`; eps=0 is plain training.  The attack is made in evaluation mode.
    """

    def __init__(
        self, encoder: nn.Module, classes: int, eps: Number = 8 / 255, alpha: Number | None = 0.007, steps: int = 7, *,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder, self.attack = encoder, AttackSpec("training", eps, steps=steps, alpha=alpha)
        width: int = encoder.out_dim  # type: ignore[assignment]
        with drawn_from(generator):
            self.head = nn.Linear(width, classes)
            initialise(self.head, generator)

    def forward(self, x: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits."""
        logits: Tensor = self.head(self.encoder(x))
        return logits

    def loss(
        self, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the attacked pictures, in nats."""
        with evaluating(self):
            moved = attacked(self, x, y.long(), self.attack, generator)
        return F.cross_entropy(self(moved).float(), y.long())


class Smoothed(nn.Module):
    """log of the mean softmax of a classifier over n random transforms of its input, drawn anew at every call.

    transform(x, generator): differentiable, so that an attack on this module follows the same expectation; attacking
    `model` and judging the average would only hide gradients.  ValueError if no gradient comes through.
    """

    def __init__(
        self, model: nn.Module, transform: Callable[[Tensor, torch.Generator | None], Tensor], n: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if n < 1:
            raise ValueError(f"at least one transform is averaged over, got {n}")
        self.model, self.transform, self.n, self.generator = model, transform, n, generator

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        views = self.transform(x.repeat(self.n, 1, 1, 1), self.generator)
        if x.requires_grad and not views.requires_grad:
            raise ValueError("no gradient passes through the transform: an attack could not follow it")
        logits = self.model(views).unflatten(0, (self.n, len(x)))
        return logits.log_softmax(2).logsumexp(0) - torch.tensor(float(self.n)).log()


def _share(right: Tensor) -> float:
    return float(right.float().mean())
